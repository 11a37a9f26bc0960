"""Every event in every state, against one table.

The tests of the table were seen failing with a planted bug each: `hurry` that leaves the wait itself, `ended` that
forgets to be IDLE after an error that ends retrying, `opened` that does not look whether the connection was ended.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connman import Connection, State
from connman.connection.life import Life
from connman.errors import ConnectionClosed, ConnectionLost
from connman.testing import FakeClock, ScriptedDialer
from connman.transport.base import Dial, Transport
from tests.connection.table import (
    CHANGES,
    CLOSED,
    CONNECTING,
    EVENTS,
    IDLE,
    OPEN,
    TABLE,
    WAITING,
    is_legal,
)
from tests.loopback import PATIENCE, make_dial

GONE = ConnectionClosed(1000)
LOST = ConnectionLost("lost")


class Subject:
    """A life that the test takes through its states, as its reader."""

    def __init__(self, transport: Transport) -> None:
        self.told: list[State] = []
        self.life = Life(FakeClock(), self.told.append)
        self.dial: Dial = make_dial("tcp://127.0.0.1:1")
        self.transport = transport
        self.conn = Connection("tcp://127.0.0.1:1")  # only what the Future resolves to

    def bring(self, state: State) -> None:
        """Take the shortest way there that a reader takes; IDLE: it was never started."""
        if state is IDLE:
            return
        self.life.ask()
        if state is CONNECTING:
            return  # asked for, and no reader has come yet
        self.life.claim_reader()
        self.life.take_dial(self.dial)
        if state is WAITING:
            self.life.ended(LOST, 1.0)
        elif state is OPEN:
            self.life.opened(self.transport)
        elif state is CLOSED:
            self.life.disconnect(GONE, 0.0)

    def happen(self, event: str) -> Any:
        life = self.life
        steps: dict[str, Callable[[], Any]] = {
            "ask": life.ask,
            "disconnect": lambda: life.disconnect(GONE, 0.0),
            "hurry": life.hurry,
            "abort": life.abort,
            "abandon_after_fork": life.abandon_after_fork,
            "take_dial": lambda: life.take_dial(self.dial),
            "opened": lambda: life.opened(self.transport),
            "resolve": lambda: life.resolve(self.conn),
            "ended, retried": lambda: life.ended(LOST, 1.0),
            "ended, not retried": lambda: life.ended(LOST, LOST),
            "retry": life.retry,
            "reader_failed": lambda: life.reader_failed(LOST),
            "start_interrupted": life.start_interrupted,
        }
        assert set(steps) == set(EVENTS)
        return steps[event]()


@pytest.fixture
def subject() -> Iterator[Subject]:
    dialer = ScriptedDialer([ScriptedDialer.OPEN])
    transport = dialer.dial(make_dial("tcp://127.0.0.1:1"))
    yield Subject(transport)
    transport.dispose()
    dialer.next_peer().wait_closed()


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(itertools.product(State, EVENTS))


POSSIBLE = [pair for pair, after in TABLE.items() if after is not None]


@pytest.mark.parametrize(("state", "event"), POSSIBLE, ids=[f"{event}-{state}" for state, event in POSSIBLE])
def test_what_follows(subject: Subject, state: State, event: str) -> None:
    subject.bring(state)
    future, _ = subject.life.ask() if state is not IDLE else (None, False)
    told = len(subject.told)
    subject.happen(event)
    after = TABLE[state, event]
    assert after is not None
    life = subject.life
    assert life.state is after
    # Told, once, of what has changed; but a child tells nobody of its parent's life.
    is_silent = after is state or event == "abandon_after_fork"
    assert subject.told[told:] == ([] if is_silent else [after])
    assert (life.closing is not None) == (after is CLOSED)
    # What opened is there as long as it is open, and until the reader has let go of what was ended.
    if after is OPEN:
        assert life.transport is subject.transport
    elif after is not CLOSED:
        assert life.transport is None
    if future is not None and state is not CLOSED:
        # The Future that was asked for before is settled by what is final, and by what it waits for, and by nothing else.
        is_resolved = state is OPEN and event == "resolve"
        is_failed = after in (CLOSED, IDLE) and event != "abandon_after_fork"
        assert future.done() == (is_resolved or is_failed)


@pytest.mark.parametrize("state", State)
def test_only_disconnect_is_final(subject: Subject, state: State) -> None:
    subject.bring(state)
    subject.life.disconnect(GONE, 0.0)
    for event in EVENTS:
        subject.happen(event)
        assert subject.life.state is CLOSED
    assert subject.told[-1] is CLOSED
    assert subject.told.count(CLOSED) == 1


def test_the_reader_has_to_leave_where_there_is_nothing_to_dial(subject: Subject) -> None:
    subject.bring(CONNECTING)
    assert subject.life.claim_reader()
    assert subject.life.take_dial(subject.dial)
    subject.life.ended(LOST, LOST)
    assert not subject.life.take_dial(subject.dial)
    assert not subject.life.has_reader
    assert not subject.life.claim_reader()


# What those who watch are told


def test_the_changes_that_may_be_seen() -> None:
    assert {(before.value, after.value) for before, after in CHANGES} == {
        ("idle", "connecting"),
        ("idle", "closed"),
        ("connecting", "open"),
        ("connecting", "waiting"),
        ("connecting", "idle"),
        ("connecting", "closed"),
        ("open", "waiting"),
        ("open", "idle"),
        ("open", "closed"),
        ("waiting", "connecting"),
        ("waiting", "idle"),
        ("waiting", "closed"),
    }


@pytest.mark.parametrize(
    "states",
    [
        [],
        [CONNECTING, OPEN, WAITING, CONNECTING, OPEN, CLOSED],
        [CONNECTING, IDLE, CONNECTING, WAITING, CLOSED],
        [CLOSED],
        [CONNECTING, CLOSED, OPEN],  # ended while it opened
        [CONNECTING, OPEN, CONNECTING, IDLE, OPEN],  # asked for anew while it became idle
    ],
)
def test_legal_ways(states: list[State]) -> None:
    assert is_legal(states)


@pytest.mark.parametrize(
    "states",
    [
        [OPEN],
        [WAITING],
        [CONNECTING, CONNECTING],
        [CONNECTING, OPEN, OPEN],
        [CONNECTING, WAITING, OPEN],
        [CONNECTING, WAITING, WAITING, CLOSED],
        [CONNECTING, OPEN, CLOSED, CONNECTING],
        [CLOSED, CLOSED],
        [CONNECTING, CLOSED, OPEN, WAITING],
    ],
)
def test_illegal_ways(states: list[State]) -> None:
    assert not is_legal(states)


def test_what_a_life_tells_is_legal() -> None:
    told: list[State] = []
    dialer = ScriptedDialer([ConnectionRefusedError, ScriptedDialer.OPEN])
    conn = Connection(dialer, wait=lambda _: 0.01, ping_interval=None)
    conn.watch(lambda _, state: told.append(state))
    conn.wait_open(PATIENCE)
    conn.disconnect()
    assert told == [CONNECTING, WAITING, CONNECTING, OPEN, CLOSED]
    assert is_legal(told)
