"""The steps of a connection's life, each by itself, driven by the test in place of a reader."""

import logging
import math
import threading
from typing import Any

import pytest

from connman import Connection, State
from connman.connection.cycle import Cycle, internal
from connman.connection.queue import MAX_ITEMS
from connman.errors import ConnectError, ConnectionClosed, ConnectionLost, ConnmanError
from connman.testing import FakeClock, ScriptedDialer
from connman.testing.dialer import Outcome
from connman.transport.base import Transport
from tests.connection.rig import OPEN, REFUSED, Told
from tests.waiting import eventually


class Hand:
    """A `Readers` that only keeps what it was given: the test does the reading."""

    def __init__(self) -> None:
        self.cycles: list[Cycle] = []

    def start(self, cycle: Cycle) -> None:
        self.cycles.append(cycle)

    def wait_gone(self, within: float) -> bool:
        return True


class Driven:
    """A connection whose steps the test takes."""

    def __init__(self, *script: Outcome, **options: Any) -> None:
        self.told = Told()
        self.clock = FakeClock()
        callbacks = {name: getattr(self.told, name) for name in ("on_open", "on_data", "on_reset")}
        self.dialer = ScriptedDialer(script)
        self.conn = Connection(
            self.dialer, clock=self.clock, name="driven", **{"ping_interval": None, **callbacks, **options}
        )
        hand = Hand()
        self.conn.read_by(hand)
        self.future = self.conn.get_connected()
        self.cycle = hand.cycles[0]
        assert self.cycle.life.claim_reader(lambda: None)
        self.cycle.restart()

    def dial(self) -> tuple[Transport, list[Any]] | ConnmanError:
        dial = self.cycle.begin()
        assert dial is not None
        return self.cycle.dial(dial)

    def open(self) -> Transport:
        opened = self.dial()
        assert not isinstance(opened, ConnmanError)
        assert self.cycle.opened(*opened)
        return opened[0]

    def end(self, transport: Transport | None = None) -> None:
        """Finish as a reader does."""
        self.conn.end_soon()
        if transport is not None:
            self.cycle.stop_keepalive()
            transport.dispose()
            self.cycle.ended(ConnectionClosed())
        assert self.cycle.begin() is None
        assert self.conn.wait_gone(1.0)


def test_from_the_dial_to_the_end() -> None:
    driven = Driven(OPEN)
    assert driven.conn.state == State.CONNECTING
    transport = driven.open()
    assert driven.future.result(0) is driven.conn
    driven.cycle.deliver(["a", "b"])
    assert driven.told.kinds == ["open", "a", "b"]
    assert driven.conn.stats.messages_in == 2
    driven.end(transport)
    assert driven.told.kinds == ["open", "a", "b", "lost"]


def test_a_failed_dial_is_returned_not_raised() -> None:
    driven = Driven(REFUSED)
    error = driven.dial()
    assert isinstance(error, ConnectError)
    delay = driven.cycle.ended(error)
    assert delay is not None
    assert driven.conn.state == State.WAITING
    assert driven.told.kinds == ["failed"]
    assert driven.told.resets[0].retry_in == delay
    driven.end()


def test_each_failure_makes_the_delay_longer_until_a_restart() -> None:
    driven = Driven(REFUSED, REFUSED, REFUSED, wait=lambda state: float(state.attempt_number))
    delays = []
    for _ in range(3):
        error = driven.dial()
        assert isinstance(error, ConnmanError)
        delays.append(driven.cycle.ended(error))
        driven.cycle.life.retry()
    assert delays == [1.0, 2.0, 3.0]
    assert [reset.attempt for reset in driven.told.resets] == [1, 2, 3]
    driven.end()


def test_what_arrived_behind_the_login_is_delivered_behind_on_open() -> None:
    driven = Driven(OPEN)
    opened = driven.dial()
    assert not isinstance(opened, ConnmanError)
    transport, first = opened
    assert first == []
    driven.cycle.opened(transport, ["b", "c"])
    assert driven.told.kinds == ["open", "b", "c"]
    driven.end(transport)


def test_what_opens_behind_disconnect_is_not_seen() -> None:
    driven = Driven(OPEN)
    opened = driven.dial()
    assert not isinstance(opened, ConnmanError)
    driven.conn.end_soon()
    assert not driven.cycle.opened(*opened)
    opened[0].dispose()
    driven.cycle.ended(ConnectionClosed())
    assert driven.cycle.begin() is None
    assert driven.told.kinds == ["failed"]


def test_nothing_is_delivered_behind_disconnect() -> None:
    driven = Driven(OPEN)
    transport = driven.open()
    driven.conn.end_soon()
    driven.cycle.deliver(["late"])
    assert driven.conn.stats.messages_in == 0
    driven.end(transport)
    assert "late" not in driven.told.kinds


