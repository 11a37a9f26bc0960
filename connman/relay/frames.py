"""RFC 6455 frames as a relay reads them: a client's masked frames in, a server's frames out. Pure, no I/O.

Nothing of a message is kept but the frame that is still coming in, and of a long one only the piece of it: what is
longer than `PIECE` goes on as fragments of that size, which 5.4 allows an intermediary where there are no extensions.
So a message of any length costs a side the same memory, a ping or a close fits in between, and a reader that is
slow is felt by the writer after some pieces, not after the message.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from connman.relay.wire import LONGEST_FIRST, TOO_BIG, is_close_code
from connman.transport.masking import masked

PIECE = 65536
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_FIN, _RESERVED, _OPCODE, _MASKED = 0x80, 0x70, 0x0F, 0x80
_NO_CODE = 1005
# What a fragment counts for at least: endless empty ones are a message that is too big as well.
_FRAGMENT = 16

# By the first byte and the length of a payload: the head of a server's frame. Whole messages of up to 125 bytes.
_SHORT = {first: [bytes((first, size)) for size in range(126)] for first in (_FIN | TEXT, _FIN | BINARY)}
_NONE: dict[int, list[bytes]] = {}
# By the length of a payload: what a key is multiplied by to stand over all of it, and what cuts off the rest.
_REPEATED = [int.from_bytes(b"\1\0\0\0" * ((size + 3) // 4), "little") for size in range(126)]
_ALL = [(1 << 8 * size) - 1 for size in range(126)]


def unmasked(payload: bytes, key: bytes) -> bytes | bytearray:
    """Return ``payload`` without the mask of ``key``, by the standard library alone.

    Threads: any; pure.
    """
    size = len(payload)
    if size > 125:
        return masked(payload, key)
    number = int.from_bytes(payload, "little")
    return (number ^ (int.from_bytes(key, "little") * _REPEATED[size] & _ALL[size])).to_bytes(size, "little")


def _find_unmask() -> Callable[[bytes, bytes], bytes | bytearray]:
    # Measured: 64 bytes take 0.12 µs there and 0.33 here, 64 KiB 2.7 µs there and 60 here.
    try:
        from websockets.speedups import apply_mask  # lazy: there only where that package is installed
    except ImportError:
        return unmasked
    found: Callable[[bytes, bytes], bytes] = apply_mask
    return found


unmask = _find_unmask()


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Return a server's frame.

    Threads: any; pure.
    """
    return head(opcode | _FIN if fin else opcode, len(payload)) + payload


def head(first: int, size: int) -> bytes:
    """Return the head of a server's frame; ``first``: its first byte.

    Threads: any; pure.
    """
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)


