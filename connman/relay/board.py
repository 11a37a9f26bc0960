"""Who waits where: spares under their names, newest last, and members of groups that are alone. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


class Board(Generic[S]):
    """The names and groups of one relay.

    Threads: one at a time (the relay's); `len` of `names` from any.
    """

    __slots__ = ("_groups", "_pairs", "_spares")

    def __init__(self) -> None:
        # A dict for each name: it keeps the order, and a spare in the middle leaves without a search.
        self._spares: dict[str, dict[S, None]] = {}
        self._groups: dict[bytes, list[S]] = {}
        self._pairs: dict[str, int] = {}

    def add_spare(self, name: str, side: S) -> None:
        """Put ``side`` behind the other spares of ``name``: it is taken first."""
        self._spares.setdefault(name, {})[side] = None

    def remove_spare(self, name: str, side: S) -> bool:
        """Take this spare away; False when it is not there any more."""
        spares = self._spares.get(name)
        if spares is None or side not in spares:
            return False
        del spares[side]
        if not spares:
            del self._spares[name]
        return True

    def newest_spare(self, name: str) -> S | None:
        """Return the spare of ``name`` that came last, and take it away."""
        spares = self._spares.get(name)
        if not spares:
            return None
        side, _ = spares.popitem()
        if not spares:
            del self._spares[name]
        return side

    def spares(self, name: str) -> int:
        """Return how many spares there are under ``name``."""
        return len(self._spares.get(name, ()))

    @property
    def names(self) -> int:
        """How many names have a spare."""
        return len(self._spares)

    def pairs(self, name: str) -> int:
        """Return how many pairs there are whose caller reached ``name``."""
        return self._pairs.get(name, 0)

    def pair_added(self, name: str) -> None:
        """Count a pair under the name that its caller reached."""
        self._pairs[name] = self._pairs.get(name, 0) + 1

    def pair_gone(self, name: str) -> None:
        """Count it no more."""
        left = self._pairs.get(name, 0) - 1
        if left > 0:
            self._pairs[name] = left
        else:
            self._pairs.pop(name, None)

    def counted_names(self) -> list[tuple[str, int, int]]:
        """Return the names in use, each with the number of its spares and of its pairs, in order.

        Threads: any: it goes over copies.
        """
        spares, pairs = self._spares.copy(), self._pairs.copy()
        return [(n, len(spares.get(n, ())), pairs.get(n, 0)) for n in sorted(spares.keys() | pairs.keys())]

    def enter_group(self, key: bytes, side: S) -> S | None:
        """Put ``side`` into a group; return the member that was there before, None for the first one.

        Raises: OverflowError when there are two already.
        """
        members = self._groups.setdefault(key, [])
        if len(members) == 2:
            raise OverflowError("a group has two members")
        members.append(side)
        return members[0] if len(members) == 2 else None

    def leave_group(self, key: bytes) -> None:
        """End a group: with one of its members gone the other one is let go as well."""
        self._groups.pop(key, None)
