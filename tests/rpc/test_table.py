"""The calls under way of one peer."""

from collections.abc import Callable

import pytest

from connman.clock import Timer
from connman.errors import CallTimeout
from connman.rpc.calls import FutureCall
from connman.rpc.table import Table, timed_out
from connman.testing import FakeClock


class Stingy(FakeClock):
    """Grants no timer at first."""

    has_timers = False

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        if not self.has_timers:
            raise RuntimeError("no thread")
        return super().call_later(delay, callback)


class Stage:
    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.apart: list[Callable[[], None]] = []
        self.has_threads = True
        self.table = Table(self.clock, self._settle_apart)

    def _settle_apart(self, job: Callable[[], None]) -> bool:
        if self.has_threads:
            self.apart.append(job)
        return self.has_threads

    def call(
        self, timeout: float | None = None, *, call_id: str | None = None, sent: bool = True
    ) -> FutureCall:
        call = FutureCall(self.table, 1, "text", lambda: False)
        call.deadline = None if timeout is None else self.clock.now() + timeout
        call.call_id = call_id
        with self.table.lock:
            if sent:
                self.table.number_locked(call)
            else:
                self.table.waiting[call] = None
        self.table.watch(call)
        return call

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        while self.apart:
            self.apart.pop(0)()


def test_ids_count_up() -> None:
    stage = Stage()
    assert [stage.call().id for _ in range(3)] == [0, 1, 2]
    assert stage.table.counters.sent == 3


def test_an_answer_finds_its_call_once() -> None:
    stage = Stage()
    calls = [stage.call() for _ in range(3)]
    assert stage.table.answered(1) is calls[1]
    assert stage.table.answered(1) is None
    assert stage.table.answered(2.0) is calls[2]  # JavaScript knows one kind of number
    assert (stage.table.counters.late, stage.table.counters.unknown) == (1, 0)
    assert not stage.table.take(calls[1])


@pytest.mark.parametrize("number", [True, False, "0", None, [], {}, 3, -1, 0.5, 1e300])
def test_what_is_no_id_of_ours(number: object) -> None:
    stage = Stage()
    stage.call()
    stage.call()
    assert stage.table.answered(number) is None
    assert stage.table.find(number) is None
    assert stage.table.in_flight == 2


def test_deadlines_with_one_timer() -> None:
    stage = Stage()
    calls = [stage.call(seconds) for seconds in (30, 10, 20, 10)]
    assert stage.clock.pending == 1
    stage.advance(9.9)
    assert not any(call.future.done() for call in calls)
    stage.advance(0.1)
    assert [call.future.done() for call in calls] == [False, True, False, True]
    assert isinstance(calls[1].future.exception(0), CallTimeout)
    stage.advance(10)
    assert calls[2].future.done()
    stage.advance(10)
    assert calls[0].future.done()
    assert stage.clock.pending == stage.table.in_flight == 0


def test_the_timer_is_for_those_that_are_left() -> None:
    stage = Stage()
    stage.table.take(stage.call(5))
    later = stage.call(50)
    stage.advance(5)
    assert stage.clock.pending == 1
    stage.advance(45)
    assert later.future.done()


def test_many_deadlines_are_looked_for_together() -> None:
    """A thousand deadlines within a moment do not cost a thousand looks at a thousand calls."""
    stage = Stage()
    calls = [stage.call(1 + number / 100_000) for number in range(1000)]
    looks = 0
    while not all(call.future.done() for call in calls):
        stage.advance(0.01 if looks else 1.0)
        looks += 1
        assert looks < 10


def test_a_deadline_for_which_no_thread_is_granted_is_looked_at_again() -> None:
    stage = Stage()
    stage.has_threads = False
    call, later = stage.call(5), stage.call(50)
    stage.advance(5)
    stage.advance(1)
    assert not call.future.done()
    stage.has_threads = True
    stage.advance(1)
    assert call.future.done()
    stage.advance(43)
    assert later.future.done()
    assert stage.clock.pending == 0


def test_a_deadline_for_which_no_timer_is_granted_harms_no_later_one() -> None:
    clock = Stingy()
    stage = Stage(clock)
    call = stage.call(5)
    clock.has_timers = True
    later = stage.call(50)
    stage.advance(50)
    assert call.future.done()
    assert later.future.done()


def test_one_thread_at_a_time_is_asked_for() -> None:
    stage = Stage()
    calls = [stage.call(seconds) for seconds in range(1, 20)]
    stage.clock.advance(30)
    assert len(stage.apart) == 1
    stage.advance(0)
    assert all(call.future.done() for call in calls)


def test_a_deadline_of_its_own_at_each_end() -> None:
    stage = Stage()
    assert "not sent" in str(timed_out(stage.call(sent=False)))
    assert "unknown" in str(timed_out(stage.call()))


def test_the_end_of_a_path() -> None:
    stage = Stage()
    sent, unsent, durable = stage.call(), stage.call(), stage.call(call_id="x")
    waiting = stage.call(sent=False)
    with stage.table.lock:
        failed = stage.table.path_broke_locked({1, 2}, for_good=False)
    assert failed == [sent, unsent, waiting]
    assert [call.has_left for call in failed] == [True, False, False]
    assert list(stage.table.waiting) == [durable]
    assert stage.table.counters.sent == 1  # what nobody has seen is given again
    with stage.table.lock:
        stage.table.waiting.clear()
        assert stage.table.number_locked(durable) == 1
        assert stage.table.path_broke_locked((), for_good=True) == [durable]
    assert durable.has_left
    assert stage.table.in_flight == 0


def test_ids_below_one_that_left_are_not_given_again() -> None:
    stage = Stage()
    for _ in range(3):
        stage.call()
    with stage.table.lock:
        stage.table.path_broke_locked({0, 1}, for_good=True)
    assert stage.table.counters.sent == 3


def test_stopping() -> None:
    stage = Stage()
    stage.call(5)
    stage.table.stop()
    assert stage.clock.pending == 0
    stage.table.stop()
