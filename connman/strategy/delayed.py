"""The same, a little later."""

from __future__ import annotations

from connman.clock import Timer
from connman.options import check_seconds
from connman.strategy.base import Report, Run, Runner, Strategy, checked


class Delayed(Strategy):
    """Start ``child`` after ``delay`` seconds, so that what stands beside it may be first.

    Raises: InvalidOption for a delay below 0 or not a number, and what is no strategy.
    Threads: every method from any thread, but for `start`.
    """

    def __init__(self, child: Strategy, delay: float) -> None:
        self.children = checked(child)
        check_seconds("delay", delay, zero=True)
        self.delay = delay

    @property
    def label(self) -> str:
        """What it says of itself in `describe`."""
        return f"Delayed: {self.delay:g} s"

    def start(self, run: Run, report: Report, min_priority: int) -> Runner:
        """Have the child start later; see `Strategy.start`.

        Threads: within an event of ``run``.
        """
        runner = _Delay(self.children[0], run, report, min_priority)
        runner.begin(self.delay)
        return runner


class _Delay:
    """A `Delayed` under way. Threads: the run's events."""

    def __init__(self, child: Strategy, run: Run, report: Report, min_priority: int) -> None:
        self._child = child
        self._run = run
        self._report = report
        self._min_priority = min_priority
        self._timer: Timer | None = None
        self._runner: Runner | None = None

    def begin(self, delay: float) -> None:
        self._timer = self._run.call_later(delay, self._start)

    def _start(self) -> None:
        self._runner = self._run.start(self._child, self._report, self._min_priority)

    def abort(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._runner is not None:
            self._runner.abort()

    def force_min_priority(self, priority: int) -> None:
        self._min_priority = priority
        if self._runner is not None:
            self._runner.force_min_priority(priority)
