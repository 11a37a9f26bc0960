"""Stand in a call that waits until a Ctrl-C comes; run by test_ctrl_c.py.

    interrupted.py CALL READER URL REFUSING_PORT

Prints "ready" when the main thread waits inside the call, and ends with exit code 3 when a KeyboardInterrupt comes out of
it. READER: "thread" or "shared"; with "-lost" behind it the Ctrl-C is one that came just before the wait began, which
wakes nobody: the program sets it off by itself.
"""

import _thread
import contextlib
import signal
import sys
import threading
from typing import Any

import connman
from tests.stacks import stacks

CALL, READER, URL, REFUSING_PORT = sys.argv[1:]
READERS = 1 if READER.startswith("shared") else None
IS_LOST = READER.endswith("-lost")
BIG = bytes(16 * 1024 * 1024)


def pool(path: str, size: int = 1, **options: Any) -> connman.Pool:
    return connman.create_pool(path, url=URL + path, size=size, readers=READERS, proxy=None, **options)


def conn(path: str, **options: Any) -> connman.Connection:
    made = pool(path, **options).get_connections()[0]
    assert isinstance(made, connman.Connection)
    return made


def opened(path: str, **options: Any) -> connman.Connection:
    return conn(path, **options).wait_open(10)


def result() -> None:
    conn("/hang").get_connected().result()


def result_in_time() -> None:
    conn("/hang").get_connected().result(60)


def exception() -> None:
    conn("/hang").get_connected().exception()


def wait_open() -> None:
    conn("/hang").wait_open()


def wait_open_while_retrying() -> None:
    connman.connect(f"ws://127.0.0.1:{REFUSING_PORT}", proxy=None, wait=lambda _: 600.0).wait_open()


def wait_closed() -> None:
    opened("/silent").wait_closed()


def enter() -> None:
    with conn("/hang", open_timeout=60):
        pass


def leave() -> None:
    with opened("/deaf", close_timeout=60):
        pass


def leave_a_pool() -> None:
    with pool("/deaf", 3, close_timeout=60) as deaf:
        deaf.wait_open(10)


def leave_a_manager() -> None:
    with connman.Manager() as manager:
        manager.connect(URL + "/deaf", proxy=None, close_timeout=60).wait_open(10)


def disconnect() -> None:
    opened("/deaf").disconnect(timeout=60)


def disconnect_a_pool() -> None:
    pool("/deaf", 3).wait_open(10).disconnect(60)


def disconnect_all() -> None:
    opened("/deaf")
    connman.disconnect_all(60)


def send() -> None:
    full = opened("/deaf", send_timeout=60)
    while True:
        full.send(BIG)


def send_many() -> None:
    full = opened("/deaf", send_timeout=60)
    while True:
        full.send_many([BIG, BIG])


def send_behind_another() -> None:
    full = opened("/deaf", send_timeout=60)

    def fill() -> None:
        with contextlib.suppress(connman.ConnmanError):
            while True:
                full.send(BIG)

    for _ in range(2):
        threading.Thread(target=fill, daemon=True).start()
    while True:
        full.send("behind them")


def send_when_open() -> None:
    conn("/hang").send("x", wait=60)


def broadcast() -> None:
    full = pool("/deaf", 2, send_timeout=60).wait_open(10)
    while True:
        full.broadcast(BIG)


def recv() -> None:
    opened("/silent").recv()


def recv_in_time() -> None:
    opened("/silent").recv(60)


def iterate() -> None:
    for _ in opened("/silent"):
        pass


def lend() -> None:
    with pool("/hang").connection(60):
        pass


def lend_the_second() -> None:
    with pool("/silent").connection(60), connman.get_pool("/silent").connection(60):  # type: ignore[union-attr]
        pass


def wait_for_a_pool() -> None:
    pool("/hang", 3).wait_open()


def handshake() -> None:
    """A login waits in `channel.recv`, on the thread that dials."""
    conn("/silent", handshake=lambda channel: channel.recv()).wait_open()


def callback() -> None:
    """`disconnect` waits for a callback that blocks."""
    entered = threading.Event()

    def block(*_: object) -> None:
        entered.set()
        threading.Event().wait()

    blocked = conn("/feed", on_data=block)
    blocked.connect()
    entered.wait(10)
    blocked.disconnect(timeout=60)


CALLS = [
    result, result_in_time, exception, wait_open, wait_open_while_retrying, wait_closed, enter, leave, leave_a_pool,
    leave_a_manager, disconnect, disconnect_a_pool, disconnect_all, send, send_many, send_behind_another,
    send_when_open, broadcast, recv, recv_in_time, iterate, lend, lend_the_second, wait_for_a_pool, handshake,
    callback,
]  # fmt: skip


def tell_when_it_waits() -> None:
    """Look at the main thread until it was held up at one place of connman's ten times in a row."""
    main = threading.main_thread().ident
    seen: list[object] = []
    while len(seen) < 10 or len(set(seen)) > 1:
        threading.Event().wait(0.01)
        stack = stacks()[main or 0]
        is_ours = any(place.module.startswith("connman.") for place in stack)
        seen = [*seen[-9:], tuple(stack) if is_ours else object()]
    print("ready", flush=True)
    if IS_LOST:
        _thread.interrupt_main(signal.SIGINT)


if __name__ == "__main__":
    threading.Thread(target=tell_when_it_waits, daemon=True).start()
    try:
        next(call for call in CALLS if call.__name__ == CALL)()
    except KeyboardInterrupt:
        sys.exit(3)
    sys.exit("the call has returned")
