"""Time as connman sees it: the Clock seam, deadlines, and the one timer thread of the process."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from connman.threads import Condition, at_once, is_kill, spawn

logger = logging.getLogger("connman.clock")

LONGEST_WAIT = 100 * 365 * 86400.0
"""Seconds that stand for ever where the system cannot count to infinity."""


class Timer(Protocol):
    """A callback that is due once, unless it is cancelled before."""

    def cancel(self) -> None:
        """Forget the callback; it does not run after this unless it is running already. Idempotent.

        Threads: any.
        """


class Clock(Protocol):
    """The only source of time: `SystemClock` in life, ``connman.testing.FakeClock`` in tests."""

    def now(self) -> float:
        """Return monotonic seconds.

        Threads: any.
        """

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Wait on ``condition``, which the caller holds, until notified or ``timeout`` seconds have passed.

        May return early: callers test their condition and their deadline in a loop. None waits without a limit, 0 and
        less do not wait.

        Threads: any.
        """

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Have ``callback`` called once after ``delay`` seconds, on the timer thread; it must not block.

        0 and less: as soon as that thread comes to it, never within this call.

        Threads: any.
        """


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on a clock by which something must have ended; passed down instead of timeouts.

    ``at`` is None for "no deadline".
    """

    clock: Clock
    at: float | None

    @classmethod
    def after(cls, clock: Clock, seconds: float | None) -> Deadline:
        """Return the deadline ``seconds`` from now; None for none, 0 and less for one that has passed.

        Raises: ValueError for NaN, which no clock would ever reach.
        Threads: any.
        """
        if seconds is not None and math.isnan(seconds):
            raise ValueError("a timeout is a number of seconds, not NaN")
        return cls(clock, None if seconds is None else clock.now() + seconds)

    def remaining(self) -> float | None:
        """Return the seconds left, 0.0 when it has passed, None when there is no deadline.

        Threads: any.
        """
        return None if self.at is None else max(0.0, self.at - self.clock.now())

    def sooner(self, seconds: float | None) -> Deadline:
        """Return the earlier of this deadline and the one ``seconds`` from now; None for this one as it is.

        Threads: any.
        """
        other = Deadline.after(self.clock, seconds)
        return self if other.at is None or (self.at is not None and self.at < other.at) else other

    @property
    def expired(self) -> bool:
        """Whether it has passed."""
        return self.at is not None and self.clock.now() >= self.at

    def wait_for(self, condition: threading.Condition, predicate: Callable[[], bool]) -> bool:
        """Wait on ``condition``, which the caller holds, until ``predicate()`` is true; False when time ran out.

        Threads: any.
        """
        while not predicate():
            if self.expired:
                return False
            self.clock.wait(condition, self.remaining())
        return True


class Signal:
    """A condition on its owner's lock that is made when somebody waits: made at once it takes 1.3 KiB of an object.

    Threads: whoever holds the lock.
    """

    __slots__ = ("_condition", "_lock")

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._condition: threading.Condition | None = None

    @property
    def condition(self) -> threading.Condition:
        """The condition to wait on."""
        if self._condition is None:
            self._condition = Condition(self._lock)
        return self._condition

    def notify_all(self) -> None:
        """Wake everyone who waits.

        Threads: whoever holds the lock.
        """
        if self._condition is not None:
            self._condition.notify_all()


class _Scheduled:
    """One entry of the timer thread's heap."""

    __slots__ = ("_owner", "callback")

    def __init__(self, owner: TimerThread, callback: Callable[[], None]) -> None:
        self._owner = owner
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._owner.forget(self)


