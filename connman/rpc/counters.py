"""What a peer counts, and the snapshots of it that users get."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

WINDOW = 1024
"""How many of the newest answered calls the latencies are of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStats:
    """Count what a peer has done since it was made: a snapshot.

    ``requests_sent_total``, ``requests_received_total``, ``requests_received_invalid``: as the model counts, the last one
    frames that are no message of a peer's. ``bytes_*``: of the messages, text as UTF-8. ``calls_in_flight``: that wait
    for their answers. ``late_answers``: to calls that had timed out or been cancelled; ``unknown_answers``: to none of
    ours. ``refused_busy``: requests that were answered with TOO-BUSY. ``latency_*``: seconds from the call to its answer,
    of the newest 1,024 answers; None before the first.
    """

    requests_sent_total: int = 0
    requests_received_total: int = 0
    requests_received_invalid: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    calls_in_flight: int = 0
    late_answers: int = 0
    unknown_answers: int = 0
    refused_busy: int = 0
    latency_mean: float | None = None
    latency_p50: float | None = None
    latency_p99: float | None = None


@dataclass(frozen=True, slots=True)
class CloseStatus:
    """Tell how a peer's connection ended for good.

    ``code``: the WebSocket close code; 1006 when it broke without one, 1005 where the protocol has none. ``reason``: as
    it came. ``stats``: at the end. ``pending``: the service ids of the calls that were under way, in their order.
    """

    code: int
    reason: str
    stats: PeerStats
    pending: tuple[int | str, ...] = ()


class Counters:
    """The numbers of one peer.

    Threads: whoever holds the peer's lock, but for those of received messages, which are the reader's or his who reads in
    its place, and `bytes_sent`, which is his whose turn it is to send.
    """

    __slots__ = (
        "bytes_received", "bytes_sent", "invalid", "late", "latencies", "received", "refused", "sent", "unknown",
    )  # fmt: skip

    def __init__(self) -> None:
        self.sent = self.received = self.invalid = 0
        self.bytes_sent = self.bytes_received = 0
        self.late = self.unknown = self.refused = 0
        self.latencies: deque[float] = deque(maxlen=WINDOW)

    def snapshot(self, in_flight: int) -> PeerStats:
        """Return the numbers as they are; the lock is held."""
        known = sorted(self.latencies)
        return PeerStats(
            requests_sent_total=self.sent,
            requests_received_total=self.received,
            requests_received_invalid=self.invalid,
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            calls_in_flight=in_flight,
            late_answers=self.late,
            unknown_answers=self.unknown,
            refused_busy=self.refused,
            latency_mean=math.fsum(known) / len(known) if known else None,
            latency_p50=_rank(known, 0.5),
            latency_p99=_rank(known, 0.99),
        )


def _rank(known: list[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of the values do not exceed."""
    return known[max(0, math.ceil(share * len(known)) - 1)] if known else None
