"""Which deaths cost a life, what they do to the pings, and how lives come back."""

import inspect
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from connman.clock import SystemClock
from connman.errors import (
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    Fatal,
    HandshakeTimeout,
    InvalidOption,
    MessageTooBig,
    NotConnected,
    PingTimeout,
    ProtocolError,
)
from connman.options import Options
from connman.strategy import BestConnected, Strategy, Transport
from connman.strategy.health import Health, TransportManager
from connman.strategy.results import discard
from connman.testing import FakeClock
from connman.transport.base import Dial
from connman.transport.memory import memory_pair
from connman.transport.pipe import Pipe

MAX = 100.0  # the ping interval that counts
COOL_DOWN = 300.0


class Stage:
    """A manager, and transports that live and die."""

    def __init__(self, lives: int | None = 2, **options: float) -> None:
        self.clock = FakeClock()
        settings = {"min_ping_delay": 10.0, "max_ping_delay": MAX, "cool_down": COOL_DOWN} | options
        self.manager = TransportManager(lives, clock=self.clock, **settings)

    def open(self) -> tuple[Pipe, Pipe]:
        near, far = memory_pair(self.clock, 1024)
        self.manager.watch(near)
        return near, far

    def end(self, pair: tuple[Pipe, Pipe], end: int | ConnmanError | None) -> None:
        """End it by a close of the peer's, by an error at our end, or by a cut (None)."""
        near, far = pair
        if isinstance(end, int):
            far.close(end, "", 1.0)
        elif end is None:
            far.abort(ConnectionLost("cut"))
        else:
            near.abort(end)
        with pytest.raises(ConnmanError):
            near.receive()
        near.dispose()
        far.dispose()

    def live(self, age: float, end: int | ConnmanError | None = None) -> None:
        """Let one live for ``age`` seconds."""
        pair = self.open()
        self.clock.advance(age)
        self.end(pair, end)

    def pace(self) -> float | None:
        """What the next one is pinged at."""
        near, far = self.open()
        for pipe in (near, far):
            pipe.dispose()
        return near.ping_pace


def lost(cause: str = "reset") -> ConnectionLost:
    return ConnectionLost(cause)


# The model's table


def test_lives_run_out() -> None:
    stage = Stage(lives=2)
    seen = [stage.manager.is_alive]
    for _ in range(2):
        stage.live(1.0)
        seen.append(stage.manager.is_alive)
    assert seen == [True, True, False]
    assert stage.manager.lives_left == 0


@pytest.mark.parametrize("lives", [None, 0])
def test_without_a_limit_it_never_runs_out(lives: int | None) -> None:
    stage = Stage(lives)
    for _ in range(50):
        stage.live(1.0)
    assert stage.manager.is_alive
    assert stage.manager.lives_left == math.inf
    assert stage.pace() == 10.0  # the pings follow all the same


@pytest.mark.parametrize(
    ("age", "end", "is_death"),
    [
        # Who breaks the protocol, or says that we do, dies at any age, and however orderly.
        (1.0, 1002, True),
        (1.0, 1003, True),
        (10 * MAX, 1002, True),
        (10 * MAX, 1003, True),
        (10 * MAX, ProtocolError("bits", 1002), True),
        # A close in order is no death, at any age and with any other code.
        (1.0, 1000, False),
        (1.0, 1001, False),
        (1.0, 1011, False),
        (1.0, 1012, False),
        (1.0, 4200, False),
        (1.0, ConnectionClosed(1000), False),
        (1.0, ConnectionClosed(), False),
        # A cut is one when it comes early.
        (1.0, None, True),
        (1.0, ConnectionClosed(1006), True),
        (1.0, lost(), True),
        (1.0, PingTimeout("no life"), True),
        (1.0, ProtocolError("no UTF-8", 1007), True),
        (2 * MAX - 0.001, None, True),
        (2 * MAX, None, False),
        (2 * MAX + 1, None, False),
        (2 * MAX + 1, ProtocolError("no UTF-8", 1007), False),
        # What we have done ourselves says nothing of it.
        (1.0, NotConnected("a rival was faster"), False),
        (1.0, MessageTooBig("our limit", 1009), False),
    ],
    ids=str,
)
def test_what_counts_as_a_death(age: float, end: int | ConnmanError | None, is_death: bool) -> None:
    stage = Stage(lives=1)
    stage.live(age, end)
    assert stage.manager.is_alive is not is_death


