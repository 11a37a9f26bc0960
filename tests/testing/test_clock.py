"""FakeClock: time moves when the test says so, in order, and no wake-up is lost."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from connman.clock import Deadline
from connman.testing import FakeClock
from tests.waiting import eventually


class Waiting:
    """A thread that waits on a condition until a deadline or until it is told to stop."""

    def __init__(self, clock: FakeClock, timeout: float | None) -> None:
        self.clock = clock
        self.condition = threading.Condition()
        self.deadline = Deadline.after(clock, timeout)
        self.is_told = False
        self.result: bool | None = None
        self.woken_at: float | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with self.condition:
            self.result = self.deadline.wait_for(self.condition, lambda: self.is_told)
        self.woken_at = self.clock.now()

    def tell(self) -> None:
        with self.condition:
            self.is_told = True
            self.condition.notify_all()

    def join(self) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive(), "a wake-up was lost"


@contextmanager
def waiting(clock: FakeClock, *timeouts: float | None) -> Iterator[list[Waiting]]:
    threads = [Waiting(clock, timeout) for timeout in timeouts]
    try:
        yield threads
    finally:
        for thread in threads:
            thread.tell()
        for thread in threads:
            thread.join()


@contextmanager
def running(target: Callable[[], None], count: int = 1) -> Iterator[list[threading.Thread]]:
    threads = [threading.Thread(target=target) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.join(10)


def notify(condition: threading.Condition) -> None:
    with condition:
        condition.notify_all()


def test_time_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(100)
    assert clock.now() == clock.now() == 100.0
    clock.advance(2.5)
    assert clock.now() == 102.5


def test_time_does_not_go_back() -> None:
    clock = FakeClock()
    with pytest.raises(ValueError):
        clock.advance(-1)
    clock.advance(1)  # and a refused advance is over


def test_timers_run_in_order_at_their_own_time_in_the_advancing_thread() -> None:
    clock = FakeClock()
    rang: list[tuple[str, float, threading.Thread]] = []

    def ring(name: str) -> None:
        rang.append((name, clock.now(), threading.current_thread()))

    for name, delay in (("c", 3), ("a", 1), ("b", 2), ("a2", 1)):
        clock.call_later(delay, partial(ring, name))
    assert clock.pending == 4
    clock.advance(2)
    here = threading.current_thread()
    assert rang == [("a", 1.0, here), ("a2", 1.0, here), ("b", 2.0, here)]
    assert clock.pending == 1
    assert clock.now() == 2.0


def test_a_timer_may_set_timers_that_are_due_in_the_same_advance() -> None:
    clock = FakeClock()
    rang: list[float] = []

    def ring() -> None:
        rang.append(clock.now())
        clock.call_later(1, ring)

    clock.call_later(1, ring)
    clock.advance(3.5)
    assert rang == [1.0, 2.0, 3.0]
    assert clock.pending == 1


def test_a_timer_without_delay_runs_in_the_next_advance() -> None:
    clock = FakeClock()
    rang: list[int] = []
    clock.call_later(0, lambda: rang.append(1))
    clock.call_later(-5, lambda: rang.append(2))
    assert not rang
    clock.advance(0)
    assert sorted(rang) == [1, 2]
    assert clock.now() == 0.0


def test_a_cancelled_timer_does_not_run() -> None:
    clock = FakeClock()
    rang: list[str] = []
    timer = clock.call_later(2, lambda: rang.append("cancelled"))
    clock.call_later(1, timer.cancel)
    clock.call_later(3, lambda: rang.append("kept"))
    clock.advance(5)
    timer.cancel()
    assert rang == ["kept"]
    assert clock.pending == 0


def test_an_exception_of_a_timer_comes_out_and_time_stands_there() -> None:
    clock = FakeClock()
    rang: list[str] = []
    clock.call_later(1, lambda: 1 // 0)  # type: ignore[arg-type]
    clock.call_later(2, lambda: rang.append("later"))
    with pytest.raises(ZeroDivisionError):
        clock.advance(5)
    assert clock.now() == 1.0
    clock.advance(1)
    assert rang == ["later"]


def test_an_advance_inside_an_advance_is_refused() -> None:
    clock = FakeClock()
    clock.call_later(1, lambda: clock.advance(1))
    with pytest.raises(RuntimeError):
        clock.advance(2)


def test_timers_run_without_any_lock() -> None:
    clock = FakeClock()
    seen: list[float] = []

    def ask_from_another_thread() -> None:
        with running(lambda: seen.append(clock.now() + clock.pending + len(clock.delays))):
            pass

    clock.call_later(1, ask_from_another_thread)
    clock.advance(1)
    assert seen == [1.0]


def test_a_wait_ends_when_its_time_has_come_and_not_before() -> None:
    clock = FakeClock()
    with waiting(clock, 5) as [thread]:
        clock.wait_until_waiting()
        clock.advance(4.999)
        assert clock.waiting == 1
        clock.advance(0.001)
        thread.join()
        assert thread.result is False
        assert thread.woken_at == 5.0


def test_a_notified_wait_ends_at_once() -> None:
    clock = FakeClock()
    with waiting(clock, 5) as [thread]:
        clock.wait_until_waiting()
        thread.tell()
        thread.join()
        assert thread.result is True
        assert clock.now() == 0.0
    assert clock.waiting == 0


def test_a_wait_without_timeout_ends_only_when_notified() -> None:
    clock = FakeClock()
    with waiting(clock, None) as [thread]:
        clock.advance(1e9)
        assert thread.result is None
        thread.tell()
        thread.join()
        assert thread.result is True
    assert clock.delays == []


def test_a_wait_of_nothing_returns_at_once() -> None:
    clock = FakeClock()
    condition = threading.Condition()
    with condition:
        clock.wait(condition, 0)
        clock.wait(condition, -1)
    assert clock.delays == [0, -1]


def test_delays_tell_what_was_asked_for_in_order() -> None:
    clock = FakeClock()

    def back_off() -> None:
        for delay in (0.5, 1.0, 2.0):
            condition = threading.Condition()
            deadline = Deadline.after(clock, delay)
            with condition:
                deadline.wait_for(condition, lambda: False)

    with running(back_off):
        for asked, delay in enumerate((0.5, 1.0, 2.0), start=1):
            clock.wait_until_waiting(delays=asked)
            clock.advance(delay)
    assert clock.delays == [0.5, 1.0, 2.0]


def test_many_waits_end_each_at_its_own_time() -> None:
    clock = FakeClock()
    with waiting(clock, 3, 1, 2) as threads:
        clock.wait_until_waiting(3)
        for when, index in ((1, 1), (2, 2), (3, 0)):
            clock.advance(1)
            threads[index].join()
            assert threads[index].woken_at == when
            assert clock.waiting == 3 - when


def test_waiters_and_timers_share_one_order() -> None:
    clock = FakeClock()
    with waiting(clock, 2) as [thread]:
        clock.wait_until_waiting()
        # The timer rings first and tells the thread that it need not wait on.
        clock.call_later(1, thread.tell)
        clock.advance(10)
        thread.join()
        assert thread.result is True


def test_wait_until_waiting_fails_after_its_bound() -> None:
    clock = FakeClock()
    with pytest.raises(AssertionError, match="0 threads wait"):
        clock.wait_until_waiting(timeout=0.01)


def test_wait_until_waiting_waits_for_the_waits_begun() -> None:
    clock = FakeClock()
    with waiting(clock, 1, 2) as threads:
        clock.wait_until_waiting(2, delays=2)
        threads[0].tell()
        with pytest.raises(AssertionError, match="2 delays"):
            clock.wait_until_waiting(delays=3, timeout=0.01)


def test_time_that_passes_between_reading_and_waiting_is_not_lost() -> None:
    """Without it: remaining() says 5, advance() moves 10, and the wait would begin anew with 5 more."""
    clock = FakeClock()
    condition = threading.Condition()
    deadline = Deadline.after(clock, 5)
    has_read, may_wait = threading.Event(), threading.Event()

    def read_then_wait() -> None:
        remaining = deadline.remaining()
        has_read.set()
        may_wait.wait(10)
        with condition:
            clock.wait(condition, remaining)

    with running(read_then_wait) as [thread]:
        assert has_read.wait(10)
        clock.advance(10)
        may_wait.set()
        thread.join(10)
        assert not thread.is_alive()


def test_a_stale_reading_costs_one_early_return_at_most() -> None:
    clock = FakeClock()
    condition = threading.Condition()
    clock.now()
    clock.advance(100)
    with condition:
        clock.wait(condition, 5)  # this thread has read 0 last: early, which a caller's loop mends
    assert clock.now() == 100.0
    with condition, running(lambda: notify(condition)):
        clock.wait(condition, 5)  # it knows the time now, and waits
    assert clock.delays == [5, 5]
    assert clock.now() == 100.0


def test_a_thread_on_its_way_into_its_wait_is_woken_as_well() -> None:
    """It has told the clock, and still holds its condition: time that moves just then has to wait for it."""

    class Slow(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            is_on_its_way.set()
            go_on.wait(10)
            return super().wait(timeout)

    is_on_its_way, go_on = threading.Event(), threading.Event()
    clock, condition = FakeClock(), Slow()

    def wait() -> None:
        with condition:
            clock.wait(condition, 5)

    with running(wait) as [waiter]:
        assert is_on_its_way.wait(10)
        with running(lambda: clock.advance(5)):
            eventually(lambda: clock.waiting == 0)
            go_on.set()
        waiter.join(10)
        assert not waiter.is_alive()


@pytest.mark.parametrize("is_waiting_first", [True, False])
def test_rounding_neither_hangs_nor_spins(is_waiting_first: bool) -> None:
    clock = FakeClock()
    assert 0.1 + 0.2 > 0.3
    deadline = Deadline.after(clock, 0.1 + 0.2)
    condition = threading.Condition()

    def wait() -> None:
        with condition:
            deadline.wait_for(condition, lambda: False)

    if not is_waiting_first:
        clock.advance(0.3)
    with running(wait) as [thread]:
        if is_waiting_first:
            clock.wait_until_waiting()
            clock.advance(0.3)
        thread.join(10)
        assert not thread.is_alive()
    assert clock.now() == pytest.approx(0.3)
    assert len(clock.delays) == 1


def test_no_wake_up_is_lost_in_any_race(seed: int) -> None:
    """Threads wait, are woken early and wait on, while time moves: after 1 s of clock all have ended."""
    chance = random.Random(seed)
    for _ in range(30):
        clock = FakeClock()
        shared = threading.Condition()
        late: list[str] = []

        def wait_out(
            seconds: float, condition: threading.Condition, clock: FakeClock, late: list[str]
        ) -> None:
            deadline = Deadline(clock, seconds)
            with condition:
                deadline.wait_for(condition, lambda: False)
            if clock.now() < seconds:
                late.append(f"woke at {clock.now()}, not {seconds}")

        plan = [
            (chance.random(), shared if chance.random() < 0.5 else threading.Condition()) for _ in range(12)
        ]
        threads = [
            threading.Thread(target=wait_out, args=(seconds, condition, clock, late))
            for seconds, condition in plan
        ]
        for thread in threads:
            thread.start()
            if chance.random() < 0.3:
                clock.advance(chance.random() * 0.05)
        for step in [chance.random() * 0.02 for _ in range(40)]:
            clock.advance(step)
            with shared:
                shared.notify_all()
        clock.advance(max(0.0, 1 - clock.now()))
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive(), "a wake-up was lost"
        assert not late
        assert clock.waiting == 0


def test_setting_and_cancelling_timers_while_time_moves(seed: int) -> None:
    clock = FakeClock()
    lock = threading.Lock()
    rang: list[int] = []
    is_over = threading.Event()

    def set_and_cancel(number: int) -> None:
        chance = random.Random(seed + number)
        for _ in range(200):
            timer = clock.call_later(chance.random(), lambda: append(1))
            if chance.random() < 0.5:
                timer.cancel()
        append(0)

    def append(value: int) -> None:
        with lock:
            rang.append(value)

    threads = [threading.Thread(target=set_and_cancel, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while not is_over.wait(0) and any(thread.is_alive() for thread in threads):
        clock.advance(0.05)
    for thread in threads:
        thread.join()
    clock.advance(1)
    assert clock.pending == 0
    assert rang.count(0) == 4
    eventually(lambda: clock.waiting == 0)
