"""Names to addresses, without ever blocking a dial that was aborted or is out of time."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from connman.threads import spawn
from connman.transport.base import Dial
from connman.transport.causes import describe

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
"""A family, and the address in the shape that ``connect()`` wants for it."""


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
        self._condition = threading.Condition()
        # Guarded by _condition: _outcome.
        self._outcome: list[Address] | Exception | None = None

    def run(self) -> list[Address] | Exception:
        """Ask the resolver; return its answer or what it raised."""
        try:
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
        self._lock = threading.Lock()
        # Guarded by _lock: _under_way.
        self._under_way: dict[tuple[str, int], _Lookup] = {}

    def join(self, host: str, port: int) -> _Lookup:
        """Return the lookup of this name that is under way, begun now if there was none."""
        with self._lock:
            lookup = self._under_way.get((host, port))
            if lookup is not None:
                return lookup
            lookup = self._under_way[host, port] = _Lookup(host, port)
        # Outside the lock: starting a thread waits for it to run.
        try:
            spawn(f"dns-{host}", lambda: self._finish(lookup, lookup.run()))
        except RuntimeError as error:
            # The system, or an ending interpreter, grants no thread; others may have joined meanwhile.
            self._finish(lookup, error)
        return lookup

    def _finish(self, lookup: _Lookup, outcome: list[Address] | Exception) -> None:
        # Out of the table first: who joins from now on gets a fresh lookup and no remembered answer.
        with self._lock:
            del self._under_way[lookup.host, lookup.port]
        lookup.settle(outcome)


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
