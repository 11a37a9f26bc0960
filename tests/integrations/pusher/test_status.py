"""The states, and who is told of them."""

from typing import Any

import pytest

from connman.clock import Deadline
from connman.errors import NotConnected, WaitTimeout
from connman.integrations.pusher.mailbox import Mailbox
from connman.integrations.pusher.status import PusherConnection, PusherState, Status
from connman.integrations.pusher.wire import Event
from connman.testing import FakeClock
from tests.loopback import PATIENCE, in_thread
from tests.waiting import eventually

CONNECTING, CONNECTED, UNAVAILABLE = PusherState.CONNECTING, PusherState.CONNECTED, PusherState.UNAVAILABLE
FAILED, DISCONNECTED = PusherState.FAILED, PusherState.DISCONNECTED


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.mailbox = Mailbox("test", self.clock)
        self.connection = PusherConnection(self.mailbox, self.clock, 10.0)
        self.status: Status = self.connection.status
        self.told: list[Any] = []
        self.connection.bind_all(self._note)

    def _note(self, event: Event) -> None:
        self.told.append(
            event.name if event.name != "state_change" else (event.data.previous, event.data.current)
        )

    def states(self) -> list[str]:
        self.mailbox.drain()
        return [told for told in self.told if isinstance(told, str)]


def test_a_change_is_told_with_both_states_and_then_by_name() -> None:
    bench = Bench()
    link = object()
    assert bench.connection.state == "initialized"
    assert bench.status.begin(link) is link
    assert bench.status.change(link, CONNECTED, socket_id="1.2")
    assert bench.connection.socket_id == "1.2"
    assert "1.2" not in repr(bench.connection)
    bench.mailbox.drain()
    assert bench.told == [
        ("initialized", "connecting"), "connecting", ("connecting", "connected"), "connected",
    ]  # fmt: skip
    assert not bench.status.change(link, CONNECTED)
    assert bench.states()[-1] == "connected"
    bench.status.finish(DISCONNECTED)
    assert bench.connection.socket_id is None


def test_there_is_one_link_and_one_that_was_given_up_changes_nothing() -> None:
    bench = Bench()
    first, second = object(), object()
    assert bench.status.begin(first) is first
    assert bench.status.begin(second) is first
    assert bench.status.finish(DISCONNECTED, link=second) is None
    assert bench.status.finish(DISCONNECTED) is first
    assert bench.status.finish(DISCONNECTED) is None
    assert not bench.status.change(first, CONNECTED)
    assert bench.status.begin(second) is second
    assert not bench.status.is_current(first)
    assert bench.states() == ["connecting", "disconnected", "connecting"]


def test_unavailable_after_a_while_of_trying_and_no_flicker() -> None:
    bench = Bench()
    link = object()
    bench.status.begin(link)
    bench.clock.advance(9.9)
    assert bench.connection.state == "connecting"
    bench.clock.advance(0.2)
    assert bench.connection.state == "unavailable"
    # The timer's thread calls no listener.
    eventually(lambda: "unavailable" in bench.told)
    assert not bench.status.change(link, CONNECTING, only_from=(CONNECTED,))
    assert bench.status.change(link, CONNECTED)
    assert bench.status.change(link, CONNECTING, only_from=(CONNECTED,))
    bench.clock.advance(10.1)
    assert bench.connection.state == "unavailable"
    eventually(
        lambda: bench.states() == ["connecting", "unavailable", "connected", "connecting", "unavailable"]
    )
    bench.status.finish(FAILED)
    assert bench.clock.pending == 0


def test_the_timer_of_a_try_that_is_over_says_nothing() -> None:
    bench = Bench()
    link = object()
    bench.status.begin(link)
    bench.status.change(link, CONNECTED)
    assert bench.clock.pending == 0
    bench.status.change(link, CONNECTING)
    bench.status.finish(DISCONNECTED)
    bench.status.begin(link)
    bench.clock.advance(9.0)
    assert bench.connection.state == "connecting"
    bench.status.finish(DISCONNECTED)


def test_waiting() -> None:
    bench = Bench()
    link = object()
    bench.status.begin(link)
    with pytest.raises(WaitTimeout):
        bench.status.wait(Deadline.after(bench.clock, 0))
    forever = Deadline(bench.clock, None)
    waiting = in_thread(bench.status.wait, forever)
    bench.status.change(link, CONNECTED)
    waiting.result(PATIENCE)
    bench.status.change(link, CONNECTING)
    waiting = in_thread(bench.status.wait, forever)
    bench.status.finish(FAILED, error=ZeroDivisionError("why"))
    with pytest.raises(ZeroDivisionError):
        waiting.result(PATIENCE)
    bench.status.begin(link)
    bench.status.finish(DISCONNECTED)
    with pytest.raises(NotConnected):
        bench.status.wait(forever)


def test_waiting_for_the_end() -> None:
    bench = Bench()
    bench.status.begin(object())
    with pytest.raises(WaitTimeout):
        bench.status.wait_ended(Deadline.after(bench.clock, 0))
    waiting = in_thread(bench.status.wait_ended, Deadline(bench.clock, None))
    bench.status.finish(DISCONNECTED)
    waiting.result(PATIENCE)
    bench.status.begin(object())
    bench.status.finish(FAILED, error=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        bench.status.wait_ended(Deadline.after(bench.clock, 0))


def test_a_child_is_as_if_just_made() -> None:
    bench = Bench()
    bench.status.begin(object())
    bench.status.after_fork()
    assert bench.connection.state == "initialized"
    assert bench.status.link is None