class Frames:
    """Reads what one client sends: whole messages while `take` is called, frames to pass on from the first `feed` on.

    A violation is never raised: `error` has the close code and the text, and nothing behind it is parsed.
    ``closed``: code and reason of the peer's close frame, 1005 without one. ``ping``: the payload of the newest ping.

    Threads: one at a time.
    """

    __slots__ = (
        "_first", "_in_message", "_key", "_left", "_limit", "_message_size", "_parts", "_short", "_skipping",
        "_whole", "closed", "error", "ping", "rest",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rest = b""
        self.error: tuple[int, str] | None = None
        self.closed: tuple[int, str] | None = None
        self.ping: bytes | None = None
        self._limit = LONGEST_FIRST
        self._parts: list[bytes | bytearray] = []
        # What `feed` may take the quick way: nothing inside a message, nor before the first `pass_on`.
        self._whole = self._short = _NONE
        self._in_message = False
        self._skipping = False
        self._message_size = 0
        # Of the long frame that is being passed on in pieces: its first byte, its key, and how much is to come.
        self._left = 0
        self._first = 0
        self._key = b""

    @property
    def is_over(self) -> bool:
        """Whether nothing is parsed any more."""
        return self.error is not None or self.closed is not None

    def take(self, *, hold: bool = False) -> tuple[int, bytes] | None:
        """Return the next whole message of `rest` as opcode and payload, or None; messages are short here.

        ``hold``: see to the control frames alone, up to the first frame that is none.
        """
        data, pos = self.rest, 0
        while len(data) - pos >= 6 and not self.is_over:
            if hold and data[pos] & _OPCODE < CLOSE:
                break
            done = self._careful(data, pos, self._parts)
            if done == pos:
                break
            pos = done
            if self._parts and not self._in_message:
                self.rest = data[pos:]
                opcode, payload = self._parts[0][0] & _OPCODE, b"".join(self._parts[1::2])
                self._parts.clear()
                return opcode, payload
        self.rest = data[pos:]
        return None

    def pass_on(self, max_message_size: int) -> None:
        """Let `feed` take over from `take`."""
        self._limit = max_message_size
        self._whole = _SHORT
        self._short = _NONE if self._in_message else _SHORT

    def skip(self) -> None:
        """Keep the rest of a message that has begun from being passed on."""
        self._skipping = self._in_message or self._left > 0

    def feed(self, data: bytes) -> list[bytes | bytearray]:
        """Take what arrived and return what is to be passed on: head, payload, head, payload and so on."""
        # Measured with binary frames of 64 bytes in chunks of 64 KiB, CPython 3.11 and uvloop, reading and writing
        # included: 0.41 µs a frame, 0.62 without C to unmask. picows, whose parser is C, needs 0.50 with one joined
        # write a chunk as here, and 1.86 with a write a frame.
        if self.rest:
            data = self.rest + data
        out: list[bytes | bytearray] = []
        append = out.append
        take_off = unmask
        limit = self._limit
        short = self._short
        end = len(data)
        pos = 0
        while end - pos >= 6 or self._left:
            if not self._left:
                heads = short.get(data[pos])
                if heads is not None:
                    size = data[pos + 1] - _MASKED
                    if 0 <= size < 126:
                        start = pos + 6
                        stop = start + size
                        if stop > end:
                            break
                        append(heads[size])
                        append(take_off(data[start:stop], data[pos + 2 : start]))
                        pos = stop
                        continue
                    if size == 126 and end - pos >= 8:
                        size = data[pos + 2] << 8 | data[pos + 3]
                        start = pos + 8
                        stop = start + size
                        if 126 <= size <= limit:
                            if stop > end:
                                break
                            append(data[pos : pos + 1] + b"\x7e" + data[pos + 2 : pos + 4])
                            append(take_off(data[start:stop], data[pos + 4 : start]))
                            pos = stop
                            continue
            done = self._piece(data, pos, out) if self._left else self._careful(data, pos, out)
            if done == pos or self.is_over:
                break
            pos = done
            short = self._short
        self.rest = b"" if self.is_over else data[pos:]
        return out

    def _careful(self, data: bytes, pos: int, out: list[bytes | bytearray]) -> int:
        """Take the one frame at ``pos`` and return where it ends; ``pos`` itself when it is not all there."""
        first, second = data[pos], data[pos + 1]
        opcode = first & _OPCODE
        if first & _RESERVED:
            return self._fail(1002, "reserved bits are set", pos)
        if not second & _MASKED:
            return self._fail(1002, "a frame is not masked", pos)
        if opcode >= CLOSE:
            return self._control(data, pos)
        if opcode > BINARY or (opcode == 0) is not self._in_message:
            return self._fail(1002, "a frame of an unknown kind, or out of turn", pos)
        sized = self._size(data, pos)
        if sized is None:
            return pos
        start, size = sized
        if self._message_size + size > self._limit:
            return self._fail(TOO_BIG, "the message is too big", pos)
        if size >= PIECE:
            self._left, self._first, self._key = size, first, data[start - 4 : start]
        elif start + size > len(data):
            return pos
        else:
            self._emit(out, first, unmask(data[start : start + size], data[start - 4 : start]))
            start += size
        self._message_size += max(size, _FRAGMENT)
        self._set_in_message(size >= PIECE or not first & _FIN)
        return start

    def _size(self, data: bytes, pos: int) -> tuple[int, int] | None:
        """Return where the payload begins and how long it is; None when the head is not all there."""
        size = data[pos + 1] & ~_MASKED
        extra = {126: 2, 127: 8}.get(size, 0)
        start = pos + 6 + extra
        if start > len(data):
            return None
        if extra:
            size = int.from_bytes(data[pos + 2 : pos + 2 + extra])
            if size < (126 if extra == 2 else 65536) or size >> 63:
                self._fail(1002, "a length is not in its shortest form", pos)
                return None
        return start, size

    def _piece(self, data: bytes, pos: int, out: list[bytes | bytearray]) -> int:
        size = min(self._left, PIECE)
        if len(data) - pos < size:
            return pos
        self._left -= size
        first = self._first if not self._left else self._first & _OPCODE
        self._emit(out, first, unmask(data[pos : pos + size], self._key))
        # What follows is a continuation; the last piece ends the message if the frame does.
        self._first &= _FIN
        if not self._left:
            self._set_in_message(not first & _FIN)
        return pos + size

    def _emit(self, out: list[bytes | bytearray], first: int, payload: bytes | bytearray) -> None:
        if not self._skipping:
            out.append(head(first, len(payload)))
            out.append(payload)
        elif first & _FIN:
            self._skipping = False

    def _set_in_message(self, in_message: bool) -> None:
        self._in_message = in_message
        self._short = _NONE if in_message else self._whole
        if not in_message:
            self._message_size = 0

    def _control(self, data: bytes, pos: int) -> int:
        first, size = data[pos], data[pos + 1] & ~_MASKED
        if not first & _FIN or size > 125 or first & _OPCODE > PONG:
            return self._fail(1002, "a control frame that is none", pos)
        start = pos + 6
        if start + size > len(data):
            return pos
        payload = bytes(unmask(data[start : start + size], data[pos + 2 : start]))
        if first & _OPCODE == CLOSE:
            self._close(payload)
        elif first & _OPCODE == PING:
            self.ping = payload
        return start + size

    def _close(self, payload: bytes) -> None:
        if not payload:
            self.closed = (_NO_CODE, "")
            return
        code = int.from_bytes(payload[:2])
        if len(payload) == 1 or not is_close_code(code):
            self._fail(1002, "a close frame with an invalid code")
            return
        try:
            self.closed = (code, payload[2:].decode())
        except UnicodeDecodeError:
            self._fail(1007, "a reason that is not valid UTF-8")

    def _fail(self, code: int, reason: str, pos: int = 0) -> int:
        self.error = (code, reason)
        self.rest = b""
        return pos
