"""Who borrows which connection of a pool: first come, first served, and the one that rested longest goes first."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Iterator

from connman.clock import Clock, Deadline
from connman.connection.connection import Connection
from connman.errors import PoolClosed, PoolError, PoolTimeout, WouldDeadlock
from connman.records import State
from connman.threads import Condition, is_own

CLOSED = "the pool was disconnected"


class _Waiter:
    """One caller who wants a lease; ``connection`` is set by whoever hands one over, ``is_in_vain`` when none can come."""

    def __init__(self, lock: threading.RLock) -> None:
        self.condition = Condition(lock)
        self.connection: Connection | None = None
        self.is_in_vain = False


class Leases:
    """The connections of a pool, who has borrowed which, and who waits.

    Threads: every method from any thread.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        # Guarded by _lock: everything below. _order: least recently lent first. _replaced: those for which another comes.
        self._order: deque[Connection] = deque()
        self._replaced: set[Connection] = set()
        self._leased: dict[Connection, _Waiter] = {}
        self._waiters: deque[_Waiter] = deque()
        self._newest_error: Exception | None = None
        self._is_closed = False
        self.count = 0

    def add(self, conn: Connection, *, is_replaced: bool = False) -> None:
        """Take ``conn`` in, to be lent from when it is open. ``is_replaced``: when it has ended another one follows.

        A call that a Ctrl-C cut may be made again: twice in the order is as good as once, see `remove`.

        Threads: any.
        """
        with self._lock:
            self._order.append(conn)
            if is_replaced:
                self._replaced.add(conn)
            self._hand_over_locked()

    def remove(self, conn: Connection) -> None:
        """Forget ``conn``: it is not lent again. Idempotent.

        Threads: any.
        """
        with self._lock:
            self._leased.pop(conn, None)
            self._replaced.discard(conn)
            while conn in self._order:
                self._order.remove(conn)

    def changed(self, conn: Connection, state: State) -> None:
        """Take note that ``conn`` has come into ``state``.

        Threads: any.
        """
        with self._lock:
            if state is State.OPEN:
                self._hand_over_locked()
            elif state in (State.WAITING, State.IDLE):
                self._newest_error = conn.last_error
            if state in (State.IDLE, State.CLOSED):
                self._maybe_give_up_locked()

    @contextlib.contextmanager
    def lend(self, timeout: float | None) -> Iterator[Connection]:
        """Lend an open connection to the block; see `Pool.connection`.

        Raises: PoolTimeout; PoolError when none of them can open any more; PoolClosed; WouldDeadlock.
        Threads: any.
        """
        waiter = _Waiter(self._lock)
        try:
            yield self._wait(waiter, timeout)
        finally:
            # Whatever the waiter holds by now, also when a signal handler ended the wait or came behind it.
            try:
                self._leave(waiter)
            except BaseException:  # user code (a signal handler) raised
                self._leave(waiter)  # what was left undone
                raise

    def _wait(self, waiter: _Waiter, timeout: float | None) -> Connection:
        deadline = Deadline.after(self._clock, timeout)
        with self._lock:
            self._waiters.append(waiter)
            self._hand_over_locked()
            self._maybe_give_up_locked()
            if is_own() and not (waiter.connection or waiter.is_in_vain or self._is_closed):
                raise WouldDeadlock("connman's own threads do not wait for a lease")
            deadline.wait_for(
                waiter.condition,
                lambda: waiter.connection is not None or waiter.is_in_vain or self._is_closed,
            )
            if waiter.connection is not None:
                return waiter.connection
            if self._is_closed:
                raise PoolClosed(CLOSED)
            connections, newest = list(self._order), self._newest_error
        counts = Counter(conn.state.value for conn in connections)
        states = ", ".join(f"{count} {state}" for state, count in counts.items()) or "it has none"
        because = "" if newest is None else f"; last error: {newest}"
        if waiter.is_in_vain:
            raise PoolError(f"no connection is open or tries to be ({states}){because}") from newest
        raise PoolTimeout(f"no connection came free within {timeout:g} s ({states}){because}")

    def _leave(self, waiter: _Waiter) -> None:
        """Give back what ``waiter`` holds, and wait no more. Idempotent."""
        with self._lock:
            conn = waiter.connection
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if conn is not None and self._leased.get(conn) is waiter:
                # To the end. Rather twice in the order than not at all, should a Ctrl-C come between these two.
                self._order.append(conn)
                self._order.remove(conn)
                del self._leased[conn]
            self._hand_over_locked()

    def _hand_over_locked(self) -> None:
        while self._waiters and not self._is_closed:
            # One step after the other, so that a Ctrl-C between two of them leaves a rest that the next call finishes.
            waiter = self._waiters[0]
            if waiter.connection is None:
                conn = next((c for c in self._order if c not in self._leased and c.is_open), None)
                if conn is None:
                    return
                waiter.connection = conn
            self._leased[waiter.connection] = waiter
            waiter.condition.notify_all()
            self._waiters.popleft()
            self.count += 1

    def _maybe_give_up_locked(self) -> None:
        """Tell those who wait when nothing can come: every connection has stopped trying, and nobody starts them."""
        if self._order and all(self._is_at_rest_locked(conn) for conn in self._order):
            for waiter in self._waiters:
                waiter.is_in_vain = True
                waiter.condition.notify_all()

    def _is_at_rest_locked(self, conn: Connection) -> bool:
        # One that is replaced is taken out when the other is there and has been started, if anybody starts it.
        return conn.state is State.IDLE or (conn.state is State.CLOSED and conn not in self._replaced)

    def counts(self) -> tuple[int, int, int]:
        """Return how many are lent, how many callers wait, and how often one was lent so far.

        Threads: any.
        """
        with self._lock:
            return len(self._leased), len(self._waiters), self.count

    def close(self) -> None:
        """Lend nothing any more; everyone who waits gets PoolClosed. Idempotent.

        Threads: any.
        """
        with self._lock:
            self._is_closed = True
            for waiter in self._waiters:
                waiter.condition.notify_all()

    def after_fork(self) -> None:
        """Become fresh in a child process: nothing is lent, nobody waits.

        Threads: the first one of the child that uses connman.
        """
        self._lock = threading.RLock()
        self._leased = {}
        self._waiters = deque()
