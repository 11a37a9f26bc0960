"""Many connections under one name: started, lent out, told and ended together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Self, Unpack

from connman.clock import Deadline, SystemClock
from connman.connection import fork
from connman.connection.connection import Connection
from connman.connection.core import ConnectionArguments, SharedArguments
from connman.connection.future import ConnectedFuture
from connman.connection.group import all_gone, end_all, total
from connman.connection.sharing import SharedReaders
from connman.errors import ConnmanError, InvalidOption, PoolClosed, PoolTimeout, printable
from connman.leases import CLOSED, Leases
from connman.records import Data, PoolStats, State
from connman.threads import is_own, uncut

LEASE_TIMEOUT = 30.0
"""Seconds that `Pool.connection` waits when it is not told otherwise."""


class PoolArguments(SharedArguments, total=False):
    """The keyword arguments of `Pool`, for those who only pass them on."""

    url: object
    size: int
    readers: int | None


class Pool:
    """A set of connections with common defaults; a with-block that starts them and ends them.

    ``url`` and ``size``: make ``size`` connections to ``url``, inert until the with-block, `connect` or a lease starts
    them. One of them that is disconnected, as by a borrower whose answer did not come in time, is replaced by a fresh
    one, which is started as well; only when a callback ended it, the next use does that, lest the two take turns without
    a pause. What `add_connection` made is not replaced. ``defaults``: options and callbacks of every connection.
    ``readers``: how many threads read all of them, for pools of hundreds; None for a thread for each connection. The
    callbacks of connections that share a thread wait for each other: none of them may block, as `send` does when its peer
    does not read, unless with ``dispatch="thread"``; and none can wait for a connection of its thread (WouldDeadlock).
    ``handshake`` and ``headers`` are called on the threads that dial, several at once.

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
        if readers is not None and (type(readers) is not int or readers < 1):
            raise InvalidOption(
                "readers is a number of threads from 1, or None for a thread for each connection"
            )
        if size < 0 or (size > 0) != (url is not None):
            raise InvalidOption("url and size go together: size is the number of connections to url, from 1")
        self.name = name
        self._clock = defaults.get("clock") or SystemClock()
        self._defaults = defaults
        self._url = url
        self._leases = Leases(self._clock)
        self._readers = (
            None if readers is None else SharedReaders(readers, printable(name or "pool"), self._clock)
        )
        self._lock = threading.Lock()
        # Guarded by _lock: everything below, but for _own of one member, of which one thread at a time tells the end: those
        # made for url, and what replaces each once that is made.
        self._connections: list[Connection] = []
        self._own: dict[Connection, Connection | None] = {}
        self._is_started = False
        self._is_closed = False
        self._ending: list[Connection] = []
        fork.end_at_exit(self)  # before its members: what the interpreter's end ends is not replaced
        for _ in range(size):
            self._add_own(self._make(url, {}))
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
        self._leases.add(conn)
        return conn.connect()

    def _make(self, target: object, options: ConnectionArguments) -> Connection:
        arguments: ConnectionArguments = {**self._defaults, **options}
        conn = Connection(target, **arguments)
        conn.watch(self._member_changed)
        if self._readers is not None:
            conn.read_by(self._readers)
        return conn

    def _add(self, conn: Connection) -> None:
        with self._lock:
            if self._is_closed:
                raise PoolClosed(CLOSED)
            self._connections.append(conn)

    def _add_own(self, conn: Connection, *, is_wanted: bool = False) -> None:
        with self._lock:
            if self._is_closed:
                raise PoolClosed(CLOSED)
            if conn not in self._own:
                # Together: a Ctrl-C comes behind the call at the earliest.
                self._own[conn] = None
                self._connections.append(conn)
        if is_wanted:
            conn.connect()
        # Started before: one that is idle would say to those who wait for a lease that nothing comes.
        self._leases.add(conn, is_replaced=True)
        if conn.closing is not None:  # by another thread, perhaps before that
            self._leases.remove(conn)

    def _member_changed(self, conn: Connection, state: State) -> None:
        if state is State.CLOSED:
            self._remove(conn)
        # Behind its replacement, which may be what those who wait for a lease are waiting for.
        self._leases.changed(conn, state)

    def _remove(self, conn: Connection) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._connections.remove(conn)
        try:
            if conn in self._own and not self._is_closed:
                with contextlib.suppress(PoolClosed):
                    self._replace(conn)
        finally:
            self._leases.remove(conn)

    def _replace(self, conn: Connection) -> None:
        # A Ctrl-C may cut it anywhere, and it is told again of the end: it goes on with the same replacement then.
        fresh = self._own.get(conn)
        if fresh is None:
            fresh = self._own[conn] = self._make(self._url, {})
        if fresh.closing is None:
            self._add_own(fresh, is_wanted=self._is_started and not is_own())
        self._own.pop(conn, None)

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
        """Wait until every connection has opened, starting those that are idle.

        ``timeout``: seconds for all together; None for no limit, 0 and less: only if all are open already.

        Raises: PoolTimeout; the error with which connecting one of them ended; PoolClosed after `disconnect`.
        Threads: any but connman's own.
        """
        deadline = Deadline.after(self._clock, timeout)
        # All Futures first: one that fails while another is waited for must tell its error, not be dialled anew.
        for conn, future in self._start():
            try:
                future.result(deadline.remaining())
            except TimeoutError as error:
                if not future.done():
                    why = f"{conn.name} is not open within {timeout:g} s; last error: {conn.last_error}"
                    raise PoolTimeout(why) from error
                # It has settled just now, or connecting ended with an error that is a timeout itself.
                future.result()
        if self._is_closed:
            raise PoolClosed(CLOSED)
        return self

    # Leases.

    @contextlib.contextmanager
    def connection(self, timeout: float | None = LEASE_TIMEOUT) -> Iterator[Connection]:
        """Lend an open connection to the block, to nobody else meanwhile; first come, first served.

        ``timeout``: seconds to wait for one; None for no limit, 0 and less: only one that is free already. Idle connections are started. A connection that is
        lost inside the block comes back by itself, also into the pool.

        Raises: PoolTimeout, whose text holds the newest connect error; PoolError, caused by that error, as soon as no
        connection is open or tries to be; PoolClosed; WouldDeadlock on connman's own threads when none is free at once.
        Threads: any.
        """
        self.connect()
        with self._leases.lend(timeout) as conn:
            yield conn

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
        leased, waiters, leases = self._leases.counts()
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

        Callers that wait for a lease get PoolClosed. Returns at the latest after ``timeout`` + 1 s (0 and less give
        no peer time to answer the close), on one of connman's own threads at once.

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
        uncut(lambda: self._end(code, reason, timeout))

    def _end(self, code: int, reason: str, timeout: float) -> None:
        with self._lock:
            if not self._is_closed:
                # Together: behind the call a Ctrl-C may come, and who asks next must find those to tell.
                self._ending, self._is_closed = list(self._connections), True
            connections = self._ending
        self._leases.close()
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
        self._leases.after_fork()

    def __enter__(self) -> Self:
        """Start the connections and return at once: leases wait for them."""
        return self.connect()

    def __exit__(self, *exc_info: object) -> None:
        self.disconnect()

    def __repr__(self) -> str:
        return f"<Pool {self.name or 'unnamed'} of {len(self._connections)}>"
