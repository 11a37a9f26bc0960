"""The bounded queue: order, the bound, and every way its waits end."""

from concurrent.futures import Future

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
        self.queue: BoundedQueue[str] = BoundedQueue(self.clock, max_size, len)
        self.over: Exception | None = None
        self.is_over = False

    def get(self, timeout: float | None = None) -> str:
        return self.queue.get(Deadline.after(self.clock, timeout), lambda: self.over)

    def wait_room(self) -> "Future[bool]":
        return in_thread(self.queue.wait_room, lambda: self.is_over)


def test_first_in_first_out() -> None:
    rack = Rack()
    rack.queue.put("a")
    rack.queue.extend("bc")
    assert [rack.get(), rack.get(), rack.get()] == ["a", "b", "c"]


def test_get_waits_for_an_item() -> None:
    rack = Rack()
    taken = in_thread(rack.get)
    rack.queue.put("late")
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
    rack.queue.put("there")
    assert rack.get(0) == "there"


@pytest.mark.parametrize(("size", "room"), [(1, 100), (50, 2), (99, 2), (100, 1), (101, 1), (0, MAX_ITEMS)])
def test_a_full_queue_holds_put_back_until_one_is_taken(size: int, room: int) -> None:
    rack = Rack(max_size=100)
    for _ in range(room):
        assert rack.queue.has_room
        rack.queue.put("x" * size)
    assert not rack.queue.has_room
    blocked = in_thread(rack.queue.put, "too much")
    with pytest.raises(TimeoutError):
        blocked.result(0.02)
    rack.get()
    blocked.result(PATIENCE)


def test_a_full_queue_holds_the_reader_back_until_one_is_taken() -> None:
    rack = Rack(max_size=3)
    assert rack.wait_room().result(PATIENCE)
    rack.queue.extend("abc")
    reader = rack.wait_room()
    with pytest.raises(TimeoutError):
        reader.result(0.02)
    rack.get()
    assert reader.result(PATIENCE)


def test_what_one_read_brings_goes_in_whole() -> None:
    rack = Rack(max_size=3)
    rack.queue.extend("abcdef")
    assert not rack.queue.has_room
    assert [rack.get() for _ in range(6)] == list("abcdef")
    assert rack.queue.has_room


def test_what_is_queued_comes_before_why_no_more() -> None:
    rack = Rack()
    rack.queue.put("last")
    rack.over = ConnectionClosed(1000)
    assert rack.get() == "last"
    with pytest.raises(ConnectionClosed):
        rack.get()


def test_wake_has_those_who_wait_look_again() -> None:
    rack = Rack(max_size=1)
    taken = in_thread(rack.get)
    rack.over = ConnectionClosed(1000)
    rack.queue.wake()
    assert isinstance(taken.exception(PATIENCE), ConnectionClosed)
    rack.queue.extend("x")
    reader = rack.wait_room()
    rack.is_over = True
    rack.queue.wake()
    assert reader.result(PATIENCE) is False


def test_close_forgets_what_is_queued_and_wakes_a_blocked_put() -> None:
    rack = Rack(max_size=1)
    rack.queue.put("x")
    reader, blocked = rack.wait_room(), in_thread(rack.queue.put, "y")
    rack.queue.close()
    rack.queue.close()
    blocked.result(PATIENCE)
    assert reader.result(PATIENCE)
    rack.queue.extend("z")
    rack.over = ConnectionClosed(1000)
    with pytest.raises(ConnectionClosed):
        rack.get()


def test_without_its_bound_nothing_waits_for_room() -> None:
    rack = Rack(max_size=1)
    rack.queue.put("x")
    blocked = in_thread(rack.queue.put, "y")
    rack.queue.lift_bound()
    blocked.result(PATIENCE)
    rack.queue.put("z")
    assert rack.queue.has_room
    assert [rack.get(), rack.get(), rack.get()] == ["x", "y", "z"]


def test_many_putters_and_getters_lose_nothing() -> None:
    rack = Rack(max_size=7)
    taken: list[str] = []

    def take() -> None:
        while (item := rack.get()) != "stop":
            taken.append(item)

    def put(name: int) -> None:
        for number in range(100):
            rack.queue.put(f"{name}:{number}")

    takers = [in_thread(take) for _ in range(3)]
    for putter in [in_thread(put, name) for name in range(4)]:
        putter.result(PATIENCE)
    for _ in takers:
        rack.queue.put("stop")
    for taker in takers:
        taker.result(PATIENCE)
    assert sorted(taken) == sorted(f"{name}:{number}" for name in range(4) for number in range(100))
