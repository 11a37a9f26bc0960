"""What a user does with a connection: wait for it, send, receive, iterate, end it, look at it."""

import contextlib
import copy
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self

import pytest
import tenacity

from connman import Connection, Fatal, State
from connman.errors import (
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnectTimeout,
    ConnmanError,
    GaveUp,
    NotConnected,
    WaitTimeout,
    WouldDeadlock,
)
from connman.testing import Peer
from connman.threads import spawn
from connman.transport.pipe import Pipe
from tests.connection.rig import DEAF, HANG, OPEN, PATIENCE, REFUSED, Rig, forever
from tests.loopback import in_thread
from tests.waiting import eventually


def readable(*script: Any, **options: Any) -> Rig:
    """Make a rig without ``on_data``: for recv and iteration."""
    return Rig(script or (OPEN,), on_data=None, **options)


# Opening


def test_connect_returns_itself_at_once() -> None:
    with Rig([HANG]) as rig:
        assert rig.conn.connect() is rig.conn
        rig.dialer.wait_until_dialled()
        assert rig.conn.state == State.CONNECTING


def test_wait_open_returns_itself() -> None:
    with Rig([OPEN]) as rig:
        assert rig.conn.wait_open(PATIENCE) is rig.conn
        assert rig.conn.is_open
        assert rig.conn.state == State.OPEN


def test_wait_open_times_out_and_tells_the_newest_error() -> None:
    with Rig(forever(ConnectionRefusedError(111, "nobody there"))) as rig:
        rig.fail_through(1)
        rig.wait_delay(2)
        with pytest.raises(WaitTimeout, match="nobody there"):
            rig.conn.wait_open(0.01)
        assert rig.conn.state == State.WAITING


def test_wait_open_tells_how_connecting_ended_although_that_is_a_timeout() -> None:
    with Rig([ConnectTimeout("there")], reconnect=False) as rig, pytest.raises(ConnectTimeout):
        rig.conn.wait_open(PATIENCE)


def test_a_with_block_opens_and_disconnects() -> None:
    with Rig([OPEN]) as rig:
        with rig.conn as conn:
            assert conn is rig.conn
            assert conn.is_open
            rig.told.wait(1)  # which may come a little behind the Future
        assert rig.conn.state == State.CLOSED
        assert rig.told.kinds == ["open", "lost"]


def test_a_with_block_that_does_not_open_in_time_ends_the_connection() -> None:
    with Rig([HANG], open_timeout=0.05) as rig:
        with pytest.raises(ConnectTimeout), rig.conn:
            pytest.fail("entered")
        assert rig.conn.state == State.CLOSED


def test_a_with_block_that_cannot_open_ends_the_connection() -> None:
    with Rig([Fatal("no")]) as rig:
        with pytest.raises(Fatal), rig.conn:
            pytest.fail("entered")
        assert rig.conn.state == State.CLOSED


def test_reconnect_now_cuts_the_wait() -> None:
    with Rig([REFUSED, REFUSED, OPEN]) as rig:
        rig.conn.connect()
        for number in (1, 2):
            rig.wait_delay(number)
            rig.conn.reconnect_now()
        rig.open()
        assert rig.clock.now() == 0


@pytest.mark.parametrize("phase", ["idle", "dialling", "open", "closed"])
def test_reconnect_now_does_nothing_elsewhere(phase: str) -> None:
    script = {"dialling": [HANG], "open": [OPEN, OPEN]}.get(phase, [])
    with Rig(script) as rig:
        if phase == "dialling":
            rig.conn.connect()
            rig.dialer.wait_until_dialled()
        elif phase == "open":
            rig.open()
        elif phase == "closed":
            rig.conn.disconnect()
        state = rig.conn.state
        rig.conn.reconnect_now()
        assert rig.conn.state == state
        assert len(rig.dialer.dials) == (phase in ("dialling", "open"))


def test_reconnect_now_while_open_is_not_remembered_for_the_next_wait() -> None:
    with Rig([OPEN, OPEN]) as rig:
        peer = rig.open()
        rig.conn.reconnect_now()
        peer.drop()
        rig.wait_delay(1)
        assert rig.conn.state == State.WAITING


