"""Ctrl-C may come at any point of a call: what is left behind has to work, and above all to end.

Python runs signal handlers in the main thread when a function is entered and when a C function has returned. A profile
function is told of just these points, and what it raises comes out there: so every point of a call is tried in turn.
"""

import gc
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connman import Connection, ConnmanError
from connman.testing import ScriptedDialer
from tests.promises.peers import connection
from tests.waiting import eventually

pytestmark = pytest.mark.plain_locks

PATIENCE = 10.0  # seconds that only a failing test reaches


class CtrlC(BaseException):
    """What the handler raises. Not KeyboardInterrupt, which would end the test run."""


def is_in_a_thread_start(frame: Any) -> bool:
    """Whether the frame is within Python's own `Thread.start`: an interrupt there may leave a thread that never begins."""
    while frame is not None:
        if frame.f_code is threading.Thread.start.__code__:
            return True
        frame = frame.f_back
    return False


def interrupted(call: Callable[[], object], point: int) -> str | None:
    """Make the call, interrupt it at its `point`-th point (from 1), and say where that was; None if it has fewer."""
    points = itertools.count(1)
    where: list[str] = []

    def profile(frame: Any, event: str, argument: object) -> None:
        if event in ("call", "c_return") and not is_in_a_thread_start(frame) and next(points) == point:
            sys.setprofile(None)
            name = getattr(argument, "__qualname__", frame.f_code.co_name)
            where.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {event} {name}")
            raise CtrlC

    gc.disable()  # what it finds would be interrupted as well
    try:
        sys.setprofile(profile)
        try:
            call()
        finally:
            sys.setprofile(None)
    except (CtrlC, ConnmanError):
        pass
    finally:
        gc.enable()
    return where[0] if where else None


def within(call: Callable[[], object], what: str) -> None:
    """Make the call on a thread of its own: a lock that the main thread left taken is not taken for that one."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), what


def is_gone(conn: Connection) -> bool:
    return not any(conn.name in thread.name for thread in threading.enumerate())


def every_point(
    prepare: Callable[[Connection], Callable[[], object]], is_shared: bool
) -> Iterator[tuple[Connection, str]]:
    """Interrupt the call that `prepare` returns at each of its points, each time on a fresh connection."""
    for point in itertools.count(1):
        dialer = ScriptedDialer(itertools.repeat(ScriptedDialer.OPEN))
        # With a timer thread already.
        conn = connection(is_shared, dialer, ping_interval=1.0, close_timeout=0.05)
        where = interrupted(prepare(conn), point)
        if where is None:
            conn.disconnect()
            assert point > 5, "the call has no points"
            return
        yield conn, where


def sending(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    return lambda: conn.send("x")


def receiving(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    conn.target.next_peer().send("x")  # type: ignore[attr-defined]
    eventually(lambda: conn.stats.messages_in == 1, PATIENCE)
    return lambda: conn.recv(0)


def hurrying(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    return conn.reconnect_now


def ending(conn: Connection) -> Callable[[], object]:
    conn.wait_open(PATIENCE)
    return lambda: conn.end_soon(1000)


SHARED = pytest.mark.parametrize(
    "is_shared", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["own reader", "shared reader"]
)


@pytest.mark.slow
@SHARED
@pytest.mark.parametrize("prepare", [sending, receiving, hurrying, ending])
def test_a_connection_ends_after_an_interrupt_at_any_point_of_a_call(
    prepare: Callable[[Connection], Callable[[], object]], is_shared: bool
) -> None:
    # The send lock, and the locks of queue, life and timers, stayed taken by a main thread that had left.
    for conn, where in every_point(prepare, is_shared):
        within(conn.disconnect, f"disconnect() after {where}")
        assert is_gone(conn), where


@SHARED
def test_a_connection_opens_after_an_interrupt_at_any_point_of_the_first_call(
    is_shared: bool,
) -> None:
    # It stayed "connecting" for ever, with no reader to connect it.
    for conn, where in every_point(lambda conn: conn.get_connected, is_shared):
        within(lambda conn=conn: conn.wait_open(PATIENCE), f"wait_open() after {where}")  # type: ignore[misc]
        assert conn.is_open, where
        within(conn.disconnect, f"disconnect() after {where}")
