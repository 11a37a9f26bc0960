"""The transitions of a connection, where two threads meet in one, and all of them at once."""

import contextlib
import itertools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import tenacity

from connman import Connection, Reset, State
from connman.clock import SystemClock
from connman.connection.life import Life
from connman.errors import ConnectionClosed, ConnmanError
from connman.testing import FakeClock, Peer
from connman.transport.base import Dial
from tests.connection.rig import HANG, OPEN, PATIENCE, REFUSED, Rig, Told, forever, say
from tests.loopback import in_thread
from tests.waiting import eventually

# Two threads meet at a named point: inside a watcher, which runs between a decision and what follows from it.


def at(rig: Rig, state: State, number: int = 1) -> list["Future[Connection]"]:
    """When `rig` gets into `state` for the `number`-th time, end it from another thread, and ask for it once more."""
    asked: list[Future[Connection]] = []
    left = itertools.count(1)

    def meddle() -> None:
        rig.conn.end_soon(4321, "meddled")
        asked.append(rig.conn.get_connected())

    def watcher(_: Connection, now: State) -> None:
        if now is state and next(left) == number:
            in_thread(meddle).result(PATIENCE)

    rig.conn.watch(watcher)
    return asked


@pytest.mark.parametrize("dispatch", ["reader", "thread"])
def test_an_end_between_opening_and_telling(dispatch: str) -> None:
    rig = Rig([OPEN, OPEN], dispatch=dispatch)
    asked = at(rig, State.OPEN)
    with rig:
        future = rig.conn.get_connected()
        assert isinstance(future.exception(PATIENCE), ConnectionClosed)
        assert rig.conn.wait_gone(PATIENCE)
        assert isinstance(asked[0].exception(0), ConnectionClosed)
        assert rig.conn.state == State.CLOSED
        # Nobody saw it open, so nobody is told that an open one ended.
        assert rig.told.kinds == ["failed"]
        rig.dialer.next_peer().wait_closed()


@pytest.mark.parametrize("dispatch", ["reader", "thread"])
@pytest.mark.parametrize("state", [State.WAITING, State.CONNECTING])
def test_an_end_around_a_wait(state: State, dispatch: str) -> None:
    rig = Rig(forever(REFUSED), dispatch=dispatch)
    asked = at(rig, state, number=2)
    with rig:
        future = rig.conn.get_connected()
        rig.clock.advance(rig.wait_delay(1))
        assert isinstance(future.exception(PATIENCE), ConnectionClosed)
        assert rig.conn.wait_gone(PATIENCE)
        assert isinstance(asked[0].exception(0), ConnectionClosed)
        assert len(rig.dialer.dials) == (2 if state is State.WAITING else 1)
        assert rig.told.kinds == ["failed"] * len(rig.dialer.dials)