def test_reconnect_now_inside_on_reset() -> None:
    rig = Rig([REFUSED, REFUSED, OPEN])
    rig.told.hooks["reset"] = lambda conn, _: conn.reconnect_now()
    with rig:
        rig.open()
        assert rig.told.kinds[:2] == ["failed", "failed"]
        assert rig.clock.now() == 0


def test_reconnect_now_from_many_threads_makes_one_attempt() -> None:
    with Rig([REFUSED, HANG]) as rig:
        rig.conn.connect()
        rig.wait_delay(1)
        barrier = threading.Barrier(20)

        def hurry() -> None:
            barrier.wait(PATIENCE)
            rig.conn.reconnect_now()

        for thread in [in_thread(hurry) for _ in range(20)]:
            thread.result(PATIENCE)
        rig.dialer.wait_until_dialled(2)
        rig.clock.advance(1)
        assert len(rig.dialer.dials) == 2
        assert rig.conn.state == State.CONNECTING


# Sending


def test_send_and_send_many() -> None:
    with Rig([OPEN]) as rig:
        peer = rig.open()
        rig.conn.send("text")
        rig.conn.send(b"bytes")
        rig.conn.send_many(["a", b"b", "c"])
        rig.conn.send_many(str(number) for number in range(2))
        rig.conn.send_many([])
        assert [peer.recv() for _ in range(7)] == ["text", b"bytes", "a", b"b", "c", "0", "1"]
        assert rig.conn.stats.messages_out == 7


@pytest.mark.parametrize(
    "send", [lambda c: c.send("x"), lambda c: c.send_many(["x"]), lambda c: c.send_many([])]
)
@pytest.mark.parametrize("phase", ["idle", "connecting", "waiting", "closed"])
def test_sending_while_not_open_is_refused(phase: str, send: Any) -> None:
    with Rig([REFUSED] if phase == "waiting" else [HANG]) as rig:
        if phase == "closed":
            rig.conn.disconnect()
        elif phase != "idle":
            rig.conn.connect()
        if phase == "waiting":
            rig.wait_delay(1)
        with pytest.raises(NotConnected, match=phase):
            send(rig.conn)


def test_send_may_start_it_and_wait() -> None:
    with Rig([OPEN]) as rig:
        rig.conn.send("hello", wait=PATIENCE)
        assert rig.dialer.next_peer().recv() == "hello"


def test_send_waits_through_a_failed_attempt() -> None:
    with Rig([REFUSED, OPEN]) as rig:
        sending = in_thread(lambda: rig.conn.send("hello", wait=PATIENCE))
        rig.clock.advance(rig.wait_delay(1))
        sending.result(PATIENCE)
        assert rig.dialer.next_peer().recv() == "hello"


@pytest.mark.parametrize(
    "outcome", [HANG, Fatal("no"), ConnectTimeout("there"), OSError(5, "no cable")], ids=repr
)
def test_a_send_that_waited_in_vain_tells_why_and_is_not_connected(outcome: Any) -> None:
    with Rig([outcome], reconnect=False) as rig, pytest.raises(NotConnected) as caught:
        rig.conn.send("x", wait=0.05)
    assert isinstance(caught.value.__cause__, ConnmanError)


def test_a_send_that_waits_when_it_is_ended_is_not_connected() -> None:
    with Rig([HANG]) as rig:
        sending = in_thread(lambda: rig.conn.send("x", wait=PATIENCE))
        rig.dialer.wait_until_dialled()
        rig.conn.disconnect()
        assert isinstance(sending.exception(PATIENCE), NotConnected)


@pytest.mark.parametrize("bad", [None, 7, ["x"], "\ud800"], ids=repr)
def test_what_cannot_be_sent_harms_nothing(bad: Any) -> None:
    with Rig([OPEN]) as rig:
        peer = rig.open()
        for send in (rig.conn.send, lambda data: rig.conn.send_many(["good", data])):
            with pytest.raises((TypeError, ValueError)):
                send(bad)
        rig.conn.send("after")
        assert peer.recv() == "after"


