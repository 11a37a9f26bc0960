"""What a relay counts, and what it shows of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

BrokerState = Literal["none", "up", "lost"]

SAMPLES = 120
"""Seconds that the ring of rates goes back."""

MOST_KINDS = 64
"""Close codes and reasons that are told apart: clients choose codes, and each would be a row of its own for ever."""

OTHER_CODE = 0
OTHER_REASON = "other"


@dataclass(frozen=True, slots=True)
class Rate:
    """How much went on a second, over the seconds from the sample before this one to ``at``."""

    at: float
    frames: float
    bytes: float
    pairs: float


@dataclass(frozen=True, slots=True)
class RelaySeen:
    """A relay of the cluster: its id, the address it says it has, and the seconds since it was last heard of."""

    id: str
    address: str
    age: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a relay is doing, and has done since it started: a read-only copy.

    Now: ``connections`` (sockets, in whatever phase), ``spares``, ``names`` (that have a spare), ``pairs``, ``groups``.
    Since the start: ``connections_total``, ``pairs_total``, ``frames_total`` and ``bytes_total`` (forwarded),
    ``handovers_failed`` (spares that were not ready in time or died meanwhile), ``refused`` (a count for each reason),
    ``closes`` (for each close code; 0 stands for the codes beyond the first 64). ``rates``: a ring of the last seconds,
    oldest first. ``relays``: those of the cluster, without a broker none. ``broker``: "none", "up" or "lost".
    """

    uptime: float = 0.0
    connections: int = 0
    spares: int = 0
    names: int = 0
    pairs: int = 0
    groups: int = 0
    connections_total: int = 0
    pairs_total: int = 0
    frames_total: int = 0
    bytes_total: int = 0
    handovers_failed: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    closes: Mapping[int, int] = field(default_factory=dict)
    rates: tuple[Rate, ...] = ()
    relays: tuple[RelaySeen, ...] = ()
    broker: BrokerState = "none"
    is_stopping: bool = False

    @property
    def is_healthy(self) -> bool:
        """Whether new pairs get all that there is: it is not stopping, and its broker is not lost."""
        return not self.is_stopping and self.broker != "lost"


class Counts:
    """The numbers of a relay: plain attributes that its loop counts up and down.

    Threads: written by one (the relay's); `snapshot` from any.
    """

    __slots__ = (
        "_before",
        "_rates",
        "bytes_total",
        "closes",
        "connections",
        "connections_total",
        "frames_total",
        "groups",
        "handovers_failed",
        "pairs",
        "pairs_total",
        "refused",
        "spares",
        "started_at",
    )

    def __init__(self, now: float) -> None:
        self.started_at = now
        self.connections = self.spares = self.pairs = self.groups = 0
        self.connections_total = self.pairs_total = self.frames_total = self.bytes_total = 0
        self.handovers_failed = 0
        self.refused: dict[str, int] = {}
        self.closes: dict[int, int] = {}
        # The totals at the newest sample: time, frames, bytes, pairs.
        self._before = (now, 0, 0, 0)
        self._rates: deque[Rate] = deque(maxlen=SAMPLES)

    def count_refused(self, reason: str) -> None:
        """Count a client that was let down before it was joined; ``reason``: one word out of a few.

        Threads: the relay's.
        """
        key = reason if reason in self.refused or len(self.refused) < MOST_KINDS else OTHER_REASON
        self.refused[key] = self.refused.get(key, 0) + 1

    def count_closed(self, code: int) -> None:
        """Count the end of a connection with ``code``.

        Threads: the relay's.
        """
        key = code if code in self.closes or len(self.closes) < MOST_KINDS else OTHER_CODE
        self.closes[key] = self.closes.get(key, 0) + 1

    def tick(self, now: float) -> None:
        """Take a sample for the ring of rates; to be called about once a second.

        Threads: the relay's.
        """
        then, frames, sent, pairs = self._before
        seconds = now - then
        if seconds <= 0:
            return
        self._before = (now, self.frames_total, self.bytes_total, self.pairs_total)
        self._rates.append(
            Rate(
                at=now - self.started_at,
                frames=(self.frames_total - frames) / seconds,
                bytes=(self.bytes_total - sent) / seconds,
                pairs=(self.pairs_total - pairs) / seconds,
            )
        )

    def snapshot(
        self,
        now: float,
        *,
        names: int = 0,
        relays: Iterable[RelaySeen] = (),
        broker: BrokerState = "none",
        is_stopping: bool = False,
    ) -> Snapshot:
        """Return a copy of the numbers, together with those that others keep.

        Threads: any; the numbers may then be some microseconds apart.
        """
        # Each copy is one step of the interpreter's: the loop cannot come in between.
        return Snapshot(
            uptime=now - self.started_at,
            connections=self.connections,
            spares=self.spares,
            names=names,
            pairs=self.pairs,
            groups=self.groups,
            connections_total=self.connections_total,
            pairs_total=self.pairs_total,
            frames_total=self.frames_total,
            bytes_total=self.bytes_total,
            handovers_failed=self.handovers_failed,
            refused=MappingProxyType(self.refused.copy()),
            closes=MappingProxyType(self.closes.copy()),
            rates=tuple(self._rates.copy()),
            relays=tuple(relays),
            broker=broker,
            is_stopping=is_stopping,
        )
