"""One at a time, in order, whoever posts."""

import threading
from collections.abc import Callable, Iterator

import pytest

from connman.clock import SystemClock
from connman.integrations.pusher.mailbox import MOST, Mailbox
from tests.loopback import PATIENCE, in_thread
from tests.waiting import eventually


def mailbox() -> Mailbox:
    return Mailbox("test", SystemClock())


def calls(*functions: Callable[[], object]) -> Callable[[], list[Callable[[], object]]]:
    return lambda: list(functions)


class Blocking:
    """A call that waits inside until it is let go."""

    def __init__(self) -> None:
        self.is_inside = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> None:
        self.is_inside.set()
        assert self.go.wait(PATIENCE)


def test_in_order_and_a_call_that_posts_is_not_interrupted() -> None:
    box, told = mailbox(), []

    def first() -> None:
        box.post(calls(lambda: told.append("posted by the first")))
        box.drain()
        told.append("first")

    box.post(calls(first, lambda: told.append("second")))
    box.drain()
    assert told == ["first", "second", "posted by the first"]


def test_a_call_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    box, told = mailbox(), []
    box.post(calls(lambda: 1 / 0, lambda: told.append(1)))
    box.drain()
    assert told == [1]
    assert "ZeroDivisionError" in caplog.text


def test_whoever_finds_somebody_at_it_leaves_it_to_him() -> None:
    box, blocking, told = mailbox(), Blocking(), []
    box.post(calls(blocking))
    first = in_thread(box.drain)
    assert blocking.is_inside.wait(PATIENCE)
    box.post(calls(lambda: told.append(threading.current_thread())))
    box.drain()
    assert told == []
    assert not box.wait_idle(0.01)
    blocking.go.set()
    first.result(PATIENCE)
    assert box.wait_idle(PATIENCE)
    assert len(told) == 1
    assert told[0] is not threading.current_thread()


def test_a_users_thread_is_not_kept_by_what_others_post() -> None:
    """A disconnect() or connect() on a busy client would otherwise run its listeners for ever."""
    box, told, stop = mailbox(), [], threading.Event()

    def note() -> None:
        told.append(threading.current_thread().name)
        in_thread(box.post, calls(*[] if stop.is_set() else [note])).result(PATIENCE)

    box.post(calls(note))
    in_thread(box.drain).result(PATIENCE)
    eventually(lambda: len(told) > 100)
    stop.set()
    assert box.wait_idle(PATIENCE)
    assert set(told[1:]) == {"connman-pusher-test"}


def test_what_was_unbound_meanwhile_is_not_called() -> None:
    """Whom to call is asked when the turn comes, and between two calls."""
    box, told, is_over = mailbox(), [], threading.Event()

    def tell() -> Iterator[Callable[[], object]]:
        yield is_over.set
        if not is_over.is_set():
            yield lambda: told.append("too late")

    box.post(tell)
    box.drain()
    assert is_over.is_set()
    assert not told


def test_callers_that_may_not_block_have_a_thread_made() -> None:
    box, told = mailbox(), []
    box.drain_apart()
    box.post(calls(lambda: told.append(threading.current_thread().name)))
    box.drain_apart()
    eventually(lambda: told == ["connman-pusher-test"])


def test_a_full_mailbox_holds_up_those_who_ask_for_room() -> None:
    box, blocking = mailbox(), Blocking()
    box.post(calls(blocking))
    first = in_thread(box.drain)
    assert blocking.is_inside.wait(PATIENCE)
    for _ in range(MOST):
        box.post(calls())
    is_over = threading.Event()
    given_up, has_room = in_thread(box.wait_room, is_over.is_set), in_thread(box.wait_room, lambda: False)
    is_over.set()
    box.wake()
    given_up.result(PATIENCE)
    assert not has_room.done()
    blocking.go.set()
    has_room.result(PATIENCE)
    first.result(PATIENCE)


def test_a_ctrl_c_in_a_listener_on_a_users_thread_is_the_users() -> None:
    box, told = mailbox(), []

    def interrupt() -> None:
        raise KeyboardInterrupt

    box.post(calls(interrupt))
    box.post(calls(lambda: told.append(1)))
    with pytest.raises(KeyboardInterrupt):
        box.drain()
    eventually(lambda: told == [1])
    assert box.wait_idle(PATIENCE)


@pytest.mark.slow
def test_stress_nothing_is_lost_or_runs_twice_or_beside_another() -> None:
    box, told, inside = mailbox(), [], [0]

    def note(number: int) -> None:
        inside[0] += 1
        assert inside[0] == 1
        told.append(number)
        inside[0] -= 1

    def post(thread: int) -> None:
        for number in range(5000):
            box.post(calls(lambda key=(thread, number): note(key)))
            box.drain()

    done = [in_thread(post, thread) for thread in range(4)]
    for future in done:
        future.result(PATIENCE * 3)
    assert box.wait_idle(PATIENCE)
    assert len(told) == len(set(told)) == 20_000
    for thread in range(4):
        assert [number for who, number in told if who == thread] == list(range(5000))