def test_sends_under_way_go_out_before_the_close() -> None:
    with Rig([DEAF]) as rig:
        peer = rig.open()
        big = "x" * 1_000_000
        sending = in_thread(lambda: rig.conn.send(big))
        eventually(lambda: rig.clock.waiting == 1)
        ending = in_thread(lambda: rig.conn.disconnect(timeout=PATIENCE))
        eventually(lambda: rig.conn.state == State.CLOSED)
        with pytest.raises(NotConnected):
            rig.conn.send("too late")
        peer.listen()
        sending.result(PATIENCE)
        ending.result(PATIENCE)
        assert peer.recv() == big
        assert isinstance(peer.wait_closed(), ConnectionClosed)


@pytest.mark.parametrize("send", ["send", "send_many"])
def test_nothing_is_sent_once_the_state_is_closed(send: str) -> None:
    """Between the state and the transport's being told it was sent, and `send` returned."""
    with Rig([OPEN]) as rig:
        peer = rig.open()
        met: list[tuple[State, BaseException | None]] = []

        def profile(frame: Any, event: str, _: object) -> None:
            if event == "call" and frame.f_code is Pipe.close.__code__:
                sys.setprofile(None)
                error = in_thread(getattr(rig.conn, send), "late" if send == "send" else ["late"]).exception(
                    PATIENCE
                )
                met.append((rig.conn.state, error))

        sys.setprofile(profile)
        try:
            rig.conn.end_soon()
        finally:
            sys.setprofile(None)
        ((state, error),) = met
        assert state is State.CLOSED
        assert isinstance(error, NotConnected)
        assert isinstance(peer.wait_closed(), ConnectionClosed)


# Sending while the end of a transport has not been told


class Untold(Rig):
    """A rig whose transport has ended while its reader is held inside ``on_data``: it says that it is open, and is not.

    `tell` lets the reader go on, and tell of the end.
    """

    def __init__(self, *script: Any, **options: Any) -> None:
        super().__init__([OPEN, *script], **options)
        self.tell = threading.Event()
        self.inside: Callable[[], object] = lambda: None
        self._is_held = threading.Event()
        self.told.hooks["data"] = self._hold

    def _hold(self, *_: object) -> None:
        self._is_held.set()
        assert self.tell.wait(PATIENCE)
        self.inside()

    def __enter__(self) -> Self:
        peer = self.open()
        peer.send("hold on")
        assert self._is_held.wait(PATIENCE)
        peer.drop()
        with pytest.raises(ConnectionLost):
            self.conn.send("this notices it")
        assert self.conn.state is State.OPEN
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.tell.set()
        super().__exit__(*exc_info)

    def refused(self, send: Callable[[], object]) -> "Future[object]":
        """Have `send` called on a thread; return when the transport has refused it."""
        is_refused = threading.Event()

        def profile(frame: Any, event: str, _: object) -> None:
            if event == "return" and frame.f_code is Pipe.send.__code__:
                is_refused.set()

        def run() -> object:
            sys.setprofile(profile)
            try:
                return send()
            finally:
                sys.setprofile(None)

        sending = in_thread(run)
        assert is_refused.wait(PATIENCE)
        return sending


SENDING: dict[str, Callable[[Connection, float], object]] = {
    "send": lambda conn, wait: conn.send("again", wait=wait),
    "send_many": lambda conn, wait: conn.send_many(["again", "and on"], wait=wait),
}
both_sends = pytest.mark.parametrize("send", SENDING.values(), ids=SENDING)


@both_sends
@pytest.mark.parametrize("reconnect", [True, False])
def test_a_send_waits_for_the_next_connection_when_the_present_one_has_ended(
    send: Any, reconnect: bool
) -> None:
    """Before the end was told it was refused at once, however long it was to wait."""
    with Untold(OPEN, reconnect=reconnect) as rig:
        sending = rig.refused(lambda: send(rig.conn, PATIENCE))
        rig.tell.set()
        if reconnect:
            rig.clock.advance(rig.wait_delay(1))
        sending.result(PATIENCE)
        rig.conn.send("end")
        peer = rig.dialer.next_peer()
        heard = list(iter(peer.recv, "end"))
        assert heard == (["again"] if send is SENDING["send"] else ["again", "and on"])
        assert len(rig.dialer.dials) == 2


@both_sends
def test_a_send_that_may_not_wait_is_refused_when_the_transport_has_ended(send: Any) -> None:
    with Untold() as rig:
        with pytest.raises(NotConnected):
            send(rig.conn, 0.0)
        assert rig.conn.state is State.OPEN