class TimerThread:
    """Call things later, all of them on one daemon thread, which lives only while something is due.

    Threads: every method from any thread.
    """

    def __init__(self) -> None:
        # Entered itself, not through the condition, whose own `with` is Python code: a Ctrl-C there would leave it locked.
        self._lock = threading.RLock()
        self._condition = Condition(self._lock)
        # Guarded by _lock: _heap, _live, _thread, _waits_until (of the thread: it wakes then, if nobody wakes it).
        self._heap: list[tuple[float, int, _Scheduled]] = []
        self._live = 0
        self._thread: threading.Thread | None = None
        self._waits_until = -math.inf
        self._order = itertools.count()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Have ``callback`` called when ``time.monotonic()`` reaches ``when``.

        Raises: RuntimeError when no thread can be started (the interpreter is ending).
        Threads: any.
        """
        entry = _Scheduled(self, callback)
        with self._lock:
            item = (when, next(self._order), entry)
            # Counted first: a Ctrl-C behind the push must leave no entry that is not, which would end the thread's loop
            # with a count below 0. It may leave one that rings for nobody.
            self._live += 1
            heapq.heappush(self._heap, item)
            if self._thread is None:
                self._start_locked()
            # Only what comes before what the thread waits for changes how long it has to.
            elif when < self._waits_until:
                self._condition.notify_all()
        return entry

    def forget(self, entry: _Scheduled) -> None:
        """Drop ``entry`` if it is still due.

        Threads: any.
        """
        with self._lock:
            if entry.callback is None:
                return
            entry.callback = None
            self._live -= 1
            # A cancelled entry stays in the heap until it is due: timers that are set anew all the time would fill it.
            if self._live * 2 < len(self._heap) - 64:
                self._heap = [item for item in self._heap if item[2].callback is not None]
                heapq.heapify(self._heap)
            # The thread ends when nothing is due; it would wait for the time of the last cancelled entry otherwise.
            if self._live == 0:
                self._condition.notify_all()

    def _start_locked(self) -> None:
        try:
            spawn("timers", self._loop, self._note_locked)
        except BaseException as error:  # user code (a signal handler), or there is no thread
            if self._thread is not None and not self._thread.is_alive():
                self._thread = None
            if isinstance(error, RuntimeError):
                # The caller is told that nothing comes of it: it must not run all the same when a later call gets a thread.
                self._heap.clear()
                self._live = 0
            raise

    def _note_locked(self, thread: threading.Thread) -> None:
        self._thread = thread

    def _loop(self) -> None:
        try:
            self._run_timers()
        except BaseException as killed:  # top of a thread: what is still due must come all the same
            with self._lock, contextlib.suppress(RuntimeError):
                self._thread = None
                if self._live:
                    self._start_locked()
            if not is_kill(killed):
                raise

    def _run_timers(self) -> None:
        while (callback := self._next()) is not None:
            try:
                callback()
            except Exception:  # top of a thread: one timer's failure must not stop the others
                logger.exception("a timer failed")
            # What it held must not live until the next one is due.
            del callback

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next due callback and take it; None when nothing is left and the thread has to end."""
        with self._lock:
            while self._live:
                when, _, entry = self._heap[0]
                if entry.callback is None:
                    heapq.heappop(self._heap)
                    continue
                delay = when - time.monotonic()
                if delay > 0:
                    self._waits_until = when
                    self._condition.wait(min(delay, threading.TIMEOUT_MAX))
                    self._waits_until = -math.inf
                    continue
                heapq.heappop(self._heap)
                # Taken under the lock: a cancel() from now on comes too late and must not count it down again.
                callback, entry.callback = entry.callback, None
                self._live -= 1
                return callback
            # Under the same lock as the look at the heap: whatever is added from now on starts a thread of its own.
            self._heap.clear()
            self._thread = None
            return None


# One entry at most. A dict, because setdefault is atomic and no lock may be made at import.
_timers: dict[str, TimerThread] = {}


class SystemClock:
    """The real clock, with the one timer thread of the process behind `call_later`. It holds no state."""

    def now(self) -> float:
        """Return ``time.monotonic()``.

        Threads: any.
        """
        # A wall clock that somebody sets must neither drop a connection nor keep a dead one.
        return time.monotonic()

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Wait on ``condition``; see `Clock.wait`.

        Threads: any.
        """
        # Waking early is allowed; so much the system cannot count (292 years).
        timeout = at_once(timeout)
        condition.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Have ``callback`` called after ``delay`` seconds on the timer thread.

        Raises: RuntimeError when no thread can be started (the interpreter is ending).
        Threads: any.
        """
        timers = _timers.get("timers") or _timers.setdefault("timers", TimerThread())
        return timers.call_at(time.monotonic() + delay, callback)


def maybe_call_later(clock: Clock, delay: float, callback: Callable[[], None]) -> Timer | None:
    """Have ``callback`` called later, or not at all (None) when no timer thread can be started.

    An ending interpreter grants none; then the exit hook bounds what the timer would have ended.

    Threads: any.
    """
    with contextlib.suppress(RuntimeError):
        return clock.call_later(delay, callback)
    return None


def forget_timers_after_fork() -> None:
    """Give the child a timer thread of its own: the parent's does not run here, and its lock may be held.

    Threads: the only thread of a fresh child.
    """
    _timers.clear()
