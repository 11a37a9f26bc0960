"""Trees of scripted leaves on a fake clock, with a journal of everything that happens to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from connman.clock import Timer
from connman.errors import ConnectError, ConnmanError
from connman.options import Options
from connman.strategy import Opened, Report, Result, Run, Runner, Strategy
from connman.testing import FakeClock
from connman.transport.base import Dial, Transport


class Pipe:
    """What a scripted leaf opens: it can be ended, and counts how often."""

    is_slow_to_dispose = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: ConnmanError | None = None
        self.disposals = 0

    def abort(self, error: ConnmanError) -> None:
        self.error = self.error or error

    def dispose(self) -> None:
        self.disposals += 1

    @property
    def is_open(self) -> bool:
        return not self.disposals


@dataclass(frozen=True)
class Ok:
    """Open after so many milliseconds; None: at once, within `start`."""

    after: int | None = None
    refusal: ConnmanError | None = None


@dataclass(frozen=True)
class No:
    """Fail after so many milliseconds; None: at once, within `start`."""

    after: int | None = None
    error: ConnmanError | None = None


HANG = None
Outcome = Ok | No | None


class Leaf(Strategy):
    """A leaf that does, each time it is started, what its script says next; the last line of it counts for ever.

    `obeys=False`: it goes on after an abort and ignores a forced priority, as no leaf should.
    """

    def __init__(
        self,
        rig: Rig,
        name: str,
        script: Iterable[Outcome] = (HANG,),
        *,
        priority: int = 3,
        supported: bool = True,
        obeys: bool = True,
    ) -> None:
        self._rig = rig
        self._name = name
        self._script = iter(list(script))
        self._last: Outcome = HANG
        self.priority = priority
        self.supported = supported
        self.obeys = obeys
        self.attempts: list[LeafRunner] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def label(self) -> str:
        return self._name

    def is_supported(self) -> bool:
        return self.supported

    def start(self, run: Run, report: Report, min_priority: int) -> Runner:
        self._last = next(self._script, self._last)
        self._rig.note(f"{self.name} started" + (f" with {min_priority}" if min_priority else ""))
        runner = LeafRunner(self._rig, self, run, report, min_priority)
        self.attempts.append(runner)
        runner.begin(self._last)
        return runner


class LeafRunner:
    def __init__(self, rig: Rig, leaf: Leaf, run: Run, report: Report, min_priority: int) -> None:
        self._rig = rig
        self._leaf = leaf
        self._run = run
        self._report = report
        self._min_priority = min_priority
        self._timer: Timer | None = None
        self._is_over = False
        self.aborts = 0

    def begin(self, outcome: Outcome) -> None:
        if self._leaf.priority < self._min_priority and self._leaf.obeys:
            self.report(ConnectError(self._leaf.name, (), "priority too low"))
        elif outcome is not None and outcome.after is None:
            self.settle(outcome)
        elif outcome is not None and outcome.after is not None:
            self._timer = self._run.call_later(outcome.after / 1000, lambda: self._ring(outcome))

    def _ring(self, outcome: Outcome) -> None:
        self._timer = None
        self.settle(outcome)

    @property
    def is_running(self) -> bool:
        """Whether it has neither reported anything nor been told to end."""
        return not self._is_over and not self.aborts

    @property
    def is_ticking(self) -> bool:
        """Whether its timer is to ring."""
        return self._timer is not None

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def settle(self, outcome: Outcome) -> None:
        """Report what a test wants reported, now."""
        if isinstance(outcome, Ok):
            self.report(self._rig.opened(self._leaf, outcome.refusal))
        elif outcome is not None:
            self.report(outcome.error or ConnectError(self._leaf.name, (), f"{self._leaf.name} failed"))

    def report(self, result: Result) -> None:
        self._is_over = True
        self._rig.note(f"{self._leaf.name} {'ok' if isinstance(result, Opened) else 'failed'}")
        self._report(result)

    def abort(self) -> None:
        self.aborts += 1
        self._rig.note(f"{self._leaf.name} aborted")
        if self._leaf.obeys:
            self._stop()

    def force_min_priority(self, priority: int) -> None:
        self._rig.note(f"{self._leaf.name} forced to {priority}")
        if self._leaf.obeys and not self._is_over and self._leaf.priority < priority:
            self._stop()
            self.report(ConnectError(self._leaf.name, (), "closed"))


class Gated(Strategy):
    """Whatever a test makes of it: `begin(run, report, min_priority)` is its `start`."""

    def __init__(self, begin: Callable[[Run, Report, int], Runner]) -> None:
        self._begin = begin

    def is_supported(self) -> bool:
        return True

    def start(self, run: Run, report: Report, min_priority: int) -> Runner:
        return self._begin(run, report, min_priority)


@dataclass
class Rig:
    """A fake clock, the journal (milliseconds and what happened), and what the root called back with."""

    clock: FakeClock = field(default_factory=FakeClock)
    journal: list[tuple[int, str]] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    pipes: list[Pipe] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.journal.append((self.now, what))

    @property
    def now(self) -> int:
        return round(self.clock.now() * 1000)

    def leaf(self, name: str, *script: Outcome, **how: Any) -> Leaf:
        return Leaf(self, name, script or (HANG,), **how)

    def leaves(self, *names: str) -> Iterator[Leaf]:
        return (self.leaf(name) for name in names)

    def opened(self, leaf: Leaf, refusal: ConnmanError | None = None) -> Opened:
        pipe = Pipe(leaf.name)
        self.pipes.append(pipe)
        if refusal is not None:
            pipe.dispose()
        return Opened(cast(Transport, pipe), leaf.name, leaf.priority, (), refusal)

    def dial(self, **options: Any) -> Dial:
        return Dial(None, Options(**options), self.clock, name="rig")

    def connect(self, tree: Strategy, min_priority: int = 0) -> Runner:
        """Start `tree`; what comes of it at once, comes with the next `advance`."""
        return tree.connect(self._called_back, min_priority, dial=self.dial())

    def _called_back(self, result: Result) -> None:
        self.note(f"root: {result.name}" if isinstance(result, Opened) else "root failed")
        self.results.append(result)

    def advance(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds / 1000)

    def until(self, milliseconds: int) -> None:
        """Let time pass up to that point."""
        self.advance(milliseconds - self.now)

    @property
    def winner(self) -> str | None:
        """The name of the only result, which is a success."""
        (result,) = self.results
        return result.name if isinstance(result, Opened) else None

    def took(self) -> list[tuple[int, str]]:
        """Return the journal so far and begin a new one."""
        taken, self.journal = self.journal, []
        return taken

    @property
    def open_pipes(self) -> list[str]:
        return [pipe.name for pipe in self.pipes if pipe.is_open]
