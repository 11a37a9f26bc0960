"""End the interpreter while a connection is in some phase; run by test_exit.py.

    exiting.py PHASE DISPATCH URL REFUSING_PORT HANGING_PORT

Prints "ready" when the phase is reached, then ends with exit code 3 and no farewell.
"""

import contextlib
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import connman

PHASE, DISPATCH, URL, REFUSING_PORT, HANGING_PORT = sys.argv[1:6]
# "shared": callbacks on the reader, which all connections share.
IS_SHARED = DISPATCH == "shared"
READERS = 1 if IS_SHARED else None
PLAIN: dict[str, Any] = {"proxy": None, "dispatch": "reader" if IS_SHARED else DISPATCH}
NEVER = threading.Event()
KEPT: list[Any] = []


def eventually(predicate: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError("waited too long for the phase")
        threading.Event().wait(0.005)


def stands_in(module: str) -> Callable[[], bool]:
    """Make a predicate: whether a thread is held up in that module, seen twice in a row at the same place."""
    seen: set[tuple[int, int, int]] = set()

    def stands() -> bool:
        now = set()
        for number, innermost in sys._current_frames().items():
            stack = [frame for frame, _ in traceback.walk_stack(innermost)]
            if any(frame.f_globals.get("__name__") == module for frame in stack):
                now.add((number, id(innermost), innermost.f_lasti))
        found = bool(now & seen)
        seen.clear()
        seen.update(now)
        return found

    return stands


def connect(path: str, **options: Any) -> connman.Connection:
    target = path if "://" in path else URL + path
    pool = connman.get_pool("exiting") or connman.create_pool("exiting", readers=READERS)
    make = pool.add_connection if IS_SHARED else connman.connect
    conn = make(target, **{**PLAIN, **options})
    KEPT.append(conn)
    return conn


def unopened() -> None:
    KEPT.append(connman.Connection(URL))


def opened() -> None:
    connect("/echo").wait_open(10)


def silently_opened() -> None:
    """The peer does not answer a close."""
    connect("/deaf").wait_open(10)


def fed() -> None:
    heard: list[object] = []
    connect("/feed?interval=0.001", on_data=lambda _, data: heard.append(data))
    eventually(lambda: len(heard) > 20)


def iterated() -> None:
    conn = connect("/feed?interval=0.01")
    heard: list[object] = []

    def iterate() -> None:
        for message in conn:
            heard.append(message)

    threading.Thread(target=iterate, daemon=True).start()
    eventually(lambda: heard)


def dialling() -> None:
    connect("/hang")
    eventually(stands_in("connman.transport.websocket"))


def dialling_tcp() -> None:
    connect(f"ws://127.0.0.1:{HANGING_PORT}")
    eventually(stands_in("connman.transport.dial"))


def looking_up() -> None:
    asked = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        asked.set()
        NEVER.wait()

    socket.getaddrinfo = hang
    connect("tcp://hangs.invalid:1")
    asked.wait(10)


def logging_in() -> None:
    entered = threading.Event()

    def handshake(channel: Any) -> None:
        entered.set()
        channel.recv()

    connect("/silent", handshake=handshake)
    entered.wait(10)


def backing_off() -> None:
    conn = connect(f"ws://127.0.0.1:{REFUSING_PORT}", wait=lambda _: 600.0)
    eventually(lambda: conn.state is connman.State.WAITING)


def retrying_all_the_time() -> None:
    """An ending interpreter grants no threads: that must not become a loop of errors."""
    for _ in range(10):
        connect(f"ws://localhost:{REFUSING_PORT}", wait=lambda _: 0.0)
    eventually(lambda: all(conn.stats.failed_attempts > 3 for conn in KEPT))


def reconnecting_all_the_time() -> None:
    for _ in range(5):
        connect("/close", wait=lambda _: 0.0, stable_after=0)
    eventually(lambda: all(conn.stats.opens > 3 for conn in KEPT))


def in_a_callback() -> None:
    entered = threading.Event()

    def block(*_: object) -> None:
        entered.set()
        NEVER.wait()

    connect("/feed", on_data=block)
    entered.wait(10)


def in_on_open() -> None:
    entered = threading.Event()

    def block(*_: object) -> None:
        entered.set()
        NEVER.wait()

    connect("/silent", on_open=block)
    entered.wait(10)


def in_a_busy_callback() -> None:
    """One that is about to use what an ending interpreter does not grant any more."""
    entered = threading.Event()

    def work(conn: connman.Connection, _: object) -> None:
        entered.set()
        conn.send("more")
        connman.get_connection(URL)

    connect("/feed", on_data=work)
    entered.wait(10)


def waited_for() -> None:
    conn = connect("/hang")

    def wait() -> None:
        with contextlib.suppress(connman.ConnmanError):
            conn.wait_open()

    threading.Thread(target=wait, daemon=True).start()
    eventually(stands_in("connman.connection.future"))


def pool_opening() -> None:
    pool = connman.Pool(url=URL + "/echo", size=50, readers=READERS, **PLAIN)
    KEPT.append(pool)
    pool.connect()


def pool_hanging() -> None:
    pool = connman.create_pool("devices", url=URL + "/hang", size=50, readers=READERS, **PLAIN)
    pool.connect()
    eventually(lambda: all(conn.state is connman.State.CONNECTING for conn in pool.get_connections()))


def pool_silent() -> None:
    pool = connman.create_pool("devices", url=URL + "/deaf", size=50, readers=READERS, **PLAIN)
    pool.wait_open(10)


def disconnected() -> None:
    conn = connect("/echo").wait_open(10)
    conn.disconnect()


PHASES = [
    unopened, opened, silently_opened, fed, iterated, dialling, dialling_tcp, looking_up, logging_in, backing_off,
    retrying_all_the_time, reconnecting_all_the_time, in_a_callback, in_on_open, in_a_busy_callback, waited_for,
    pool_opening, pool_hanging, pool_silent, disconnected,
]  # fmt: skip

if __name__ == "__main__":
    next(phase for phase in PHASES if phase.__name__ == PHASE)()
    print("ready", flush=True)
    sys.exit(3)
