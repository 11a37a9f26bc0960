"""Names to addresses, without ever blocking a dial that was aborted or is out of time."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from connman.threads import Condition, spawn
from connman.transport.base import Dial
from connman.transport.causes import describe

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
"""A family, and the address in the shape that ``connect()`` wants for it."""

FORK_PATIENCE = 1.0
"""Seconds from its beginning for which a fork waits for a lookup, and for which it waits for threads of lookups to leave.
What takes longer waits for a name server, in which it holds no lock. With 0.25 s a child hung in the stress, on two
processors with some forty busy threads; in its test under that load lookups took 0.21 s at most."""

EXIT_PAUSE = 0.001
"""Seconds between two looks at whether the thread of a lookup has left the system: nobody tells."""

FORK_LIMIT = 3.0
"""Seconds after which lookups begin again though nobody said that the fork is over (a Ctrl-C may come before that)."""


def resolve(dial: Dial, host: str, port: int) -> list[Address]:
    """Return the addresses of ``host``, in the resolver's order, at least one; an IP literal is its own.

    ``getaddrinfo`` cannot be interrupted, so it runs in a thread of its own, which an abort or the deadline leaves
    behind. Dials that want the same name at the same time share one thread, so a resolver that hangs costs one thread
    for each name and not one for each attempt. Nothing is remembered afterwards: each attempt asks anew.

    Raises: ConnectError when the name has no address; ConnectTimeout; the abort's error.
    Threads: the dialling thread.
    """
    literal = _literal(host, port)
    if literal is not None:
        return [literal]
    with dial.step("dns", host):
        return _table().join(host, port).wait(dial)


def hold_lookups() -> None:
    """Wait for the lookups under way, `FORK_PATIENCE` seconds at most, and let none begin before `release_lookups`.

    For a fork: ``getaddrinfo`` takes locks of the C library, which a child would inherit taken, with nobody to let go of
    them. It could then look up no name at all (glibc 2.36: with three threads that look up a name without end,
    4 children of 1,000 hung, all at the lock of resolv.conf). A thread that has looked up a name takes that lock once more
    as it leaves the system, so that is waited for as well (2 children of 5,000 hung where no lookup was under way).

    Threads: the one that is about to fork.
    """
    _table().hold()


def release_lookups() -> None:
    """Let lookups begin again: the fork is over.

    Threads: the one that called `hold_lookups`.
    """
    _table().release()


def forget_lookups_after_fork() -> None:
    """Let the child look up anew: the parent's threads do not run here, and their lock may be held.

    Threads: the only thread of a fresh child.
    """
    _tables.clear()


class _Lookup:
    """One ``getaddrinfo`` under way and everyone who waits for it.

    Threads: `run` on the lookup's own thread, the rest from any.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        # Guarded by the table's condition: begun (when it asked the resolver; None before).
        self.begun: float | None = None
        self._condition = Condition()
        # Guarded by _condition: _outcome.
        self._outcome: list[Address] | Exception | None = None

    def run(self, begin: Callable[[_Lookup], None]) -> list[Address] | Exception:
        """Ask the resolver when ``begin`` has returned; return its answer or what either raised."""
        try:
            begin(self)
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except Exception as error:  # top of a thread: those who wait must hear of it
            return error
        except BaseException as killed:  # top of a thread: the same, of a greenlet that was killed
            return OSError(f"the lookup was ended: {type(killed).__name__}")
        # The hosts file may name an address twice.
        return list(dict.fromkeys((family, address) for family, _, _, _, address in found))

    def settle(self, outcome: list[Address] | Exception) -> None:
        """Hand the outcome to everyone who waits."""
        with self._condition:
            self._outcome = outcome
            self._condition.notify_all()

    def wait(self, dial: Dial) -> list[Address]:
        """Return the addresses; leave the lookup alone when the dial ends before it."""
        dial.wait_for(self._condition, lambda: self._outcome is not None)
        with self._condition:
            outcome = self._outcome
        if isinstance(outcome, Exception):
            raise _retold(outcome) from outcome
        if not outcome:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        return outcome


