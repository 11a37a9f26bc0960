"""ScriptedDialer: attempts that end as written, alone and under a real Connection."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from connman.clock import Clock, SystemClock
from connman.connection.connection import Connection
from connman.errors import (
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnectTimeout,
    ConnmanError,
    MessageTooBig,
    NotConnected,
    UpgradeRefused,
    WaitTimeout,
)
from connman.options import Options
from connman.records import Reset
from connman.testing import FakeClock, Peer, ScriptedDialer
from connman.transport.base import Dial, Transport
from tests.loopback import PATIENCE, Aborted, in_thread
from tests.waiting import eventually


def make_dial(clock: Clock | None = None, **options: Any) -> Dial:
    return Dial(None, Options(**options), clock or SystemClock(), name="scripted")


def abort_of(transport: Transport) -> None:
    transport.abort(Aborted())
    transport.dispose()


@pytest.fixture
def opened() -> Iterator[tuple[Transport, Peer]]:
    dialer = ScriptedDialer([ScriptedDialer.OPEN])
    transport = dialer.dial(make_dial())
    yield transport, dialer.next_peer()
    abort_of(transport)


def test_an_exception_fails_the_attempt_as_it_is() -> None:
    refusal = UpgradeRefused(503)
    dialer = ScriptedDialer([refusal, refusal])
    for _ in range(2):
        with pytest.raises(UpgradeRefused) as caught:
            dialer.dial(make_dial())
        assert caught.value is refusal
        assert len(refusal.attempts) == 1


@pytest.mark.parametrize(
    "failure", [ConnectionRefusedError, ConnectionRefusedError(111, "Connection refused")]
)
def test_an_error_of_the_system_is_translated_as_by_a_real_transport(failure: Any) -> None:
    with pytest.raises(ConnectError) as caught:
        ScriptedDialer([failure]).dial(make_dial())
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_the_traceback_of_a_repeated_exception_does_not_grow() -> None:
    failure = UpgradeRefused(503)
    dialer = ScriptedDialer(itertools.repeat(failure))
    depths = set()
    for _ in range(10):
        with pytest.raises(UpgradeRefused):
            dialer.dial(make_dial())
        traceback, depth = failure.__traceback__, 0
        while traceback is not None:
            traceback, depth = traceback.tb_next, depth + 1
        depths.add(depth)
    assert len(depths) == 1


def test_an_exhausted_script_fails() -> None:
    dialer = ScriptedDialer([])
    with pytest.raises(ConnectError, match="script exhausted"):
        dialer.dial(make_dial())


def test_a_callable_script_is_asked_with_the_dial() -> None:
    def script(dial: Dial) -> ConnectError:
        return ConnectError(dial.name, (), f"asked for {dial.name}")

    with pytest.raises(ConnectError, match="asked for scripted"):
        ScriptedDialer(script).dial(make_dial())


def test_dials_are_recorded_with_their_time_and_headers() -> None:
    clock = FakeClock(7)
    dialer = ScriptedDialer(itertools.repeat(ConnectionRefusedError))
    for number in range(3):
        dial = make_dial(clock)
        dial.begin([("X-Number", str(number))])
        with pytest.raises(ConnectError):
            dialer.dial(dial)
        clock.advance(1)
    assert [dialled.at for dialled in dialer.dials] == [7, 8, 9]
    assert dialer.dials[2].headers == (("X-Number", "2"),)
    assert "X-Number" not in repr(dialer.dials)


def test_hang_ends_when_the_dial_is_aborted() -> None:
    dialer = ScriptedDialer([ScriptedDialer.HANG])
    dial = make_dial(FakeClock())
    dialling = in_thread(dialer.dial, dial)
    dialer.wait_until_dialled()
    assert not dialling.done()
    dial.abort(Aborted())
    assert isinstance(dialling.exception(PATIENCE), Aborted)


def test_hang_of_an_aborted_dial_does_not_begin() -> None:
    dial = make_dial(FakeClock())
    dial.abort(Aborted())
    with pytest.raises(Aborted):
        ScriptedDialer([ScriptedDialer.HANG]).dial(dial)


def test_hang_ends_at_the_deadline_on_the_clock_of_the_dial() -> None:
    clock = FakeClock()
    dialer = ScriptedDialer([ScriptedDialer.HANG])
    dialling = in_thread(dialer.dial, make_dial(clock, open_timeout=3))
    clock.wait_until_waiting()
    assert clock.delays == [3]
    clock.advance(3)
    assert isinstance(dialling.exception(PATIENCE), ConnectTimeout)


def test_waiting_for_what_does_not_happen_has_a_bound() -> None:
    dialer = ScriptedDialer([])
    with pytest.raises(AssertionError, match="0 dials"):
        dialer.wait_until_dialled(timeout=0.01)
    with pytest.raises(AssertionError, match="nothing was opened"):
        dialer.next_peer(timeout=0.01)


def test_messages_pass_both_ways(opened: tuple[Transport, Peer]) -> None:
    transport, peer = opened
    peer.send("from the server")
    assert transport.receive() == ["from the server"]
    transport.send([b"one", "two"], 1)
    assert [peer.recv(), peer.recv()] == [b"one", "two"]
    with pytest.raises(WaitTimeout):
        peer.recv(timeout=0.01)


def test_a_peer_answers_pings(opened: tuple[Transport, Peer]) -> None:
    transport, peer = opened
    assert transport.ping()
    transport.send(["after the ping"], 1)
    peer.recv()
    peer.send("after the pong")
    transport.receive()
    peer.send("a pong counts when the reader comes back")
    transport.receive()
    assert transport.ping_rtt is not None


def test_a_peer_answers_a_close_and_tells_it(opened: tuple[Transport, Peer]) -> None:
    transport, peer = opened
    transport.send(["last words"], 1)
    transport.close(4321, "enough", 5)
    with pytest.raises(ConnectionClosed):
        transport.receive()
    error = peer.wait_closed()
    assert isinstance(error, ConnectionClosed)
    assert (error.code, error.reason) == (4321, "enough")
    assert peer.recv() == "last words"
    for _ in range(2):
        with pytest.raises(ConnectionClosed):
            peer.recv()
    assert peer.is_closed
    with pytest.raises(NotConnected):
        peer.send("too late")


def test_a_peer_closes(opened: tuple[Transport, Peer]) -> None:
    transport, peer = opened
    assert not peer.is_closed
    peer.send("before")
    peer.close(1013, "try later")
    assert transport.receive() == ["before"]
    with pytest.raises(ConnectionClosed) as caught:
        transport.receive()
    assert (caught.value.code, caught.value.reason) == (1013, "try later")
    assert isinstance(peer.wait_closed(), ConnectionClosed)


def test_a_peer_drops(opened: tuple[Transport, Peer]) -> None:
    transport, peer = opened
    peer.drop()
    with pytest.raises(ConnectionLost):
        transport.receive()
    assert isinstance(peer.wait_closed(), ConnectionLost)
    with pytest.raises(ConnectionLost):
        peer.recv()


def test_a_peer_notices_an_abort(opened: tuple[Transport, Peer]) -> None:
    transport, peer = opened
    with pytest.raises(WaitTimeout):
        peer.wait_closed(timeout=0.01)
    abort_of(transport)
    assert isinstance(peer.wait_closed(), ConnectionLost)


def test_a_deaf_peer_answers_nothing_until_it_listens() -> None:
    dialer = ScriptedDialer([ScriptedDialer.DEAF])
    transport = dialer.dial(make_dial())
    peer = dialer.next_peer()
    transport.send(["unheard"], 1)
    transport.ping()
    with pytest.raises(WaitTimeout):
        peer.recv(timeout=0.01)
    peer.send("it can talk")
    assert transport.receive() == ["it can talk"]
    peer.listen()
    peer.listen()
    assert peer.recv() == "unheard"
    abort_of(transport)
    peer.wait_closed()


def test_the_limit_of_the_connection_holds_for_its_own_side() -> None:
    dialer = ScriptedDialer([ScriptedDialer.OPEN])
    transport = dialer.dial(make_dial(max_message_size=10))
    dialer.next_peer().send("x" * 11)
    with pytest.raises(MessageTooBig):
        transport.receive()
    abort_of(transport)


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_of_nothing_only_looks(timeout: float) -> None:
    # A negative one came out as the ValueError of a queue.
    dialer = ScriptedDialer([ScriptedDialer.OPEN])
    with pytest.raises(AssertionError):
        dialer.next_peer(timeout)
    with pytest.raises(AssertionError):
        dialer.wait_until_dialled(1, timeout)
    transport = dialer.dial(make_dial())
    dialer.wait_until_dialled(1, timeout)
    peer = dialer.next_peer(timeout)
    for look in (peer.recv, peer.wait_closed):
        with pytest.raises(WaitTimeout):
            look(timeout)
    abort_of(transport)


def test_a_callable_plays_the_server() -> None:
    def server(peer: Peer) -> None:
        peer.send(f"you said {peer.recv()!r}")
        peer.close(1000, "bye")

    transport = ScriptedDialer([server]).dial(make_dial())
    transport.send(["hello"], 1)
    assert transport.receive() == ["you said 'hello'"]
    with pytest.raises(ConnectionClosed):
        transport.receive()
    abort_of(transport)


def test_a_served_connection_that_ends_ends_its_server_silently() -> None:
    transport = ScriptedDialer([lambda peer: peer.recv()]).dial(make_dial())
    abort_of(transport)


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Future[type[BaseException]]:
    """The type of what has ended a thread."""
    future: Future[type[BaseException]] = Future()
    monkeypatch.setattr(threading, "excepthook", lambda args: future.set_result(args.exc_type))
    return future


@pytest.mark.parametrize("end", [NotConnected, ConnectionClosed, ConnectionLost, MessageTooBig])
def test_an_end_that_a_server_meets_before_its_reader_does_is_no_crash(
    end: type[ConnmanError], crash: Future[type[BaseException]]
) -> None:
    # What send() raises when the connection has just ended, and the peer's reader thread has not run since.
    def server(peer: Peer) -> None:
        assert not peer.is_closed
        raise end()

    transport = ScriptedDialer([server]).dial(make_dial())
    with pytest.raises(ConnectionLost):
        transport.receive()
    abort_of(transport)
    eventually(lambda: not any("peer-script" in thread.name for thread in threading.enumerate()))
    assert not crash.done()


@pytest.mark.parametrize(
    ("server", "kind"), [(lambda _: 1 // 0, ZeroDivisionError), (lambda peer: peer.recv(0), WaitTimeout)]
)
def test_a_server_that_crashes_drops_its_client(
    server: Callable[[Peer], object], kind: type[BaseException], crash: Future[type[BaseException]]
) -> None:
    transport = ScriptedDialer([server]).dial(make_dial())
    with pytest.raises(ConnectionLost):
        transport.receive()
    assert crash.result(PATIENCE) is kind
    abort_of(transport)


# Under a Connection


@pytest.fixture
def connection() -> Iterator[Callable[..., Connection]]:
    """Make connections that are ended however the test ends."""
    made: list[Connection] = []

    def make(dialer: ScriptedDialer, **options: Any) -> Connection:
        made.append(Connection(dialer, **{"ping_interval": None, **options}))
        return made[-1]

    yield make
    for conn in made:
        conn.disconnect()


def test_a_connection_backs_off_on_the_fake_clock_and_opens(connection: Callable[..., Connection]) -> None:
    clock = FakeClock()
    refused = [ConnectionRefusedError] * 3
    dialer = ScriptedDialer([*refused, ScriptedDialer.OPEN])
    resets: list[Reset] = []
    conn = connection(dialer, clock=clock, on_reset=lambda _, reset: resets.append(reset))
    future = conn.get_connected()
    for attempt in (1, 2, 3):
        clock.wait_until_waiting(delays=attempt)
        assert len(dialer.dials) == attempt
        clock.advance(clock.delays[-1])
    assert future.result(PATIENCE) is conn
    assert clock.delays == pytest.approx([reset.retry_in for reset in resets])
    times = [dialled.at for dialled in dialer.dials]
    assert times == pytest.approx([0, *itertools.accumulate(clock.delays)])
    peer = dialer.next_peer()
    peer.send("hello")
    conn.disconnect()
    assert isinstance(peer.wait_closed(), ConnectionClosed)


def test_a_connection_that_is_dropped_dials_again(connection: Callable[..., Connection]) -> None:
    clock = FakeClock()
    dialer = ScriptedDialer(itertools.repeat(ScriptedDialer.OPEN))
    received: list[object] = []
    conn = connection(dialer, clock=clock, on_data=lambda _, data: received.append(data))
    conn.wait_open(PATIENCE)
    dialer.next_peer().drop()
    clock.wait_until_waiting()
    conn.reconnect_now()
    dialer.next_peer().send("back")
    eventually(lambda: received == ["back"])
    assert conn.generation == 2
    conn.disconnect()


def test_disconnect_ends_a_dial_that_hangs(connection: Callable[..., Connection]) -> None:
    dialer = ScriptedDialer([ScriptedDialer.HANG])
    conn = connection(dialer, clock=FakeClock())
    conn.connect()
    dialer.wait_until_dialled()
    conn.disconnect()
    assert len(dialer.dials) == 1


def test_what_opens_late_is_closed_and_never_seen(connection: Callable[..., Connection]) -> None:
    is_asked, may_open = threading.Event(), threading.Event()

    def late(_: Dial) -> Any:
        is_asked.set()
        may_open.wait(PATIENCE)
        return ScriptedDialer.OPEN

    opens: list[Connection] = []
    dialer = ScriptedDialer(late)
    conn = connection(dialer, clock=FakeClock(), on_open=opens.append)
    conn.connect()
    assert is_asked.wait(PATIENCE)
    leaving = in_thread(conn.disconnect)
    eventually(lambda: conn.state == "closed")
    may_open.set()
    leaving.result(PATIENCE)
    dialer.next_peer().wait_closed()
    assert not opens


def test_the_outcome_is_taken_when_the_dial_is_told() -> None:
    """It was taken a step later: a child that was forked in between got the outcome that was the parent's."""
    taken: list[int] = []
    seen: list[int] = []

    class Watched(Dial):
        def step(self, *args: Any) -> Any:
            seen.append(len(taken))
            return super().step(*args)

    def script() -> Iterator[Any]:
        taken.append(1)
        yield ConnectionRefusedError

    with pytest.raises(ConnectError):
        ScriptedDialer(script()).dial(Watched(None, Options(), SystemClock(), name="scripted"))
    assert seen == [1]
