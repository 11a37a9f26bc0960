"""One connection of a provider: it waits, is handed over once, and does not come back for another caller."""

from collections.abc import Iterator
from typing import Any

import pytest

from connman import Message, State
from connman.errors import ConnectError, ConnectionClosed
from connman.rpc.joining import Joining
from connman.rpc.spare import Spare
from connman.testing import Peer as Side
from tests.rpc.relay_side import HANDOVER, PATIENCE, RelaySide, words
from tests.waiting import eventually


class Owner:
    """Takes spares, or not, and writes down what it is told."""

    def __init__(self) -> None:
        self.wants = True
        self.firsts: list[list[Message] | None] = []
        self.states: list[State] = []
        self.before_ready: Any = None

    def take(self, spare: Spare) -> bool:
        spare.is_taken = self.wants
        if self.before_ready is not None:
            self.before_ready()
        return self.wants

    def taken(self, spare: Spare, first: list[Message] | None) -> None:
        self.firsts.append(first)

    def changed(self, spare: Spare, state: State) -> None:
        self.states.append(state)


class Stage:
    def __init__(self, **options: Any) -> None:
        self.owner = Owner()
        self.relay = RelaySide()
        joining = Joining("provide", self.relay.dialer, "device")
        self.spare = Spare(self.owner, 7, joining, {"wait": lambda _: 0.0, **options})
        self.spare.conn.connect()
        self.side: Side = self.relay.spare()


@pytest.fixture
def stages() -> Iterator[Any]:
    made: list[Stage] = []

    def make(**options: Any) -> Stage:
        made.append(Stage(**options))
        return made[-1]

    yield make
    for stage in made:
        stage.spare.conn.disconnect(timeout=0)


def test_it_says_ready_and_passes_on_what_came_behind(stages: Any) -> None:
    stage = stages()
    stage.side.send(HANDOVER)
    assert words(stage.side.recv(PATIENCE)) == {"command": "ready"}
    eventually(lambda: stage.owner.firsts, PATIENCE)
    assert stage.owner.firsts[0] == []
    assert "#7" in stage.spare.conn.name


def test_one_that_is_not_wanted_any_more_leaves(stages: Any) -> None:
    stage = stages()
    stage.owner.wants = False
    stage.side.send(HANDOVER)
    closed = stage.side.wait_closed(PATIENCE)
    assert isinstance(closed, ConnectionClosed)
    assert closed.code == 1001
    assert stage.owner.firsts == []


def test_a_caller_that_is_lost_before_it_is_ready_is_nobodys(stages: Any) -> None:
    stage = stages()
    stage.owner.before_ready = lambda: (stage.side.drop(), stage.side.wait_closed(PATIENCE))
    stage.side.send(HANDOVER)
    eventually(lambda: State.IDLE in stage.owner.states, PATIENCE)
    assert stage.owner.firsts == [None]
    assert len(stage.relay.dialer.dials) == 1


def test_it_comes_back_until_it_is_taken(stages: Any) -> None:
    asked: list[BaseException] = []

    def retry_if(error: BaseException) -> None:
        asked.append(error)

    stage = stages(retry_if=retry_if)
    stage.side.drop()
    side = stage.relay.spare()
    assert len(asked) == 1
    side.send(HANDOVER)
    side.recv(PATIENCE)
    side.drop()
    eventually(lambda: stage.spare.conn.state is State.IDLE, PATIENCE)
    # Nobody's opinion is asked: it was the caller's.
    assert len(asked) == 1
    assert len(stage.relay.dialer.dials) == 2


@pytest.mark.parametrize("said", [True, False, None])
def test_the_users_rule_counts_while_it_waits(stages: Any, said: bool | None) -> None:
    stage = stages(retry_if=lambda error: said)
    stage.side.close(4001)
    if said:
        stage.relay.spare()
    else:
        eventually(lambda: stage.spare.conn.state is State.IDLE, PATIENCE)
    assert not isinstance(stage.spare.conn.last_error, ConnectError)
