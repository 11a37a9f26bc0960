"""A clock that stands still until the test moves it."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable

from connman.clock import Timer

FAILSAFE = 60.0  # real seconds after which a wait wakes up by itself; callers of Clock.wait loop
CLOSE_ENOUGH = 1e-9  # seconds: (deadline - now) + now need not be the deadline again


class _Waiter:
    """One thread inside `FakeClock.wait`."""

    __slots__ = ("condition",)

    def __init__(self, condition: threading.Condition) -> None:
        self.condition = condition

    def fire(self) -> None:
        # The thread registered while it held the condition and lets go of it only inside condition.wait(): whoever
        # gets the condition finds it waiting, or woken already. No wake-up is lost.
        with self.condition:
            self.condition.notify_all()


class _Timer:
    """One callback of `FakeClock.call_later`."""

    __slots__ = ("_forget", "fire")

    def __init__(self, fire: Callable[[], None], forget: Callable[[_Timer], None]) -> None:
        self.fire = fire
        self._forget = forget

    def cancel(self) -> None:
        self._forget(self)


class FakeClock:
    """A `connman.clock.Clock` whose time passes only in `advance`.

    ::

        clock = FakeClock()
        clock.call_later(5, lambda: print("rang at", clock.now()))
        clock.advance(10)  # prints: rang at 5.0

        # A connection that waits between two attempts, with a script of attempts that fail:
        clock.wait_until_waiting()  # real time: until its thread waits
        print(clock.delays)  # what it asked for, such as [0.07]
        clock.advance(0.1)  # it dials again

    Threads: `advance` from one thread at a time, which holds no lock that a timer or a waiting thread needs; the
    rest from any thread.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._changed = threading.Condition(threading.Lock())
        # Guarded by _changed: _now, _due, _delays, _is_advancing. Nobody takes a condition of a waiter while holding
        # it: the waiter holds its condition when it comes for this lock.
        self._now = float(start)
        self._due: list[tuple[float, int, _Waiter | _Timer]] = []
        self._delays: list[float] = []
        self._is_advancing = False
        self._order = itertools.count()
        # The time each thread has read last: what its next relative timeout was reckoned from.
        self._seen = threading.local()

    def now(self) -> float:
        """Return the fake seconds.

        Threads: any.
        """
        self._seen.now = now = self._now
        return now

    def wait(self, condition: threading.Condition, timeout: float | None) -> None:
        """Wait on ``condition``, which the caller holds, until notified or `advance` has passed ``timeout`` seconds.

        They count from the time this thread read last, so that an `advance` between its reading and its waiting is
        not lost. None waits until notified; 0 and less return at once. May return early, as the protocol says.

        Threads: any.
        """
        if timeout is None:
            condition.wait(FAILSAFE)
            return
        waiter = _Waiter(condition)
        if not self._begin(waiter, timeout):
            return
        try:
            condition.wait(FAILSAFE)
        finally:
            self._forget(waiter)
            self.now()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Have ``callback`` called by the `advance` that reaches ``delay`` seconds from now, in its thread.

        Even with a ``delay`` of 0 or less it is called by the next `advance`, not before.

        Threads: any.
        """
        timer = _Timer(callback, self._forget)
        with self._changed:
            heapq.heappush(self._due, (self._now + delay, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, stopping at each timer and each end of a wait in order.

        On return every timer due has run and every waiting thread whose time has come has been woken; it may not
        have run yet. An exception of a timer comes out here; time stands at that timer then.

        Raises: ValueError for negative seconds; RuntimeError when an advance is under way.
        Threads: one at a time; timers run in it with no lock held.
        """
        with self._changed:
            if seconds < 0:
                raise ValueError("time does not go back")
            if self._is_advancing:
                raise RuntimeError("another advance() is under way")
            self._is_advancing = True
            target = self._now + seconds
        try:
            while (due := self._take_due(target)) is not None:
                due.fire()
        finally:
            with self._changed:
                self._is_advancing = False

    @property
    def delays(self) -> list[float]:
        """The timeouts asked for in `wait` so far, in order; a thread that waits on after a wake-up asks again.

        They are exact but for the rounding of floats: compare with ``pytest.approx``.
        """
        with self._changed:
            return self._delays.copy()

    @property
    def pending(self) -> int:
        """How many timers have neither run nor been cancelled."""
        with self._changed:
            return sum(isinstance(due, _Timer) for _, _, due in self._due)

    @property
    def waiting(self) -> int:
        """How many threads are in `wait` with a timeout that has not passed."""
        with self._changed:
            return self._waiting_locked()

    def wait_until_waiting(self, count: int = 1, timeout: float = 10.0, *, delays: int = 0) -> None:
        """Block, in real time, until at least ``count`` threads wait on this clock with a timeout.

        A thread that something else than the clock has woken counts until it runs; where that matters, wait
        for the length of `delays` as well::

            asked = len(clock.delays)
            conn.reconnect_now()
            clock.wait_until_waiting(delays=asked + 1)

        Raises: AssertionError after ``timeout`` real seconds; 0 and less: unless it is so already.
        Threads: any but those that are to wait.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._waiting_locked() >= count and len(self._delays) >= delays, timeout
            ):
                found = f"{self._waiting_locked()} threads wait, {len(self._delays)} delays were asked for"
                raise AssertionError(f"no {count} waiting and {delays} delays in {timeout:g} s: {found}")

    def _waiting_locked(self) -> int:
        return sum(isinstance(due, _Waiter) for _, _, due in self._due)

    def _begin(self, waiter: _Waiter, timeout: float) -> bool:
        """Register a wait; False when there is nothing to wait for."""
        seen = getattr(self._seen, "now", None)
        with self._changed:
            self._delays.append(timeout)
            self._changed.notify_all()
            when = (self._now if seen is None else seen) + timeout
            if when > self._now + CLOSE_ENOUGH:
                heapq.heappush(self._due, (when, next(self._order), waiter))
                return True
            # Less than a nanosecond is left: without this step a caller that loops until its deadline would spin.
            self._now = max(self._now, when)
        self.now()
        return False

    def _take_due(self, target: float) -> _Waiter | _Timer | None:
        """Move time to what is due next and take it out; None, with the time at ``target``, when nothing is."""
        with self._changed:
            if not self._due or self._due[0][0] > target + CLOSE_ENOUGH:
                self._now = max(self._now, target)
                return None
            when, _, due = heapq.heappop(self._due)
            self._now = max(self._now, when)
            return due

    def _forget(self, due: _Waiter | _Timer) -> None:
        with self._changed:
            kept = [item for item in self._due if item[2] is not due]
            if len(kept) < len(self._due):
                heapq.heapify(kept)
                self._due = kept
