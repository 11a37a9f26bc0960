"""Deadlines, and the one timer thread of the process."""

import gc
import logging
import random
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from connman.clock import Deadline, Signal, SystemClock, TimerThread
from connman.testing import FakeClock
from connman.threads import is_own
from tests.loopback import in_thread
from tests.waiting import eventually

PATIENCE = 10.0
NEVER = 1000.0


def timer_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "connman-timers"]


@pytest.fixture
def timers() -> Iterator[TimerThread]:
    yield TimerThread()
    eventually(lambda: not timer_threads())


# Deadlines


def test_a_deadline_passes_with_its_clock() -> None:
    clock = FakeClock(100.0)
    deadline = Deadline.after(clock, 5)
    assert (deadline.at, deadline.remaining(), deadline.expired) == (105.0, 5.0, False)
    clock.advance(4)
    assert (deadline.remaining(), deadline.expired) == (1.0, False)
    clock.advance(1)
    assert (deadline.remaining(), deadline.expired) == (0.0, True)
    clock.advance(1)
    assert (deadline.remaining(), deadline.expired) == (0.0, True)


def test_no_deadline_never_passes() -> None:
    clock = FakeClock()
    deadline = Deadline.after(clock, None)
    clock.advance(1e9)
    assert (deadline.at, deadline.remaining(), deadline.expired) == (None, None, False)


@pytest.mark.parametrize(
    ("at", "seconds", "sooner"),
    [(5, 3, 3), (3, 5, 3), (3, -1, -1), (3, None, 3), (None, 3, 3), (None, None, None)],
)
def test_the_sooner_of_two(at: float | None, seconds: float | None, sooner: float | None) -> None:
    clock = FakeClock(100.0)
    found = Deadline.after(clock, at).sooner(seconds).at
    assert found == (None if sooner is None else 100.0 + sooner)


def test_a_wait_that_is_fulfilled_needs_no_time() -> None:
    condition = threading.Condition()
    with condition:
        assert Deadline.after(FakeClock(), 0).wait_for(condition, lambda: True)
        assert not Deadline.after(FakeClock(), 0).wait_for(condition, lambda: False)
        assert not Deadline.after(FakeClock(), -1).wait_for(condition, lambda: False)


def test_a_wait_ends_when_its_predicate_comes_true() -> None:
    condition, answers, is_true = threading.Condition(), [], threading.Event()

    def wait() -> None:
        with condition:
            answers.append(Deadline.after(SystemClock(), PATIENCE).wait_for(condition, is_true.is_set))

    thread = threading.Thread(target=wait)
    thread.start()
    with condition:
        condition.notify_all()  # a wake-up for nothing does not end it
    is_true.set()
    with condition:
        condition.notify_all()
    thread.join(PATIENCE)
    assert answers == [True]


def test_a_wait_ends_when_time_runs_out() -> None:
    clock, condition, answers = FakeClock(), threading.Condition(), []

    def wait() -> None:
        with condition:
            answers.append(Deadline.after(clock, 5).wait_for(condition, lambda: False))

    thread = threading.Thread(target=wait)
    thread.start()
    clock.wait_until_waiting()
    clock.advance(5)
    thread.join(PATIENCE)
    assert answers == [False]


def test_a_wait_longer_than_the_system_can_count_is_a_wait() -> None:
    condition, is_true = threading.Condition(), threading.Event()
    ticker = threading.Timer(0.01, lambda: (is_true.set(), wake()))

    def wake() -> None:
        with condition:
            condition.notify_all()

    ticker.start()
    with condition:
        assert Deadline.after(SystemClock(), 1e300).wait_for(condition, is_true.is_set)
    ticker.join(PATIENCE)


# Timers


def test_timers_run_in_order_of_time_on_one_thread_that_ends(timers: TimerThread) -> None:
    ran: list[str] = []
    threads = set()
    done = threading.Event()
    gate = threading.Event()
    begin = time.monotonic()
    timers.call_at(begin, lambda: gate.wait(PATIENCE))
    for name, when in (("third", 0.03), ("first", 0.01), ("second", 0.02), ("also third", 0.03)):
        timers.call_at(begin + when, lambda name=name: (ran.append(name), threads.add(threading.get_ident())))
    timers.call_at(begin + 0.04, done.set)
    assert len(timer_threads()) == 1
    gate.set()
    assert done.wait(PATIENCE)
    assert ran == ["first", "second", "third", "also third"]
    assert len(threads) == 1
    eventually(lambda: not timer_threads())


