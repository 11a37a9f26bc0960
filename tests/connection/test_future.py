"""The shared Future: one for everybody, spoilt by nobody."""

import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

import pytest

from connman import Connection, State
from connman.connection.future import ConnectedFuture
from connman.errors import ConnectError, ConnectionClosed, Forked, NotConnected, WouldDeadlock
from tests.connection.rig import HANG, OPEN, PATIENCE, REFUSED, Rig, forever
from tests.loopback import in_thread
from tests.waiting import eventually

CALLERS = 100

# Python 3.12 and later warn of what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def ask_at_once(conn: Connection, count: int = CALLERS) -> set["Future[Connection]"]:
    """Ask on many threads that start together; return the different Futures they got."""
    barrier = threading.Barrier(count)

    def ask() -> "Future[Connection]":
        barrier.wait(PATIENCE)
        return conn.get_connected()

    return {asking.result(PATIENCE) for asking in [in_thread(ask) for _ in range(count)]}


def test_many_callers_share_one_future_and_one_dial() -> None:
    with Rig([OPEN]) as rig:
        (future,) = ask_at_once(rig.conn)
        assert future.result(PATIENCE) is rig.conn
        assert rig.conn.get_connected() is future
        assert len(rig.dialer.dials) == 1


def test_it_is_the_same_while_dialling_waiting_and_open() -> None:
    gate = threading.Event()

    def late_open(_: object) -> Any:
        gate.wait(PATIENCE)
        return OPEN

    def outcome(dial: Any) -> Any:
        return late_open(dial) if len(rig.dialer.dials) > 1 else REFUSED

    rig = Rig(outcome)
    with rig:
        future = rig.conn.get_connected()
        rig.wait_delay(1)
        assert rig.conn.state == State.WAITING
        assert ask_at_once(rig.conn, 10) == {future}
        rig.clock.advance(1)
        rig.dialer.wait_until_dialled(2)
        assert rig.conn.state == State.CONNECTING
        assert ask_at_once(rig.conn, 10) == {future}
        gate.set()
        future.result(PATIENCE)
        assert ask_at_once(rig.conn, 10) == {future}


def test_nobody_can_cancel_it() -> None:
    with Rig([HANG]) as rig:
        future = rig.conn.get_connected()
        assert future.running()
        assert not future.cancel()
        assert not future.cancelled()
        assert not future.done()


def test_the_timeout_of_one_caller_touches_nobody_else() -> None:
    with Rig([REFUSED, OPEN]) as rig:
        future = rig.conn.get_connected()
        other = in_thread(future.result)
        with pytest.raises(TimeoutError):
            future.result(0.01)
        with pytest.raises(TimeoutError):
            future.exception(0)
        rig.clock.advance(rig.wait_delay(1))
        assert other.result(PATIENCE) is rig.conn
        assert future.result(0) is rig.conn


def test_a_fresh_one_takes_its_place_before_on_reset() -> None:
    seen: list[tuple[object, bool]] = []
    rig = Rig([OPEN, OPEN])

    def look(conn: Connection, _: object) -> None:
        future = conn.get_connected()
        seen.append((future, future.done()))

    rig.told.hooks["reset"] = look
    with rig:
        first = rig.conn.get_connected()
        rig.open().drop()
        eventually(lambda: seen)
        fresh = rig.conn.get_connected()
        assert seen == [(fresh, False)]
        assert fresh is not first
        rig.clock.advance(rig.wait_delay(1))
        assert fresh.result(PATIENCE) is rig.conn
        assert first.result(0) is rig.conn


def test_it_stays_pending_through_failed_attempts() -> None:
    with Rig(forever(REFUSED)) as rig:
        future = rig.conn.get_connected()
        rig.fail_through(6)
        assert not future.done()
        assert rig.conn.get_connected() is future


def test_without_reconnect_a_failed_attempt_fails_it_and_is_not_remembered() -> None:
    with Rig([REFUSED, REFUSED, OPEN], reconnect=False) as rig:
        futures = []
        for _ in range(2):
            future = rig.conn.get_connected()
            assert isinstance(future.exception(PATIENCE), ConnectError)
            futures.append(future)
        assert rig.conn.get_connected() not in futures
        rig.open()
        assert [reset.retry_in for reset in rig.told.resets] == [None, None]
        assert rig.clock.delays == []


def test_without_reconnect_a_loss_leaves_it_idle() -> None:
    with Rig([OPEN, OPEN], reconnect=False) as rig:
        first = rig.conn.get_connected()
        rig.open().drop()
        rig.told.wait(2)
        assert rig.conn.state == State.IDLE
        assert rig.conn.get_connected() is not first
        rig.open()
        assert rig.conn.generation == 2


def test_asking_inside_on_reset_without_reconnect_dials_at_once_and_on_the_same_thread() -> None:
    rig = Rig([REFUSED, REFUSED, OPEN], reconnect=False)
    rig.told.hooks["reset"] = lambda conn, _: conn.connect()
    with rig:
        rig.conn.connect()
        rig.told.wait(3)
        assert rig.told.kinds == ["failed", "failed", "open"]
        assert len(rig.told.threads) == 1