def test_begin_after_disconnect_leaves_the_reader_free() -> None:
    driven = Driven(OPEN)
    driven.conn.end_soon()
    assert driven.cycle.begin() is None
    assert not driven.cycle.life.has_reader


def test_without_reconnect_nothing_follows() -> None:
    driven = Driven(REFUSED, reconnect=False)
    error = driven.dial()
    assert isinstance(error, ConnmanError)
    assert driven.cycle.ended(error) is None
    assert driven.conn.state == State.IDLE
    assert driven.future.exception(0) is error
    assert driven.cycle.begin() is None
    driven.conn.disconnect()


# Room


def test_on_the_reader_thread_there_is_always_room() -> None:
    driven = Driven(OPEN)
    assert driven.cycle.takes_all
    transport = driven.open()
    driven.cycle.deliver(["x"] * 2 * MAX_ITEMS)
    assert driven.cycle.has_room
    assert driven.cycle.wait_room(lambda: False)
    driven.end(transport)


def test_the_inbox_of_recv_bounds_what_is_read() -> None:
    driven = Driven(OPEN, on_data=None)
    told: list[bool] = []
    driven.cycle.on_room(lambda: told.append(driven.cycle.has_room))
    transport = driven.open()
    assert not driven.cycle.takes_all
    driven.cycle.deliver(["x"] * (MAX_ITEMS + 1))
    assert not driven.cycle.has_room
    assert not driven.cycle.wait_room(lambda: True)
    another: list[str] = []
    taker = threading.Thread(target=lambda: another.extend(str(driven.conn.recv(0)) for _ in range(2)))
    taker.start()
    taker.join()
    assert another == ["x", "x"]
    assert told == [True]
    driven.end(transport)


def test_a_callback_thread_bounds_what_is_read_and_what_is_told() -> None:
    gate = threading.Event()
    driven = Driven(OPEN, dispatch="thread")
    driven.told.hooks["data"] = lambda *_: gate.wait(10)
    told: list[bool] = []
    driven.cycle.on_room(lambda: told.append(True))
    transport = driven.open()
    for _ in range(MAX_ITEMS + 2):
        driven.cycle.deliver(["x"])
    assert not driven.cycle.has_room
    assert not driven.cycle.is_told
    gate.set()
    eventually(lambda: told)
    eventually(lambda: driven.cycle.has_room and driven.cycle.is_told)
    driven.cycle.wait_told()
    driven.end(transport)


def test_messages_without_a_byte_take_room_on_a_callback_thread_as_well() -> None:
    """What one read brings may be 65,536 of them: a thousand reads would wait, and half a gigabyte with them."""
    gate = threading.Event()
    driven = Driven(OPEN, dispatch="thread")
    driven.told.hooks["data"] = lambda *_: gate.wait(10)
    transport = driven.open()
    deliveries = 0
    while driven.cycle.has_room:
        driven.cycle.deliver([""] * 65_536)
        deliveries += 1
    assert deliveries < 10
    driven.conn.end_soon()  # what waits is not told any more
    gate.set()
    driven.end(transport)


# Failures of ours


def test_a_failure_leaves_it_idle_with_the_error(caplog: pytest.LogCaptureFixture) -> None:
    driven = Driven(OPEN)
    transport = driven.open()
    driven.cycle.failed(ValueError("a bug"))
    transport.dispose()
    assert driven.conn.state == State.IDLE
    assert "ValueError: a bug" in str(driven.conn.last_error)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    driven.conn.disconnect()


def test_the_error_for_a_bug_names_it() -> None:
    error = internal(KeyError("x"))
    assert isinstance(error, ConnectionLost)
    assert str(error) == "internal error: KeyError: 'x'"


def test_without_a_timer_thread_there_are_no_pings(caplog: pytest.LogCaptureFixture) -> None:
    driven = Driven(OPEN, ping_interval=1.0)

    def call_later(*_: object) -> Any:
        raise RuntimeError("can't start new thread")

    driven.clock.call_later = call_later  # type: ignore[method-assign]
    transport = driven.open()
    assert "no pings: can't start new thread" in caplog.text
    driven.end(transport)


def test_who_says_that_nobody_watches_is_believed() -> None:
    """`opened` hands on until when what arrives is read: a peer that nobody reads is not judged."""
    driven = Driven(OPEN, ping_interval=1.0, ping_timeout=1.0)
    opened = driven.dial()
    assert not isinstance(opened, ConnmanError)
    is_watched = False
    driven.cycle.opened(*opened, lambda: driven.clock.now() if is_watched else -math.inf)
    driven.clock.advance(60)
    assert opened[0].error is None
    is_watched = True
    for _ in range(5):
        driven.clock.advance(1)
    assert opened[0].error is not None
    driven.end(opened[0])
