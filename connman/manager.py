"""The registry: every live connection and pool, found by target or name, ended together."""

from __future__ import annotations

import threading
from functools import partial
from typing import Self, Unpack

from connman.clock import Deadline, SystemClock
from connman.connection import fork
from connman.connection.connection import Connection
from connman.connection.core import ConnectionArguments
from connman.connection.group import end_all
from connman.endpoint import Endpoint
from connman.pool import Pool, PoolArguments
from connman.records import State
from connman.threads import is_own, uncut


class Manager:
    """A registry of connections and named pools; leaving its with-block disconnects all of them.

    ``connman.connect`` and its kin are the methods of a default one.

    Threads: every method from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Guarded by _lock: _connections (oldest first), _prune_at, _pools, _enders (one for each disconnect_all under way).
        self._connections: dict[int, Connection] = {}
        self._prune_at = 64
        self._pools: dict[str, Pool] = {}
        self._enders: set[object] = set()
        fork.register(self)

    def connect(self, target: object, **options: Unpack[ConnectionArguments]) -> Connection:
        """Make a connection, register it, start dialling, and return it at once; `Connection` has the options.

        While `disconnect_all` runs, the connection is ended as well: it comes back closed.

        Raises: InvalidTarget; InvalidOption; TypeError for an unknown option.
        Threads: any; never blocks.
        """
        return self.add(Connection(target, **options))

    def add(self, conn: Connection) -> Connection:
        """Register a connection that was made elsewhere, start dialling, and return it at once; else as `connect`.

        Threads: any; never blocks.
        """
        fork.check_process()
        with self._lock:
            self._connections[conn.id] = conn
            self._maybe_prune_locked()
            is_ending = bool(self._enders)
        # Outside the lock: both take locks of the connection's, and call those who watch it.
        if is_ending:
            conn.end_soon(1000)
            return conn
        return conn.connect()

    def _maybe_prune_locked(self) -> None:
        """Forget what has ended; often enough to stay in bounds, seldom enough to cost nothing."""
        if len(self._connections) >= self._prune_at:
            self._connections = {key: conn for key, conn in self._connections.items() if not _has_ended(conn)}
            self._prune_at = 2 * len(self._connections) + 64

    def get_connection(self, target: object) -> Connection | None:
        """Return the newest live connection to ``target``, compared normalised; None when there is none.

        Raises: InvalidTarget when it is malformed.
        Threads: any.
        """
        fork.check_process()
        is_dialer = hasattr(target, "dial")
        wanted = None if is_dialer else Endpoint.parse(target)
        with self._lock:
            newest_first = list(reversed(self._connections.values()))
        live = (conn for conn in newest_first if conn.state is not State.CLOSED)
        return next((c for c in live if (c.target is target if is_dialer else c.endpoint == wanted)), None)

    def create_pool(self, name: str, **options: Unpack[PoolArguments]) -> Pool:
        """Make and register a pool; `Pool` has the options. While `disconnect_all` runs it comes back disconnected.

        Raises: ValueError when a live pool has that name; what `Pool` raises.
        Threads: any.
        """
        fork.check_process()
        # Made before the name is looked up, because making it takes other locks; one that is refused is inert.
        pool = Pool(name, **options)
        with self._lock:
            known = self._pools.get(name)
            if known is not None and not known.is_closed:
                raise ValueError(f"there is a pool named {name!r} already")
            self._pools = {key: other for key, other in self._pools.items() if not _has_gone(other)}
            self._pools[name] = pool
            is_ending = bool(self._enders)
        if is_ending:
            pool.end_soon(1000)
        return pool

    def get_pool(self, name: str) -> Pool | None:
        """Return the live pool of that name; None when there is none.

        Threads: any.
        """
        fork.check_process()
        with self._lock:
            pool = self._pools.get(name)
        return None if pool is None or pool.is_closed else pool

    def disconnect_all(self, timeout: float = 5.0) -> None:
        """End every connection and pool, in whatever phase: all are told first, then waited for under one deadline.

        What is added meanwhile is ended as well. Idempotent; the manager can be used again afterwards. Returns at the
        latest after ``timeout`` + 1 s, on one of connman's own threads at once; with 0 or less no peer gets time to
        answer the close.

        Threads: any.
        """
        fork.check_process()
        deadline = Deadline.after(SystemClock(), timeout)
        told: dict[int, Connection] = {}
        ender = object()
        try:
            with self._lock:
                # From now on `connect` ends what it makes: nobody can outrun the loop below for ever.
                self._enders.add(ender)
            while fresh := uncut(partial(self._tell, told, timeout)):
                told |= fresh
                if is_own():
                    break  # all are told; the same holds for what still comes
                end_all(list(fresh.values()), deadline)
                if deadline.expired:
                    break  # what still comes is ended by `connect` as long as anybody is in here
        finally:
            # Without the lock, for which a Ctrl-C would cut the wait.
            self._enders.discard(ender)

    def _tell(self, told: dict[int, Connection], timeout: float) -> dict[int, Connection]:
        """Tell every connection that was not told yet to end, and return them."""
        with self._lock:
            everything = dict(self._connections)
            pools = list(self._pools.values())
        # Pools first: one that was told replaces no member that ends.
        for pool in pools:
            pool.end_soon(1000, "", timeout)
            everything |= {conn.id: conn for conn in pool.get_ending()}
        fresh = {key: conn for key, conn in everything.items() if key not in told}
        for conn in fresh.values():
            conn.end_soon(1000, "", timeout)
        return fresh

    def after_fork(self) -> None:
        """Become fresh in a child process: a new lock; the connections are idle there.

        Threads: the first one of the child that uses connman.
        """
        self._lock = threading.Lock()
        self._enders = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.disconnect_all()


def _has_gone(pool: Pool) -> bool:
    return pool.is_closed and all(conn.wait_gone(0) for conn in pool.get_ending())


def _has_ended(conn: Connection) -> bool:
    return conn.state is State.CLOSED and conn.wait_gone(0)


# One entry at most. A dict, because setdefault is atomic and no lock may be made at import.
_default: dict[str, Manager] = {}


def default_manager() -> Manager:
    """Return the process's manager, made on first use.

    Threads: any.
    """
    # Of two that are made at once setdefault() keeps one; the other was never used.
    return _default.get("manager") or _default.setdefault("manager", Manager())


def connect(target: object, **options: Unpack[ConnectionArguments]) -> Connection:
    """Make a connection in the default manager, start dialling, and return it at once: see `Manager.connect`.

    Raises: InvalidTarget; InvalidOption; TypeError for an unknown option.
    Threads: any; never blocks.
    """
    return default_manager().connect(target, **options)


def get_connection(target: object) -> Connection | None:
    """Return the default manager's newest live connection to ``target``, None when there is none.

    Raises: InvalidTarget when it is malformed.
    Threads: any.
    """
    return default_manager().get_connection(target)


def create_pool(name: str, **options: Unpack[PoolArguments]) -> Pool:
    """Make a pool in the default manager: see `Manager.create_pool`.

    Raises: ValueError when a live pool has that name; what `Pool` raises.
    Threads: any.
    """
    return default_manager().create_pool(name, **options)


def get_pool(name: str) -> Pool | None:
    """Return the default manager's live pool of that name, None when there is none.

    Threads: any.
    """
    return default_manager().get_pool(name)


def disconnect_all(timeout: float = 5.0) -> None:
    """End every connection and pool of the default manager within ``timeout`` + 1 s: see `Manager.disconnect_all`.

    Threads: any.
    """
    default_manager().disconnect_all(timeout)
