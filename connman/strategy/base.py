"""What a strategy is: a way, or several, to get one transport; a target like any other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from connman.clock import Deadline, SystemClock
from connman.errors import ConnectError, ConnectTimeout, ConnmanError, InvalidOption
from connman.options import Options
from connman.strategy.results import Opened, Report, Result, Runner, Watcher, discard
from connman.strategy.run import Run
from connman.threads import Condition
from connman.transport.base import Dial, Transport

__all__ = ["Opened", "Report", "Result", "Run", "Runner", "Strategy", "Watcher", "checked", "discard"]


class Strategy(ABC):
    """A tree of ways to get one transport: pass it to ``connman.connect`` as the target.

    It holds no state of an attempt: any number of connections may share one. A strategy of your own implements `start`
    and ``is_supported``, and names its `children`.

    Threads: every method from any thread, but for `start`.
    """

    children: tuple[Strategy, ...] = ()

    def is_supported(self) -> bool:
        """Return whether any of it can be tried now.

        Threads: any.
        """
        return any(child.is_supported() for child in self.children)

    @abstractmethod
    def start(self, run: Run, report: Report, min_priority: int) -> Runner:
        """Begin to connect and return at once; ``report(result)`` tells what comes of it, from any thread.

        Children are started with ``run.start``, timers with ``run.call_later``; a runner's methods, timers and what
        children report come one at a time. After the runner's ``abort`` whatever is reported is dropped, and closed.

        Threads: within an event of ``run``; must not block.
        """

    def connect(self, callback: Report, min_priority: int = 0, *, dial: Dial | None = None) -> Runner:
        """Begin to connect; ``callback(result)`` gets an `Opened`, perhaps more than one, or an error.

        It is called later, never within this call, one call at a time, on one of connman's threads; it must not block.
        ``dial``: what the tree belongs to, with its options, its headers, its login and the log that its leaves write;
        None for the defaults. It runs until it has failed or is aborted.

        Threads: any; never blocks.
        """
        run = Run(dial or Dial(None, Options(), SystemClock(), name=type(self).__name__), self._watchers())
        runner = run.begin(self, callback, min_priority)
        run.resume_soon()
        return runner

    def _watchers(self) -> list[Watcher]:
        return [leaf.manager for leaf in self.leaves() if leaf.manager is not None]

    # As the target of a connection.

    def dial(self, dial: Dial) -> Transport:
        """Return the first transport that opens; all else is ended. See ``Dialer``.

        ``open_timeout`` bounds the whole tree; a login that is under way then may end within ``handshake_timeout``.

        Raises: ConnectError, ConnectTimeout; what the handshake was refused with; the abort's error.
        Threads: the dialling thread.
        """
        dial.has_ways = True
        first = _First()
        run = Run(dial, self._watchers(), dial.deadline)
        run.on_login_over = first.look
        if not self.is_supported():
            run.fail()
            raise ConnectError(dial.name, (), "nothing of the strategy can be tried now")
        runner: Runner | None = None
        try:
            runner = run.begin(self, first.put, 0)
            run.resume()
            opened = _wait(dial, run, first)
        except BaseException as error:  # user code (a signal handler) raised, or it is an error of ours
            first.close()
            if runner is not None:
                runner.abort()
            run.wait_told()
            run.wait_gone()
            if isinstance(error, ConnectError):
                # Behind the end of all leaves, whose last steps are to be seen.
                error.with_log(dial.log)
            raise
        return _taken(dial, run, runner, opened)

    # Looking.

    def leaves(self) -> Iterator[Strategy]:
        """Yield each leaf of the tree once, in order.

        Threads: any.
        """
        seen: set[int] = set()
        for leaf in self._all_leaves():
            if id(leaf) not in seen:
                seen.add(id(leaf))
                yield leaf

    def _all_leaves(self) -> Iterator[Strategy]:
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()

    @property
    def name(self) -> str:
        """What it is called in logs: a leaf by its transport, anything else by its kind."""
        return type(self).__name__

    @property
    def manager(self) -> Watcher | None:
        """What watches over a leaf's transports, None for nothing."""
        return None

    @property
    def label(self) -> str:
        """What it says of itself in `describe`, on one line, without secrets."""
        return type(self).__name__

    def describe(self) -> str:
        """Return the tree as text, a line for each strategy.

        Threads: any.
        """
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield self.label
        for number, child in enumerate(self.children, 1):
            is_last = number == len(self.children)
            first, *others = child.describe().splitlines()
            yield ("└─ " if is_last else "├─ ") + first
            yield from (("   " if is_last else "│  ") + line for line in others)

    def __repr__(self) -> str:
        return f"<{self.label}>"


def checked(*children: Strategy) -> tuple[Strategy, ...]:
    """Return the children of a strategy.

    Raises: InvalidOption for one that is none: it would be found out by the first dial only, each time anew.
    Threads: any; pure.
    """
    for child in children:
        if not isinstance(child, Strategy):
            raise InvalidOption(f"{type(child).__name__} is no strategy: a target goes into a Transport")
    return children


class _First:
    """The first result of a tree, for the thread that waits for it.

    Threads: any.
    """

    def __init__(self) -> None:
        self.condition = Condition()
        # Guarded by condition: result, _is_closed.
        self.result: Result | None = None
        self._is_closed = False

    def put(self, result: Result) -> None:
        with self.condition:
            is_wanted = self.result is None and not self._is_closed
            if is_wanted:
                self.result = result
                self.condition.notify_all()
        # Outside the lock: a transport takes locks of its own.
        if not is_wanted and isinstance(result, Opened):
            discard(result.transport)

    def look(self) -> None:
        with self.condition:
            self.condition.notify_all()

    def close(self) -> None:
        """Want none any more; one that is there already is discarded."""
        with self.condition:
            self._is_closed = True
            result, self.result = self.result, None
        if isinstance(result, Opened):
            discard(result.transport)


def _wait(dial: Dial, run: Run, first: _First) -> Opened:
    """Wait for the first result, at most until the deadline, or until the logins that are under way then are over."""
    opening = dial.deadline
    if dial.handshake is not None and opening.at is not None:
        dial.deadline = Deadline(opening.clock, opening.at + dial.options.handshake_timeout)
    try:
        dial.wait_for(first.condition, lambda: first.result is not None, opening.remaining())
        dial.wait_for(first.condition, lambda: first.result is not None or not run.logins)
        if first.result is None:
            raise dial.timeout()
    except ConnectTimeout:
        run.fail()
        raise
    if isinstance(first.result, ConnmanError):
        raise first.result
    return first.result


def _taken(dial: Dial, run: Run, runner: Runner, opened: Opened) -> Transport:
    """End everything else, and return what has opened unless the peer did not let us in."""
    try:
        runner.abort()
        # The log tells of the others' end as well.
        run.wait_told()
        dial.check_aborted()
    except BaseException:  # user code (a signal handler) raised, or it was aborted meanwhile
        discard(opened.transport)
        raise
    if opened.refusal is None:
        dial.first = list(opened.first)
        return opened.transport
    refusal = opened.refusal
    raise refusal.with_log(dial.log) if isinstance(refusal, ConnectError) else refusal
