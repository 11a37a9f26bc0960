"""Notice that a server says nothing any more."""

import threading
from collections.abc import Iterator

import pytest

from connman.errors import ConnmanError, PingTimeout, SendTimeout
from connman.integrations.pusher.activity import Activity
from connman.testing import FakeClock
from connman.transport.base import Transport
from connman.transport.memory import memory_pair
from tests.loopback import PATIENCE, in_thread
from tests.waiting import eventually


class Bench:
    """One end of a transport in memory, which a reader reads, and an `Activity` that asks after 30 s, and waits 10."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        near, self.far = memory_pair(self.clock, 1 << 20)
        self.near: Transport = near
        self.pings = 0
        self.ping_error: ConnmanError | None = None
        self.activity = Activity(near, self.clock, self._ping, quiet=30.0, patience=10.0)
        self.reader = in_thread(self._read)
        eventually(lambda: near.reading)
        self.activity.start()

    def _ping(self) -> None:
        self.pings += 1
        if self.ping_error is not None:
            raise self.ping_error

    def _read(self) -> ConnmanError:
        try:
            while True:
                for _ in self.near.receive():
                    self.activity.heard()
        except ConnmanError as error:
            self.activity.stop()
            return error

    def say(self) -> None:
        heard = self.activity.frames
        self.far.send(["x"], PATIENCE)
        eventually(lambda: self.activity.frames > heard)

    def advance_to_ping(self, seconds: float, count: int) -> None:
        """Let time pass, and wait until the ping that is due then is out and its answer is waited for."""
        self.clock.advance(seconds)
        eventually(lambda: self.pings == count and self.clock.pending == 1)


@pytest.fixture(name="bench")
def fixture_bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.activity.stop()
    bench.near.abort(PingTimeout("the test is over"))
    bench.reader.result(PATIENCE)
    bench.near.dispose()
    bench.far.dispose()


def test_a_silent_server_is_asked_and_left(bench: Bench) -> None:
    bench.clock.advance(29.9)
    assert bench.pings == 0
    bench.advance_to_ping(0.1, 1)
    bench.clock.advance(9.9)
    assert bench.near.error is None
    bench.clock.advance(0.2)  # looked at twice
    assert isinstance(bench.reader.result(PATIENCE), PingTimeout)
    assert bench.clock.pending == 0


def test_traffic_puts_it_off_and_an_answer_ends_it(bench: Bench) -> None:
    bench.clock.advance(20)
    bench.say()
    bench.clock.advance(29)
    assert bench.pings == 0
    bench.advance_to_ping(1, 1)
    bench.say()
    bench.clock.advance(20)
    assert bench.near.error is None
    bench.advance_to_ping(10, 2)


def test_asked_at_once_when_told_to(bench: Bench) -> None:
    bench.activity.check()
    eventually(lambda: bench.pings == 1 and bench.clock.pending == 1)
    bench.activity.check()
    bench.activity.check()
    assert bench.pings == 1
    bench.clock.advance(10.2)
    assert isinstance(bench.reader.result(PATIENCE), PingTimeout)
    bench.activity.check()
    assert bench.pings == 1


def test_a_reader_that_is_kept_by_a_listener_is_no_silence(bench: Bench) -> None:
    bench.advance_to_ping(30, 1)
    stuck, go = threading.Event(), threading.Event()

    def keep() -> None:
        stuck.set()
        assert go.wait(PATIENCE)

    # The next frame keeps the reader, and the answer waits behind it.
    heard = bench.activity.heard
    bench.activity.heard = lambda: (keep(), heard())[1]  # type: ignore[method-assign]
    bench.far.send(["pong"], PATIENCE)
    assert stuck.wait(PATIENCE)
    bench.clock.advance(60)
    assert bench.near.error is None
    go.set()
    eventually(lambda: bench.activity.frames == 1)
    bench.clock.advance(0.2)
    assert bench.near.error is None


def test_after_the_process_was_stopped_it_is_asked_again(bench: Bench) -> None:
    bench.advance_to_ping(30, 1)
    # A timer that comes late: between two readings the clock jumps, which FakeClock does not, so the tick is called by hand.
    now = bench.clock.now()
    bench.clock.now = lambda: now + 100.0  # type: ignore[method-assign]
    bench.activity.tick()
    eventually(lambda: bench.pings == 2)
    assert bench.near.error is None


def test_a_ping_that_cannot_be_sent_yet_is_sent_later(bench: Bench) -> None:
    bench.ping_error = SendTimeout("others are sending")
    bench.clock.advance(30)
    eventually(lambda: bench.pings == 1 and bench.clock.pending == 1)
    bench.ping_error = None
    bench.advance_to_ping(0.1, 2)
    bench.clock.advance(9.9)
    assert bench.near.error is None


def test_nothing_after_the_end(bench: Bench) -> None:
    bench.activity.stop()
    bench.activity.stop()
    assert bench.clock.pending == 0
    bench.activity.check()
    bench.clock.advance(100)
    assert bench.pings == 0
