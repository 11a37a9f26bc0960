"""What is fuzzed: a function that takes any bytes, and a way to make bytes that reach far into it."""

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 120
_short.maxtuple = _short.maxlist = 12

CORPUS = Path(__file__).parent / "corpus"


class Finding(Exception):
    """An answer that is wrong, where nothing was raised."""


def expect(is_so: bool, what: str, *shown: object) -> None:
    """Raise a Finding unless it is so."""
    if not is_so:
        raise Finding(what + "".join(f"\n    {_short.repr(thing)}" for thing in shown))


@dataclass(frozen=True)
class Target:
    """One thing to fuzz.

    ``check`` takes a case and raises for a finding, anything at all; errors that are documented it catches itself.
    ``make`` makes a case. ``full``: how many of them a whole run takes. ``tokens``: what mutations put in.
    """

    name: str
    what: str
    full: int
    check: Callable[[bytes], None]
    make: Callable[[Random], bytes]
    tokens: Sequence[bytes] = ()

    def seeds(self) -> list[bytes]:
        """Return the cases that are kept, in the order of their names."""
        folder = CORPUS / self.name
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []
