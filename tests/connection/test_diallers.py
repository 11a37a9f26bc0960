"""Diallers: few while dials are quick, more while they hang, none when nothing is left."""

import os
import threading
import time
from collections.abc import Callable

import pytest

from connman.clock import SystemClock
from connman.connection.diallers import Diallers
from connman.errors import ConnectError, ConnmanError, NotConnected
from connman.options import Options
from connman.threads import spawn
from connman.transport.base import Dial
from tests.loopback import in_thread
from tests.waiting import eventually

PATIENCE = 10.0  # seconds that only a failing test reaches
FEW = 16
STAGE = 0.1  # seconds until FEW more may start


def new_dial(name: str = "dial") -> Dial:
    return Dial(None, Options(), SystemClock(), name=name)


def threads_of(name: str) -> int:
    return sum(thread.name == f"connman-dialler-{name}" for thread in threading.enumerate())


def check_few(name: str, since: float) -> None:
    """Check that the first have started, and of the others no more than the time since then allows."""
    count = threads_of(name)
    stages = int((time.monotonic() - since) / STAGE)
    assert FEW <= count <= FEW * (1 + stages)


class Hanging:
    """Dials that hang until `gate` opens."""

    def __init__(self, diallers: Diallers) -> None:
        self._diallers = diallers
        self.gate = threading.Event()
        self.begun: list[int] = []
        self.given_up: list[ConnmanError] = []

    def submit(self, number: int = 0) -> Dial:
        def work() -> None:
            self.begun.append(number)
            self.gate.wait(PATIENCE)

        dial = new_dial(f"dial {number}")
        self._diallers.submit(dial, work, self.given_up.append)
        return dial


def test_few_at_first_and_more_while_something_waits() -> None:
    diallers = Diallers("few")
    hanging = Hanging(diallers)
    begin = time.monotonic()
    for number in range(200):
        hanging.submit(number)
    # No more are started at once, and each stage of growth lets 16 more begin.
    check_few("few", begin)
    eventually(lambda: len(hanging.begun) == 200)
    # The first are among the first; which of the threads that have one each says so first is theirs.
    assert set(range(FEW)) <= set(hanging.begun[: 2 * FEW])
    assert sorted(hanging.begun) == list(range(200))
    assert not diallers.wait_gone(0)
    hanging.gate.set()
    assert diallers.wait_gone(PATIENCE)
    assert threads_of("few") == 0
    # Grown for those that hung, they are few again.
    hanging.gate.clear()
    begin = time.monotonic()
    for number in range(FEW + 1):
        hanging.submit(number)
    check_few("few", begin)
    hanging.gate.set()
    assert diallers.wait_gone(PATIENCE)


def test_one_thread_serves_dials_that_come_one_after_the_other() -> None:
    diallers, done = Diallers("serving"), []
    first_runs, go_on = threading.Event(), threading.Event()

    def first() -> None:
        first_runs.set()
        go_on.wait(PATIENCE)
        done.append(threading.current_thread())

    diallers.submit(new_dial(), first, pytest.fail)
    assert first_runs.wait(PATIENCE)
    for _ in range(5):
        diallers.submit(new_dial(), lambda: done.append(threading.current_thread()), pytest.fail)
    go_on.set()
    assert diallers.wait_gone(PATIENCE)
    assert len(done) == 6


def test_what_waits_does_not_profit_from_what_waited_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that was set for those before came up for the next: seen with a thread too many, too early."""
    times: list[Callable[[], None]] = []

    def call_later(_clock: object, _delay: float, grow: Callable[[], None]) -> object:
        times.append(grow)
        return grow

    monkeypatch.setattr("connman.connection.diallers.maybe_call_later", call_later)
    diallers = Diallers("again")
    for count in (1, 2):
        hanging = Hanging(diallers)
        for number in range(FEW + 1):
            hanging.submit(number)
        eventually(lambda hanging=hanging: len(hanging.begun) == FEW)  # type: ignore[misc]
        assert len(times) == count
        if count == 2:
            times[0]()
            assert threads_of("again") == FEW
            times[1]()  # which may set another time, as long as what waits has not begun
            eventually(lambda: threads_of("again") == FEW + 1)
        hanging.gate.set()
        assert diallers.wait_gone(PATIENCE)


def test_one_whose_starter_is_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen forgotten: it had dialled, and was about to end, before whoever had started it noted it."""
    is_started, may_end, may_return = threading.Event(), threading.Event(), threading.Event()

    def spawn_late(name: str, target: Callable[[], None]) -> None:
        def run() -> None:
            target()
            may_end.wait(PATIENCE)

        spawn(name, run)
        is_started.set()
        may_return.wait(PATIENCE)

    monkeypatch.setattr("connman.connection.diallers.spawn", spawn_late)
    diallers, done = Diallers("late"), threading.Event()
    submitting = in_thread(diallers.submit, new_dial(), done.set, pytest.fail)
    assert is_started.wait(PATIENCE)
    assert done.wait(PATIENCE)
    assert not diallers.wait_gone(0.05)
    may_end.set()
    assert diallers.wait_gone(PATIENCE)
    may_return.set()
    submitting.result(PATIENCE)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no more than FEW threads, however long something waits."""
    monkeypatch.setattr("connman.connection.diallers.maybe_call_later", lambda *_: None)


@pytest.mark.usefixtures("few")
def test_a_queued_dial_that_is_aborted_gives_up_at_once() -> None:
    diallers = Diallers("queued")
    hanging = Hanging(diallers)
    for number in range(FEW):
        hanging.submit(number)
    queued = hanging.submit(99)
    why = NotConnected("not wanted any more")
    queued.abort(why)
    assert hanging.given_up == [why]
    queued.abort(why)
    hanging.gate.set()
    assert diallers.wait_gone(PATIENCE)
    assert 99 not in hanging.begun
    assert hanging.given_up == [why]


@pytest.mark.usefixtures("few")
def test_an_abort_that_was_interrupted_is_made_up_for_by_the_next() -> None:
    """It had taken the dial out of the queue and told nobody: its connection waited for ever, and its reader with it."""
    diallers = Diallers("interrupted")
    hanging = Hanging(diallers)
    for number in range(FEW):
        hanging.submit(number)
    told: list[ConnmanError] = []

    def give_up(error: ConnmanError) -> None:
        told.append(error)
        if len(told) == 1:
            raise KeyboardInterrupt

    dial = new_dial()
    diallers.submit(dial, lambda: hanging.begun.append(-1), give_up)
    with pytest.raises(KeyboardInterrupt):
        dial.abort(NotConnected("first"))
    dial.abort(NotConnected("second"))
    dial.abort(NotConnected("third"))
    assert [str(error) for error in told] == ["first", "first"]
    hanging.gate.set()
    assert diallers.wait_gone(PATIENCE)
    assert -1 not in hanging.begun


def test_a_dial_that_was_aborted_before_is_not_even_queued() -> None:
    diallers, dial, why = Diallers("before"), new_dial(), NotConnected("too late")
    dial.abort(why)
    told: list[ConnmanError] = []
    diallers.submit(dial, pytest.fail, told.append)
    assert told == [why]
    assert diallers.wait_gone(0)


def test_a_dial_that_a_dialler_has_is_told_of_an_abort_by_itself() -> None:
    diallers = Diallers("had")
    hanging = Hanging(diallers)
    dial = hanging.submit()
    eventually(lambda: hanging.begun)
    dial.abort(NotConnected("ended"))
    assert hanging.given_up == []
    hanging.gate.set()
    assert diallers.wait_gone(PATIENCE)


@pytest.mark.parametrize("number", range(20))
def test_a_dial_is_run_or_given_up_but_never_both(number: int) -> None:
    """An abort against the dialler that is about to take it."""
    diallers, outcomes = Diallers("either"), []
    dial = new_dial()
    barrier = threading.Barrier(2)
    diallers.submit(new_dial(), lambda: barrier.wait(PATIENCE), pytest.fail)

    def abort() -> None:
        barrier.wait(PATIENCE)
        dial.abort(NotConnected("ended"))

    aborting = in_thread(abort)
    diallers.submit(dial, lambda: outcomes.append("run"), lambda _: outcomes.append("given up"))
    aborting.result(PATIENCE)
    assert diallers.wait_gone(PATIENCE)
    assert len(outcomes) == 1


def test_work_that_raises_ends_no_dialler(caplog: pytest.LogCaptureFixture) -> None:
    diallers, done = Diallers("raising"), threading.Event()

    def bug() -> None:
        raise SystemExit(3)

    diallers.submit(new_dial(), bug, pytest.fail)
    diallers.submit(new_dial(), done.set, pytest.fail)
    assert done.wait(PATIENCE)
    assert diallers.wait_gone(PATIENCE)
    assert "a dialler failed" in caplog.text


# No thread


def refuse(allowed: int = 0) -> Callable[[threading.Thread], None]:
    """Make a `Thread.start` that grants `allowed` diallers and no more."""
    start, granted = threading.Thread.start, []

    def start_or_not(thread: threading.Thread) -> None:
        if "dialler" in thread.name:
            if len(granted) >= allowed:
                raise RuntimeError("can't start new thread")
            granted.append(thread)
        start(thread)

    return start_or_not


def test_without_any_thread_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    diallers, told = Diallers("none"), []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse())
        diallers.submit(new_dial(), pytest.fail, told.append)
    assert [type(error) for error in told] == [ConnectError]
    assert "can't start new thread" in str(told[0])
    assert diallers.wait_gone(0)
    done = threading.Event()
    diallers.submit(new_dial(), done.set, pytest.fail)
    assert done.wait(PATIENCE)
    assert diallers.wait_gone(PATIENCE)


def test_the_threads_that_are_there_dial_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    diallers = Diallers("one")
    hanging = Hanging(diallers)
    monkeypatch.setattr(threading.Thread, "start", refuse(1))
    for number in range(5):
        hanging.submit(number)
    assert threads_of("one") == 1
    hanging.gate.set()
    assert diallers.wait_gone(PATIENCE)
    assert hanging.begun == list(range(5))
    assert hanging.given_up == []


def test_two_that_trust_in_each_others_thread_are_both_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first to fail saw that another thread was about to start; that one failed as well."""
    diallers, told = Diallers("trust"), []
    both = threading.Barrier(2)

    def start(thread: threading.Thread) -> None:
        if "dialler" not in thread.name:
            started(thread)
            return
        both.wait(PATIENCE)
        raise RuntimeError("can't start new thread")

    started = threading.Thread.start
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        submitting = [
            in_thread(diallers.submit, new_dial(), pytest.fail, told.append) for _ in range(2)
        ]  # fmt: skip
        for submitted in submitting:
            submitted.result(PATIENCE)
    assert len(told) == 2
    assert diallers.wait_gone(0)


def test_it_grows_later_when_no_timer_was_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    diallers = Diallers("timerless")
    hanging = Hanging(diallers)
    for number in range(FEW):
        hanging.submit(number)
    with monkeypatch.context() as patch:
        start = threading.Thread.start

        def start_or_not(thread: threading.Thread) -> None:
            if "timers" in thread.name:
                raise RuntimeError("can't start new thread")
            start(thread)

        patch.setattr(threading.Thread, "start", start_or_not)
        hanging.submit(FEW)
    hanging.submit(FEW + 1)
    eventually(lambda: len(hanging.begun) == FEW + 2)
    hanging.gate.set()
    assert diallers.wait_gone(PATIENCE)


# run(), and waiting for the end


def test_run_is_not_held_up_by_dials() -> None:
    diallers = Diallers("run")
    hanging = Hanging(diallers)
    for number in range(FEW):
        hanging.submit(number)
    ran = threading.Event()
    diallers.run(ran.set)
    assert ran.wait(PATIENCE)
    hanging.gate.set()
    assert diallers.wait_gone(PATIENCE)


def test_run_without_a_thread_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    diallers, ran = Diallers("here"), []
    monkeypatch.setattr(threading.Thread, "start", refuse())
    diallers.run(lambda: ran.append(threading.current_thread()))
    assert ran == [threading.current_thread()]
    assert diallers.wait_gone(0)


def test_what_runs_is_waited_for() -> None:
    diallers, gate = Diallers("waited"), threading.Event()
    diallers.run(lambda: gate.wait(PATIENCE))
    assert not diallers.wait_gone(0)
    gate.set()
    assert diallers.wait_gone(PATIENCE)


def test_waiting_for_the_end_does_not_wait_for_what_comes_meanwhile() -> None:
    """A connection that is ended must not wait for the dial of another one, begun just now."""
    diallers = Diallers("meanwhile")
    hanging = Hanging(diallers)
    hanging.submit(1)
    eventually(lambda: hanging.begun)
    waiting = in_thread(diallers.wait_gone, 100.0)

    def has_returned_after_another() -> bool:
        hanging.submit(2)
        return waiting.done()

    eventually(has_returned_after_another)
    assert waiting.result(0)
    hanging.gate.set()
    assert diallers.wait_gone(PATIENCE)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_that_returns_from_a_dial_dials_no_more() -> None:
    """The dialling thread forked, in a login: the child's queue is not its business."""
    diallers, parent = Diallers("forking"), os.getpid()
    reading, writing = os.pipe()

    def fork() -> None:
        if os.fork() == 0:
            diallers.after_fork()
            gate = threading.Event()
            # A thread of the child's own takes it; the forking one must not, and must not count itself out either.
            diallers.submit(new_dial(), lambda: (os.write(writing, b"dialled "), gate.set()), pytest.fail)
            gate.wait(PATIENCE)
            in_child.append(True)

    in_child: list[bool] = []
    diallers.submit(new_dial(), fork, pytest.fail)
    assert diallers.wait_gone(PATIENCE)
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b"dialled "
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    assert os.getpid() == parent
    assert in_child == []


def test_an_abort_while_it_is_submitted_is_not_lost() -> None:
    """Between its registration and its queue it found nothing to take out: the dead dial waited for a dialler."""

    class Aborted(Dial):
        def add_abortable(self, wake: Callable[[], None]) -> None:
            super().add_abortable(wake)
            self.abort(NotConnected("ended just now"))

    diallers, worked, given_up = Diallers("aborted"), [], []
    hanging = Hanging(diallers)
    for number in range(FEW):
        hanging.submit(number)
    dial = Aborted(None, Options(), SystemClock(), name="aborted")
    diallers.submit(dial, lambda: worked.append(1), given_up.append)
    assert [str(error) for error in given_up] == ["ended just now"]
    hanging.gate.set()
    assert diallers.wait_gone(PATIENCE)
    assert worked == []


def test_a_dialler_that_is_killed_is_replaced() -> None:
    greenlet = pytest.importorskip("greenlet")

    def be_killed() -> None:
        raise greenlet.GreenletExit

    diallers = Diallers("killed")
    dialled = threading.Event()
    for work in (*[be_killed] * (2 * FEW), dialled.set):
        diallers.submit(new_dial(), work, lambda _: None)
    assert dialled.wait(PATIENCE)
    assert diallers.wait_gone(PATIENCE)
