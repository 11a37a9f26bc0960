"""The recorder of lock orders sees what could deadlock, and nothing else."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import connman
from tests.conftest import LOCK_ORDER
from tests.lockorder import LockOrder
from tests.loopback import PATIENCE, in_thread


@pytest.fixture
def order() -> LockOrder:
    return LockOrder(lambda filename: filename == __file__)


def nest(*locks: Any) -> None:
    """Take the locks, each inside the one before, on a thread of their own, and give them back."""

    def take(rest: tuple[Any, ...]) -> None:
        if rest:
            with rest[0]:
                take(rest[1:])

    in_thread(take, locks).result(PATIENCE)


def pair(make: Callable[[], Any]) -> tuple[Any, Any]:
    """Make two locks of one line."""
    one, other = (make() for _ in range(2))
    return one, other


def test_both_orders_of_two_locks_are_a_cycle_with_both_stacks(order: LockOrder) -> None:
    one = order.make_lock()
    other = order.make_rlock()

    def first_way() -> None:
        with one, other:
            pass

    def second_way() -> None:
        with other, one:
            pass

    in_thread(first_way).result(PATIENCE)
    assert order.take_cycles() == []
    in_thread(second_way).result(PATIENCE)
    (cycle,) = order.take_cycles()
    assert "in first_way" in cycle
    assert "in second_way" in cycle
    assert one.site in cycle
    assert other.site in cycle
    # Told once.
    in_thread(second_way).result(PATIENCE)
    assert order.take_cycles() == []


def test_one_order_is_fine_however_often(order: LockOrder) -> None:
    one, other, third = order.make_lock(), order.make_lock(), order.make_lock()
    for _ in range(3):
        nest(one, other, third)
        nest(one, third)
    assert order.orders
    assert order.take_cycles() == []


def test_a_cycle_of_three(order: LockOrder) -> None:
    one = order.make_lock()
    other = order.make_lock()
    third = order.make_lock()
    nest(one, other)
    nest(other, third)
    assert order.take_cycles() == []
    nest(third, one)
    (cycle,) = order.take_cycles()
    assert cycle.count("took the one made at") == 3


def test_other_instances_of_the_same_lines_count_as_the_same(order: LockOrder) -> None:
    def one_of_each() -> tuple[Any, Any]:
        outer = order.make_lock()
        return outer, order.make_rlock()

    nest(*one_of_each())
    nest(*one_of_each())
    assert order.take_cycles() == []
    nest(*reversed(one_of_each()))
    assert len(order.take_cycles()) == 1


def test_instances_of_one_line_have_an_order_of_their_own(order: LockOrder) -> None:
    one, other = pair(order.make_lock)
    third, fourth = pair(order.make_lock)
    nest(one, other)
    nest(fourth, third)  # another pair may have another one
    assert order.take_cycles() == []
    nest(other, one)
    assert len(order.take_cycles()) == 1


def test_taking_an_rlock_once_more_makes_no_order(order: LockOrder) -> None:
    one = order.make_rlock()
    other = order.make_lock()
    with one, other, one:
        pass
    with one:
        assert not other.locked()
    assert order.orders == 1
    assert order.take_cycles() == []
    assert order.held() == []


def test_trying_makes_no_order_but_what_is_taken_inside_does(order: LockOrder) -> None:
    one = order.make_lock()
    other = order.make_lock()
    third = order.make_rlock()
    nest(one, other)
    with other:
        assert one.acquire(blocking=False)
        assert third.acquire(False)
        third.release()
        one.release()
    assert order.take_cycles() == []
    with other:
        assert one.acquire(False)
        with third:  # one, then third; other, then third
            pass
        one.release()
    assert order.orders == 3
    nest(third, one)
    assert len(order.take_cycles()) == 1


def test_waiting_with_a_timeout_makes_an_order_but_what_ran_out_is_not_held(order: LockOrder) -> None:
    one = order.make_lock()
    other = order.make_lock()
    third = order.make_lock()
    with one:
        assert not in_thread(one.acquire, True, 0.01).result(PATIENCE)

        def late() -> None:
            with other:
                assert not one.acquire(timeout=0.01)
                with third:
                    pass

        in_thread(late).result(PATIENCE)
    assert order.orders == 2  # other, then one; other, then third: one was never held by it
    nest(one, other)
    assert len(order.take_cycles()) == 1


@pytest.mark.parametrize("kind", ["lock", "rlock", "own"])
def test_a_condition_lets_go_while_it_waits_and_takes_anew(order: LockOrder, kind: str) -> None:
    lock = {"lock": order.make_lock, "rlock": order.make_rlock, "own": order.make_rlock}[kind]()
    outer = order.make_lock()
    condition = threading.Condition(lock)
    is_waiting = threading.Event()

    def wait() -> None:
        with condition:
            if kind != "lock":
                lock.acquire()
            is_waiting.set()
            condition.wait(PATIENCE)
            assert order.held() == [lock]
            if kind != "lock":
                lock.release()
        assert order.held() == []

    waiting = in_thread(wait)
    assert is_waiting.wait(PATIENCE)
    with outer, condition:
        condition.notify_all()
    waiting.result(PATIENCE)
    assert order.take_cycles() == []

    # Holding another lock over a wait is an order when it comes back.
    with condition, outer:
        condition.wait(0.001)
    assert len(order.take_cycles()) == 1


def test_a_lock_that_another_thread_gives_back_is_not_held_any_more(order: LockOrder) -> None:
    latch = order.make_lock()
    other = order.make_lock()
    latch.acquire()
    in_thread(latch.release).result(PATIENCE)
    assert order.held() == []
    with other:
        pass
    assert order.orders == 0
    with pytest.raises(RuntimeError):
        latch.release()
    with pytest.raises(RuntimeError):
        order.make_rlock().release()


def test_a_forked_child_has_what_its_thread_holds_and_waits_for_nobody(order: LockOrder) -> None:
    one = order.make_lock()
    other = order.make_rlock()
    nest(one, other)
    with one:
        order._lock.acquire()  # as another thread would hold it that adds an order just now
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                held = order.held() == [one]
                other._at_fork_reinit()
                with other:
                    pass
                one._at_fork_reinit()
                with other, one:
                    pass
                code = 0 if held and len(order.take_cycles()) == 1 and order.held() == [] else 2
            finally:
                os._exit(code)
        order._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert order.take_cycles() == []


def test_locks_of_others_are_left_alone(order: LockOrder) -> None:
    elsewhere = LockOrder(lambda filename: False)
    assert type(elsewhere.make_lock()) is type(threading.Lock())
    with order.paused():
        assert type(order.make_rlock()) is type(elsewhere.make_rlock())


# In this very run

PLANTED = """
import threading

class Planted:
    def __init__(self):
        self._lock = threading.Lock()
        self._changed = threading.Condition()

    def forth(self):
        with self._lock, self._changed:
            pass

    def back(self):
        with self._changed, self._lock:
            pass
"""


def test_an_inversion_planted_in_connman_is_seen_in_this_run() -> None:
    """An inversion is planted: two methods of a module of connman's take its two locks in both orders."""
    if not LOCK_ORDER.is_installed:
        pytest.skip("CONNMAN_LOCK_ORDER=0")
    names: dict[str, Any] = {}
    planted = Path(connman.__file__).with_name("planted.py")
    exec(compile(PLANTED, str(planted), "exec"), names)
    thing = names["Planted"]()
    in_thread(thing.forth).result(PATIENCE)
    in_thread(thing.back).result(PATIENCE)
    (cycle,) = LOCK_ORDER.take_cycles()  # taken away: else it would fail this test, as it would any other
    assert "planted.py:6" in cycle
    assert "in forth" in cycle
    assert "in back" in cycle