def test_an_earlier_timer_overtakes_the_one_that_is_waited_for(timers: TimerThread) -> None:
    ran = threading.Event()
    late = timers.call_at(time.monotonic() + NEVER, ran.set)
    (thread,) = timer_threads()
    eventually(lambda: sys._current_frames()[thread.ident or 0].f_code.co_name == "wait")
    timers.call_at(time.monotonic() + 0.01, ran.set)
    assert ran.wait(PATIENCE)
    late.cancel()


def test_the_thread_is_connmans_and_a_daemon(timers: TimerThread) -> None:
    found: list[tuple[bool, bool]] = []
    timers.call_at(0.0, lambda: found.append((is_own(), threading.current_thread().daemon)))
    assert eventually(lambda: found) == [(True, True)]


def test_a_cancelled_timer_does_not_run_and_its_thread_ends(timers: TimerThread) -> None:
    ran: list[str] = []
    timer = timers.call_at(time.monotonic() + NEVER, lambda: ran.append("never"))
    assert len(timer_threads()) == 1
    timer.cancel()
    timer.cancel()
    eventually(lambda: not timer_threads())
    assert ran == []


def test_cancelling_one_leaves_the_others(timers: TimerThread) -> None:
    ran = threading.Event()
    first = timers.call_at(time.monotonic() + 0.01, lambda: None)
    timers.call_at(time.monotonic() + 0.02, ran.set)
    first.cancel()
    assert ran.wait(PATIENCE)
    first.cancel()  # after everything is over: nothing


def test_the_thread_starts_again_when_it_is_needed_again(timers: TimerThread) -> None:
    for _ in range(20):
        ran = threading.Event()
        timers.call_at(0.0, ran.set)
        assert ran.wait(PATIENCE)


def test_a_timer_may_schedule_the_next(timers: TimerThread) -> None:
    ran = threading.Event()
    left = [100]

    def again() -> None:
        left[0] -= 1
        timers.call_at(0.0, again if left[0] else ran.set)

    timers.call_at(0.0, again)
    assert ran.wait(PATIENCE)


def test_a_timer_may_cancel_itself_and_others(timers: TimerThread) -> None:
    ran: list[str] = []
    gate = threading.Event()
    timers.call_at(0.0, lambda: gate.wait(PATIENCE))
    first = timers.call_at(1.0, lambda: (first.cancel(), second.cancel(), ran.append("first")))
    second = timers.call_at(2.0, lambda: ran.append("second"))
    timers.call_at(3.0, lambda: ran.append("third"))
    gate.set()
    eventually(lambda: "third" in ran)
    assert ran == ["first", "third"]