@both_sends
def test_a_send_waits_no_longer_than_told_for_the_end_to_be_told(send: Any) -> None:
    with Untold() as rig, pytest.raises(NotConnected):
        send(rig.conn, 0.05)


@both_sends
def test_a_send_that_waits_for_the_end_to_be_told_ends_with_the_connection(send: Any) -> None:
    with Untold() as rig:
        sending = rig.refused(lambda: send(rig.conn, PATIENCE))
        rig.conn.end_soon()
        assert isinstance(sending.exception(PATIENCE), NotConnected)
        assert rig.conn.is_open is False


@both_sends
def test_the_reader_cannot_wait_for_what_only_it_can_tell(send: Any) -> None:
    caught: list[BaseException | None] = []
    with Untold() as rig:
        rig.inside = lambda: caught.extend(
            error_of(lambda wait=wait: send(rig.conn, wait)) for wait in (0.0, PATIENCE)
        )
        rig.tell.set()
        rig.told.wait(3)
    assert [type(error) for error in caught] == [NotConnected, WouldDeadlock]


def error_of(function: Callable[[], object]) -> BaseException | None:
    try:
        function()
    except ConnmanError as error:
        return error
    return None


@pytest.mark.parametrize("whole", [0, 1])
def test_what_was_begun_when_the_connection_broke_is_not_sent_again(whole: int) -> None:
    with Rig([DEAF, OPEN], send_timeout=PATIENCE) as rig:
        first = rig.open()
        big = "x" * 1_000_000
        batch = ["small"] * whole + [big]
        sending = in_thread(lambda: rig.conn.send_many(batch, wait=PATIENCE))
        eventually(lambda: rig.clock.waiting == 1)
        first.drop()
        lost = sending.exception(PATIENCE)
        assert isinstance(lost, ConnectionLost)
        assert lost.sent == whole
        rig.clock.advance(rig.wait_delay(2))  # the first wait was that for room
        rig.conn.send("next", wait=PATIENCE)
        assert rig.dialer.next_peer().recv() == "next"


