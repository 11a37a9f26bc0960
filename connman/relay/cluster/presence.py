"""Which names this relay has spares of, and what of it the broker has yet to be told. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

REFRESH: Final = 1200.0  # seconds after which a name that has not changed is written again
LINGER: Final = 1.0  # seconds that a name without spares stays: they are replaced as they are taken
SPREAD: Final = 600  # seconds over which all names may be refreshed
EXPIRY: Final = 3600  # seconds that a name stays written; a dead relay's vanish with the relay, long before


@dataclass(slots=True)
class _Name:
    spares: int
    stamp: int  # when its newest spare came, in seconds: a hint which relay to ask first
    written: float | None = None  # when it was, on the clock of `now`


class Presence:
    """The names of one relay, and those whose entry in the broker is not what it should be.

    A spare that is taken and replaced within a second costs one write, or none, and callers elsewhere do not lose sight of
    the name meanwhile.
    """

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._dirty: dict[str, None] = {}  # in the order in which they became so
        # Names without spares, and when they are to be taken out, in that order.
        self._leaving: dict[str, float] = {}
        self._ages: dict[str, None] = {}  # names that are written, the longest ago first

    def __len__(self) -> int:
        return len(self._names)

    @property
    def is_dirty(self) -> bool:
        """Whether there is something to write, now or in a moment."""
        return bool(self._dirty or self._leaving)

    def added(self, name: str, stamp: int) -> None:
        """Count a new spare."""
        entry = self._names.get(name)
        if entry is None:
            self._names[name] = _Name(1, stamp)
            self._leaving.pop(name, None)
        else:
            entry.spares += 1
            if stamp == entry.stamp and entry.written is not None:
                return  # what is written says the same
            entry.stamp = stamp
        self._dirty[name] = None

    def gone(self, name: str, now: float) -> None:
        """Count a spare less."""
        entry = self._names.get(name)
        if entry is None:
            return  # all were taken out when the relay began to leave
        entry.spares -= 1
        if not entry.spares:
            del self._names[name]
            self._ages.pop(name, None)
            self._leaving.pop(name, None)
            self._leaving[name] = now + LINGER

    def take(self, most: int, now: float) -> list[tuple[str, int | None]]:
        """Return names to write with their stamp, or to take out (None), and hold them for written."""
        while self._leaving and (first := next(iter(self._leaving.items())))[1] <= now:
            del self._leaving[first[0]]
            self._dirty[first[0]] = None
        taken: list[tuple[str, int | None]] = []
        for name in self._dirty:
            if len(taken) == most:
                break
            entry = self._names.get(name)
            taken.append((name, None if entry is None else entry.stamp))
            if entry is not None:
                entry.written = now
                self._ages.pop(name, None)
                self._ages[name] = None
        for name, _ in taken:
            del self._dirty[name]
        return taken

    def not_written(self, names: Iterable[str]) -> None:
        """Mark names again: writing them has failed."""
        self._dirty.update(dict.fromkeys(names))

    def write_all(self) -> None:
        """Mark every name: the broker may have forgotten."""
        self._dirty.update(dict.fromkeys(self._names))

    def leave(self) -> None:
        """Take every name out, at once."""
        self._dirty.update(dict.fromkeys([*self._names, *self._leaving]))
        self._names.clear()
        self._leaving.clear()
        self._ages.clear()

    def refresh(self, now: float) -> None:
        """Mark names that were written long ago, before the broker lets them expire; to be called every second.

        A few at a time: names that came together are refreshed over minutes.
        """
        most = 10 + len(self._names) // SPREAD
        for name in self._ages:
            entry = self._names[name]
            if not most or entry.written is None or now - entry.written < REFRESH:
                break
            self._dirty[name] = None
            most -= 1
