"""Messages that tell who sent them and whether they are whole, and the book that is kept of them."""

import random
import zlib
from collections.abc import Iterator

WRITERS = 4
_SIZES = (0, 10, 100, 100, 1000, 5000)
_LONGEST = max(_SIZES)


def message(writer: int, number: int, text: str) -> str:
    """Return a message: sender, number, checksum, text."""
    return f"{writer} {number} {_checksum(writer, number, text)} {text}"


def read(data: object) -> tuple[int, int]:
    """Return sender and number of a message; ValueError when it is damaged."""
    if not isinstance(data, str):
        raise ValueError(f"no text but {type(data).__name__}")
    writer, number, checksum, text = [*data.split(" ", 3), "", "", ""][:4]
    if _checksum(writer, number, text) != checksum:
        raise ValueError(f"a wrong checksum: {data[:80]!r}")
    return int(writer), int(number)


def _checksum(writer: object, number: object, text: str) -> str:
    return f"{zlib.crc32(f'{writer} {number} {text}'.encode()):08x}"


class Ledger:
    """What four writers are going to say, and what of it came back: whole, and of each writer in its order.

    Threads: `said` from the writers', `hear` from one reader's.
    """

    def __init__(self, seed: int, messages: int) -> None:
        self._seed = seed
        self._count = messages // WRITERS
        self._text = random.Random(seed).randbytes(4 * _LONGEST).hex()
        self._next = [0] * WRITERS
        self.expected = WRITERS * self._count
        self.heard = 0
        self.damage: list[str] = []
        """What is wrong with what came back; nothing of a message that never came."""

    def said(self, writer: int) -> Iterator[str]:
        """Yield the messages of one writer."""
        dice = random.Random(f"{self._seed} {writer}")
        for number in range(self._count):
            begin = dice.randrange(_LONGEST)
            yield message(writer, number, self._text[begin : begin + dice.choice(_SIZES)])

    def hear(self, data: object) -> bool:
        """Enter what came back; return whether that was the last."""
        self.heard += 1
        if trouble := self._trouble(data):
            self.damage.append(trouble)
        return self.heard >= self.expected

    def _trouble(self, data: object) -> str:
        try:
            writer, number = read(data)
        except ValueError as error:
            return str(error)
        expected, self._next[writer] = self._next[writer], number + 1
        return "" if number == expected else f"number {number} of writer {writer} where {expected} was due"