def test_a_send_waits_on_when_what_has_opened_is_lost_before_it_gets_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was refused although most of its time was left."""
    with Rig([OPEN, OPEN]) as rig:
        has_opened, may_look = threading.Event(), threading.Event()
        wait_open = rig.conn.wait_open

        def held(timeout: float | None = None) -> Connection:
            wait_open(timeout)
            has_opened.set()
            assert may_look.wait(PATIENCE)
            return rig.conn

        monkeypatch.setattr(rig.conn, "wait_open", held)
        sending = in_thread(lambda: rig.conn.send("hello", wait=PATIENCE))
        assert has_opened.wait(PATIENCE)
        rig.dialer.next_peer().drop()
        delay = rig.wait_delay(1)
        may_look.set()
        rig.clock.advance(delay)
        sending.result(PATIENCE)
        assert rig.dialer.next_peer().recv() == "hello"


# Receiving


def test_recv() -> None:
    with readable() as rig:
        peer = rig.open()
        waiting = in_thread(rig.conn.recv)
        peer.send("one")
        assert waiting.result(PATIENCE) == "one"
        peer.send(b"two")
        assert rig.conn.recv(PATIENCE) == b"two"
        with pytest.raises(WaitTimeout):
            rig.conn.recv(0)


def test_recv_times_out_on_the_connections_clock() -> None:
    with readable() as rig:
        rig.open()
        waiting = in_thread(lambda: rig.conn.recv(30))
        rig.clock.wait_until_waiting()
        rig.clock.advance(29)
        assert not waiting.done()
        rig.clock.advance(1)
        assert isinstance(waiting.exception(PATIENCE), WaitTimeout)
        assert rig.conn.is_open


def test_recv_is_not_for_a_connection_with_on_data() -> None:
    with Rig([OPEN]) as rig:
        rig.open()
        with pytest.raises(TypeError):
            rig.conn.recv()


def test_recv_before_it_was_started() -> None:
    with readable() as rig, pytest.raises(NotConnected):
        rig.conn.recv()


@pytest.mark.parametrize("dispatch", ["reader", "thread"])
def test_recv_survives_reconnects(dispatch: str) -> None:
    def server(peer: Peer) -> None:
        peer.send("a")
        peer.send("b")
        peer.close(1001)

    with readable(*[server] * 3, dispatch=dispatch) as rig:
        rig.conn.connect()
        for number in (1, 2):
            rig.clock.advance(rig.wait_delay(number))
        assert [rig.conn.recv(PATIENCE) for _ in range(6)] == ["a", "b"] * 3


@pytest.mark.parametrize("dispatch", ["reader", "thread"])
def test_what_came_before_the_end_of_retrying_is_received_before_it(dispatch: str) -> None:
    def server(peer: Peer) -> None:
        for number in range(50):
            peer.send(str(number))
        peer.close(4001, "enough")

    gate = threading.Event()
    rig = readable(server, dispatch=dispatch)
    rig.told.hooks["open"] = lambda _: gate.wait(PATIENCE) if dispatch == "thread" else None
    with rig:
        rig.conn.connect()
        eventually(lambda: rig.conn.state == State.IDLE)
        assert [rig.conn.recv(0) for _ in range(50)] == [str(number) for number in range(50)]
        for _ in range(2):
            with pytest.raises(ConnectionClosed, match="4001"):
                rig.conn.recv(PATIENCE)
        gate.set()


def test_a_waiting_recv_learns_that_retrying_has_ended() -> None:
    with readable(REFUSED, REFUSED, stop=tenacity.stop_after_attempt(2)) as rig:
        rig.conn.connect()
        rig.wait_delay(1)
        waiting = in_thread(rig.conn.recv)
        rig.clock.advance(1)
        assert isinstance(waiting.exception(PATIENCE), GaveUp)


def test_a_waiting_recv_ends_at_disconnect_and_what_was_queued_is_dropped() -> None:
    with readable() as rig:
        peer = rig.open()
        waiting = in_thread(rig.conn.recv)
        rig.conn.disconnect(4321)
        assert isinstance(waiting.exception(PATIENCE), ConnectionClosed)
        peer.wait_closed()
        with pytest.raises(ConnectionClosed):
            rig.conn.recv()
    with readable() as rig:
        rig.open().send("untaken")
        eventually(lambda: rig.conn.stats.messages_in == 1)
        rig.conn.disconnect()
        with pytest.raises(ConnectionClosed):
            rig.conn.recv(0)


def test_disconnect_while_the_reader_is_blocked_on_a_full_inbox() -> None:
    with readable(max_message_size=10) as rig:
        peer = rig.open()
        for number in range(10):
            peer.send(f"message {number}")
        eventually(lambda: rig.conn.stats.messages_in >= 2)
        rig.conn.disconnect()
        assert rig.conn.wait_gone(0)
        assert rig.told.kinds == ["open", "lost"]


def test_the_inbox_holds_the_peer_back_and_loses_nothing() -> None:
    with readable(max_message_size=100_000) as rig:
        peer = rig.open()
        sending = in_thread(lambda: [peer.send(str(n).ljust(50_000)) for n in range(60)])
        with pytest.raises(TimeoutError):
            sending.result(0.05)
        received = [rig.conn.recv(PATIENCE) for _ in range(60)]
        assert [int(message) for message in received] == list(range(60))
        sending.result(PATIENCE)


@pytest.mark.parametrize("dispatch", ["reader", "thread"])
def test_a_loss_is_noticed_by_sending_while_nobody_takes_what_has_arrived(dispatch: str) -> None:
    # The reader waited for room for ever: open, but every send failed, and it never came back.
    with readable(OPEN, OPEN, max_message_size=10, dispatch=dispatch) as rig:
        peer = rig.open()
        peer.send("no room...")
        eventually(lambda: rig.conn.stats.messages_in == 1)
        peer.drop()
        with pytest.raises(ConnectionLost):
            while True:
                rig.conn.send("x")
        rig.clock.advance(rig.wait_delay(1))
        rig.conn.wait_open(PATIENCE)
        rig.conn.send("again")
        assert rig.dialer.next_peer().recv() == "again"
        assert rig.conn.recv(0) == "no room..."


# Iterating


def collect(conn: Connection, into: list[Any]) -> None:
    for message in conn:
        into.append(message)  # seen by the test while it goes on


def test_iteration_survives_reconnects_and_ends_at_disconnect() -> None:
    with readable(*[lambda peer: (peer.send("x"), peer.close(1012))] * 2, OPEN) as rig:
        rig.conn.connect()
        received: list[Any] = []
        collecting = in_thread(collect, rig.conn, received)
        for number in (1, 2):
            rig.clock.advance(rig.wait_delay(number))
        rig.conn.wait_open(PATIENCE)
        [rig.dialer.next_peer() for _ in range(3)][2].send("last")
        eventually(lambda: received == ["x", "x", "last"])
        assert not collecting.done()
        rig.conn.disconnect()
        collecting.result(PATIENCE)


def test_iteration_raises_when_it_gave_up() -> None:
    with readable(
        lambda peer: (peer.send("x"), peer.drop()), REFUSED, stop=tenacity.stop_after_attempt(2)
    ) as rig:
        rig.conn.connect()
        rig.clock.advance(rig.wait_delay(1))
        received: list[Any] = []
        collecting = in_thread(collect, rig.conn, received)
        assert isinstance(collecting.exception(PATIENCE), GaveUp)
        assert received == ["x"]


@pytest.mark.parametrize(("code", "is_quiet"), [(1000, True), (1001, True), (1011, False), (4100, False)])
def test_without_reconnect_iteration_ends_with_the_peer(code: int, is_quiet: bool) -> None:
    with readable(lambda peer: (peer.send("x"), peer.close(code)), reconnect=False) as rig:
        rig.conn.connect()
        received: list[Any] = []
        collecting = in_thread(collect, rig.conn, received)
        error = collecting.exception(PATIENCE)
        assert received == ["x"]
        assert error is None if is_quiet else isinstance(error, ConnectionClosed)


# Ending


def test_disconnect_is_idempotent_and_close_is_the_same() -> None:
    with Rig([OPEN]) as rig:
        rig.open()
        rig.conn.close()
        rig.conn.disconnect()
        rig.conn.close(4000)
        assert rig.conn.state == State.CLOSED
        assert rig.told.kinds == ["open", "lost"]


def test_disconnect_of_one_that_was_never_started() -> None:
    rig = Rig([])
    rig.conn.disconnect()
    assert rig.conn.state == State.CLOSED
    assert rig.told.events == []


def test_a_peer_that_never_answers_the_close_is_left_behind() -> None:
    with Rig([DEAF]) as rig:
        rig.open()
        rig.conn.disconnect(timeout=0.05)
        assert rig.conn.wait_gone(0)
        assert rig.told.kinds == ["open", "lost"]


def test_the_close_timeout_runs_on_the_clock_too() -> None:
    with Rig([DEAF], close_timeout=5) as rig:
        rig.open()
        rig.conn.end_soon(1000, "", 5)
        rig.clock.advance(4.9)
        assert not rig.conn.wait_gone(0)
        rig.clock.advance(0.1)
        assert rig.conn.wait_gone(PATIENCE)


def test_a_negative_timeout_is_none_at_all() -> None:
    with Rig([DEAF]) as rig:
        rig.open()
        rig.conn.disconnect(timeout=-1)
        assert rig.conn.wait_gone(0)


def test_wait_closed() -> None:
    with Rig([OPEN]) as rig:
        rig.open()
        waiting = in_thread(rig.conn.wait_closed)
        with pytest.raises(TimeoutError):
            waiting.result(0.01)
        rig.conn.disconnect()
        assert waiting.result(PATIENCE) is None
        rig.conn.wait_closed(0)


def test_wait_closed_times_out_on_the_connections_clock() -> None:
    with Rig([OPEN]) as rig:
        rig.open()
        with pytest.raises(WaitTimeout, match="open"):
            rig.conn.wait_closed(0)
        waiting = in_thread(lambda: rig.conn.wait_closed(30))
        rig.clock.wait_until_waiting()
        rig.clock.advance(30)
        assert isinstance(waiting.exception(PATIENCE), WaitTimeout)


def test_wait_closed_tells_how_retrying_ended() -> None:
    with Rig([Fatal("no")]) as rig:
        with pytest.raises(NotConnected):
            rig.conn.wait_closed()
        rig.conn.connect()
        with pytest.raises(Fatal):
            rig.conn.wait_closed(PATIENCE)


def test_a_thread_of_connmans_does_not_wait_for_an_end() -> None:
    with Rig([OPEN]) as rig, Rig([DEAF]) as other:
        rig.open()
        other.open()
        outcome: list[object] = []

        def inside() -> None:
            with contextlib.suppress(WouldDeadlock):
                rig.conn.wait_closed()
            other.conn.disconnect(timeout=99)
            outcome.append(other.conn.wait_gone(0))

        spawn("test", inside).join(PATIENCE)
        assert outcome == [False]
        assert other.conn.has_ended(0)


# Looking


def test_stats_and_uptime() -> None:
    with Rig([REFUSED, OPEN, OPEN]) as rig:
        rig.fail_through(1)
        peer = rig.open()
        peer.send("hello")
        rig.told.wait(3)
        rig.conn.send("to you")
        rig.clock.advance(7)
        stats = rig.conn.stats
        assert (stats.opens, stats.losses, stats.failed_attempts) == (1, 0, 1)
        assert (stats.messages_in, stats.messages_out) == (1, 1)
        assert (stats.bytes_in, stats.bytes_out) == (7, 8)
        assert stats.uptime == pytest.approx(7)
        peer.recv()
        peer.drop()
        rig.wait_delay(2)
        stats = rig.conn.stats
        assert (stats.uptime, stats.losses) == (0.0, 1)
        assert "lost" in str(stats.last_error) or "end" in str(stats.last_error)
        rig.clock.advance(rig.wait_delay(2))
        rig.open()
        stats = rig.conn.stats
        # What the first generation has counted is not forgotten.
        assert (stats.opens, stats.messages_in, stats.messages_out) == (2, 1, 1)
        assert (stats.bytes_in, stats.bytes_out) == (7, 8)
        assert stats.uptime == 0.0
        rig.conn.disconnect()
        assert rig.conn.stats.losses == 1


def test_last_error_and_generation() -> None:
    with Rig([REFUSED, OPEN]) as rig:
        assert rig.conn.last_error is None
        rig.fail_through(1)
        peer = rig.open()
        assert isinstance(rig.conn.last_error, ConnectError)
        assert (rig.conn.generation, rig.conn.transport_name) == (1, "memory")
        peer.drop()
        rig.wait_delay(2)
        assert isinstance(rig.conn.last_error, ConnectionLost | ConnectionClosed)
        assert (rig.conn.generation, rig.conn.transport_name) == (1, None)


@pytest.mark.parametrize("forever", [float("inf"), 1e300])
def test_an_endless_timeout_is_no_overflow(forever: float) -> None:
    # "timestamp out of range for platform time_t", and from disconnect() with the connection half ended.
    with Rig() as rig:
        assert rig.conn.wait_open(forever) is rig.conn
        rig.conn.send("x", wait=forever)
        rig.conn.disconnect(timeout=forever)
        rig.conn.wait_closed(forever)


def test_a_name_cannot_forge_a_log_line() -> None:
    with Rig(name="one\nWARNING two") as rig:
        assert rig.conn.name == "one\\nWARNING two"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_connection_has_no_twin(duplicate: Callable[[Connection], object]) -> None:
    # A shallow copy shared threads and locks with its original, and ended it.
    with Rig() as rig, pytest.raises(TypeError, match="cannot be copied"):
        duplicate(rig.conn)


@pytest.mark.parametrize("one", ["abc", b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_send_many_of_one_message_is_a_mistake(one: Any) -> None:
    # "abc" went out as three messages.
    with Rig() as rig:
        rig.open()
        with pytest.raises(TypeError):
            rig.conn.send_many(one)
        assert rig.conn.stats.messages_out == 0


def test_a_timeout_that_is_no_number_is_refused() -> None:
    # It waited for ever, at full speed.
    with readable() as rig:
        rig.open()
        for wait in (rig.conn.recv, rig.conn.wait_closed):
            with pytest.raises(ValueError):
                wait(float("nan"))


@pytest.mark.parametrize("code", [1000.0, True, 999, 1005, 1006, 1015, 2999, 5000, "1000"])
def test_a_close_code_that_may_not_be_sent_is_refused_before_anything_is_done(code: Any) -> None:
    with Rig() as rig:
        rig.open()
        with pytest.raises(ValueError):
            rig.conn.disconnect(code)
        assert rig.conn.is_open
