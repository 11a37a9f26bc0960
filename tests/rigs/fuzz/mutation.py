"""How a case becomes another one."""

from collections.abc import Callable, Sequence
from random import Random

_LONGEST = 4096
_ODD_BYTES = (0, 1, 2, 9, 10, 13, 32, 0x7D, 0x7E, 0x7F, 0x80, 0x81, 0x88, 0xC1, 0xC3, 0xED, 0xF4, 0xFE, 0xFF)


def mutated(random: Random, case: bytes, tokens: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """Return ``case`` with one to five changes; ``others``: cases to take pieces from."""
    data = bytearray(case)
    for _ in range(1 + int(random.random() ** 2 * 5)):
        place = int(random.random() * (len(data) + 1))
        _CHANGES[int(random.random() * len(_CHANGES))](random, data, place, tokens, others)
    return bytes(data[:_LONGEST])


_Change = Callable[[Random, bytearray, int, Sequence[bytes], Sequence[bytes]], None]


def _flip(random: Random, data: bytearray, place: int, *_: object) -> None:
    if place < len(data):
        data[place] ^= 1 << random.randrange(8)


def _overwrite(random: Random, data: bytearray, place: int, *_: object) -> None:
    if place < len(data):
        data[place] = random.choice(_ODD_BYTES) if random.random() < 0.5 else random.randrange(256)


def _count(random: Random, data: bytearray, place: int, *_: object) -> None:
    if place < len(data):
        data[place] = (data[place] + random.choice((-2, -1, 1, 2))) % 256


def _drop(random: Random, data: bytearray, place: int, *_: object) -> None:
    del data[place : place + _size(random)]


def _truncate(random: Random, data: bytearray, place: int, *_: object) -> None:
    del data[place:]


def _insert(random: Random, data: bytearray, place: int, *_: object) -> None:
    data[place:place] = random.randbytes(_size(random))


def _repeat(random: Random, data: bytearray, place: int, *_: object) -> None:
    data[place:place] = data[place : place + _size(random) * 4] * (1 if random.random() < 0.9 else 20)


def _put_token(
    random: Random, data: bytearray, place: int, tokens: Sequence[bytes], others: Sequence[bytes]
) -> None:
    if tokens:
        token = random.choice(tokens)
        data[place : place + (len(token) if random.random() < 0.5 else 0)] = token


def _splice(
    random: Random, data: bytearray, place: int, tokens: Sequence[bytes], others: Sequence[bytes]
) -> None:
    if others:
        other = random.choice(others)
        begin = random.randrange(len(other) + 1)
        if random.random() < 0.5:
            data[place:] = other[begin:]
        else:
            data[place:place] = other[begin : begin + _size(random) * 4]


def _size(random: Random) -> int:
    return 1 + int(random.random() ** 3 * 16)


_CHANGES: tuple[_Change, ...] = (
    _flip, _flip, _overwrite, _overwrite, _count, _drop, _truncate, _insert, _repeat, _put_token, _put_token, _splice
)  # fmt: skip


def smaller(case: bytes, is_still: Callable[[bytes], bool], tries: int = 2000) -> bytes:
    """Return a shorter case of which ``is_still`` is true as it is of ``case``; pieces are left out while that helps."""
    size = max(1, len(case) // 2)
    while size and tries > 0:
        pos = 0
        while pos < len(case) and tries > 0:
            tries -= 1
            shorter = case[:pos] + case[pos + size :]
            if is_still(shorter):
                case = shorter
            else:
                pos += size
        size //= 2
    return case