def test_a_timer_that_fails_is_logged_and_harms_no_other(
    timers: TimerThread, caplog: pytest.LogCaptureFixture
) -> None:
    ran = threading.Event()
    gate = threading.Event()
    timers.call_at(0.0, lambda: gate.wait(PATIENCE))
    timers.call_at(1.0, lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    timers.call_at(2.0, ran.set)
    with caplog.at_level(logging.ERROR, "connman.clock"):
        gate.set()
        assert ran.wait(PATIENCE)
    assert "ZeroDivisionError" in caplog.text


def test_a_timer_that_has_run_holds_nothing_while_the_next_one_is_waited_for(timers: TimerThread) -> None:
    # What a closed connection had scheduled last kept it alive until another timer ran.
    thing, ran = threading.Event(), threading.Event()
    ghost = weakref.ref(thing)
    late = timers.call_at(time.monotonic() + NEVER, lambda: None)
    timers.call_at(0.0, lambda thing=thing: (thing.is_set(), ran.set()))
    assert ran.wait(PATIENCE)
    del thing
    eventually(lambda: gc.collect() is not None and ghost() is None)
    late.cancel()


def test_a_timer_that_is_centuries_away_harms_no_other(timers: TimerThread) -> None:
    # More than the system can wait for raised in the timer thread, and no timer of the process ran any more.
    far = timers.call_at(time.monotonic() + 1e300, lambda: None)
    ran = threading.Event()
    timers.call_at(time.monotonic() + 0.01, ran.set)
    assert ran.wait(PATIENCE)
    assert len(timer_threads()) == 1
    far.cancel()


def test_many_cancelled_timers_are_forgotten(timers: TimerThread) -> None:
    things = [threading.Event() for _ in range(1000)]
    ghosts = [weakref.ref(thing) for thing in things]
    late = timers.call_at(time.monotonic() + NEVER, lambda: None)
    for thing in things:
        timers.call_at(time.monotonic() + NEVER, thing.set).cancel()
    del things, thing
    gc.collect()
    assert not any(ghost() for ghost in ghosts)
    late.cancel()


def test_stress_threads_schedule_and_cancel(timers: TimerThread, seed: int) -> None:
    """Every timer runs once unless it was cancelled before it was due; none is lost, in whatever order threads come."""
    lock = threading.Lock()
    ran: dict[tuple[int, int], int] = {}
    expected: set[tuple[int, int]] = set()
    cancelled: set[tuple[int, int]] = set()
    barrier = threading.Barrier(6)

    def note(key: tuple[int, int]) -> None:
        with lock:
            ran[key] = ran.get(key, 0) + 1

    def schedule(number: int) -> None:
        rng = random.Random(seed * 100 + number)
        barrier.wait(PATIENCE)
        for index in range(300):
            key = (number, index)
            if rng.random() < 0.3:
                timers.call_at(time.monotonic() + NEVER, lambda key=key: note(key)).cancel()
                with lock:
                    cancelled.add(key)
            else:
                timers.call_at(time.monotonic() + rng.random() * 0.02, lambda key=key: note(key))
                with lock:
                    expected.add(key)

    threads = [threading.Thread(target=schedule, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    eventually(lambda: len(ran) >= len(expected))
    assert set(ran) == expected
    assert set(ran.values()) == {1}
    assert not cancelled & set(ran)
    eventually(lambda: not timer_threads())


def test_the_system_clock_calls_later_on_the_shared_thread() -> None:
    clock = SystemClock()
    names: list[str] = []
    for _ in range(3):
        SystemClock().call_later(0.0, lambda: names.append(threading.current_thread().name))
    eventually(lambda: len(names) == 3)
    assert set(names) == {"connman-timers"}
    timer = clock.call_later(NEVER, lambda: None)
    eventually(lambda: len(timer_threads()) == 1)  # the one before may be ending
    timer.cancel()
    eventually(lambda: not timer_threads())


def test_the_system_clock_is_monotonic() -> None:
    clock = SystemClock()
    before = time.monotonic()
    assert before <= clock.now() <= time.monotonic()


def test_a_signal_wakes_who_waits_and_is_nothing_before() -> None:
    lock = threading.RLock()
    signal, is_set = Signal(lock), threading.Event()
    with lock:
        signal.notify_all()  # nobody waits: nothing to do

    def wait() -> bool:
        with lock:
            return Deadline.after(SystemClock(), PATIENCE).wait_for(signal.condition, is_set.is_set)

    waiter = in_thread(wait)
    is_set.set()
    with lock:
        signal.notify_all()
    assert waiter.result(PATIENCE)


def test_a_timer_thread_that_is_killed_is_replaced(timers: TimerThread) -> None:
    """Seen failing: no timer of the process was ever called again."""
    greenlet = pytest.importorskip("greenlet")

    def be_killed() -> None:
        raise greenlet.GreenletExit

    called = threading.Event()
    gate = threading.Event()
    timers.call_at(0, lambda: (gate.wait(PATIENCE), None)[1])
    timers.call_at(0, be_killed)
    timers.call_at(0, called.set)
    gate.set()
    assert called.wait(PATIENCE)
    eventually(lambda: not timer_threads())
    again = threading.Event()
    timers.call_at(0, be_killed)
    eventually(lambda: not timer_threads())
    timers.call_at(0, again.set)
    assert again.wait(PATIENCE)
