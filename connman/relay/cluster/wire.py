"""What relays send each other through the broker: batches of messages, binary and versioned.

A batch is a header and messages one behind the other. All numbers are little-endian.

    header    "CM", version, flags, id of the sender (8 bytes), its epoch, the receiver's epoch as the sender knows it
              (0: not yet), number of the batch, bytes of frames that the sender has taken in on this link (mod 2^32)
    message   kind, pair, length of the body; the body

The pair of a message is numbered by its sender: the relay that claimed it counts 0, 2, 4 …, and the same pair is one
more for the other relay. So each turns the lowest bit of what it receives, and two claims never get the same number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

VERSION: Final = 1
MAGIC: Final = b"CM"
HEADER: Final = struct.Struct("<2sBB8sIIII")
MESSAGE: Final = struct.Struct("<BII")
CLOSING: Final = struct.Struct("<H")
NUMBER: Final = struct.Struct("<I")

ID_BYTES: Final = 8
# Flags.
RESET: Final = 1  # the receiver's epoch is refused, its sender has to begin anew
NEEDED: Final = 2  # something of the sender's rides on the link: it waits for signs of life

# Kinds of messages.
FRAMES: Final = 0  # whole frames, as they are to be written to the client
CLAIM: Final = 1  # credit in bytes, name
GRANT: Final = 2  # credit in bytes
REFUSE: Final = 3  # code, reason
CANCEL: Final = 4
CREDIT: Final = 5  # bytes
CLOSE: Final = 6  # code, reason


class BadBatch(ValueError):
    """What came is not a batch of this version."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a batch says before its messages."""

    sender: bytes
    epoch: int
    peer_epoch: int
    number: int
    taken: int
    is_reset: bool = False
    is_needed: bool = False


def pack(header: Header, messages: Iterable[bytes] = ()) -> bytes:
    """Return a batch."""
    head = HEADER.pack(
        MAGIC,
        VERSION,
        RESET * header.is_reset | NEEDED * header.is_needed,
        header.sender,
        header.epoch,
        header.peer_epoch,
        header.number & 0xFFFFFFFF,
        header.taken & 0xFFFFFFFF,
    )
    return head + b"".join(messages)


def unpack_header(batch: bytes) -> Header:
    """Return what `batch` begins with; its messages are left to `Link.receive`, in one loop.

    Raises: BadBatch when it is too short, of another version, or not ours.
    """
    if len(batch) < HEADER.size:
        raise BadBatch(f"a batch of {len(batch)} bytes")
    magic, version, flags, sender, epoch, peer_epoch, number, taken = HEADER.unpack_from(batch)
    if magic != MAGIC or version != VERSION:
        raise BadBatch(f"what is no batch of version {VERSION}")
    return Header(sender, epoch, peer_epoch, number, taken, bool(flags & RESET), bool(flags & NEEDED))


def message(kind: int, pair: int, body: bytes = b"") -> bytes:
    """Return one message."""
    return MESSAGE.pack(kind, pair, len(body)) + body


def pack_closing(code: int, reason: str) -> bytes:
    """Return the body of a close or of a refusal."""
    return CLOSING.pack(code) + reason.encode()


def unpack_closing(body: bytes) -> tuple[int, str]:
    """Return code and reason.

    Raises: BadBatch when it is too short, or the reason is not UTF-8.
    """
    return _unpack(CLOSING, body, "a close")


def pack_claim(credit: int, name: str) -> bytes:
    """Return the body of a claim."""
    return NUMBER.pack(credit) + name.encode()


def unpack_claim(body: bytes) -> tuple[int, str]:
    """Return credit and name.

    Raises: BadBatch when it is too short, or the name is not UTF-8.
    """
    return _unpack(NUMBER, body, "a claim")


def _unpack(number: struct.Struct, body: bytes, what: str) -> tuple[int, str]:
    try:
        return number.unpack_from(body)[0], body[number.size :].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise BadBatch(f"{what} of {len(body)} bytes") from error


def unpack_number(body: bytes) -> int:
    """Return a credit.

    Raises: BadBatch when it is not four bytes.
    """
    if len(body) != NUMBER.size:
        raise BadBatch(f"a number of {len(body)} bytes")
    number: int = NUMBER.unpack(body)[0]
    return number
