"""One connection on a shared reader: what each phase does with whatever may come in it."""

import contextlib
import logging
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connman import Connection, Pool, State
from connman.clock import Timer
from connman.connection.queue import MAX_ITEMS
from connman.errors import (
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    ProtocolError,
    WaitTimeout,
    WouldDeadlock,
)
from connman.records import Message
from connman.testing import FakeClock, ScriptedDialer
from connman.transport.base import Dial, Transport
from tests.connection.rig import (
    DEAF,
    HANG,
    OPEN,
    PATIENCE,
    REFUSED,
    Rig,
    TimerClock,
    forever,
    reader_kind,
    say,
)
from tests.loopback import in_thread
from tests.overridden import override
from tests.promises.peers import TEXT, Peers, frame, frames
from tests.scripted import Guest
from tests.waiting import eventually

FEW = 16  # diallers at once while dials are quick


@pytest.fixture(autouse=True)
def shared_reader(each_reader_kind: None) -> Iterator[None]:
    token = reader_kind.set("shared")
    yield
    reader_kind.reset(token)


# Full inboxes


def test_a_full_inbox_pauses_reading_and_room_resumes_it() -> None:
    with Rig([OPEN], on_data=None) as rig:
        peer = rig.open()
        # More than the inbox and the lane hold: the peer has to wait.
        sending = in_thread(say, peer, *[str(number) + "x" * 500 for number in range(3 * MAX_ITEMS)])
        eventually(lambda: rig.conn.stats.messages_in >= MAX_ITEMS)
        heard = [str(rig.conn.recv(PATIENCE)).rstrip("x") for _ in range(3 * MAX_ITEMS)]
        assert heard == [str(number) for number in range(3 * MAX_ITEMS)]
        sending.result(PATIENCE)


def fill(rig: Rig) -> Any:
    """Have the reader pause, nothing of the peer's under way any more."""
    peer = rig.open()
    say(peer, *["x"] * (MAX_ITEMS + 10))
    eventually(lambda: rig.conn.stats.messages_in >= MAX_ITEMS)
    return peer


def test_a_peer_is_not_judged_while_nobody_takes_what_it_sent() -> None:
    """Its answers lie unread behind what nobody takes: that was taken for a dead peer."""
    with Rig([OPEN, OPEN], on_data=None, ping_interval=1.0, ping_timeout=1.0) as rig:
        fill(rig)
        for _ in range(20):
            rig.clock.advance(0.5)
        assert rig.conn.state == State.OPEN
        for _ in range(MAX_ITEMS + 10):
            rig.conn.recv(PATIENCE)
        assert rig.conn.generation == 1
        # It answers again, and so is alive.
        before = rig.conn.stats.bytes_in
        rig.clock.advance(1.0)
        eventually(lambda: rig.conn.stats.bytes_in > before)


def test_a_peer_that_is_dead_when_reading_goes_on_is_noticed() -> None:
    with Rig([DEAF, OPEN], on_data=None, ping_interval=1.0, ping_timeout=1.0) as rig:
        fill(rig)
        rig.clock.advance(5)
        for _ in range(MAX_ITEMS + 10):
            rig.conn.recv(PATIENCE)
        eventually(lambda: rig.clock.advance(0.5) or rig.told.resets)
        assert "no sign of life" in str(rig.told.resets[0].error)


def take(conn: Connection) -> None:
    with contextlib.suppress(WaitTimeout):
        conn.recv(0)


@pytest.mark.parametrize("end", ["disconnect", "drop", "abort"])
def test_an_end_comes_through_to_a_connection_that_is_paused(end: str) -> None:
    with Rig([OPEN, HANG], on_data=None) as rig:
        peer = fill(rig)
        if end == "disconnect":
            rig.conn.disconnect()
            eventually(lambda: peer.is_closed)
        elif end == "drop":  # only seen when reading goes on
            peer.drop()
            eventually(lambda: rig.told.resets or take(rig.conn))
        else:
            rig.conn.end_soon(timeout=0)
            rig.clock.advance(1)
            assert rig.conn.wait_gone(PATIENCE)
        assert rig.told.kinds == ["open", "lost"]


