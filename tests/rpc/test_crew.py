"""Who replaces whom among a provider's connections: the rest of it is seen through `Provider`."""

from collections.abc import Iterator

import pytest

from connman import Connection, Manager, Message
from connman.connection.cycle import Cycle
from connman.connection.reader import ThreadReaders
from connman.errors import GaveUp
from connman.rpc import Peer
from connman.rpc.crew import Crew, Ended
from connman.rpc.joining import Joining
from connman.rpc.spare import Spare
from connman.testing import FakeClock
from tests.rpc.relay_side import PATIENCE, RelaySide, hand_over
from tests.waiting import eventually


class Stingy(ThreadReaders):
    """A system that grants no thread, as often as it is told to."""

    def __init__(self, refusals: int) -> None:
        self._refusals = refusals
        self.asked = 0

    def start(self, cycle: Cycle) -> None:
        self.asked += 1
        if self.asked <= self._refusals:
            raise RuntimeError("can't start new thread")
        super().start(cycle)


class StingyManager(Manager):
    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.readers = Stingy(refusals)

    def add(self, conn: Connection) -> Connection:
        conn.read_by(self.readers)
        return super().add(conn)


def make_peer(spare: Spare, first: list[Message]) -> Peer:
    return Peer(spare.conn, first=first, replaces=spare)


class Stage:
    def __init__(
        self, refusals: int = 0, wanted: int = 2, most: int = 10, dials_at_once: int = 1000, **options: object
    ) -> None:
        self.relay, self.clock = RelaySide(), FakeClock()
        self.manager = StingyManager(refusals)
        self.crew = Crew(
            Joining("provide", self.relay.dialer, "device"),
            {"wait": lambda _: 0.0, **options},
            self.manager,
            wanted=wanted,
            most=most,
            make_peer=make_peer,
            on_peer=None,
            clock=self.clock,
            dials_at_once=dials_at_once,
        )

    def __enter__(self) -> "Stage":
        self.crew.top_up()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.crew.tell_end(0)
        self.manager.disconnect_all()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


def test_topping_up_what_is_full_does_nothing(stage: Stage) -> None:
    for _ in range(2):
        stage.relay.spare()
    stage.crew.top_up()
    assert stage.crew.spares()[1] == 2
    assert len(stage.relay.dialer.dials) == 2


def test_threads_that_were_not_granted_are_asked_for_again_later() -> None:
    with Stage(refusals=4) as stage:
        for seconds in range(3):
            # Two more each second, however often anybody tops up meanwhile.
            assert stage.manager.readers.asked == 2 + 2 * seconds
            stage.crew.top_up()
            stage.clock.advance(1.0)
        for _ in range(2):
            stage.relay.spare()
        assert stage.manager.readers.asked == 6


def test_callers_that_come_and_leave_at_once_do_not_have_it_dial_without_end() -> None:
    with Stage(wanted=1, dials_at_once=5) as stage:
        for _ in range(5):
            hand_over(stage.relay.spare()).close(1000)
        eventually(lambda: stage.crew.handovers == 5 and stage.crew.peers()[1] == 0, PATIENCE)
        stage.crew.top_up()
        assert len(stage.relay.dialer.dials) == 5
        stage.clock.advance(1.0)
        stage.relay.spare()
        assert stage.crew.spares()[1] == 1
        assert len(stage.relay.dialer.dials) == 6


def test_giving_up_is_for_good() -> None:
    with Stage(wanted=1, stop=lambda _: True) as stage:
        stage.relay.spare().drop()
        eventually(stage.crew.is_gone, PATIENCE)
        assert isinstance(stage.crew.ending, GaveUp)


def test_what_was_taken_counts_as_a_pair_until_it_ends(stage: Stage) -> None:
    side = hand_over(stage.relay.spare())
    eventually(lambda: stage.crew.peers()[0], PATIENCE)
    assert stage.crew.peers()[1] == stage.crew.handovers == 1
    side.close(1000)
    eventually(lambda: stage.crew.peers()[1] == 0, PATIENCE)
    assert stage.crew.handovers == 1


def test_one_that_has_ended_takes_and_dials_nothing(stage: Stage) -> None:
    for _ in range(2):
        stage.relay.spare()
    spare = stage.crew.spares()[0][0]
    ending = stage.crew.tell_end(0)
    assert len(ending) == 2
    assert not stage.crew.take(spare)
    stage.crew.top_up()
    assert isinstance(stage.crew.ending, Ended)
    assert stage.crew.wait(stage.crew.is_gone, 0)
    assert len(stage.relay.dialer.dials) == 2


def test_a_child_begins_with_nothing(stage: Stage) -> None:
    for _ in range(2):
        stage.relay.spare()
    ours = [spare.conn for spare in stage.crew.spares()[0]]
    ended = Ended()
    stage.crew.build(ended)
    assert stage.crew.ending is ended
    assert stage.crew.is_gone()
    for conn in ours:
        conn.disconnect(timeout=0)
