"""A plain reader of RFC 6455 and RFC 7692 for whole streams: slow, without bounds of its own, and easy to read.

Written from the RFCs, for comparison. It knows what connman promises on top: the limit, and when each violation is told.
"""

import codecs
import zlib
from dataclasses import dataclass, field

from connman.records import Message
from connman.transport.extensions import Deflate

# Where connman inflates in slices, it may tell of an error earlier than a reader of whole frames.
_SLICE = 64 * 1024


class Violation(Exception):
    """The close code for what is wrong."""


class Inexact(Exception):
    """From here on this reader and a reader in slices may differ in when they tell."""


@dataclass
class Reading:
    """What a stream means. ``end``: None while more may come, the peer's close, or the code of a violation."""

    messages: list[Message] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    end: tuple[str, int, str] | None = None
    is_exact: bool = True


class _Reader:
    def __init__(self, stream: bytes, limit: int, agreed: Deflate | None) -> None:
        self.reading = Reading()
        self._stream = stream
        self._limit = limit
        self._agreed = agreed
        self._inflater = self._fresh()
        self._forget_message()

    def _forget_message(self) -> None:
        self._opcode = 0
        self._is_packed = False
        self._message = b""
        self._ends = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def _fresh(self) -> "zlib._Decompress":
        return zlib.decompressobj(-(self._agreed.server_max_window_bits if self._agreed else 15))

    def run(self) -> Reading:
        try:
            pos = 0
            while self.reading.end is None and (size := self._frame_at(pos)):
                pos += size
        except Violation as violation:
            self.reading.end = ("violation", violation.args[0], "")
        except UnicodeDecodeError:
            self.reading.end = ("violation", 1007, "")
        except Inexact:
            self.reading.is_exact = False
        return self.reading

    def _frame_at(self, pos: int) -> int:
        """Take the frame at ``pos`` and return its size; 0 when it is not all there."""
        data = self._stream[pos:]
        if len(data) < 2:
            return 0
        is_last, reserved, opcode = data[0] >> 7, data[0] >> 4 & 7, data[0] & 15
        self._check_head(is_last, reserved, opcode, data[1])
        width = {126: 2, 127: 8}.get(data[1], 0)
        if len(data) < 2 + width:
            return 0
        length = int.from_bytes(data[2 : 2 + width], "big") if width else data[1]
        if length < {0: 0, 2: 126, 8: 65536}[width] or length >= 1 << 63:
            raise Violation(1002)
        is_packed = bool(reserved) or (opcode == 0 and self._is_packed)
        if opcode < 8:
            self._check_length(length, is_packed)
        payload = data[2 + width : 2 + width + length]
        if len(payload) < length:
            if is_packed and length > _SLICE:
                raise Inexact
            return 0
        if opcode >= 8:
            self._control(opcode, payload)
        else:
            self._opcode, self._is_packed = self._opcode or opcode, is_packed
            self._fragment(payload, bool(is_last))
        return 2 + width + length

    def _check_head(self, is_last: int, reserved: int, opcode: int, second: int) -> None:
        is_first_of_message = opcode in (1, 2)
        if reserved & (3 if self._agreed and is_first_of_message else 7) or second & 128:
            raise Violation(1002)
        if opcode not in (0, 1, 2, 8, 9, 10):
            raise Violation(1002)
        if opcode >= 8 and (not is_last or second > 125):
            raise Violation(1002)
        if opcode < 8 and is_first_of_message == bool(self._opcode):
            raise Violation(1002)

    def _check_length(self, length: int, is_packed: bool) -> None:
        most = self._limit + self._limit // 8 + 1024 if is_packed else self._limit
        if (0 if is_packed else len(self._message)) + length > most:
            raise Violation(1009)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == 9:
            self.reading.pings.append(payload)
        if opcode != 8:
            return
        if not payload:
            self.reading.end = ("closed", 1005, "")
            return
        code = int.from_bytes(payload[:2], "big")
        if len(payload) == 1 or code not in {*range(1000, 1015), *range(3000, 5000)} - {1004, 1005, 1006}:
            raise Violation(1002)
        self.reading.end = ("closed", code, payload[2:].decode())

    def _fragment(self, payload: bytes, is_last: bool) -> None:
        if self._is_packed:
            self._inflate(payload + (b"\x00\x00\xff\xff" if is_last else b""))
        else:
            self._add(payload)
        if not is_last:
            return
        if self._opcode == 1:
            self._utf8.decode(b"", True)
        self.reading.messages.append(self._message.decode() if self._opcode == 1 else self._message)
        self._forget_message()
        if self._agreed and self._agreed.server_no_context_takeover:
            self._inflater = self._fresh()

    def _inflate(self, data: bytes) -> None:
        if len(data) > _SLICE:
            raise Inexact
        while data:
            try:
                piece = self._inflater.decompress(data, _SLICE)
            except zlib.error:
                raise Violation(1007) from None
            if len(piece) >= _SLICE:
                raise Inexact
            self._add(piece)
            if not self._inflater.eof:
                return
            # A stream within the message has ended: the next begins (7.2.3.4). Few do, so there is a limit.
            data, self._inflater = self._inflater.unused_data, self._fresh()
            self._ends += 1
            if self._ends > 16:
                raise Violation(1007)

    def _add(self, piece: bytes) -> None:
        if self._opcode == 1:
            self._utf8.decode(piece)
        self._message += piece
        if len(self._message) > self._limit:
            raise Violation(1009)


def read(stream: bytes, limit: int, agreed: Deflate | None = None) -> Reading:
    """Return what ``stream`` means to one that agreed to these parameters of compression, None for none."""
    return _Reader(stream, limit, agreed).run()