class _Table:
    """The lookups under way.

    Threads: any.
    """

    def __init__(self) -> None:
        self._condition = Condition()
        # Guarded by _condition: _under_way, _forks (which threads, about to fork, let no lookup begin until when), and
        # _leaving (when the newest lookups were over, and the system's number of the thread of each).
        self._under_way: dict[tuple[str, int], _Lookup] = {}
        self._forks: dict[int, float] = {}
        self._leaving: deque[tuple[float, int]] = deque()

    def join(self, host: str, port: int) -> _Lookup:
        """Return the lookup of this name that is under way, begun now if there was none."""
        with self._condition:
            lookup = self._under_way.get((host, port))
            if lookup is not None:
                return lookup
            lookup = self._under_way[host, port] = _Lookup(host, port)
        # Outside the lock: starting a thread waits for it to run.
        try:
            spawn(f"dns-{host}", lambda: self._finish(lookup, lookup.run(self._begin)))
        except RuntimeError as error:
            # The system, or an ending interpreter, grants no thread; others may have joined meanwhile.
            self._finish(lookup, error)
        return lookup

    def hold(self) -> None:
        """See `hold_lookups`."""
        with self._condition:
            now = time.monotonic()
            self._forks[threading.get_ident()] = now + FORK_LIMIT
            until = now + FORK_PATIENCE
            while begun := [each.begun for each in self._under_way.values() if each.begun is not None]:
                left = max(begun) + FORK_PATIENCE - time.monotonic()
                if left <= 0:
                    break
                self._condition.wait(left)
            while self._is_any_leaving() and time.monotonic() < until:
                self._condition.wait(EXIT_PAUSE)

    def release(self) -> None:
        """See `release_lookups`."""
        with self._condition:
            self._forks.pop(threading.get_ident(), None)
            self._condition.notify_all()

    def _begin(self, lookup: _Lookup) -> None:
        with self._condition:
            while (left := max(self._forks.values(), default=0.0) - time.monotonic()) > 0:
                self._condition.wait(left)
            lookup.begun = time.monotonic()

    def _finish(self, lookup: _Lookup, outcome: list[Address] | Exception) -> None:
        # Out of the table first: who joins from now on gets a fresh lookup and no remembered answer.
        with self._condition:
            del self._under_way[lookup.host, lookup.port]
            if lookup.begun is not None:
                self._is_any_leaving()  # forgets those that have left
                self._leaving.append((time.monotonic(), threading.get_native_id()))
            self._condition.notify_all()
        lookup.settle(outcome)

    def _is_any_leaving(self) -> bool:
        """Return whether a thread that has looked up a name within `FORK_PATIENCE` is still there (Linux tells)."""
        old, own = time.monotonic() - FORK_PATIENCE, threading.get_native_id()
        while self._leaving:
            over, thread = self._leaving[0]
            # A greenlet's number is its thread's, which stays: the caller's own, or one that is too old at some time.
            if over > old and thread != own and os.path.exists(f"/proc/self/task/{thread}"):
                return True
            self._leaving.popleft()
        return False


# One entry at most. A dict, because setdefault is atomic and no lock may be made at import.
_tables: dict[str, _Table] = {}


def _table() -> _Table:
    table = _tables.get("lookups")
    return table if table is not None else _tables.setdefault("lookups", _Table())


def _retold(error: Exception) -> OSError:
    # A fresh error for each who waits: threads must not write their tracebacks into a common one.
    return socket.gaierror(*error.args) if isinstance(error, OSError) else OSError(describe(error))


def _literal(host: str, port: int) -> Address | None:
    with contextlib.suppress(OSError, ValueError):
        socket.inet_pton(socket.AF_INET, host)
        return socket.AF_INET, (host, port)
    bare, _, scope = host.partition("%")
    with contextlib.suppress(OSError, ValueError):
        socket.inet_pton(socket.AF_INET6, bare)
        return socket.AF_INET6, (bare, port, 0, _scope_id(scope))
    return None


def _scope_id(scope: str) -> int:
    """Return the number of a link-local address's interface (RFC 4007), given as a name or a number."""
    if not scope or scope.isdecimal():
        return int(scope or 0)
    return socket.if_nametoindex(scope)