def test_who_is_given_back_while_open_has_not_died() -> None:
    stage = Stage(lives=1)
    near, far = stage.open()
    near.dispose()
    far.dispose()
    assert stage.manager.is_alive


@pytest.mark.parametrize(
    ("age", "least", "pace"),
    [(190.0, 10.0, 95.0), (32.0, 20.0, 20.0), (32.0, 10.0, 16.0), (0.0, 10.0, 10.0)],
)
def test_after_a_cut_the_next_are_pinged_at_half_its_age(age: float, least: float, pace: float) -> None:
    stage = Stage(lives=None, min_ping_delay=least)
    assert stage.pace() is None
    stage.live(age)
    assert stage.pace() == stage.manager.ping_delay == pace


@pytest.mark.parametrize("end", [1000, 1002, 1003, ProtocolError("bits", 1002)], ids=str)
def test_other_ends_leave_the_pings_alone(end: int | ConnmanError) -> None:
    stage = Stage(lives=None)
    stage.live(5.0, end)
    assert stage.pace() is None
    stage.live(30.0)
    stage.live(5.0, end)
    assert stage.pace() == 15.0


def test_its_idea_of_a_ping_interval_is_the_connections_default() -> None:
    default = inspect.signature(TransportManager).parameters["max_ping_delay"].default
    assert default == Options().ping_interval


# How lives come back


def test_a_dead_one_gets_one_trial_after_the_cool_down() -> None:
    stage = Stage(lives=1)
    stage.live(1.0)
    assert stage.manager.health is Health.DEAD
    stage.clock.advance(COOL_DOWN - 0.001)
    assert not stage.manager.is_alive
    stage.clock.advance(0.001)
    assert stage.manager.health is Health.HALF_OPEN
    assert stage.manager.is_alive
    trial = stage.open()
    # One at a time: what it proves is not known yet.
    assert stage.manager.health is Health.TRIAL
    assert not stage.manager.is_alive
    stage.end(trial, 1000)
    assert stage.manager.health is Health.ALIVE
    assert stage.manager.lives_left == 1


def test_a_trial_that_dies_costs_another_cool_down() -> None:
    stage = Stage(lives=2)
    stage.live(1.0)
    stage.live(1.0)
    for _ in range(3):
        stage.clock.advance(COOL_DOWN)
        assert stage.manager.is_alive
        stage.live(1.0)
        assert stage.manager.health is Health.DEAD
        stage.clock.advance(COOL_DOWN - 0.001)
        assert not stage.manager.is_alive


def test_a_trial_that_grows_old_is_the_proof() -> None:
    stage = Stage(lives=2)
    stage.live(1.0)
    stage.live(1.0)
    stage.clock.advance(COOL_DOWN)
    trial = stage.open()
    stage.clock.advance(2 * MAX - 0.001)
    assert stage.manager.health is Health.TRIAL
    stage.clock.advance(0.001)
    assert stage.manager.health is Health.ALIVE
    assert stage.manager.lives_left == 2
    stage.end(trial, None)
    assert stage.manager.lives_left == 2


def test_a_trial_that_we_end_proves_nothing() -> None:
    stage = Stage(lives=1)
    stage.live(1.0)
    stage.clock.advance(COOL_DOWN)
    stage.live(1.0, NotConnected("a rival was faster"))
    assert stage.manager.health is Health.HALF_OPEN


def test_the_death_of_another_one_does_not_end_a_trial() -> None:
    stage = Stage(lives=1)
    older = stage.open()
    stage.live(1.0)
    stage.clock.advance(COOL_DOWN)
    trial = stage.open()
    stage.end(older, 1002)
    assert stage.manager.health is Health.TRIAL
    stage.end(trial, 1000)
    assert stage.manager.health is Health.ALIVE


