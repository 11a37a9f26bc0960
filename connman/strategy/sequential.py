"""One after the other, at a fixed pace."""

from __future__ import annotations

import math

from connman.clock import Timer
from connman.errors import ConnectError, ConnectTimeout, ConnmanError
from connman.options import check_seconds
from connman.strategy.base import Opened, Report, Result, Run, Runner, Strategy, checked
from connman.strategy.results import combined

# A loop whose children fail at once, and that does not wait for their time to be over, must not spin.
_LEAST_ROUND = 0.1


class Sequential(Strategy):
    """Try the children one after the other, each for ``timeout`` seconds.

    A child that fails before its time is over is waited out, which keeps the pace whatever fails, unless ``fail_fast``.
    The time doubles with each child, up to ``timeout_limit``. Without a ``timeout`` the next one follows a failure at once.
    With ``loop`` the first follows the last, and it never fails; a round begins 0.1 s after the one before at the
    earliest. It fails after the last child otherwise. A success ends the trying, but not the child.

    Raises: InvalidOption for a time below 0 or not a number (0 and None are no time), and what is no strategy.
    Threads: every method from any thread, but for `start`.
    """

    def __init__(
        self,
        *children: Strategy,
        loop: bool = False,
        timeout: float | None = None,
        timeout_limit: float | None = None,
        fail_fast: bool = False,
    ) -> None:
        self.children = checked(*children)
        self.loop = loop
        for name, seconds in (("timeout", timeout), ("timeout_limit", timeout_limit)):
            if seconds is not None:
                check_seconds(name, seconds, zero=True)
        self.timeout = timeout
        self.timeout_limit = timeout_limit
        self.fail_fast = fail_fast

    @property
    def label(self) -> str:
        """What it says of itself in `describe`."""
        words = ["loop"] * self.loop
        if self.timeout:
            limit = f" up to {self.timeout_limit:g} s" if self.timeout_limit else ""
            words.append(f"{self.timeout:g} s each, doubling{limit}")
        words += ["fail fast"] * self.fail_fast
        return "Sequential" + (f": {', '.join(words)}" if words else "")

    def start(self, run: Run, report: Report, min_priority: int) -> Runner:
        """Start the first child; see `Strategy.start`.

        Threads: within an event of ``run``.
        """
        runner = _Sequence(self, run, report, min_priority)
        runner.begin()
        return runner


class _Sequence:
    """A `Sequential` under way. Threads: the run's events."""

    def __init__(self, plan: Sequential, run: Run, report: Report, min_priority: int) -> None:
        self._plan = plan
        self._run = run
        self._report = report
        self._min_priority = min_priority
        self._index = 0
        self._slot = plan.timeout
        self._timer: Timer | None = None  # of the slot, or of the pause between two rounds
        self._child: Runner | None = None
        self._errors: dict[int, ConnmanError] = {}
        self._round_began = 0.0

    def begin(self) -> None:
        if not self._plan.children:
            self._report(ConnectError(self._run.dial.name, (), "there is nothing to try"))
            return
        self._try()

    def abort(self) -> None:
        self._stop_timer()
        if self._child is not None:
            self._child.abort()

    def force_min_priority(self, priority: int) -> None:
        self._min_priority = priority
        if self._child is not None:
            self._child.force_min_priority(priority)

    def _try(self) -> None:
        if self._index == 0:
            self._round_began = self._run.clock.now()
        # Before the child, whose own timers may be due at the same time: the slot's end comes first.
        self._timer = self._run.call_later(self._slot, self._slot_is_over) if self._slot else None
        self._child = self._run.start(
            self._plan.children[self._index], self._settled, min_priority=self._min_priority
        )

    def _settled(self, result: Result) -> None:
        if isinstance(result, Opened):
            self._stop_timer()
            self._report(result)
            return
        self._errors[self._index] = result
        if self._timer is None or self._plan.fail_fast:
            self._stop_timer()
            self._next()

    def _slot_is_over(self) -> None:
        self._timer = None
        assert self._child is not None
        self._errors.setdefault(
            self._index, ConnectTimeout(self._run.dial.name, (), f"not open within {self._slot:g} s")
        )
        self._child.abort()
        self._next()

    def _next(self) -> None:
        self._index += 1
        if self._slot:
            self._slot = min(self._slot * 2, self._plan.timeout_limit or math.inf)
        if self._index < len(self._plan.children):
            self._try()
        elif self._plan.loop:
            self._index = 0
            self._errors.clear()
            self._begin_round()
        else:
            self._report(combined(self._run.dial, list(self._errors.values())))

    def _begin_round(self) -> None:
        pause = self._round_began + _LEAST_ROUND - self._run.clock.now()
        if pause > 0:
            self._timer = self._run.call_later(pause, self._try)
        else:
            self._try()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
