"""A case read as decisions: whatever the bytes are, they say something, and the same each time."""

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import TypeVar

_T = TypeVar("_T")


class Script:
    """Take numbers, choices and pieces off the front of a case; zeros and nothing once it is used up."""

    def __init__(self, case: bytes) -> None:
        self._case = case
        self._pos = 0

    def __bool__(self) -> bool:
        return self._pos < len(self._case)

    def byte(self) -> int:
        pos = self._pos
        self._pos = pos + 1
        return self._case[pos] if pos < len(self._case) else 0

    def below(self, count: int) -> int:
        return self.byte() % count

    def choose(self, choices: Sequence[_T]) -> _T:
        return choices[self.byte() % len(choices)]

    def piece(self, most: int = 255) -> bytes:
        """Return a piece that begins with its length."""
        size = min(self.byte(), most)
        piece = self._case[self._pos : self._pos + size]
        self._pos += size
        return piece

    def text(self, most: int = 255) -> str:
        """Return a piece as text; what is not UTF-8 becomes lone surrogates, as in names of files."""
        return self.piece(most).decode(errors="surrogateescape")

    def rest(self) -> bytes:
        rest = self._case[self._pos :]
        self._pos = len(self._case)
        return rest


def piece(data: bytes | str) -> bytes:
    """Write what `Script.piece` reads."""
    if isinstance(data, str):
        data = data.encode(errors="surrogatepass")
    return bytes((min(len(data), 255),)) + data[:255]


def cut(data: bytes, seed: int) -> list[bytes]:
    """Cut ``data`` in one of 256 ways: byte by byte, in two, in small pieces, at any places."""
    size = len(data)
    if seed < 32 and size < 400:
        return [data[i : i + 1] for i in range(size)]
    if seed < 128:
        place = seed * 2654435761 % (size + 1)
        edges = [0, place, size]
    else:
        random = Random(seed)
        most = 7 if seed < 192 else max(2, size // 2)
        edges = [0]
        while edges[-1] < size and len(edges) < 200:
            edges.append(edges[-1] + 1 + int(random.random() * most))
        edges.append(size)
    return [data[a:b] for a, b in pairwise(edges) if a < b]
