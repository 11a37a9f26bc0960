"""What a `connman.testing.FaultProxy` holds for each client: two sockets and the bytes on their way between them."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

BUFFER = 256 * 1024  # bytes held for one direction; a full one is not read on, so that the sender feels it
CHUNK = 64 * 1024
PACE = 0.05  # seconds of a limited rate that are written at once

Way = Literal["up", "down", "both"]
WebSockets = Literal["pass", "refuse", "swallow"]
WAYS = frozenset(("up", "down"))

_MOST_HEAD = 8192  # bytes of a request that are looked at
_REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(slots=True)
class Faults:
    """What goes wrong at present. Durations in seconds, ``rate`` in bytes a second for each link and direction."""

    deaf_ways: frozenset[str] = frozenset()
    is_refusing: bool = False
    kill_every: int | None = None
    latency: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    slice: int | None = None
    limit: int | None = None
    limited_way: Way = "both"
    websockets: WebSockets = "pass"

    @property
    def is_deaf(self) -> bool:
        """Whether nothing is passed on at all."""
        return len(self.deaf_ways) == len(WAYS)


class Flow:
    """One direction of a link: read from ``source``, held back as the faults say, written to ``sink``.

    Threads: the proxy's own.
    """

    def __init__(self, way: Way, source: socket.socket, sink: socket.socket) -> None:
        self.way = way
        self.source = source
        self.sink = sink
        self.is_over = False
        self.is_held = False
        self._is_read_out = False
        self._is_swallowed = False
        # Due time and bytes; none at all is the end of file, which keeps its place behind the bytes.
        self._chunks: deque[tuple[float, memoryview]] = deque()
        self._size = 0
        self._newest = 0.0
        self._free_at = 0.0

    @property
    def wants_more(self) -> bool:
        """Whether the source is to be read."""
        return not self._is_read_out and self._size < BUFFER

    @property
    def due_at(self) -> float:
        """The time from which something can be written; infinity when nothing is there."""
        return max(self._chunks[0][0], self._free_at) if self._chunks and not self.is_held else math.inf

    def read(self, now: float, delay: float) -> None:
        """Take a chunk, or the end of file, from the source.

        Raises: OSError when the source is broken.
        """
        try:
            chunk = self.source.recv(CHUNK)
        except BlockingIOError:
            return
        self._is_read_out = not chunk
        if chunk and self._is_swallowed:
            return
        self._size += len(chunk)
        # No chunk overtakes another, however the delays fall.
        self._newest = max(self._newest, now + delay)
        self._chunks.append((self._newest, memoryview(chunk)))

    def begun(self) -> bytes:
        """Return what is held, as far as a request's head can reach."""
        return b"".join(chunk for _, chunk in self._chunks)[:_MOST_HEAD]

    def swallow(self) -> None:
        """Throw away what is held and all that follows, but for the end of file."""
        self._is_swallowed = True
        self._chunks = deque(item for item in self._chunks if not item[1])
        self._size = 0

    def answer(self, data: bytes) -> None:
        """Write ``data`` and the end of file, and read no more."""
        self._is_read_out = True
        self._chunks = deque(((0.0, memoryview(data)), (0.0, memoryview(b""))))
        self._size = len(data)

    def write(self, now: float, faults: Faults, limit: int | None) -> int:
        """Write what may go out at once, at most ``limit`` bytes, and return how many that were.

        Raises: OSError when the sink is broken.
        """
        due, chunk = self._chunks[0]
        if not chunk:
            self.is_over = True
            self._chunks.clear()
            self.sink.shutdown(socket.SHUT_WR)
            return 0
        paced = None if faults.rate is None else max(1, int(faults.rate * PACE))
        most = min(size for size in (len(chunk), faults.slice, paced, limit) if size is not None)
        try:
            count = self.sink.send(chunk[:most])
        except BlockingIOError:
            return 0
        self._size -= count
        if count < len(chunk):
            self._chunks[0] = (due, chunk[count:])
        else:
            self._chunks.popleft()
        if faults.rate is not None:
            self._free_at = now + count / faults.rate
        return count


class Link:
    """One client and the connection made for it.

    Threads: the proxy's own.
    """

    def __init__(self, client: socket.socket, upstream: socket.socket, limit: int | None) -> None:
        self.client = client
        self.upstream = upstream
        self.up = Flow("up", client, upstream)
        self.down = Flow("down", upstream, client)
        self.limit = limit
        self.alarm = math.inf
        self.is_begun = False
        self.is_connected = False
        self._is_judged = False
        for sock in (client, upstream):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def begin(self, address: Any) -> None:
        """Begin to connect to the upstream.

        Raises: OSError when that fails at once.
        """
        self.is_begun = True
        with contextlib.suppress(BlockingIOError):
            self.upstream.connect(address)

    def judge(self, websockets: WebSockets) -> None:
        """Look at the head of the client's first request, which is held back until it is whole: is it an upgrade?"""
        head = b"" if self._is_judged else self.up.begun()
        if not head:
            return
        # Only a GET can be one (RFC 6455 4.1). A protocol that the proxy does not know must not be held back.
        is_get = websockets != "pass" and head.startswith(b"GET "[: len(head)])
        self.up.is_held = is_get and b"\r\n\r\n" not in head and len(head) < _MOST_HEAD
        self._is_judged = not self.up.is_held
        if self._is_judged and is_get and b"\r\nupgrade: websocket\r\n" in head.lower():
            self.up.swallow()
            if websockets == "refuse":
                self.up.is_over = True
                self.down.answer(_REFUSAL)

    def settle(self) -> None:
        """Take note of how connecting ended, once the upstream's socket is writable.

        Raises: OSError when it failed.
        """
        if not self.is_connected:
            error = self.upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "the upstream cannot be reached")
            self.is_connected = True

    @property
    def is_over(self) -> bool:
        """Whether both ends have been told of the other's end of file."""
        return self.up.is_over and self.down.is_over

    def end(self, *, reset: bool) -> None:
        """Close both sockets: with a RST, or with a FIN as far as the system lets that be told apart."""
        for sock in (self.client, self.upstream):
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                _finish(sock)
            sock.close()


def _finish(sock: socket.socket) -> None:
    # Unread bytes would make close() send a RST behind the FIN.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        for _ in range(BUFFER // CHUNK):
            if not sock.recv(CHUNK):
                break
