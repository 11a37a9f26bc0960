"""One or the other, as it is now."""

from __future__ import annotations

from collections.abc import Callable

from connman.errors import InvalidOption
from connman.strategy.base import Report, Run, Runner, Strategy, checked


class If(Strategy):
    """Be ``then`` while ``test()`` is true, else ``otherwise``; it is asked each time and must not block.

    Raises: InvalidOption for what is no strategy, and a test that is no function.
    Threads: every method from any thread, but for `start`; ``test`` is called on any thread.
    """

    def __init__(self, test: Callable[[], object], then: Strategy, otherwise: Strategy) -> None:
        if not callable(test):
            raise InvalidOption("test is a function, which is asked each time")
        self._test = test
        self.children = checked(then, otherwise)

    @property
    def label(self) -> str:
        """What it says of itself in `describe`."""
        # Most often the test is whether one of the leaves is supported.
        owner = getattr(self._test, "__self__", None)
        told = f"{owner.name} is supported" if isinstance(owner, Strategy) else self._named()
        return f"If {told}: the first, else the second"

    def _named(self) -> str:
        return str(getattr(self._test, "__name__", type(self._test).__name__))

    def is_supported(self) -> bool:
        """Return whether the branch that is chosen now can be tried.

        Threads: any.
        """
        return self._branch().is_supported()

    def start(self, run: Run, report: Report, min_priority: int) -> Runner:
        """Start the branch that is chosen now; see `Strategy.start`.

        Threads: within an event of ``run``.
        """
        return self._branch().start(run, report, min_priority)

    def _branch(self) -> Strategy:
        then, otherwise = self.children
        return then if self._test() else otherwise