@pytest.mark.parametrize("phase", ["idle", "dialling", "waiting", "open"])
def test_after_disconnect_it_is_a_failed_one(phase: str) -> None:
    script = {"dialling": [HANG], "waiting": [REFUSED], "open": [OPEN], "idle": []}[phase]
    with Rig(script) as rig:
        before = None
        if phase != "idle":
            before = rig.conn.get_connected()
        if phase == "dialling":
            rig.dialer.wait_until_dialled()
        elif phase == "waiting":
            rig.wait_delay(1)
        elif phase == "open":
            rig.open()
        rig.conn.disconnect(4321, "enough")
        for future in ask_at_once(rig.conn, 10):
            error = future.exception(0)
            assert isinstance(error, ConnectionClosed)
            assert (error.code, error.reason) == (4321, "enough")
        if before is not None and phase != "open":
            assert isinstance(before.exception(0), ConnectionClosed)
        assert len(rig.dialer.dials) == (phase != "idle")


# Waiting where it can never come true


@pytest.mark.parametrize(
    "wait",
    [
        lambda conn: conn.get_connected().result(),
        lambda conn: conn.get_connected().exception(),
        lambda conn: conn.get_connected().result(timeout=5),
        lambda conn: conn.wait_open(),
        lambda conn: conn.wait_open(5),
        lambda conn: conn.send("x", wait=5),
    ],
    ids=["result", "exception", "result-timeout", "wait_open", "wait_open-timeout", "send"],
)
@pytest.mark.parametrize("first", [REFUSED, OPEN])
def test_waiting_for_it_inside_on_reset_is_refused(wait: Any, first: Any) -> None:
    rig = Rig([first, OPEN])
    raised: list[BaseException] = []

    def hook(conn: Connection, _: object) -> None:
        with contextlib.suppress(WouldDeadlock):
            wait(conn)
            return
        raised.append(WouldDeadlock())

    rig.told.hooks["reset"] = hook
    with rig:
        rig.conn.connect()
        if first is OPEN:
            rig.dialer.next_peer().drop()
        rig.clock.advance(rig.wait_delay(1))
        rig.conn.wait_open(PATIENCE)
        assert len(raised) == 1


def test_waiting_inside_a_callback_for_what_is_there_is_allowed() -> None:
    rig = Rig([OPEN])
    got: list[object] = []
    rig.told.hooks["open"] = lambda conn: got.append(conn.get_connected().result())
    rig.told.hooks["data"] = lambda conn, _: got.append(conn.wait_open())
    with rig:
        rig.open().send("x")
        eventually(lambda: len(got) == 2)
    assert got == [rig.conn, rig.conn]


@pytest.mark.parametrize("where", ["open", "data", "reset"])
def test_recv_on_the_reader_is_refused(where: str) -> None:
    rig = Rig([OPEN], on_data=None) if where != "data" else Rig([OPEN])
    other = Rig([OPEN], on_data=None)
    raised: list[type[BaseException]] = []

    def hook(conn: Connection, *_: object) -> None:
        try:
            conn.recv()
        except (WouldDeadlock, TypeError) as error:
            raised.append(type(error))

    rig.told.hooks[where] = hook
    with rig, other:
        peer = rig.open()
        peer.send("x")
        if where == "reset":
            peer.drop()
        rig.told.wait({"open": 1, "data": 2, "reset": 2}[where])
    assert raised == [TypeError if where == "data" else WouldDeadlock]


def test_a_callback_thread_may_wait() -> None:
    rig = Rig([REFUSED, OPEN, OPEN], dispatch="thread", on_data=None)
    got: list[object] = []
    rig.told.hooks["reset"] = lambda conn, _: got.append(conn.wait_open(PATIENCE))
    rig.told.hooks["open"] = lambda conn: got.append(conn.recv(PATIENCE))
    with rig:
        rig.conn.connect()
        rig.clock.advance(rig.wait_delay(1))
        rig.dialer.next_peer().send("hello")
        eventually(lambda: len(got) == 2)
    assert got == [rig.conn, "hello"]