def test_lives_come_back_when_no_death_follows() -> None:
    stage = Stage(lives=2)
    stage.live(1.0)
    stage.clock.advance(COOL_DOWN - 0.001)
    assert stage.manager.lives_left == 1
    stage.clock.advance(0.001)
    assert stage.manager.lives_left == 2
    assert stage.pace() == 10.0  # what may keep it alive stays


# A failure common to all


def test_when_then_nothing_opens_it_costs_no_life() -> None:
    stage = Stage(lives=1)
    stage.manager.opened()
    stage.live(1.0)
    assert not stage.manager.is_alive
    stage.manager.nothing_opened()
    assert stage.manager.is_alive
    assert stage.pace() is None


def test_when_then_anything_opens_the_life_is_gone() -> None:
    stage = Stage(lives=1)
    stage.live(1.0)
    stage.manager.opened()
    stage.manager.nothing_opened()
    assert not stage.manager.is_alive


def test_it_is_given_back_once_and_no_more_than_was_taken() -> None:
    stage = Stage(lives=3)
    stage.live(1.0)
    stage.manager.opened()
    crowd = [stage.open() for _ in range(5)]
    for pair in crowd:
        stage.end(pair, None)
    assert stage.manager.lives_left == 0
    for _ in range(3):
        stage.manager.nothing_opened()
        assert stage.manager.lives_left == 2


def test_a_trial_that_falls_with_all_others_is_repeated_at_once() -> None:
    stage = Stage(lives=1)
    stage.live(1.0)
    stage.manager.opened()
    stage.clock.advance(COOL_DOWN)
    stage.live(1.0)
    assert stage.manager.health is Health.DEAD
    stage.manager.nothing_opened()
    assert stage.manager.health is Health.HALF_OPEN


# In a tree


class Line:
    """A target that can be taken away, and whose transports can be cut."""

    def __init__(self) -> None:
        self.is_up = True
        self.far: list[Pipe] = []

    def dial(self, dial: Dial) -> Pipe:
        if not self.is_up:
            raise ConnectionRefusedError
        near, far = memory_pair(dial.clock, 1024)
        self.far.append(far)
        return near

    def dispose(self) -> None:
        for far in self.far:
            far.dispose()


@pytest.fixture(name="line")
def fixture_line() -> Iterator[Line]:
    line = Line()
    yield line
    line.dispose()


def dialled(tree: Strategy, handshake: Callable[[object], object] | None = None) -> Pipe:
    dial = Dial(None, Options(), SystemClock(), name="tree")
    dial.begin({})
    dial.handshake = handshake
    pipe = tree.dial(dial)
    assert isinstance(pipe, Pipe)
    return pipe


def cut(line: Line, near: Pipe) -> None:
    line.far[-1].abort(ConnectionLost("cut"))
    with pytest.raises(ConnectionLost):
        near.receive()
    near.dispose()


@pytest.mark.parametrize("is_enabled", [True, False])
@pytest.mark.parametrize("is_alive", [True, False])
def test_a_leaf_can_be_tried_when_it_is_alive_and_enabled(
    line: Line, is_alive: bool, is_enabled: bool
) -> None:
    stage = Stage(lives=1)
    if not is_alive:
        stage.live(1.0)
    assert Transport(line, manager=stage.manager, enabled=is_enabled).is_supported() is (
        is_alive and is_enabled
    )


def test_a_leaf_s_transports_are_watched(line: Line) -> None:
    stage = Stage(lives=2)
    leaf = Transport(line, manager=stage.manager)
    near = dialled(leaf)
    assert near.ping_pace is None
    stage.clock.advance(60.0)
    cut(line, near)
    assert stage.manager.lives_left == 1
    near = dialled(leaf)
    assert near.ping_pace == 30.0
    near.dispose()


