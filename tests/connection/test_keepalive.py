"""Pings on a fake clock: when they go out, what counts as life, and what does not make a peer dead."""

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connman import Connection
from connman.clock import Timer
from connman.connection.keepalive import Keepalive
from connman.errors import ConnmanError, PingTimeout
from connman.testing import FakeClock
from connman.transport.progress import Progress
from connman.transport.traffic import Traffic
from tests.connection.rig import DEAF, OPEN, PATIENCE, Rig, reader_kind
from tests.waiting import eventually

INTERVAL, TIMEOUT = 20.0, 10.0


class Line:
    """What a keepalive sees of a transport, moved by hand."""

    name = "line"
    can_ping = True

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.life = clock.now()
        self.reading = True
        self.progress = Progress()
        self.answers = False
        self.pings: list[float] = []
        self.error: ConnmanError | None = None
        self.lost_at: float | None = None
        # What the system tells of it: bytes in both directions, and when each last moved.
        self.received = self.acknowledged = self.sent = 0
        self.heard_at = self.taken_at = clock.now()
        self.is_told = False
        self.unread = False

    def traffic(self) -> Traffic | None:
        if not self.is_told:
            return None
        now = self.clock.now()
        return Traffic(
            self.received,
            self.acknowledged,
            self.sent - self.acknowledged,
            now - self.heard_at,
            now - self.taken_at,
        )

    def arrive(self, size: int) -> None:
        self.received += size
        self.heard_at = self.clock.now()

    def take(self, size: int) -> None:
        self.acknowledged = min(self.sent, self.acknowledged + size)
        self.taken_at = self.clock.now()

    def is_readable(self) -> bool:
        return self.unread

    def ping(self) -> bool:
        self.pings.append(self.clock.now())
        if self.answers:
            self.life = self.clock.now()
        return True

    def abort(self, error: ConnmanError) -> None:
        self.error, self.lost_at = error, self.clock.now()