def test_a_reused_thread_number_is_not_taken_for_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives the number of a reader that has ended to the next thread that starts, here to the caller."""
    go_on = threading.Event()
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        """Start a reader that does nothing for a while: it has not said that it is the reader."""
        if "reader" in thread.name:
            run = thread.run
            thread.run = lambda: (go_on.wait(PATIENCE), run())  # type: ignore[method-assign]
        start(thread)

    numbers: list[int] = []
    rig = Rig(forever(REFUSED), reconnect=False)
    rig.told.hooks["reset"] = lambda *_: numbers.append(threading.get_ident())

    def ask() -> BaseException | None:
        if threading.get_ident() not in numbers:
            return None
        try:
            rig.conn.get_connected().result(0)
        except Exception as error:  # noqa: BLE001  # told by the test
            return error
        raise AssertionError

    with rig:
        assert isinstance(rig.conn.get_connected().exception(PATIENCE), ConnectError)
        assert rig.conn.wait_gone(PATIENCE)
        monkeypatch.setattr(threading.Thread, "start", start_late)
        raised = (in_thread(ask).result(PATIENCE) for _ in range(1000))
        error = next((error for error in raised if error is not None), None)
        go_on.set()
    if error is None:
        pytest.skip("no thread got the reader's number")
    assert type(error) is TimeoutError


# In a child process (`fork` itself is tested elsewhere)


def forked_copy(future: ConnectedFuture) -> str:
    """Fork; return what the child found in `future`."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(PATIENCE))
        try:
            outcome = type(future.exception(5)).__name__
        except BaseException as error:  # noqa: BLE001  # told by the parent
            outcome = f"raised {type(error).__name__}"
        os.write(writing, outcome.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        outcome = pipe.read().decode()
    os.waitpid(pid, 0)
    return outcome


def test_a_pending_one_fails_in_a_child() -> None:
    future = ConnectedFuture(lambda: False)
    assert forked_copy(future) == Forked.__name__
    assert not future.done()


def test_a_pending_one_fails_in_a_child_although_its_lock_was_held() -> None:
    future = ConnectedFuture(lambda: False)
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                future.result(0)

    hammers = [in_thread(hammer) for _ in range(4)]
    try:
        for _ in range(10):
            assert forked_copy(future) == Forked.__name__
    finally:
        stop.set()
        for thread in hammers:
            thread.result(PATIENCE)
    future.set_exception(NotConnected())
    with pytest.raises(InvalidStateError):
        future.set_exception(NotConnected())


def test_one_that_is_done_stays_so_in_a_child() -> None:
    future = ConnectedFuture(lambda: False)
    future.set_exception(NotConnected())
    assert forked_copy(future) == NotConnected.__name__


def test_a_callback_that_exits_ends_nothing() -> None:
    # SystemExit came through to the reader: the open connection was dropped, and the failed attempt never told.
    def leave(_: object) -> None:
        raise SystemExit(3)

    opening = threading.Event()

    def open_later(*_: object) -> Any:
        opening.wait(PATIENCE)
        return OPEN

    with Rig(open_later) as rig:
        rig.conn.get_connected().add_done_callback(leave)
        opening.set()
        rig.open()
        rig.told.wait(1)
        assert (rig.conn.state, rig.told.kinds) == (State.OPEN, ["open"])
    gate = threading.Event()

    def refuse_later(*_: object) -> Exception:
        gate.wait(PATIENCE)
        return REFUSED()

    with Rig(refuse_later, reconnect=False) as rig:
        rig.conn.get_connected().add_done_callback(leave)
        gate.set()
        rig.told.wait(1)
        assert rig.told.kinds == ["failed"]


def test_a_callback_that_exits_inside_disconnect_leaves_nobody_waiting() -> None:
    # Whoever was told after the Future was never told: `recv` waited for ever.
    def leave(_: object) -> None:
        raise SystemExit(3)

    with Rig([HANG], on_data=None) as rig:
        rig.conn.get_connected().add_done_callback(leave)
        receiving = in_thread(rig.conn.recv)
        with pytest.raises(SystemExit):
            rig.conn.disconnect()
        with pytest.raises(ConnectionClosed):
            receiving.result(PATIENCE)


def test_one_that_has_opened_is_forgotten_with_its_last_holder_and_made_again_for_who_asks() -> None:
    with Rig([OPEN]) as rig:
        future = rig.conn.get_connected()
        assert future.result(PATIENCE) is rig.conn
        rig.conn.wait_open(PATIENCE)
        known = weakref.ref(future)
        del future
        eventually(lambda: known() is None)
        again = rig.conn.get_connected()
        assert again.result(0) is rig.conn
        assert rig.conn.get_connected() is again
        assert len(rig.dialer.dials) == 1


def test_one_that_somebody_holds_stays_the_one_after_it_has_opened() -> None:
    with Rig([OPEN]) as rig:
        future = rig.conn.get_connected()
        future.result(PATIENCE)
        rig.conn.wait_open(PATIENCE)
        assert ask_at_once(rig.conn, 10) == {future}


@pytest.mark.parametrize("act", [Connection.get_connected, Connection.disconnect])
def test_a_callback_that_asks_or_ends_anew_runs_before_the_next_one(
    act: Callable[[Connection], object],
) -> None:
    # Seen failing on an end that called back whom another frame was about to: the second ran inside the first.
    rig = Rig([HANG])
    told: list[str] = []
    future = rig.conn.get_connected()

    def first(_: object) -> None:
        told.append("first")
        act(rig.conn)
        told.append("first has ended")

    future.add_done_callback(first)
    future.add_done_callback(lambda _: told.append("second"))
    rig.conn.disconnect()
    assert told == ["first", "first has ended", "second"]
    assert rig.conn.get_connected() is not future
