"""What arrives on standard input, cut into what is sent: pure, fed with chunks."""

from __future__ import annotations

from typing import Protocol

LONGEST_LINE = 16 * 1024 * 1024


class Splitter(Protocol):
    """Turn chunks into pieces, each of which becomes one message. None stands for a piece that was thrown away."""

    unit: str
    """What a piece is called when people are told of it, in the singular."""

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """Return the pieces that ``chunk`` completes.

        Threads: one at a time.
        """

    def rest(self) -> list[bytes | None]:
        """Return what is left when the input ends: a last line without its end.

        Threads: one at a time.
        """


class LineSplitter:
    """One piece a line, without its LF or CRLF: for WebSocket, whose messages have bounds. A `Splitter`.

    A line longer than ``longest`` bytes is thrown away as it comes, so that memory has a bound.
    """

    unit = "line"

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        # Joined once, when the line is whole: adding each chunk to a long one would take quadratic time.
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """Return the lines that ``chunk`` completes; see `Splitter`.

        Threads: one at a time.
        """
        first, *others = chunk.split(b"\n")
        self._keep(first)
        lines: list[bytes | None] = []
        for other in others:
            lines.append(self._take())
            self._keep(other)
        return lines

    def rest(self) -> list[bytes | None]:
        """Return the last line if nothing ended it; see `Splitter`.

        Threads: one at a time.
        """
        return [self._take()] if self._size else []

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        # The size goes on counting: by it _take() knows that the line was thrown away.
        if self._size > self._longest:
            self._parts.clear()
        else:
            self._parts.append(part)

    def _take(self) -> bytes | None:
        line = b"".join(self._parts).removesuffix(b"\r") if self._size <= self._longest else None
        self._parts.clear()
        self._size = 0
        return line


class ChunkSplitter:
    """Each chunk as it is: for byte streams, where bounds mean nothing. A `Splitter`."""

    unit = "chunk"

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """Return ``chunk``; see `Splitter`.

        Threads: any; pure.
        """
        return [chunk]

    def rest(self) -> list[bytes | None]:
        """Return nothing; see `Splitter`.

        Threads: any; pure.
        """
        return []
