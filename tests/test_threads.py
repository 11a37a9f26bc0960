"""connman's own threads: named, marked, daemons; and the condition that others wait on."""

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from connman.threads import Condition, if_free, is_kill, is_own, join, latch, spawn, uncut
from tests.interrupts import every_point
from tests.loopback import PATIENCE, in_thread


def test_a_thread_is_named_marked_and_a_daemon() -> None:
    answers = []
    thread = spawn("x", lambda: answers.append((threading.current_thread(), is_own())))
    thread.join(10)
    assert answers == [(thread, True)]
    assert (thread.name, thread.daemon) == ("connman-x", True)


def test_other_threads_are_not_own() -> None:
    answers = []
    thread = threading.Thread(target=lambda: answers.append(is_own()))
    thread.start()
    thread.join(10)
    assert answers == [False]
    assert not is_own()


def is_free(condition: threading.Condition) -> bool:
    """Whether another thread can take it."""

    def take() -> bool:
        is_taken = condition.acquire(blocking=False)
        if is_taken:
            condition.release()
        return is_taken

    return in_thread(take).result(PATIENCE)


def test_a_condition_wakes_whoever_waits() -> None:
    condition = Condition()
    told: list[str] = []

    def wait() -> list[str]:
        with condition:
            assert condition.wait_for(lambda: told, PATIENCE)
        return told

    waiting = in_thread(wait)
    with condition:
        told.append("news")
        condition.notify_all()
    assert waiting.result(PATIENCE) == ["news"]
    assert is_free(condition)
    with condition:
        assert not condition.wait(0.001)
        assert not is_free(condition)
    assert is_free(condition)


def test_a_condition_is_entered_more_than_once_by_its_owner() -> None:
    condition = Condition(threading.RLock())
    with condition, condition:
        assert not condition.wait(0.001)
        assert not is_free(condition)
    assert is_free(condition)


@pytest.mark.plain_locks
@pytest.mark.parametrize("make_lock", [threading.Lock, threading.RLock], ids=["Lock", "RLock"])
def test_a_wait_that_is_interrupted_before_it_has_the_lock_again_takes_it(make_lock: Any) -> None:
    """Planted: without that the KeyboardInterrupt comes out as a RuntimeError of the block's end."""
    condition = Condition(make_lock())

    def profile(frame: Any, event: str, arg: Any) -> None:
        # Of an RLock it is a function in C, of a Lock one in Python.
        name = frame.f_code.co_name if event == "call" else getattr(arg, "__name__", "")
        if event in ("call", "c_call") and name == "_acquire_restore":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), condition:
        sys.setprofile(profile)
        try:
            condition.wait(0.001)
        finally:
            sys.setprofile(None)
    assert is_free(condition)


def test_who_notes_a_thread_has_it_before_it_runs() -> None:
    noted: list[threading.Thread] = []
    seen = []
    thread = spawn("x", lambda: seen.append(noted[0] is threading.current_thread()), noted.append)
    thread.join(10)
    assert noted == [thread]
    assert seen == [True]


@pytest.mark.plain_locks
@pytest.mark.parametrize(
    "look", [lambda thread: join(thread, 0.001), threading.Thread.is_alive], ids=["join", "is_alive"]
)
def test_a_thread_is_not_taken_for_ended_after_an_interrupt_at_any_point_of_a_look_at_it(
    look: Callable[[threading.Thread], object],
) -> None:
    # First seen failing: Python 3.11 lets go of the lock of the living thread. A disconnect() behind it waited for none.
    for point in every_point(more_than=3):
        end = threading.Event()
        thread = spawn("x", lambda end=end: end.wait(PATIENCE))  # type: ignore[misc]
        where = point.interrupt(
            lambda thread=thread: look(thread), files=("threading.py", "connman/threads.py")
        )  # type: ignore[misc]
        assert thread.is_alive(), where
        end.set()
        join(thread, PATIENCE)
        assert thread not in threading.enumerate(), where


def test_a_kill_is_what_gevent_throws_into_a_greenlet() -> None:
    greenlet = pytest.importorskip("greenlet")
    assert is_kill(greenlet.GreenletExit())
    assert not is_kill(SystemExit())
    assert not is_kill(ValueError())


def test_a_lock_is_taken_for_the_body_if_it_is_free() -> None:
    lock = threading.Lock()
    bodies = 0
    for _ in if_free(lock):
        assert lock.locked()
        assert list(if_free(lock)) == []
        bodies += 1
        lock.release()
    assert bodies == 1
    assert not lock.locked()


@pytest.mark.plain_locks
def test_a_thread_runs_whose_start_was_interrupted_while_it_was_waited_for() -> None:
    """Seen failing with Python's own condition: the thread died of "release unlocked lock", or waited for ever."""
    for point in itertools.count(1):
        ran, reached = threading.Event(), [0]

        def profile(
            frame: Any, event: str, _: object, point: int = point, reached: list[int] = reached
        ) -> None:
            chain = frame
            while chain is not None and chain.f_code is not threading.Event.wait.__code__:
                chain = chain.f_back
            if chain is not None and event in ("call", "c_return"):
                reached[0] += 1
                if reached[0] == point:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        threads: list[threading.Thread] = []
        with contextlib.suppress(KeyboardInterrupt):
            sys.setprofile(profile)
            try:
                spawn("x", ran.set, threads.append)
            finally:
                sys.setprofile(None)
        assert ran.wait(10), point
        threads[0].join(10)
        assert threads[0] not in threading.enumerate()
        if reached[0] < point:
            assert point > 3
            return


def test_what_is_cut_is_called_once_more() -> None:
    calls = []

    def cut() -> str:
        calls.append("call")
        if len(calls) == 1:
            raise KeyboardInterrupt
        return "done"

    with pytest.raises(KeyboardInterrupt):
        uncut(cut)
    assert len(calls) == 2
    assert uncut(cut) == "done"
    assert len(calls) == 3


def test_a_latch_is_taken_until_somebody_lets_go() -> None:
    waiting = latch()
    assert not waiting.acquire(timeout=0.01)
    thread = threading.Thread(target=waiting.release)
    thread.start()
    assert waiting.acquire(timeout=10)
    thread.join()
