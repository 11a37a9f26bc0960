"""The calls under way of one peer: by the ids of the present path, and those that wait for a path."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection
from typing import TypeGuard

from connman.clock import Clock, Timer, maybe_call_later
from connman.errors import CallTimeout
from connman.rpc.calls import Call
from connman.rpc.counters import Counters, PeerStats

# Of many calls whose deadlines lie close together those of one moment are looked for together.
_PACE = 0.01
_MANY = 256
# Until a thread is asked for again, when the system has granted none.
_NO_THREAD_PAUSE = 0.1


class Table:
    """Every call that is not over, under the one lock of its peer, with one timer for the nearest deadline of all.

    ``settle_apart(job)``: has a job run on a thread where users may be called back, for which the timers' must not wait;
    False when none is granted.

    Threads: any.
    """

    def __init__(self, clock: Clock, settle_apart: Callable[[Callable[[], None]], bool]) -> None:
        self._clock = clock
        self._settle_apart = settle_apart
        self.counters = Counters()
        self._fresh()

    def _fresh(self) -> None:
        # Entered itself, see `threads.Condition`: a Ctrl-C leaves it free.
        self.lock = threading.RLock()
        # Guarded by lock: everything below. by_id: of the present path; waiting: those that no path has (any more).
        self.by_id: dict[int, Call] = {}
        self.waiting: dict[Call, None] = {}
        self._due = math.inf
        self._timer: Timer | None = None
        self._is_expiring = False  # `expire` was asked for, and has not begun

    # Coming.

    def number_locked(self, call: Call) -> int:
        """Give ``call`` the next id and its place; the lock is held."""
        call.id = number = self.counters.sent
        self.counters.sent = number + 1
        self.by_id[number] = call
        return number

    def watch(self, call: Call) -> None:
        """Have ``call`` end at its deadline; it has its place already."""
        deadline = call.deadline
        # The look without the lock may miss that the timer has just fired: it then finds this call in the table.
        if deadline is None or deadline >= self._due:
            return
        with self.lock:
            if deadline < self._due and not call.is_over:
                self._set_timer_locked(deadline)

    def _set_timer_locked(self, due: float) -> None:
        timer = maybe_call_later(self._clock, due - self._clock.now(), self._ring)
        # In this order: a Ctrl-C leaves a timer too many, but no deadline without one.
        old, self._timer, self._due = self._timer, timer, due if timer is not None else math.inf
        if old is not None:
            old.cancel()

    def _ring(self) -> None:
        """Fail what is past its deadline; whose Future may call a user, on another thread, as soon as one is granted.

        Who waits in a call is told here: a callback that blocks, perhaps in a call of its own, must not hold him up.
        """
        if self._end_late(may_call_users=False) and not self._settle_apart(self.expire):
            with self.lock:
                self._is_expiring = False
                self._set_timer_locked(min(self._due, self._clock.now() + _NO_THREAD_PAUSE))

    # Going.

    def take(self, call: Call) -> bool:
        """Take ``call`` out; False when it was over already."""
        with self.lock:
            return self._take_locked(call)

    def take_waiting(self, call: Call) -> bool:
        """Take ``call`` out if it has no path yet."""
        with self.lock:
            return call.id is None and self._take_locked(call)

    def _take_locked(self, call: Call) -> bool:
        if call.is_over:
            return False
        call.is_over = True
        if call.id is not None:
            self.by_id.pop(call.id, None)
        self.waiting.pop(call, None)
        return True

    def answered(self, number: object) -> Call | None:
        """Take out the call that an answer is for; None, and counted, when there is none.

        Threads: the reader, or a caller who reads in its place.
        """
        with self.lock:
            call = self.by_id.pop(number, None) if _is_number(number) else None
            if call is None:
                self._count_stray_locked(number)
                return None
            call.is_over = True
            self.counters.latencies.append(self._clock.now() - call.began)
            return call

    def find(self, number: object) -> Call | None:
        """Return the call that a part of an answer is for, which stays; None, and counted, when there is none.

        Threads: the reader.
        """
        with self.lock:
            call = self.by_id.get(number) if _is_number(number) else None
            if call is None:
                self._count_stray_locked(number)
            return call

    def _count_stray_locked(self, number: object) -> None:
        if _is_number(number) and 0 <= number < self.counters.sent:
            self.counters.late += 1
        else:
            self.counters.unknown += 1

    def drop(self, call: Call) -> bool:
        """Give ``call`` up: nobody waits for it any more; False when it was over already."""
        if not self.take(call):
            return False
        if call.stream is not None:
            call.stream.dropped(call)
        return True

    def expire(self) -> None:
        """Fail what is past its deadline, and look after the nearest of the others."""
        self._end_late(may_call_users=True)

    def _end_late(self, *, may_call_users: bool) -> bool:
        """Fail what is past its deadline; whether `expire` has to be run for the rest, and nobody was asked to yet."""
        with self.lock:
            now = self._clock.now()
            everything = [*self.by_id.values(), *self.waiting]
            late = [call for call in everything if call.deadline is not None and call.deadline <= now]
            ending = [call for call in late if may_call_users or not call.calls_users]
            for call in ending:
                self._take_locked(call)
            rest = min(
                (c.deadline for c in everything if c.deadline is not None and c.deadline > now), default=None
            )
            if rest is None:
                self._stop_timer_locked()
            else:
                self._set_timer_locked(max(rest, now + _PACE) if len(everything) > _MANY else rest)
            must_expire = len(ending) < len(late)
            was_asked = self._is_expiring
            self._is_expiring = not may_call_users and (was_asked or must_expire)
        for call in ending:
            call.failed(timed_out(call))
            if call.stream is not None:
                call.stream.dropped(call)
        return must_expire and not was_asked

    def path_broke_locked(self, unsent: Collection[int], *, for_good: bool) -> list[Call]:
        """Take out what the end of a path, or of an attempt, ends; the lock is held.

        Calls that may go out again stay, unless it is ``for_good``. ``unsent``: the ids of requests that did not go out. Ids
        that nobody has seen are given again.
        """
        on_path = self.by_id
        for number, call in on_path.items():
            call.has_left = call.has_left or number not in unsent
            call.id = None
        everything = [*on_path.values(), *self.waiting]
        failed = [call for call in everything if for_good or call.call_id is None]
        for call in failed:
            call.is_over = True
        waiting = {call: None for call in everything if not call.is_over}
        for call in waiting:
            call.stream = None  # what has come of a streamed answer is no part of the next path's
        while self.counters.sent - 1 in unsent:
            self.counters.sent -= 1
        # Last, and behind it no call: what a Ctrl-C cuts before that can be done again.
        self.by_id, self.waiting = {}, waiting
        return failed

    def pending(self) -> tuple[int | str, ...]:
        """Return the services of the calls under way, in the order of the requests."""
        return tuple(call.service for call in (*self.by_id.values(), *self.waiting))

    def after_fork(self) -> list[Call]:
        """Be empty in a child process; return the calls of the parent's."""
        calls = [*self.by_id.values(), *self.waiting]
        for call in calls:
            call.is_over = True
        self._fresh()
        return calls

    def stop(self) -> None:
        """Need no timer any more: nothing is under way."""
        with self.lock:
            self._stop_timer_locked()

    def _stop_timer_locked(self) -> None:
        timer, self._timer, self._due = self._timer, None, math.inf
        if timer is not None:
            timer.cancel()

    @property
    def in_flight(self) -> int:
        """How many calls wait for their answers."""
        return len(self.by_id) + len(self.waiting)

    def snapshot(self) -> PeerStats:
        """Return the numbers as they are."""
        with self.lock:
            return self.counters.snapshot(self.in_flight)


def timed_out(call: Call) -> CallTimeout:
    """Return the error of a call that has not been answered in time.

    Threads: any.
    """
    if not call.text:
        return CallTimeout("no path to the peer in time")
    ran = "it was not sent" if call.id is None and not call.has_left else "whether it ran is unknown"
    return CallTimeout(f"no answer of service {call.service!r} in time; {ran}")


def _is_number(value: object) -> TypeGuard[int]:
    # 1.0 is 1 to a dict, as it is to JavaScript; but so is True.
    return type(value) is int or type(value) is float
