"""One run of a tree of strategies: its events one after the other, its timers, its threads."""

from __future__ import annotations

import enum
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from connman.clock import LONGEST_WAIT, Deadline, Timer, maybe_call_later
from connman.errors import ConnectError
from connman.records import Step
from connman.strategy.guard import Guard, Root
from connman.strategy.results import Report, Runner, Watcher
from connman.threads import at_once, join, latch, spawn
from connman.transport.base import Dial

if TYPE_CHECKING:
    from connman.strategy.base import Strategy

logger = logging.getLogger("connman.strategy")

# Of a tree that tries for hours only the newest steps are kept.
_MOST_STEPS = 256


class _Verdict(enum.Enum):
    """What managers have been told of a run."""

    NONE = "none"
    OPENED = "opened"
    FAILED = "failed"


class _RunTimer:
    """A timer whose callback is an event of the run: once cancelled in another event it is not called."""

    __slots__ = ("_callback", "_run", "_timer")

    def __init__(self, run: Run, callback: Callable[[], None]) -> None:
        self._run = run
        self._callback: Callable[[], None] | None = callback
        self._timer: Timer | None = None

    def begin(self, delay: float) -> None:
        self._timer = self._run.clock.call_later(delay, lambda: self._run.post(self._ring))

    def _ring(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def cancel(self) -> None:
        self._callback = None
        if self._timer is not None:
            self._timer.cancel()


class Run:
    """One run of one tree: everything that happens in it is an event, and events run one at a time.

    Who posts an event and finds no other under way runs it, and what others post meanwhile; nobody waits. What an event
    posts itself comes before what others have posted, so that an outcome reaches the top before the next one counts.

    Threads: `post` and `begin` from any thread; `start`, `call_later` and the like within an event.
    """

    def __init__(
        self, dial: Dial, watchers: Iterable[Watcher] = (), deadline: Deadline | None = None
    ) -> None:
        self.dial = dial
        self.clock = dial.clock
        self.deadline = deadline
        self.managers = set(watchers)
        self.logins = 0
        self.on_login_over: Callable[[], None] = lambda: None
        self._verdict = _Verdict.NONE
        self._threads: list[threading.Thread] = []
        # Entered itself by the main thread too: see `threads.Condition`.
        self._lock = threading.RLock()
        # Guarded by _lock: _posted, and _owner (the thread that runs events) but for the look at oneself.
        self._posted: deque[Callable[[], None]] = deque()
        self._owner: int | None = None
        # Of the owner: what the event under way has posted.
        self._following: deque[Callable[[], None]] = deque()

    # Events.

    def post(self, event: Callable[[], None]) -> None:
        """Have ``event()`` run soon: here, or on the thread that runs events just now.

        Threads: any; never waits for another.
        """
        me = threading.get_ident()
        if self._owner == me:
            self._following.append(event)
            return
        try:
            with self._lock:
                self._posted.append(event)
                if self._owner is not None:
                    return
                self._owner = me
            self._run_events()
        except BaseException:  # user code (a signal handler) raised: others have to go on with it
            self._let_go()
            self.resume_soon()
            raise

    def resume(self) -> None:
        """Run what was posted while `begin` was under way.

        Threads: any.
        """
        self.post(lambda: None)

    def resume_soon(self) -> None:
        """Have it run by the timer thread: who asks wants nothing called back within this call.

        Threads: any.
        """
        if self._posted:
            maybe_call_later(self.clock, 0.0, self.resume)

    def _run_events(self) -> None:
        while (event := self._next()) is not None:
            try:
                event()
            except Exception:  # user code: a strategy of the user's must not hold the others up
                logger.exception("a strategy failed", extra={"conn": self.dial.name})

    def _next(self) -> Callable[[], None] | None:
        # Not popleft(): behind a call a Ctrl-C may come, and the event, perhaps another thread's, would be gone. It is now if
        # it comes at the very beginning of the event.
        if not self._following:
            with self._lock:
                if not self._posted:
                    self._owner = None
                    return None
                event = self._posted[0]
                del self._posted[0]
                self._following.append(event)
        event = self._following[0]
        del self._following[0]
        return event

    def _let_go(self) -> None:
        with self._lock:
            if self._owner == threading.get_ident():
                self._posted.extendleft(reversed(self._following))
                self._following.clear()
                self._owner = None

    # What strategies do within an event.

    def start(self, child: Strategy, report: Report, min_priority: int = 0) -> Runner:
        """Start ``child``; ``report(result)`` is called in later events, and not after the runner was aborted.

        After an error nothing is reported any more; more than one success may be.

        Threads: within an event, or within `Strategy.start`.
        """
        guard = Guard(self, report, min_priority)
        try:
            guard.runner = child.start(self, guard.settle, min_priority)
        except Exception as error:  # user code: the test of an `If`, a strategy of the user's own
            logger.exception("a strategy failed", extra={"conn": self.dial.name})
            guard.settle(
                ConnectError(self.dial.name, (), f"{type(child).__name__} raised {type(error).__name__}")
            )
        return guard

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Have ``callback()`` called in an event ``delay`` seconds from now.

        Raises: RuntimeError when no timer thread can be started (the interpreter is ending).
        Threads: within an event, or within `Strategy.start`.
        """
        timer = _RunTimer(self, callback)
        timer.begin(delay)
        return timer

    def spawn(self, name: str, target: Callable[[], None]) -> None:
        """Run ``target()`` on a thread of its own that belongs to this run.

        Raises: RuntimeError when no thread is granted.
        Threads: within an event, or within `Strategy.start`.
        """
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        spawn(name, target, self._threads.append)

    def note(self, step: Step) -> None:
        """Append a step to the log of the whole tree.

        Threads: any.
        """
        log = self.dial.log
        logger.debug("%s: %s", self.dial.name, step, extra={"conn": self.dial.name})
        log.append(step)
        del log[:-_MOST_STEPS]

    def refused(self, leaf: str, cause: str) -> ConnectError:
        """Return the error for a leaf that is not tried, and log why.

        Threads: within an event, or within `Strategy.start`.
        """
        self.note(Step("start", "", 0.0, cause, leaf, self.clock.now() - self.dial.began))
        return ConnectError(leaf, (), cause)

    def note_opened(self) -> None:
        """Count a leaf's transport as open.

        Threads: within an event.
        """
        if self._verdict is not _Verdict.OPENED:
            self._verdict = _Verdict.OPENED
            for manager in self.managers:
                manager.opened()

    def count_login(self, change: int) -> None:
        """Count logins under way: they may end after the time for opening is over.

        Threads: within an event.
        """
        self.logins += change
        if not self.logins:
            self.on_login_over()

    # From outside.

    def begin(self, strategy: Strategy, callback: Report, min_priority: int) -> Runner:
        """Start the tree; nothing is called back before `resume` or `resume_soon`.

        Threads: any; once.
        """
        with self._lock:
            self._owner = threading.get_ident()
        root = Root(self, callback)
        try:
            root.guard = self.start(strategy, root.report, min_priority)
        finally:
            self._let_go()
        return root

    def fail(self) -> None:
        """Count the run as failed, once.

        Threads: any.
        """
        self.post(self._failed)

    def _failed(self) -> None:
        if self._verdict is _Verdict.NONE:
            self._verdict = _Verdict.FAILED
            for manager in self.managers:
                manager.nothing_opened()

    def wait_told(self) -> None:
        """Wait until what this thread has posted has run: another may be running events, which takes it a moment.

        Threads: any, but not within an event.
        """
        told = latch()  # which a Ctrl-C of the thread that runs events does not break
        self.post(told.release)
        while not told.acquire(timeout=at_once(LONGEST_WAIT) or 0.0):
            pass

    def wait_gone(self) -> None:
        """Wait until the threads of a run that was aborted are gone: a login of the user's may take its time.

        Threads: any but its own.
        """
        for thread in self._threads:
            join(thread, LONGEST_WAIT)
