"""End the interpreter while a connection is in some phase; run by test_exit.py.

    exiting.py PHASE DISPATCH URL REFUSING_PORT HANGING_PORT [WAY]

Prints "ready" when the phase is reached, then ends in that way, by default with exit code 3 and no farewell.
"""

import atexit
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import connman
from tests.stacks import stacks

PHASE, DISPATCH, URL, REFUSING_PORT, HANGING_PORT, WAY = (*sys.argv[1:], "end")[:6]
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
    seen: set[tuple[Any, ...]] = set()

    def stands() -> bool:
        now = set()
        for number, stack in stacks().items():
            if any(place.module == module for place in stack):
                now.add((number, *stack))
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


def crowded() -> None:
    """200 open, 50 on their way."""
    pool = connman.create_pool("crowd", url=URL + "/silent", size=200, readers=READERS, **PLAIN)
    pool.wait_open(10)
    pool_hanging()
    KEPT.extend(pool.get_connections())


PHASES = [
    unopened, opened, silently_opened, fed, iterated, dialling, dialling_tcp, looking_up, logging_in, backing_off,
    retrying_all_the_time, reconnecting_all_the_time, in_a_callback, in_on_open, in_a_busy_callback, waited_for,
    pool_opening, pool_hanging, pool_silent, disconnected, crowded,
]  # fmt: skip


# How it ends. Each is called when the phase is reached, says "ready" at the end of its preparations, and ends the process.


def ready() -> None:
    print("ready", flush=True)


def until_killed() -> None:
    ready()
    wait_for_ever()


def wait_for_ever() -> None:
    # In steps: Python does not notice a signal that comes just before it begins to wait.
    while not NEVER.wait(0.1):
        pass


def end() -> None:
    ready()
    sys.exit(3)


def fall_off() -> None:
    ready()


def raise_an_error() -> None:
    ready()
    raise ValueError("the end")


def be_terminated() -> None:
    """Python does nothing about SIGTERM by itself: the system ends the process."""
    until_killed()


def be_terminated_to_exit() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    until_killed()


def be_terminated_to_disconnect() -> None:
    def farewell(*_: object) -> None:
        connman.disconnect_all(1.0)
        sys.exit(3)

    signal.signal(signal.SIGTERM, farewell)
    until_killed()


def be_interrupted() -> None:
    until_killed()


def be_interrupted_twice() -> None:
    """The second Ctrl-C comes while the first one's farewell waits."""
    try:
        until_killed()
    except KeyboardInterrupt:
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            connman.disconnect_all(1.0)
            wait_for_ever()
        except KeyboardInterrupt:
            sys.exit(3)


def disconnect_at_exit() -> None:
    """Behind connman's own hook and before it: those registered last are called first."""
    atexit.register(connman.disconnect_all, 1.0)
    end()


def connect_at_exit() -> None:
    def connect_anew() -> None:
        with contextlib.suppress(connman.ConnmanError):
            connman.connect(URL + "/silent", **PLAIN).send("late", wait=0.5)

    atexit.register(connect_anew)
    end()


def be_finalized() -> None:
    """What `weakref.finalize` has noted is called at exit as well."""
    weakref.finalize(KEPT[0], connman.disconnect_all, 1.0)
    end()


class Owner:
    """What ends its connections when it is collected, wherever that may be."""

    def __init__(self, connections: list[Any]) -> None:
        self.connections = connections

    def __del__(self) -> None:
        for conn in self.connections:
            with contextlib.suppress(connman.ConnmanError):
                if isinstance(conn, connman.Connection):
                    conn.send("from a finalizer")
            conn.disconnect()


def be_torn_down() -> None:
    """The owner is collected with its module, behind the exit hooks."""
    sys.modules[__name__].owner = Owner(list(KEPT))  # type: ignore[attr-defined]
    end()


def be_collected() -> None:
    """The owner is part of a cycle, which the last collection of the interpreter finds."""
    gc.disable()
    owner = Owner(list(KEPT))
    owner.itself = owner  # type: ignore[attr-defined]
    del owner
    end()


def collect() -> None:
    """The collection that ends them runs just now."""
    owner = Owner(list(KEPT))
    owner.itself = owner  # type: ignore[attr-defined]
    del owner
    ready()
    gc.collect()
    sys.exit(3)


def end_by_a_weak_reference() -> None:
    """The callback of a weak reference runs inside the collector as well."""
    target = Owner([])
    KEPT.append(weakref.ref(target, lambda _: connman.disconnect_all(1.0)))
    ready()
    del target
    sys.exit(3)


def use_in_a_daemon_thread() -> None:
    """Other threads are in the middle of calls."""

    def use(conn: connman.Connection) -> None:
        while True:
            with contextlib.suppress(connman.ConnmanError):
                conn.send("x", wait=0.01)
            with contextlib.suppress(connman.ConnmanError, TypeError):
                conn.recv(0.001)
            threading.Event().wait(0.001)

    for conn in [conn for conn in KEPT if isinstance(conn, connman.Connection)][:8]:
        threading.Thread(target=use, args=(conn,), daemon=True).start()
    end()


def interrupt_from_a_daemon_thread() -> None:
    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        until_killed()
    except KeyboardInterrupt:
        sys.exit(3)


def exit_in_another_thread() -> None:
    """It ends that thread and nothing else."""
    thread = threading.Thread(target=sys.exit, args=(5,))
    thread.start()
    thread.join()
    end()


def go_on_in_another_thread() -> None:
    """The interpreter waits for that thread before it ends anything."""

    def go_on() -> None:
        threading.main_thread().join()
        for conn in KEPT:
            if isinstance(conn, connman.Connection) and conn.is_open:
                conn.send("the main thread has ended")

    threading.Thread(target=go_on).start()
    end()


def fork_meanwhile() -> None:
    """A fork is under way in another thread all the time."""
    warnings.simplefilter("ignore")
    forked = threading.Event()

    def fork() -> None:
        while True:
            with contextlib.suppress(RuntimeError):  # an ending interpreter forks no more
                if (child := os.fork()) == 0:
                    os._exit(0)
                os.waitpid(child, 0)
                forked.set()

    threading.Thread(target=fork, daemon=True).start()
    forked.wait(10)
    end()


def exit_in_a_child() -> None:
    """A child ends as any program does, with everything that it has inherited; then its parent."""
    warnings.simplefilter("ignore")
    child = os.fork()
    if child == 0:
        sys.exit(3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    still_open = all(conn.state is not connman.State.CLOSED for conn in KEPT)
    ready()
    sys.exit(status if still_open else 4)


WAYS = [
    end, fall_off, raise_an_error, be_terminated, be_terminated_to_exit, be_terminated_to_disconnect,
    be_interrupted, be_interrupted_twice, disconnect_at_exit, connect_at_exit, be_finalized, be_torn_down, be_collected, collect,
    end_by_a_weak_reference, use_in_a_daemon_thread, interrupt_from_a_daemon_thread, exit_in_another_thread,
    go_on_in_another_thread, fork_meanwhile, exit_in_a_child,
]  # fmt: skip

if __name__ == "__main__":
    next(phase for phase in PHASES if phase.__name__ == PHASE)()
    next(way for way in WAYS if way.__name__ == WAY)()
