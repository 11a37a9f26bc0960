"""Chunks of streams: how much they take, where they are cut, and how they wait."""

from __future__ import annotations

from collections import deque
from typing import Any

from connman.rpc.wire import size_of

MAX_CHUNKS = 4096
"""Chunks that wait one by one; with more of them neighbours are joined, so that tiny ones take no memory of their own."""


def cut(chunk: str | bytes, start: int, size: int) -> str | bytes:
    """Return a piece of ``chunk`` from ``start`` that takes ``size`` of a window at most; empty if no character fits.

    Threads: any.
    """
    piece = chunk[start : start + size]
    if isinstance(piece, bytes) or piece.isascii():
        return piece
    # No character takes more than four bytes.
    piece = piece[: max(size // 4, 1)]
    return piece if size_of(piece) <= size else ""


class Chunks:
    """Chunks in their order, all of them of one kind: many small ones are joined.

    Threads: whoever holds the lock of what it belongs to.
    """

    __slots__ = ("_ready", "_tail", "size")

    def __init__(self) -> None:
        self._ready: deque[Any] = deque()
        # Behind _ready, and always empty when that is short.
        self._tail: list[Any] = []
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._ready)

    def add(self, chunk: str | bytes, size: int) -> None:
        """Append ``chunk``, which takes ``size`` of the window."""
        self.size += size
        if len(self._ready) < MAX_CHUNKS:
            self._ready.append(chunk)
            return
        self._tail.append(chunk)
        if len(self._tail) >= MAX_CHUNKS:
            self._join_tail()

    def add_last(self, item: object) -> None:
        """Append something of any kind, behind which nothing comes."""
        self._join_tail()
        self._ready.append(item)

    def _join_tail(self) -> None:
        if self._tail:
            self._ready.append(joined(self._tail))
            self._tail = []

    def take(self) -> Any:
        """Take the oldest, and its size off."""
        chunk = self._ready.popleft()
        self._join_tail()  # or what is added next would overtake it
        self.size -= size_of(chunk) if isinstance(chunk, str | bytes) else 0
        return chunk

    def take_all(self) -> str | bytes:
        """Take everything, as one: ``b""`` if there was nothing."""
        chunks = [*self._ready, *self._tail]
        self._ready, self._tail, self.size = deque(), [], 0
        return joined(chunks)


def joined(chunks: list[Any]) -> str | bytes:
    """Return ``chunks``, which are of one kind, as one.

    Threads: any.
    """
    return "".join(chunks) if chunks and isinstance(chunks[0], str) else b"".join(chunks)
