"""The bounded queue: order, the bound, and every way its waits end."""

import pytest

from connman.clock import Deadline
from connman.connection.queue import MAX_ITEMS, BoundedQueue
from connman.errors import ConnectionClosed, WaitTimeout
from connman.testing import FakeClock
from tests.loopback import in_thread

PATIENCE = 10.0


class Rack:
    """A queue with a fake clock, and what it says when it is empty for good."""

    def __init__(self, max_size: int = 100) -> None:
        self.clock = FakeClock()
        self.queue: BoundedQueue[str] = BoundedQueue(self.clock, max_size)
        self.over: Exception | None = None

    def get(self, timeout: float | None = None) -> str:
        return self.queue.get(Deadline.after(self.clock, timeout), lambda: self.over)


def test_first_in_first_out() -> None:
    rack = Rack()
    assert all(rack.queue.put(item, 1) for item in "abc")
    assert [rack.get(), rack.get(), rack.get()] == ["a", "b", "c"]


def test_get_waits_for_an_item() -> None:
    rack = Rack()
    taken = in_thread(rack.get)
    rack.queue.put("late", 4)
    assert taken.result(PATIENCE) == "late"


def test_get_times_out_on_its_clock() -> None:
    rack = Rack()
    taken = in_thread(rack.get, 5.0)
    rack.clock.wait_until_waiting()
    rack.clock.advance(4.9)
    assert not taken.done()
    rack.clock.advance(0.1)
    assert isinstance(taken.exception(PATIENCE), WaitTimeout)


def test_zero_seconds_do_not_wait() -> None:
    rack = Rack()
    with pytest.raises(WaitTimeout):
        rack.get(0)
    rack.queue.put("there", 5)
    assert rack.get(0) == "there"


@pytest.mark.parametrize(("size", "room"), [(1, 100), (50, 2), (100, 1), (101, 1), (0, MAX_ITEMS)])
def test_a_full_queue_holds_put_back_until_one_is_taken(size: int, room: int) -> None:
    rack = Rack(max_size=100)
    for _ in range(room):
        assert rack.queue.put("fits", size)
    blocked = in_thread(rack.queue.put, "too much", size)
    with pytest.raises(TimeoutError):
        blocked.result(0.02)
    rack.get()
    assert blocked.result(PATIENCE)


def test_what_is_queued_comes_before_why_no_more() -> None:
    rack = Rack()
    rack.queue.put("last", 4)
    rack.over = ConnectionClosed(1000)
    assert rack.get() == "last"
    with pytest.raises(ConnectionClosed):
        rack.get()


def test_wake_has_a_waiter_look_again() -> None:
    rack = Rack()
    taken = in_thread(rack.get)
    rack.over = ConnectionClosed(1000)
    rack.queue.wake()
    assert isinstance(taken.exception(PATIENCE), ConnectionClosed)


def test_close_forgets_what_is_queued_and_wakes_a_blocked_put() -> None:
    rack = Rack(max_size=1)
    rack.queue.put("x", 1)
    blocked = in_thread(rack.queue.put, "y", 1)
    rack.queue.close()
    rack.queue.close()
    assert blocked.result(PATIENCE) is False
    assert rack.queue.put("z", 1) is False
    rack.over = ConnectionClosed(1000)
    with pytest.raises(ConnectionClosed):
        rack.get()


def test_without_its_bound_put_never_waits() -> None:
    rack = Rack(max_size=1)
    rack.queue.put("x", 1)
    blocked = in_thread(rack.queue.put, "y", 1)
    rack.queue.lift_bound()
    assert blocked.result(PATIENCE)
    assert rack.queue.put("z", 1)
    assert [rack.get(), rack.get(), rack.get()] == ["x", "y", "z"]


def test_many_putters_and_getters_lose_nothing() -> None:
    rack = Rack(max_size=7)
    taken: list[str] = []

    def take() -> None:
        while (item := rack.get()) != "stop":
            taken.append(item)

    def put(name: int) -> None:
        for number in range(100):
            rack.queue.put(f"{name}:{number}", 2)

    takers = [in_thread(take) for _ in range(3)]
    for putter in [in_thread(put, name) for name in range(4)]:
        putter.result(PATIENCE)
    for _ in takers:
        rack.queue.put("stop", 1)
    for taker in takers:
        taker.result(PATIENCE)
    assert sorted(taken) == sorted(f"{name}:{number}" for name in range(4) for number in range(100))