def test_a_callback_thread_that_is_behind_pauses_reading() -> None:
    gate, heard = threading.Event(), []
    # More than fits into the network, one read and the queue together.
    messages = [str(number).ljust(100) for number in range(20_000)]
    with Rig([OPEN], dispatch="thread", max_message_size=100_000) as rig:
        rig.told.hooks["data"] = lambda _, message: (heard.append(message), gate.wait(PATIENCE))
        peer = rig.open()
        sending = in_thread(say, peer, *messages)
        eventually(lambda: rig.told.inside)
        # What may wait, and no more, is read: the sender has to wait.
        with pytest.raises(TimeoutError):
            sending.result(0.1)
        assert rig.conn.stats.messages_in < len(messages)
        gate.set()
        sending.result(PATIENCE)
        eventually(lambda: len(heard) == len(messages), PATIENCE)
        assert heard == messages


@pytest.mark.slow
def test_a_new_attempt_waits_until_the_callback_thread_has_caught_up() -> None:
    """Resets are told as well: attempts that fail at once must not fill the memory behind a callback that blocks."""
    gate = threading.Event()
    with Rig(forever(REFUSED), dispatch="thread", wait=lambda _: 0.0) as rig:
        rig.told.hooks["reset"] = lambda *_: gate.wait(PATIENCE)
        rig.conn.connect()
        eventually(lambda: rig.clock.advance(1) or len(rig.dialer.dials) > MAX_ITEMS, 30)
        for _ in range(20):
            rig.clock.advance(1)
        held = len(rig.dialer.dials)
        assert held <= MAX_ITEMS + 2
        gate.set()
        eventually(lambda: rig.clock.advance(1) or len(rig.dialer.dials) > held)


@pytest.mark.slow
def test_disconnect_reaches_one_that_is_held_before_an_attempt() -> None:
    gate = threading.Event()
    with Rig(forever(REFUSED), dispatch="thread", wait=lambda _: 0.0) as rig:
        rig.told.hooks["reset"] = lambda *_: gate.wait(PATIENCE)
        rig.conn.connect()
        eventually(lambda: rig.clock.advance(1) or len(rig.dialer.dials) > MAX_ITEMS, 30)
        rig.conn.end_soon()
        eventually(lambda: not any("readers-rig" in thread.name for thread in threading.enumerate()))
        gate.set()
        assert rig.conn.wait_gone(PATIENCE)


# Waiting between attempts


def test_a_late_timer_does_not_cut_the_next_wait() -> None:
    """The wait it belongs to was cut; fired with a barrier between its going off and its being looked at."""
    with Rig([REFUSED, REFUSED, OPEN], wait=lambda _: 10.0) as rig:
        rig.conn.connect()
        rig.wait_delay(1)
        inside, go_on = threading.Event(), threading.Event()
        with Rig([OPEN]) as other:
            # Both are read by the same thread, which is held up in a callback.
            other.conn.read_by(rig.conn._readers)  # noqa: SLF001
            other.told.hooks["open"] = lambda *_: (inside.set(), go_on.wait(PATIENCE))
            other.conn.connect()
            assert inside.wait(PATIENCE)
            rig.conn.reconnect_now()  # first in the queue
            rig.clock.advance(10)  # and its timer behind it
            go_on.set()
            rig.wait_delay(2)
            other.conn.disconnect()
        assert len(rig.dialer.dials) == 2
        assert rig.conn.state == State.WAITING
        rig.clock.advance(10)
        rig.open()


