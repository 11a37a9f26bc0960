"""The first that opens, and nothing after it."""

from __future__ import annotations

from connman.strategy.base import Opened, Report, Result, Run, Runner, Strategy, checked


class FirstConnected(Strategy):
    """Hand on the first transport that ``child`` opens, and end everything else of it before.

    Raises: InvalidOption for what is no strategy.
    Threads: every method from any thread, but for `start`.
    """

    def __init__(self, child: Strategy) -> None:
        self.children = checked(child)

    def start(self, run: Run, report: Report, min_priority: int) -> Runner:
        """Start the child; see `Strategy.start`.

        Threads: within an event of ``run``.
        """

        def settled(result: Result) -> None:
            if isinstance(result, Opened):
                # First, so that nothing of it can come any more.
                runner.abort()
            report(result)

        runner = run.start(self.children[0], settled, min_priority)
        return runner
