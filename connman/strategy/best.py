"""Side by side, and the better ones may still come."""

from __future__ import annotations

from functools import partial

from connman.errors import ConnectError, ConnmanError
from connman.strategy.base import Opened, Report, Result, Run, Runner, Strategy, checked
from connman.strategy.results import combined


class BestConnected(Strategy):
    """Start all children at once; each that opens ends those of a lower priority and is handed on.

    So it may call back more than once, with what is as good or better. It fails when every child has failed.

    Raises: InvalidOption for what is no strategy.
    Threads: every method from any thread, but for `start`.
    """

    def __init__(self, *children: Strategy) -> None:
        self.children = checked(*children)

    def start(self, run: Run, report: Report, min_priority: int) -> Runner:
        """Start all children; see `Strategy.start`.

        Threads: within an event of ``run``.
        """
        runner = _Race(self, run, report)
        runner.begin(min_priority)
        return runner


class _Race:
    """A `BestConnected` under way. Threads: the run's events."""

    def __init__(self, plan: BestConnected, run: Run, report: Report) -> None:
        self._children = plan.children
        self._run = run
        self._report = report
        self._runners: list[Runner] = []
        self._errors: dict[int, ConnmanError] = {}

    def begin(self, min_priority: int) -> None:
        if not self._children:
            self._report(ConnectError(self._run.dial.name, (), "there is nothing to try"))
        for number, child in enumerate(self._children):
            self._runners.append(self._run.start(child, partial(self._settled, number), min_priority))

    def _settled(self, number: int, result: Result) -> None:
        if isinstance(result, Opened):
            self.force_min_priority(result.priority)
            self._report(result)
            return
        self._errors[number] = result
        # A child that has opened reports no failure any more: with one of them this is never reached.
        if len(self._errors) == len(self._children):
            self._report(combined(self._run.dial, list(self._errors.values())))

    def abort(self) -> None:
        for runner in self._runners:
            runner.abort()

    def force_min_priority(self, priority: int) -> None:
        for runner in self._runners:
            runner.force_min_priority(priority)