class SuspendedClock(FakeClock):
    """A clock that `suspend` moves without running a timer: what a stopped process sees when it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep = 0.0

    def now(self) -> float:
        return super().now() + self.asleep

    def suspend(self, seconds: float) -> None:
        self.asleep += seconds


def watched(line: Line) -> Keepalive:
    keepalive = Keepalive(line, line.clock, INTERVAL, TIMEOUT)  # type: ignore[arg-type]
    keepalive.start()
    return keepalive


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line(SuspendedClock())
    keepalive = watched(line)
    yield line
    keepalive.stop()
    assert line.clock.pending == 0


def test_a_ping_every_interval(line: Line) -> None:
    line.answers = True
    line.clock.advance(100)
    assert line.pings == [20, 40, 60, 80, 100]
    assert line.error is None


def test_silence_is_a_loss_after_interval_and_timeout(line: Line) -> None:
    line.clock.advance(29.9)
    assert line.pings == [20]
    assert line.error is None
    line.clock.advance(0.1)
    assert isinstance(line.error, PingTimeout)
    assert line.lost_at == 30
    assert "30.0 s" in str(line.error)


def test_it_is_lost_once(line: Line) -> None:
    line.clock.advance(30)
    line.error = None
    line.clock.advance(1000)
    assert line.error is None
    assert line.clock.pending == 0


@pytest.mark.parametrize("life_at", [5.0, 19.0, 20.5, 29.0])
def test_a_loss_is_noticed_within_interval_and_timeout_of_the_last_life(line: Line, life_at: float) -> None:
    line.clock.advance(life_at)
    line.life = life_at
    line.clock.advance(1000)
    assert line.lost_at is not None
    assert life_at + TIMEOUT <= line.lost_at <= life_at + INTERVAL + TIMEOUT
    # A ping went out in time for its answer.
    assert any(life_at <= ping <= line.lost_at - TIMEOUT for ping in line.pings)


def test_life_without_pongs_is_life(line: Line) -> None:
    for _ in range(20):
        line.clock.advance(15)
        line.life = line.clock.now()
    assert line.error is None


@pytest.mark.parametrize("timeout", [1.0, 20.0, 300.0])
def test_any_ratio_of_interval_and_timeout(timeout: float) -> None:
    line = Line(FakeClock())
    keepalive = Keepalive(line, line.clock, INTERVAL, timeout)  # type: ignore[arg-type]
    keepalive.start()
    line.clock.advance(INTERVAL + timeout - 0.01)
    assert line.error is None
    line.clock.advance(0.01)
    assert isinstance(line.error, PingTimeout)
    assert line.pings == [20.0 * n for n in range(1, int((INTERVAL + timeout - 0.01) // 20) + 1)]


def test_a_busy_reader_is_no_silence_of_the_peer(line: Line) -> None:
    line.clock.advance(10)
    line.reading = False
    line.clock.advance(90)  # three times as long as a silence may last
    assert line.error is None
    assert line.pings == [20, 40, 60, 80, 100]
    # As the pipe does it: the return to reading counts as life.
    line.life = line.clock.now()
    line.reading = True
    line.clock.advance(29.9)
    assert line.error is None
    line.clock.advance(0.1)
    assert isinstance(line.error, PingTimeout)


def test_after_a_suspension_the_peer_is_probed_before_it_is_judged() -> None:
    clock = SuspendedClock()
    line = Line(clock)
    watched(line)
    clock.advance(10)
    clock.suspend(3600)
    clock.advance(10)  # the tick that was due at 20 comes at 3620
    assert line.error is None
    assert line.pings == [3620]
    clock.advance(9.9)
    assert line.error is None
    clock.advance(0.1)
    assert line.lost_at == 3630


def test_a_suspension_between_a_ping_and_its_answer_gives_the_peer_its_time_anew(line: Line) -> None:
    """Planted: without the look for a tick that comes late it is lost as soon as this process goes on."""
    line.clock.advance(21)
    line.clock.suspend(3600)
    line.clock.advance(9)  # the tick that was due at 30 comes at 3630
    assert line.pings == [20, 3630]
    line.clock.advance(9.9)
    assert line.error is None
    line.clock.advance(0.1)
    assert line.lost_at == 3640


def test_a_peer_that_answers_after_a_suspension_lives_on() -> None:
    clock = SuspendedClock()
    line = Line(clock)
    keepalive = watched(line)
    line.answers = True
    clock.advance(10)
    clock.suspend(3600)
    clock.advance(100)
    assert line.error is None
    assert line.pings[:2] == [3620, 3640]
    keepalive.stop()


def test_a_short_timeout_makes_a_short_stop_a_suspension() -> None:
    """Planted: with a fixed threshold of 1 s this peer is lost at once, as if it had been given its time."""
    clock = SuspendedClock()
    line = Line(clock)
    keepalive = Keepalive(line, clock, 0.3, 0.3)  # type: ignore[arg-type]
    keepalive.start()
    clock.advance(0.2)
    clock.suspend(0.8)
    clock.advance(0.1)
    assert line.error is None
    assert line.pings == [pytest.approx(1.1)]
    clock.advance(0.31)
    assert line.lost_at == pytest.approx(1.4)


def test_a_peer_has_its_time_from_a_ping_that_was_a_little_late(line: Line) -> None:
    """Planted: judged by its last sign of life alone it is lost at 30, with 9.1 s to answer."""
    line.clock.advance(19.5)
    line.clock.suspend(0.9)
    line.clock.advance(0.5)
    assert line.pings == [20.9]
    line.clock.advance(9.9)
    assert line.error is None
    line.clock.advance(0.2)
    assert line.lost_at == pytest.approx(30.9, abs=0.02)


def test_what_lies_unread_at_the_end_of_the_time_is_read_first(line: Line) -> None:
    """Planted: without the look at the socket it is lost at 30."""
    line.clock.advance(29)
    line.unread = True
    line.clock.advance(1.1)
    assert line.error is None
    line.life, line.unread = line.clock.now(), False
    line.clock.advance(29)
    assert line.error is None


def test_what_stays_unread_is_not_waited_for_long(line: Line) -> None:
    line.unread = True
    line.clock.advance(40)
    assert line.lost_at == pytest.approx(30.2, abs=0.02)


def test_a_little_late_the_reader_gets_its_turn_first(line: Line) -> None:
    """Planted: after a short stop of the process the answer is in the reader's hands and nobody has told of it."""
    line.clock.advance(29)
    line.clock.suspend(0.5)
    line.clock.advance(1)
    assert line.error is None
    line.life = line.clock.now()
    line.clock.advance(29)
    assert line.error is None


# What the system tells


def test_a_record_that_arrives_slowly_is_life(line: Line) -> None:
    """Planted: without the look at the traffic it is lost at 30; over TLS nothing shows before a record is complete."""
    line.is_told = True
    for _ in range(80):
        line.clock.advance(1)
        line.arrive(200)
    assert line.error is None
    line.clock.advance(TIMEOUT - 0.1)
    assert line.error is None
    line.clock.advance(0.1)
    assert line.lost_at == 90


def test_a_drip_of_bytes_is_no_life(line: Line) -> None:
    line.is_told = True
    for _ in range(40):
        line.clock.advance(1)
        line.arrive(60)
    assert line.lost_at == 30


def test_what_is_taken_before_the_ping_is_life(line: Line) -> None:
    """Planted: without the look at the traffic it is lost at 30, in the middle of an upload."""
    line.is_told, line.sent = True, 20_000
    for _ in range(80):
        line.clock.advance(1)
        line.take(200)
    assert line.error is None
    line.clock.advance(30)
    assert line.lost_at == 90


def test_what_is_taken_behind_the_ping_is_no_life(line: Line) -> None:
    """Planted: were it, a frozen peer would live as long as its system has room for what is sent to it."""
    line.is_told, line.sent = True, 1000
    for _ in range(40):
        line.clock.advance(1)
        line.sent += 5000
        line.take(5000)
    assert line.lost_at == 30


def test_after_an_answer_the_next_ping_counts(line: Line) -> None:
    line.is_told, line.sent = True, 1000
    line.clock.advance(21)
    line.take(1000)
    line.life = line.clock.now()
    line.clock.advance(4)
    line.sent += 20_000
    for _ in range(75):
        line.clock.advance(1)
        line.take(200)
    assert line.error is None
    line.clock.advance(30)
    assert line.lost_at is not None
    assert 100 < line.lost_at <= 110


