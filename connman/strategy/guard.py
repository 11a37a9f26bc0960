"""What stands between a strategy and whoever started it: nothing comes late or twice, and no late transport stays open."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from connman.errors import ConnectError, ConnmanError
from connman.strategy.results import Opened, Report, Result, Runner, discard, too_low
from connman.transport.base import Transport

if TYPE_CHECKING:
    from connman.strategy.run import Run

logger = logging.getLogger("connman.strategy")


class _State(enum.Enum):
    WAITING = "waiting"
    OPENED = "opened"  # more may open
    FAILED = "failed"
    ABORTED = "aborted"


class Guard:
    """Stand between a child and its parent: drop what comes late or twice, and close what opens late.

    Threads: `settle` from any thread; the rest within the run's events.
    """

    __slots__ = ("_min_priority", "_newest", "_report", "_run", "_state", "runner")

    def __init__(self, run: Run, report: Report, min_priority: int) -> None:
        self._run = run
        self._report = report
        self._min_priority = min_priority
        self._state = _State.WAITING
        self._newest: Transport | None = None
        self.runner: Runner | None = None

    def settle(self, result: Result) -> None:
        """Take what the child reports.

        Threads: any.
        """
        # Never at once: the parent may not have got the runner yet, or may be in the middle of telling others.
        self._run.post(partial(self._deliver, result))

    def _deliver(self, result: Result) -> None:
        if isinstance(result, Opened):
            if result.transport is self._newest:
                return  # the same once more: to close it as a late one would end what may be in use
            self._newest = result.transport
            if result.priority < self._min_priority:
                discard(result.transport)
                result = self._error(too_low(result.name, result.priority, self._min_priority))
                if self._state is _State.WAITING:
                    # It has failed for its parent, who tells it nothing any more; what else of it runs is to end.
                    self._tell(lambda runner: runner.abort())
        elif not isinstance(result, ConnmanError):
            # Of a strategy of the user's own, whose parents could make nothing of it: the tree would hang.
            result = self._error(f"a strategy has reported {type(result).__name__}, which is no result")
        is_open = isinstance(result, Opened)
        if self._state is _State.WAITING or (self._state is _State.OPENED and is_open):
            self._state = _State.OPENED if is_open else _State.FAILED
            self._report(result)
        elif isinstance(result, Opened):
            discard(result.transport)

    def _error(self, cause: str) -> ConnectError:
        return ConnectError(self._run.dial.name, (), cause)

    def abort(self) -> None:
        if self._state in (_State.WAITING, _State.OPENED):
            self._state = _State.ABORTED
            self._tell(lambda runner: runner.abort())

    def force_min_priority(self, priority: int) -> None:
        if self._state in (_State.WAITING, _State.OPENED):
            self._min_priority = priority
            self._tell(lambda runner: runner.force_min_priority(priority))

    def _tell(self, what: Callable[[Runner], None]) -> None:
        if self.runner is None:
            return
        try:
            what(self.runner)
        except Exception:  # user code: the others have to be told as well
            logger.exception("a strategy failed")


class Root:
    """The runner of a whole tree, for a user of it.

    Threads: any.
    """

    def __init__(self, run: Run, callback: Report) -> None:
        self._run = run
        self._callback = callback
        self._is_aborted = False
        self.guard: Runner | None = None

    def report(self, result: Result) -> None:
        if self._is_aborted:
            if isinstance(result, Opened):
                discard(result.transport)
            return
        if isinstance(result, ConnmanError):
            self._run.fail()
        self._callback(result)

    def abort(self) -> None:
        # At once, though the tree may be told a moment later, by the thread that runs its events.
        self._is_aborted = True
        self._post(lambda guard: guard.abort())

    def force_min_priority(self, priority: int) -> None:
        self._post(lambda guard: guard.force_min_priority(priority))

    def _post(self, what: Callable[[Runner], None]) -> None:
        guard = self.guard
        if guard is not None:
            self._run.post(lambda: what(guard))