def test_when_it_is_the_only_way_it_is_never_given_up_for_good(line: Line) -> None:
    """A bad network must not end in a state without any way left, which only a restart would mend."""
    stage = Stage(lives=2)
    leaf = Transport(line, manager=stage.manager)
    for _ in range(2):
        cut(line, dialled(leaf))
    assert not leaf.is_supported()
    with pytest.raises(ConnectError, match="nothing of the strategy can be tried now"):
        dialled(leaf)
    dialled(leaf).dispose()


@pytest.mark.parametrize("has_another", [True, False])
def test_what_fails_with_all_others_costs_no_life(line: Line, has_another: bool) -> None:
    stage, other = Stage(lives=1), Line()
    tree = BestConnected(Transport(line, manager=stage.manager), Transport(other))
    other.is_up = False
    cut(line, dialled(tree))
    assert not stage.manager.is_alive
    line.is_up, other.is_up = False, has_another
    if has_another:
        dialled(tree).dispose()
    else:
        with pytest.raises(ConnectError):
            dialled(tree)
    assert stage.manager.is_alive is not has_another
    other.dispose()


def test_a_peer_that_lets_nobody_in_costs_no_life(line: Line) -> None:
    stage = Stage(lives=1)

    def refused(_: object) -> None:
        raise Fatal("wrong key")

    with pytest.raises(Fatal):
        dialled(Transport(line, manager=stage.manager), refused)
    assert stage.manager.lives_left == 1


# The rest


@pytest.mark.parametrize(
    "options",
    [
        {"lives": -1},
        {"lives": True},
        {"lives": 1.5},
        {"min_ping_delay": 0},
        {"max_ping_delay": math.nan},
        {"max_ping_delay": math.inf},
        {"cool_down": -1},
        {"cool_down": math.nan},
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidOption):
        TransportManager(**options)


def test_threads_lose_no_death() -> None:
    stage = Stage(lives=1000)
    pairs = [stage.open() for _ in range(400)]
    together = threading.Barrier(8)

    def end(some: list[tuple[Pipe, Pipe]]) -> None:
        together.wait(10)
        for pair in some:
            stage.end(pair, None)

    threads = [threading.Thread(target=end, args=(pairs[number::8],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert stage.manager.lives_left == 600


class ForkingClock(FakeClock):
    """Forks when it is asked for the time, which its user may do while it holds a lock."""

    child: int | None = None
    is_armed = False

    def now(self) -> float:
        if self.is_armed:
            self.is_armed = False
            self.child = os.fork()
        return super().now()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_begins_anew_and_waits_for_no_lock_of_its_parent() -> None:
    clock = ForkingClock()
    manager = TransportManager(1, clock=clock)
    near, far = memory_pair(clock, 1024)
    manager.watch(near)
    near.abort(ConnectionLost("cut"))
    near.dispose()
    far.dispose()
    clock.is_armed = True
    is_alive = manager.is_alive
    if clock.child == 0:
        signal.alarm(10)  # a hang must not outlive the test
        os._exit(0 if manager.is_alive else 1)
    assert clock.child is not None
    assert os.waitstatus_to_exitcode(os.waitpid(clock.child, 0)[1]) == 0
    assert not is_alive


@pytest.mark.parametrize("ends", ["late", "silent"])
def test_a_trial_that_nobody_wants_proves_nothing(line: Line, ends: str) -> None:
    stage = Stage(lives=1)
    stage.live(1.0)
    stage.manager.opened()
    stage.clock.advance(COOL_DOWN)
    leaf = Transport(line, manager=stage.manager, handshake_timeout=0.05)
    if ends == "late":
        # Behind the end of the tree, where a guard closes it.
        dial = Dial(None, Options(), SystemClock(), name="tree")
        near = leaf.dial(dial)
        discard(near)
    else:
        # The network lets it open and swallows the login.
        with pytest.raises(HandshakeTimeout):
            dialled(leaf, lambda channel: channel.recv())  # type: ignore[attr-defined]
    assert stage.manager.health is Health.HALF_OPEN
