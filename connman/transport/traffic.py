"""What the system knows of a TCP connection's bytes: what has arrived, what the peer's system has taken, and when."""

from __future__ import annotations

import fcntl
import math
import socket
import struct
import termios
from dataclasses import dataclass

from connman.transport.progress import Progress

# Of Linux's struct tcp_info, which only ever grows at its end: tcpi_last_data_recv and tcpi_last_ack_recv
# (milliseconds), tcpi_bytes_acked and tcpi_bytes_received.
_TCP_INFO = struct.Struct("=52x2I60x2Q")


@dataclass(frozen=True, slots=True)
class Traffic:
    """The bytes of one connection so far, as they are on the wire."""

    received: int
    acknowledged: int
    unacknowledged: int
    """Handed to the system, and not acknowledged by the peer's yet."""
    heard_ago: float
    """Seconds since bytes arrived last."""
    taken_ago: float
    """Seconds since the peer's system acknowledged anything last."""


def traffic(sock: socket.socket) -> Traffic | None:
    """Return what the system knows of ``sock``; None where it knows nothing: no TCP, no Linux, a closed socket.

    Threads: any; never blocks, and never touches what TLS has put around the socket.
    """
    if not hasattr(socket, "TCP_INFO"):
        return None
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        heard, taken, acknowledged, received = _TCP_INFO.unpack(told)
        queue = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError, struct.error):
        return None
    return Traffic(received, acknowledged, struct.unpack("=i", queue)[0], heard / 1000, taken / 1000)


class TrafficWatch:
    """Tell when a peer whose frames do not become complete has moved: looks at the traffic are compared.

    It has moved when at least 1 KiB within ``window`` seconds arrived (a TLS record shows nothing of itself before it
    is complete), or was taken of what lies before a ping that is not answered: until the peer's system has the ping,
    nobody can have answered it.

    Threads: one, the keepalive's.
    """

    __slots__ = ("_acknowledged", "_arriving", "_leaving", "_looked_at", "_ping_end", "_received", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._arriving, self._leaving = Progress(), Progress()
        self._arriving.window = self._leaving.window = window
        # As the last look showed them.
        self._received = self._acknowledged = 0
        self._looked_at = -math.inf
        # Where the oldest ping without an answer ends, in acknowledged bytes.
        self._ping_end: int | None = None

    def moved_at(self, seen: Traffic, now: float) -> float:
        """Return when the peer moved last, as far as this look tells; minus infinity when it did not.

        Threads: the keepalive's.
        """
        received, acknowledged, pause = self._received, self._acknowledged, now - self._looked_at
        self._received, self._acknowledged, self._looked_at = seen.received, seen.acknowledged, now
        moved = -math.inf
        if pause > 2 * self._window:
            return moved  # over a longer time a drip would add up
        if self._arriving.is_life(seen.received - received, now):
            moved = now - seen.heard_ago
        if self._ping_end is not None:
            taken = min(seen.acknowledged, self._ping_end) - min(acknowledged, self._ping_end)
            if self._leaving.is_life(taken, now):
                moved = max(moved, now - seen.taken_ago)
        return moved

    def pinged(self, seen: Traffic | None) -> None:
        """Note where a ping that was just begun ends, unless an older one waits for its answer.

        Threads: the keepalive's.
        """
        if seen is not None and self._ping_end is None:
            self._ping_end = seen.acknowledged + seen.unacknowledged

    def answered(self) -> None:
        """Note that no ping waits for an answer any more.

        Threads: the keepalive's.
        """
        self._ping_end = None
