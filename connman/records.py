"""The values that connman hands out: states, records of what happened, counters."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

Message = str | bytes
"""One application message as it is received: str is text, bytes is binary."""
Data = str | bytes | bytearray | memoryview
"""One application message as it may be sent."""


class State(enum.StrEnum):
    """Name the phase a connection is in; each member equals its lower-case name.

    IDLE: nothing runs; the next use dials. CONNECTING: an attempt is under way. OPEN: messages flow. WAITING:
    between two attempts. CLOSED: ended by ``disconnect()``, for good.
    """

    IDLE = "idle"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Step:
    """Record one step of an attempt: what was tried where, how long it took, how it ended.

    ``seconds`` is a float; ``cause`` is None for a step that succeeded, else a text free of secrets. ``leaf``: the name
    of the leaf of a strategy that took it, "" without one. ``start``: seconds from the beginning of the attempt.
    """

    phase: str
    address: str
    seconds: float
    cause: str | None = None
    leaf: str = ""
    start: float = 0.0

    def __str__(self) -> str:
        who = f"{self.leaf} +{self.start:.3f} s " if self.leaf else ""
        where = f" {self.address}" if self.address else ""
        return f"{who}{self.phase}{where} ({self.seconds:.3f} s): {self.cause or 'ok'}"


@dataclass(frozen=True, slots=True)
class Reset:
    """Tell ``on_reset`` what ended.

    ``opened``: True when an open connection was lost or closed, False when an attempt failed before it opened.
    ``code`` and ``reason``: from the peer's close frame or from ``disconnect()``; None and "" when there was none. The
    reason is not in the ``repr``: it may quote a token.
    ``attempt``: how many tries in a row have failed, this one included; the loss of a stable connection counts as 1.
    ``retry_in``: seconds until the next attempt, None when none follows. ``generation``: successful opens so far.
    """

    opened: bool
    error: Exception
    code: int | None
    reason: str = field(repr=False)
    attempt: int
    retry_in: float | None
    generation: int


@dataclass(frozen=True, slots=True)
class Stats:
    """Count what one connection, or a whole pool, has done since it was made: a snapshot.

    ``messages_*`` and ``bytes_*`` count what was received (in) and sent (out), bytes as they crossed the wire.
    ``opens``: successful opens. ``losses``: open connections that ended other than by ``disconnect()``.
    ``failed_attempts``: attempts that never opened. ``callback_errors``: exceptions that user callbacks raised.
    ``last_error``: text of the newest failure or None. ``ping_rtt``: seconds of the newest answered ping, or None.
    ``uptime``: seconds since the present generation opened, 0.0 when not open (a pool: the longest).
    """

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    opens: int = 0
    losses: int = 0
    failed_attempts: int = 0
    callback_errors: int = 0
    last_error: str | None = None
    ping_rtt: float | None = None
    uptime: float = 0.0


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Count what a pool holds and what its connections have done: a snapshot.

    ``size``: connections in the pool. ``open``: of these, open now. ``leased``: of these, lent out now.
    ``waiters``: callers waiting for a lease. ``leases``: leases granted so far. ``total``: the sums over the
    connections; its ``ping_rtt`` and ``uptime`` are the longest, its ``last_error`` one of theirs.
    """

    size: int
    open: int
    leased: int
    waiters: int
    leases: int
    total: Stats