def test_stop_ends_it(line: Line) -> None:
    keepalive = watched(line)
    keepalive.stop()
    keepalive.stop()
    assert line.clock.pending == 1  # the fixture's own


def test_stop_during_a_tick_schedules_no_other() -> None:
    clock = FakeClock()
    line = Line(clock)
    keepalive = watched(line)
    line.ping = lambda: keepalive.stop() or True  # type: ignore[method-assign,func-returns-value]
    clock.advance(20)
    assert clock.pending == 0


# Through a connection


def lives(rig: Rig) -> bool:
    return rig.conn.is_open and not rig.told.resets


def open_and_read(rig: Rig) -> None:
    """Open it, and wait until it is read: that the reader comes to it counts as a sign of life."""
    rig.open()
    if reader_kind.get() == "thread":
        eventually(lambda: (transport := rig.conn._life.transport) is not None and transport.reading)  # noqa: SLF001
    else:
        (reader,) = rig.conn._readers._readers  # type: ignore[union-attr]  # noqa: SLF001
        eventually(lambda: reader._is_asleep and not reader._jobs)  # noqa: SLF001


def test_a_connection_pings_and_a_peer_that_answers_stays() -> None:
    with Rig([OPEN], ping_interval=INTERVAL, ping_timeout=TIMEOUT) as rig:
        peer = rig.open()
        for number in range(2, 20):
            rig.clock.advance(INTERVAL)
            # The reader works on a thread of its own: it must have come so far before time goes on.
            peer.send("tick")
            rig.told.wait(number)
        assert lives(rig)
        eventually(lambda: rig.conn.stats.ping_rtt == 0.0)


def test_a_deaf_peer_is_lost_after_interval_and_timeout() -> None:
    with Rig([DEAF, OPEN], ping_interval=INTERVAL, ping_timeout=TIMEOUT) as rig:
        open_and_read(rig)
        rig.clock.advance(29.9)
        assert lives(rig)
        rig.clock.advance(0.1)
        reset = rig.told.wait(2).resets[0]
        assert isinstance(reset.error, PingTimeout)
        assert reset.opened
        assert reset.retry_in is not None
        assert rig.conn.stats.losses == 1


def test_pings_end_with_the_connection() -> None:
    with Rig([OPEN, OPEN], ping_interval=INTERVAL, ping_timeout=TIMEOUT) as rig:
        rig.open().drop()
        delay = rig.wait_delay(1)
        assert rig.clock.pending == (reader_kind.get() == "shared")  # which waits by a timer
        rig.clock.advance(delay)
        rig.open()
        eventually(lambda: rig.clock.pending == 1)
        rig.conn.disconnect()
        assert rig.clock.pending == 0


def test_a_blocked_callback_is_no_silence_of_the_peer() -> None:
    gate, inside = threading.Event(), threading.Event()

    def block(_: Connection, __: Any) -> None:
        inside.set()
        gate.wait(PATIENCE)

    with Rig([OPEN], ping_interval=INTERVAL, ping_timeout=TIMEOUT) as rig:
        rig.told.hooks["data"] = block
        peer = rig.open()
        peer.send("block")
        assert inside.wait(PATIENCE)
        rig.clock.advance(3 * (INTERVAL + TIMEOUT))
        gate.set()
        rig.told.hooks.clear()
        peer.send("still there")
        assert rig.told.wait(3).kinds == ["open", "block", "still there"]
        assert lives(rig)


def test_a_full_inbox_is_no_silence_of_the_peer() -> None:
    with Rig([OPEN], ping_interval=INTERVAL, ping_timeout=TIMEOUT, on_data=None, max_message_size=10) as rig:
        peer = rig.open()
        for number in range(4):
            peer.send(f"message {number}")
        eventually(lambda: rig.conn.stats.messages_in >= 2)
        rig.clock.advance(3 * (INTERVAL + TIMEOUT))
        assert [rig.conn.recv(PATIENCE) for _ in range(4)] == [f"message {number}" for number in range(4)]
        assert lives(rig)


def test_no_interval_no_pings() -> None:
    with Rig([DEAF], ping_interval=None) as rig:
        rig.open()
        assert rig.clock.pending == 0
        rig.clock.advance(1e6)
        assert lives(rig)
        rig.conn.disconnect(timeout=0)


@pytest.mark.parametrize(("seen", "ticks"), [(-math.inf, 60), (0.0, 400)])
def test_one_that_is_overdue_and_not_seen_is_not_looked_after_without_a_pause(
    seen: float, ticks: int
) -> None:
    class Counting(FakeClock):
        count = 0

        def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
            self.count += 1
            return super().call_later(delay, callback)

    clock = Counting()
    line = Line(clock)
    keepalive = Keepalive(line, clock, 0.1, 0.001, seen_until=lambda: seen)  # type: ignore[arg-type]
    keepalive.start()
    clock.advance(3.0)
    keepalive.stop()
    assert line.error is None
    assert clock.count <= ticks