class LateClock(TimerClock):
    """A clock whose timers can be rung once more by the test: later than the reader's cancelling of them."""

    def __init__(self) -> None:
        super().__init__()
        self.rings: list[Callable[[], None]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self.rings.append(callback)
        return super().call_later(delay, callback)


def test_a_timer_that_rings_after_the_next_attempt_does_not_cut_the_next_wait() -> None:
    """Planted: without the numbers of the waits it began a third attempt at once."""
    clock = LateClock()
    with Rig([REFUSED, REFUSED, HANG], clock=clock, wait=lambda _: 10.0) as rig:
        rig.conn.connect()
        rig.wait_delay(1)
        rig.conn.reconnect_now()
        rig.wait_delay(2)
        clock.rings[0]()
        with Rig([OPEN]) as other:
            # By the same thread, which has looked at the late ring when this one is open.
            other.conn.read_by(rig.conn._readers)  # noqa: SLF001
            other.open()
        assert len(rig.dialer.dials) == 2
        assert rig.conn.state == State.WAITING


@pytest.mark.parametrize("times", [1, 5])
def test_reconnect_now_inside_on_reset_cuts_the_wait_that_follows(times: int) -> None:
    rig = Rig([REFUSED] * times + [OPEN], wait=lambda _: 1000.0)
    rig.told.hooks["reset"] = lambda conn, _: conn.reconnect_now()
    with rig:
        rig.conn.connect()
        rig.open()
        assert len(rig.dialer.dials) == times + 1


@pytest.mark.parametrize("phase", ["idle", "dialling", "open", "paused", "closed"])
def test_reconnect_now_does_nothing_in_any_other_phase(phase: str) -> None:
    with Rig([HANG if phase == "dialling" else OPEN], on_data=None) as rig:
        if phase == "dialling":
            rig.conn.connect()
            rig.dialer.wait_until_dialled()
        elif phase == "open":
            rig.open()
        elif phase == "paused":
            fill(rig)
        elif phase == "closed":
            rig.conn.disconnect()
        state = rig.conn.state
        for _ in range(3):
            rig.conn.reconnect_now()
        if phase == "open":
            rig.conn.send("x")
        assert rig.conn.state == state
        assert len(rig.dialer.dials) == (phase not in ("idle", "closed"))


def test_without_a_timer_thread_its_reader_keeps_the_time() -> None:
    """It waited for ever for what nobody would tell."""

    class Timerless(FakeClock):
        def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
            raise RuntimeError("can't start new thread")

    with Rig([REFUSED, OPEN], clock=Timerless()) as rig:
        rig.open()
        assert [reset.opened for reset in rig.told.resets] == [False]


# Dialling


def busy_pool(**options: Any) -> Pool:
    """A pool all of whose diallers hang, as long as nothing has had the time to grow."""
    hanging = ScriptedDialer(forever(HANG))
    pool = Pool(readers=1, **{"ping_interval": None, **options})
    for _ in range(FEW):
        pool.add_connection(hanging)
    hanging.wait_until_dialled(FEW)
    return pool


@pytest.mark.parametrize("act", ["reconnect_now", "disconnect", "end_soon", "pool"])
def test_one_that_waits_for_a_dialler_can_be_ended(
    act: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "connman")
    start = threading.Thread.start

    def start_or_not(thread: threading.Thread) -> None:
        if "timers" in thread.name:  # without it there are never more diallers
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    pool = busy_pool()
    dialer = ScriptedDialer([HANG])
    told: list[object] = []
    conn = pool.add_connection(dialer, on_reset=lambda _, reset: told.append(reset.error))
    eventually(lambda: f"{conn.name}: dialling" in caplog.text)
    future = conn.get_connected()
    if act == "pool":
        pool.disconnect()
    else:
        getattr(conn, act)()
    if act == "reconnect_now":
        assert conn.state == State.CONNECTING
        pool.disconnect()
    assert conn.wait_gone(PATIENCE)
    assert isinstance(future.exception(PATIENCE), ConnectionClosed)
    assert [type(error) for error in told] == [ConnectionClosed]
    assert conn.generation == 0
    if act in ("disconnect", "end_soon"):  # the pool's end frees diallers as well
        assert dialer.dials == []
    pool.disconnect()


def test_a_login_cannot_wait_for_its_own_connection() -> None:
    """It runs on a dialler, which counts as the reader."""
    told: list[str] = []

    def handshake(_: object) -> None:
        for wait in (
            lambda: rig.conn.wait_open(PATIENCE), lambda: rig.conn.get_connected().result(PATIENCE),
            lambda: rig.conn.send("x", wait=PATIENCE), lambda: rig.conn.recv(PATIENCE),
            lambda: rig.conn.wait_closed(PATIENCE),
        ):  # fmt: skip
            with pytest.raises(WouldDeadlock):
                wait()
            told.append("refused")

    rig = Rig([OPEN], on_data=None, handshake=handshake)
    with rig:
        rig.open()
        assert told == ["refused"] * 5


def test_a_login_may_wait_for_another_connection_of_the_same_reader() -> None:
    dialer = ScriptedDialer(forever(OPEN))
    with Pool(readers=1, ping_interval=None) as pool:
        first = pool.add_connection(dialer)
        second = pool.add_connection(dialer, handshake=lambda _: first.wait_open(PATIENCE))
        second.wait_open(PATIENCE)


def test_a_dial_that_fails_in_an_unforeseen_way_is_a_failed_attempt(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Exception):
        pass

    def script(_: Dial) -> Any:
        raise Broken("the dialer's own")

    with Rig(script, reconnect=False) as rig:
        error = rig.conn.get_connected().exception(PATIENCE)
        assert "Broken" in str(error)
        assert rig.told.wait(1).kinds == ["failed"]


# Reading


def test_a_long_message_that_is_unpacked_in_pieces_comes_without_another_byte() -> None:
    text = "x" * 15_000_000
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(text.encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
    data = bytearray(frame(packed[:-4], TEXT))
    data[0] |= 0x40  # packed

    def serve(sock: Any) -> None:
        guest = Guest(sock)
        guest.read_request()
        guest.send(guest.upgrade_head("Sec-WebSocket-Extensions: permessage-deflate"))
        for _ in frames(sock):
            guest.send(bytes(data))

    heard: list[Message] = []
    with Peers(serve) as server, Pool(readers=1, proxy=None, close_timeout=0.1) as pool:
        conn = pool.add_connection(
            server.url(), compression="deflate", on_data=lambda _, message: heard.append(message)
        )
        conn.wait_open(PATIENCE).send("go")
        eventually(lambda: heard)
        assert heard == [text]
        pool.disconnect(timeout=0.1)


class InPieces:
    """A target whose transport needs some more looks at what has arrived before a message is whole."""

    def __init__(self, pieces: int) -> None:
        self._inner = ScriptedDialer([OPEN])
        self._left = pieces

    def dial(self, dial: Dial) -> Transport:
        transport = self._inner.dial(dial)
        receive_ready = transport.receive_ready

        def in_pieces(_: object = None) -> tuple[list[Message], ConnmanError | None]:
            if not self._left:
                return receive_ready()
            self._left -= 1
            transport.rest = b"more" if self._left else b""
            return [] if self._left else ["whole"], None

        override(transport, receive_ready=in_pieces)
        return transport


def test_what_was_not_looked_at_yet_is_without_another_byte() -> None:
    """It was left lying when the last look had brought no message."""
    with Pool(readers=1, ping_interval=None) as pool:
        assert pool.add_connection(InPieces(5)).recv(PATIENCE) == "whole"


def test_what_the_peer_violates_is_told_to_it_by_another_thread() -> None:
    """The peer must read our close before the socket goes: half a second, in which the reader serves the others."""
    may_read, closes = threading.Event(), []

    def serve(sock: Any) -> None:
        guest = Guest(sock)
        guest.read_request()
        guest.send(guest.upgrade_head() + b"\xff\xff\xff" + b"x" * 100_000)
        may_read.wait(PATIENCE)
        closes.extend(payload for opcode, payload in frames(sock) if opcode == 8)

    resets: list[Any] = []
    with Peers(serve) as server, Pool(readers=1, proxy=None, reconnect=False) as pool:
        pool.add_connection(server.url(), on_reset=lambda _, reset: resets.append(reset))
        eventually(lambda: resets)
        assert isinstance(resets[0].error, ProtocolError)
        # The reader is free at once.
        with Rig([OPEN]) as rig:
            rig.conn.read_by(pool._readers)  # type: ignore[arg-type]  # noqa: SLF001
            rig.open().send("x")
            rig.told.wait(2)
            may_read.set()
    assert [int.from_bytes(payload[:2]) for payload in closes] == [1002]


def test_a_failure_of_ours_while_a_step_runs_ends_that_connection_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dialer = ScriptedDialer(forever(OPEN))
    losses: list[Any] = []
    with Pool(readers=1, ping_interval=None, wait=lambda _: 0.0) as pool:
        good = pool.add_connection(dialer, on_data=lambda conn, message: conn.send(message))
        good.wait_open(PATIENCE)
        good_peer = dialer.next_peer()
        bad = pool.add_connection(dialer, on_reset=lambda _, reset: losses.append(reset))
        bad.wait_open(PATIENCE)
        dialer.next_peer()
        transport = bad._life.transport  # noqa: SLF001

        def bug(*_: object) -> Any:
            raise MemoryError("ours")

        override(transport, receive_ready=bug)
        transport.abort(ConnectionLost("look"))  # type: ignore[union-attr]
        eventually(lambda: losses)
        assert "MemoryError" in str(losses[0].error)
        good_peer.send("still here")
        assert good_peer.recv() == "still here"
        bad.wait_open(PATIENCE)
        assert good.generation == 1


def test_a_failure_of_the_failure_ends_that_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    """A watcher, which must not raise, raises whenever it is told anything."""
    dialer = ScriptedDialer(forever(OPEN))

    def watcher(conn: Connection, state: State) -> None:
        if state in (State.WAITING, State.IDLE):
            raise ValueError("a watcher's bug")

    with Pool(readers=1, ping_interval=None) as pool:
        good = pool.add_connection(dialer, on_data=lambda conn, message: conn.send(message))
        good.wait_open(PATIENCE)
        good_peer = dialer.next_peer()
        bad = Connection(dialer, ping_interval=None)
        bad.watch(watcher)
        bad.read_by(pool._readers)  # type: ignore[arg-type]  # noqa: SLF001
        bad.wait_open(PATIENCE)
        dialer.next_peer().drop()
        eventually(lambda: bad.state == State.IDLE)
        good_peer.send("still here")
        assert good_peer.recv() == "still here"
        bad.disconnect()


def test_reads_that_many_ask_for_are_posted_once() -> None:
    """Each put of the peer posted one, and each that was run another: one connection was read more often in each round."""
    inside, leave = threading.Event(), threading.Event()
    with Pool(readers=1, ping_interval=None) as pool:
        dialer = ScriptedDialer([OPEN])
        pool.add_connection(dialer, on_data=lambda *_: None).wait_open(PATIENCE)
        blocking = pool.add_connection(
            ScriptedDialer([lambda peer: peer.send("go"), HANG]),
            on_data=lambda *_: (inside.set(), leave.wait(PATIENCE)),
        )
        blocking.connect()
        assert inside.wait(PATIENCE)
        peer = dialer.next_peer()
        for _ in range(50):
            peer.send("x")
        (reader,) = pool._readers._readers  # type: ignore[union-attr]  # noqa: SLF001
        assert len(reader._jobs) <= 4  # noqa: SLF001
        leave.set()