class MeddlingClock(FakeClock):
    """A clock that calls `meddle` from another thread when it is read for the `number`-th time after `arm`."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = number
        self.has_meddled = False
        self._is_armed = False
        self.meddle: Callable[[], object] = lambda: None

    def arm(self, *_: object) -> None:
        self._is_armed = True

    def now(self) -> float:
        self._left -= self._is_armed
        if self._is_armed and self._left == 0:
            self._is_armed = False
            self.has_meddled = True
            in_thread(self.meddle).result(PATIENCE)
        return super().now()


@pytest.mark.parametrize("number", range(1, 6))
def test_an_end_at_each_reading_of_the_clock_from_the_handshake_on(number: int) -> None:
    """The clock is read all along the way from the handshake to the first message: stations to meet at."""
    clock = MeddlingClock(number)
    rig = Rig([OPEN, OPEN], clock=clock, handshake=clock.arm)
    clock.meddle = rig.conn.end_soon
    with rig:
        rig.conn.connect()
        eventually(lambda: clock.has_meddled or rig.told.events)
        rig.conn.end_soon()  # where it is not read so often
        rig.dialer.next_peer().wait_closed()
        assert rig.conn.wait_gone(PATIENCE)
        assert rig.conn.state == State.CLOSED
        assert rig.told.kinds in (["failed"], ["open", "lost"])
        assert isinstance(rig.conn.get_connected().exception(0), ConnectionClosed)
        assert len(rig.dialer.dials) == 1


def test_an_end_between_asking_and_dialling() -> None:
    rig = Rig([OPEN])
    asked = at(rig, State.CONNECTING)
    with rig:
        future = rig.conn.get_connected()
        assert isinstance(future.exception(0), ConnectionClosed)
        assert isinstance(asked[0].exception(0), ConnectionClosed)
        assert rig.conn.wait_gone(PATIENCE)
        assert rig.dialer.dials == []
        assert rig.told.events == []


def test_a_reader_that_begins_while_its_start_is_given_up_is_kept() -> None:
    """It was given up all the same, and whoever asked next got a second reader beside it: two sockets."""
    life = Life(FakeClock(), lambda _: None)
    life.ask()
    begun: list[bool] = []

    def profile(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code is Life.reader_failed.__code__:
            sys.setprofile(None)
            begun.append(in_thread(life.claim_reader).result(PATIENCE))

    sys.setprofile(profile)
    try:
        life.start_interrupted()
    finally:
        sys.setprofile(None)
    assert begun == [True]
    assert (life.state, life.has_reader, life.claim_reader()) == (State.CONNECTING, True, False)


def test_asking_again_the_moment_it_is_idle() -> None:
    """The old reader is about to end, or has ended: a dial comes of it either way, and one only."""
    with Rig(forever(REFUSED), reconnect=False) as rig:
        for number in range(1, 200):
            assert rig.conn.get_connected().exception(PATIENCE) is not None
            assert len(rig.dialer.dials) == number


def test_a_loss_and_an_end_at_once_are_one_end() -> None:
    for _ in range(100):
        with Rig([OPEN, HANG]) as rig:
            peer = rig.open()
            rig.told.wait(1)
            barrier = threading.Barrier(2)
            dropping = in_thread(lambda peer=peer, barrier=barrier: (barrier.wait(PATIENCE), peer.drop()))
            barrier.wait(PATIENCE)
            rig.conn.disconnect()
            dropping.result(PATIENCE)
            assert rig.told.kinds == ["open", "lost"]
            assert len(rig.dialer.dials) == 1


# Everything at once


@pytest.fixture
def restless() -> Iterator[None]:
    """Have the interpreter switch threads much oftener than it does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Subject:
    """One connection of the stress, its server, and what must hold of the two."""

    numbers = itertools.count()

    def __init__(self, chance: random.Random) -> None:
        self._chance = random.Random(chance.random())
        self.says: dict[int, int] = {}
        self.peers: list[Peer] = []
        self.dials = 0
        self.futures: list[Future[Connection]] = []
        self.told = Told()
        self.told.hooks["reset"] = lambda *_: None if self._chance.random() < 0.9 else self.told.on_open
        self.told.hooks["data"] = self.maybe_fail
        options: dict[str, Any] = {
            "reconnect": chance.random() < 0.8,
            "dispatch": chance.choice(["reader", "thread"]),
            "stable_after": chance.choice([0, 1]),
            "max_message_size": chance.choice([50, 16_000_000]),
        }
        self.rig = Rig(
            self.outcome,
            clock=SystemClock(),
            wait=tenacity.wait_fixed(0.01),
            on_open=self.told.on_open,
            on_data=self.told.on_data,
            on_reset=self.told.on_reset,
            **options,
        )
        self.conn = self.rig.conn
        self._is_ended = threading.Lock()

    def maybe_fail(self, *_: object) -> None:
        if self._chance.random() < 0.01:
            raise ValueError("a user's bug")

    def outcome(self, _: Dial) -> Any:
        """Choose how a dial ends; on the reader thread."""
        self.dials += 1
        roll = self._chance.random()
        if roll < 0.2:
            return REFUSED
        if roll < 0.25:
            return HANG
        if roll < 0.3:
            return ConnectionClosed(4001)
        return self.serve

    def serve(self, peer: Peer) -> None:
        """Say some numbered messages, then close, drop or stay; on a thread of the peer's."""
        name = next(self.numbers)
        self.peers.append(peer)
        count = self._chance.randrange(30)
        say(peer, *(f"{name}:{number}" for number in range(count)))
        roll = self._chance.random()
        if roll < 0.4:
            self.says[name] = count
            peer.close(4200)
        elif roll < 0.5:
            peer.drop()

    def act(self, chance: random.Random) -> bool:
        """Do one thing to it; return whether it was ended by that."""
        action = chance.choices(["ask", "wait", "send", "hurry", "drop", "end"], [4, 3, 8, 3, 2, 1])[0]
        if action == "ask":
            self.futures.append(self.conn.get_connected())
        elif action == "wait":
            with contextlib.suppress(ConnmanError):
                self.conn.wait_open(0.005)
        elif action == "send":
            with contextlib.suppress(ConnmanError):
                self.conn.send("x" * chance.randrange(200))
        elif action == "hurry":
            self.conn.reconnect_now()
        elif action == "drop":
            for peer in self.peers[-1:]:
                peer.drop()
        return action == "end" and self._is_ended.acquire(blocking=False)

    def end_and_check(self) -> None:
        self.conn.disconnect(timeout=PATIENCE)
        events, dials = list(self.told.events), self.dials
        assert self.conn.wait_gone(0)
        self.futures.append(self.conn.get_connected())
        assert isinstance(self.futures[-1].exception(0), ConnectionClosed)
        for future in self.futures:
            error = future.exception(0)
            assert error is None or isinstance(error, ConnmanError)
        self.check_grammar()
        stats = self.conn.stats
        assert stats.opens == self.conn.generation
        assert stats.losses <= stats.opens
        assert self.conn.state == State.CLOSED
        assert (self.told.events, self.dials, self.told.overlaps) == (events, dials, 0)

    def check_grammar(self) -> None:
        """Check order and pairing, and that every message of a peer came, from the first on."""
        is_open, is_cut, speaker, heard = False, False, "", 0
        for event in self.told.events:
            if event == "open":
                # The end may cut off what waits for a callback thread, but then it is the end.
                assert (is_open, is_cut) == (False, False)
                is_open, speaker, heard = True, "", 0
            elif isinstance(event, Reset):
                assert event.opened == is_open
                if event.code == 4200 and speaker:
                    is_cut = heard != self.says[int(speaker)]
                is_open, speaker = False, ""
            else:
                assert is_open
                name, number = str(event).split(":")
                assert speaker in ("", name)
                assert int(number) == heard
                speaker, heard = name, heard + 1
        assert not is_open


@pytest.mark.slow
@pytest.mark.usefixtures("restless")
def test_all_at_once(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")  # thousands of changes are not worth a line each in a report
    chance = random.Random(seed)
    subjects = [Subject(chance) for _ in range(12)]
    ended: list[Subject] = []

    def act(own: random.Random) -> None:
        for _ in range(1500):
            place = own.randrange(len(subjects))
            subject = subjects[place]
            if subject.act(own):
                subjects[place] = Subject(own)
                subject.end_and_check()
                ended.append(subject)

    actors = [in_thread(act, random.Random(chance.random())) for _ in range(5)]
    try:
        for actor in actors:
            actor.result(5 * PATIENCE)
    finally:
        for subject in subjects:
            subject.conn.end_soon()
    for subject in subjects:
        subject.end_and_check()
    everything = ended + subjects
    # It was worth it: there were many of each.
    assert len(ended) > 20
    assert sum(subject.conn.stats.opens for subject in everything) > 100
    assert sum(subject.conn.stats.losses for subject in everything) > 20
    assert sum(subject.conn.stats.failed_attempts for subject in everything) > 20
    # What was said after its end: nothing.
    for subject in everything:
        subject.check_grammar()
