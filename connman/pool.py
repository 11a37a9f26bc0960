"""Many connections under one name: started, lent out, told and ended together."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Iterator
from typing import Self, Unpack

from connman.clock import Deadline, SystemClock
from connman.connection import fork
from connman.connection.connection import Connection
from connman.connection.core import ConnectionArguments, SharedArguments
from connman.connection.future import ConnectedFuture
from connman.connection.group import all_gone, end_all, total
from connman.errors import ConnmanError, InvalidOption, PoolClosed, PoolTimeout, WouldDeadlock
from connman.records import Data, PoolStats, State
from connman.threads import is_own

LEASE_TIMEOUT = 30.0
"""Seconds that `Pool.connection` waits when it is not told otherwise."""
_CLOSED = "the pool was disconnected"


class _Waiter:
    """One caller in the queue for a lease; ``connection`` is set by whoever hands one over."""

    def __init__(self, lock: threading.Lock) -> None:
        self.condition = threading.Condition(lock)
        self.connection: Connection | None = None


class Pool:
    """A set of connections with common defaults; a with-block that starts them and ends them.

    ``url`` and ``size``: make ``size`` connections to ``url``, inert until the with-block, `connect` or a lease starts
    them. One of them that is disconnected, as by a borrower whose answer did not come in time, is replaced by a fresh
    one, which is started as well; only when a callback ended it, the next use does that, lest the two take turns without
    a pause. What `add_connection` made is not replaced. ``defaults``: options and callbacks of every connection.
    ``readers`` is reserved for shared reader threads: only None, a thread for each connection, is there so far.

    Raises: InvalidOption; InvalidTarget; TypeError for an unknown option.
    Threads: every method from any thread.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        url: object = None,
        size: int = 0,
        readers: int | None = None,
        **defaults: Unpack[SharedArguments],
    ) -> None:
        if readers is not None:
            raise InvalidOption("readers: only None (a thread for each connection) so far")
        if size < 0 or (size > 0) != (url is not None):
            raise InvalidOption("url and size go together: size is the number of connections to url, from 1")
        self.name = name
        self._clock = defaults.get("clock") or SystemClock()
        self._defaults = defaults
        self._lock = threading.Lock()
        # Guarded by _lock: everything below. _order: least recently leased first.
        self._order: deque[Connection] = deque()
        self._connections: list[Connection] = []
        self._leased: set[Connection] = set()
        self._waiters: deque[_Waiter] = deque()
        self._leases = 0
        self._newest_error: Exception | None = None
        self._is_started = False
        self._is_closed = False
        self._ending: list[Connection] = []
        self._url = url
        fork.end_at_exit(self)  # before its members: what the interpreter's end ends is not replaced
        for _ in range(size):
            self._add_own()
        fork.register(self)

    # Members.

    def add_connection(self, target: object, **options: Unpack[ConnectionArguments]) -> Connection:
        """Make a connection to ``target``, start dialling, and return it; ``options`` go before the pool's defaults.

        Raises: PoolClosed after `disconnect`; InvalidTarget; InvalidOption; TypeError.
        Threads: any; never blocks.
        """
        fork.check_process()
        conn = self._make(target, options)
        self._add(conn)
        return conn.connect()

    def _make(self, target: object, options: ConnectionArguments) -> Connection:
        arguments: ConnectionArguments = {**self._defaults, **options}
        conn = Connection(target, **arguments)
        conn.watch(self._member_changed)
        return conn

    def _add(self, conn: Connection) -> None:
        with self._lock:
            if self._is_closed:
                raise PoolClosed(_CLOSED)
            self._connections.append(conn)
            self._order.append(conn)

    def _add_own(self) -> Connection:
        conn = self._make(self._url, {})
        conn.watch(self._maybe_replace)
        self._add(conn)
        return conn

    def _maybe_replace(self, _: Connection, state: State) -> None:
        if state is State.CLOSED and not self._is_closed:
            with contextlib.suppress(PoolClosed):
                fresh = self._add_own()
                if self._is_started and not is_own():
                    fresh.connect()

    def get_connections(self) -> list[Connection]:
        """Return the connections in the order they were added; those that were disconnected are gone.

        Threads: any.
        """
        fork.check_process()
        with self._lock:
            return list(self._connections)

    def connect(self) -> Self:
        """Start every connection that is idle and return at once.

        Threads: any; never blocks.
        """
        self._start()
        return self

    def _start(self) -> list[tuple[Connection, ConnectedFuture]]:
        self._is_started = True
        return [(conn, conn.get_connected()) for conn in self.get_connections()]

    def wait_open(self, timeout: float | None = None) -> Self:
        """Wait until every connection has opened, starting those that are idle; ``timeout`` in seconds for all together.

        Raises: PoolTimeout; the error with which connecting one of them ended; PoolClosed after `disconnect`.
        Threads: any but connman's own.
        """
        deadline = Deadline.after(self._clock, timeout)
        # All Futures first: one that fails while another is waited for must tell its error, not be dialled anew.
        for conn, future in self._start():
            try:
                future.result(deadline.remaining())
            except TimeoutError as error:
                if future.done():
                    raise  # connecting ended with an error that is a timeout itself
                why = f"{conn.name} is not open within {timeout:g} s; last error: {conn.last_error}"
                raise PoolTimeout(why) from error
        if self._is_closed:
            raise PoolClosed(_CLOSED)
        return self

    def _member_changed(self, conn: Connection, state: State) -> None:
        with self._lock:
            if state is State.CLOSED and conn in self._connections:
                self._connections.remove(conn)
                self._order.remove(conn)
                self._leased.discard(conn)
            elif state is State.OPEN:
                self._hand_over_locked()
            elif state in (State.WAITING, State.IDLE):
                self._newest_error = conn.last_error

    # Leases.

    @contextlib.contextmanager
    def connection(self, timeout: float | None = LEASE_TIMEOUT) -> Iterator[Connection]:
        """Lend an open connection to the block, to nobody else meanwhile; first come, first served.

        ``timeout``: seconds to wait for one, None for no limit. Idle connections are started. A connection that is
        lost inside the block comes back by itself, also into the pool.

        Raises: PoolTimeout, whose text holds the newest connect error; PoolClosed; WouldDeadlock on connman's own
        threads when none is free at once.
        Threads: any.
        """
        conn = self._lease(timeout)
        try:
            yield conn
        finally:
            self._give_back(conn)

    def _lease(self, timeout: float | None) -> Connection:
        self.connect()
        waiter = _Waiter(self._lock)
        deadline = Deadline.after(self._clock, timeout)
        conn: Connection | None = None
        with self._lock:
            self._waiters.append(waiter)
            try:
                self._hand_over_locked()
                if waiter.connection is None and is_own() and not self._is_closed:
                    raise WouldDeadlock("connman's own threads do not wait for a lease")
                deadline.wait_for(waiter.condition, lambda: waiter.connection is not None or self._is_closed)
                conn = waiter.connection
            finally:
                # Also when a signal handler ends the wait: nothing may be lent to a caller who has left.
                if conn is None:
                    self._leave_locked(waiter)
            if conn is not None:
                return conn
            if self._is_closed:
                raise PoolClosed(_CLOSED)
            connections, newest = list(self._connections), self._newest_error
        counts = Counter(conn.state.value for conn in connections)
        states = ", ".join(f"{count} {state}" for state, count in counts.items()) or "it has none"
        because = "" if newest is None else f"; last error: {newest}"
        raise PoolTimeout(f"no connection came free within {timeout:g} s ({states}){because}")

    def _leave_locked(self, waiter: _Waiter) -> None:
        if waiter.connection is None:
            self._waiters.remove(waiter)
        else:
            self._leased.discard(waiter.connection)
            self._hand_over_locked()

    def _hand_over_locked(self) -> None:
        while self._waiters and not self._is_closed:
            conn = next((c for c in self._order if c not in self._leased and c.is_open), None)
            if conn is None:
                return
            waiter = self._waiters.popleft()
            self._leased.add(conn)
            self._leases += 1
            waiter.connection = conn
            waiter.condition.notify()

    def _give_back(self, conn: Connection) -> None:
        with self._lock:
            self._leased.discard(conn)
            if conn in self._order:
                self._order.remove(conn)
                self._order.append(conn)
            self._hand_over_locked()

    # All of them.

    def broadcast(self, data: Data) -> int:
        """Send one message on every connection that is open now, one after the other; return on how many.

        One that fails is skipped; one whose peer does not read holds the rest up for at most its ``send_timeout``.

        Raises: TypeError or ValueError for data that cannot be sent.
        Threads: any.
        """
        sent = 0
        for conn in self.get_connections():
            if conn.is_open:
                with contextlib.suppress(ConnmanError):
                    conn.send(data)
                    sent += 1
        return sent

    @property
    def is_closed(self) -> bool:
        """Whether `disconnect` was called."""
        fork.check_process()
        return self._is_closed

    @property
    def stats(self) -> PoolStats:
        """What the pool holds and has done: a snapshot."""
        connections = self.get_connections()
        every = [conn.stats for conn in connections]
        with self._lock:
            leased, waiters, leases = len(self._leased), len(self._waiters), self._leases
        return PoolStats(
            size=len(connections),
            open=sum(conn.is_open for conn in connections),
            leased=leased,
            waiters=waiters,
            leases=leases,
            total=total(every),
        )

    def disconnect(self, timeout: float = 5.0) -> None:
        """End every connection, those in the middle of opening included, under one common deadline. Idempotent; final.

        Callers that wait for a lease get PoolClosed. Returns at the latest after ``timeout`` + 1 s, on one of
        connman's own threads at once.

        Threads: any.
        """
        deadline = Deadline.after(SystemClock(), timeout)  # threads end in real time
        self.end_soon(timeout=timeout, code=1000)
        if not is_own():
            end_all(self._ending, deadline)

    close = disconnect

    def end_soon(self, code: int = 1001, reason: str = "", timeout: float = 1.0) -> None:
        """Begin what `disconnect` does and return at once.

        Threads: any; never blocks.
        """
        fork.check_process()
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._ending = list(self._connections)
            connections = self._ending
            for waiter in self._waiters:
                waiter.condition.notify()
        # Outside the lock: ending a connection reports its change of state back to us.
        for conn in connections:
            conn.end_soon(code, reason, timeout)

    def get_ending(self) -> list[Connection]:
        """Return the connections that `end_soon` told, none before it.

        Threads: any.
        """
        return self._ending

    def wait_gone(self, within: float) -> bool:
        """Wait up to ``within`` seconds for the threads of the connections that `end_soon` told.

        Threads: any but connman's own.
        """
        return all_gone(self._ending, Deadline.after(SystemClock(), within))

    def after_fork(self) -> None:
        """Become fresh in a child process: nothing is leased, nobody waits.

        Threads: the first one of the child that uses connman.
        """
        self._lock = threading.Lock()
        self._is_started = False
        self._leased = set()
        self._waiters = deque()

    def __enter__(self) -> Self:
        """Start the connections and return at once: leases wait for them."""
        return self.connect()

    def __exit__(self, *exc_info: object) -> None:
        self.disconnect()

    def __repr__(self) -> str:
        return f"<Pool {self.name or 'unnamed'} of {len(self._connections)}>"
