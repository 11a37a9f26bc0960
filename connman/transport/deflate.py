"""permessage-deflate (RFC 7692): the frame codec with messages that are compressed."""

from __future__ import annotations

import zlib

from connman.errors import ProtocolError
from connman.records import Data, Message
from connman.transport.extensions import Deflate
from connman.transport.frames import FrameCodec, head_size

_FIN, _RSV1, _OPCODE = 0x80, 0x40, 0x0F
_TEXT, _BINARY = 0x1, 0x2
_PACKED_TEXT, _PACKED_BINARY = _FIN | _RSV1 | _TEXT, _FIN | _RSV1 | _BINARY

# Both ends leave it away at the end of a message (7.2.1, 7.2.2).
_TAIL = b"\x00\x00\xff\xff"
# How much is inflated in one go at most, in and out: all that is held of a message beyond what counts for its limit.
_SLICE = 64 * 1024
# How much may be inflated in one `feed`: a chunk of 256 KiB could hold messages of 256 MiB in all.
_BATCH = 1024 * 1024
# As how much a message or a frame counts there beside its bytes: for the time it takes.
_EACH = 1024
# Each end of a deflate stream within a message costs a new inflater, and takes two bytes only.
_MOST_ENDS = 16

# Shorter messages go out as they are: what would be saved is less than the headers of the packet they travel in.
_SHORT = 32
# With 15 bits and memory level 8 a compressor takes 268 KB, with these 33 KB. Texts of JSON with 64 to 8,192 bytes then
# shrink to 0.22 to 0.01 of their size instead of 0.20 to 0.01, in the same time (1 to 6 µs a message up to 1 KiB).
_MOST_BITS = 12
_MEMORY_LEVEL = 5


class DeflateCodec(FrameCodec):
    """Reads and writes what `FrameCodec` does, and compressed messages.

    What arrives compressed is inflated in slices, so no more than ``max_message_size`` is ever held of a message, nor
    much more than one message in one `feed`: the rest of the chunk is then left in `rest`.

    Threads: as `FrameCodec`; `finish` one at a time.
    """

    __slots__ = (
        "_agreed", "_batch", "_deflater", "_ends", "_inflater", "_is_packed", "_packed_limit", "_packs",
        "is_ordered",
    )  # fmt: skip

    def __init__(self, max_message_size: int, agreed: Deflate, *, mask: bool = True) -> None:
        super().__init__(max_message_size, mask=mask)
        # zlib has no raw streams with a window of 8 bits: a server that asks for them gets nothing compressed, which
        # is always allowed (6.1).
        self._packs = agreed.client_max_window_bits > 8
        self.is_ordered = self._packs and not agreed.client_no_context_takeover
        self._agreed = agreed
        # Any encoder of DEFLATE stays below this: of nine bits, in the worst case, each byte of fixed codes is.
        self._packed_limit = max_message_size + max_message_size // 8 + 1024
        # Written under the pipe's send lock only.
        self._deflater: zlib._Compress | None = None
        # The reader's. Whether the message under way is compressed.
        self._inflater = self._new_inflater()
        self._is_packed = False
        self._ends = 0
        self._batch = 0

    # Reading.

    def _parse(self, chunk: bytes, messages: list[Message]) -> None:
        self.rest = b""
        self._batch = 0
        pos = self._resume(chunk, messages) if self._cut else 0
        while pos < len(chunk) and self.end is None and self._batch <= _BATCH:
            end = pos if self._opcode else self._whole_messages(chunk, pos, messages)
            self._batch += _EACH
            pos = end if end > pos else self._careful(chunk, pos, messages)
        if self.end is None:
            self.rest = chunk[pos:]

    def _whole_messages(self, chunk: bytes, pos: int, messages: list[Message]) -> int:
        """Take the run of whole text and binary frames at ``pos``, compressed or not, and return where it ends."""
        size = len(chunk)
        try:
            while pos < size and self._batch <= _BATCH:
                first = chunk[pos]
                if _PACKED_TEXT <= first <= _PACKED_BINARY:
                    length = chunk[pos + 1]
                    begin = pos + 2
                    if length == 126:
                        length = chunk[pos + 2] << 8 | chunk[pos + 3]
                        begin = pos + 4
                        if length < 126:
                            break
                    elif length > 126:
                        break
                    end = begin + length
                    if end > size or length > self._packed_limit:
                        break
                    self._take_whole(first, chunk[begin:end] + _TAIL, messages)
                else:
                    end = super()._whole_messages(chunk, pos, messages)
                    if end == pos:
                        break
                pos = end
        except IndexError:
            pass  # the chunk ends within a header
        return pos

    def _take_whole(self, first: int, data: bytes, messages: list[Message]) -> None:
        piece = self._some(data)
        if len(piece) < _SLICE and len(piece) <= self._limit and not self._inflater.eof:
            messages.append(piece.decode() if first == _PACKED_TEXT else piece)
            self._batch += len(piece) + _EACH
            if self._agreed.server_no_context_takeover:
                self._inflater = self._new_inflater()
        else:
            self._first, self._opcode = first, first & _OPCODE
            self._absorb(piece)
            self._finish_message(messages)
        self.frames += 1

    def _is_compressed(self, first: int) -> bool:
        return bool(first & _RSV1) or (self._is_packed and not first & _OPCODE)

    def _measure(self, data: bytes | bytearray, pos: int) -> int:
        """Return the size of the frame at ``pos``; of a long compressed one, that of its next slice."""
        size = super()._measure(data, pos)
        if not self._remaining and size > _SLICE and self._is_compressed(data[pos]):
            return min(size, head_size(data[pos + 1]) + _SLICE)
        return size

    def _check_head(self, first: int, second: int) -> None:
        # Only the first frame of a message says that it is compressed (6).
        super()._check_head(first & ~_RSV1 if first & _OPCODE in (_TEXT, _BINARY) else first, second)

    def _judge_long(self, first: int, length: int) -> None:
        if length > self._packed_limit or not self._is_compressed(first):
            raise self._too_big()

    def _take(self, frame: memoryview, messages: list[Message]) -> None:
        if self._remaining and self._is_packed:
            self._remaining -= len(frame)
            payload = frame
        elif not self._remaining and self._is_compressed(frame[0]):
            self._begin_fragment(frame)
            self._is_packed = True
            payload = frame[head_size(frame[1]) :]
        else:
            return super()._take(frame, messages)
        is_last = self._first & _FIN and not self._remaining
        self._absorb(self._some(bytes(payload) + _TAIL if is_last else bytes(payload)))
        if is_last:
            self._finish_message(messages)
            self.frames += 1

    def _some(self, data: bytes) -> bytes:
        """Return up to `_SLICE` bytes of what ``data`` inflates to.

        Raises: ProtocolError.
        """
        try:
            return self._inflater.decompress(data, _SLICE)
        except zlib.error:
            pass  # raised below, where no context of it holds the chunk
        raise ProtocolError("compressed data that is not valid", 1007)

    def _absorb(self, piece: bytes) -> None:
        """Append ``piece`` to the message, and piece by piece what it leaves to be inflated; each is checked at once.

        Raises: ProtocolError, MessageTooBig, UnicodeDecodeError.
        """
        is_more = True
        while is_more:
            if self._opcode == _TEXT:
                # Of a character that is cut at the end `_finish_message` tells.
                self._check_text(piece, is_last=False)
            self._keep(piece)
            if len(self._message) > self._limit:
                raise self._too_big()
            data = self._unread()
            # When as much as fits came out there may be more, of which zlib has not told.
            is_more = bool(data) or len(piece) == _SLICE
            if is_more:
                piece = self._some(data)

    def _unread(self) -> bytes:
        """Return what the inflater was given and has not read."""
        inflater = self._inflater
        if not inflater.eof:
            return inflater.unconsumed_tail
        # A sender may end its stream, even within a message, and begin another (7.2.3.4).
        self._inflater = self._new_inflater()
        self._ends += 1
        if self._ends > _MOST_ENDS:
            raise ProtocolError("compressed data that ends too often within a message", 1007)
        return inflater.unused_data

    def _finish_message(self, messages: list[Message]) -> None:
        whole, self._message = self._message, b""
        if self._opcode == _TEXT:
            self._check_text(b"", is_last=True)
            messages.append(str(whole, "utf-8"))
        else:
            messages.append(bytes(whole))
        self._batch += len(whole)
        self._opcode = self._ends = self._fragments = 0
        self._is_packed = False
        if self._agreed.server_no_context_takeover:
            self._inflater = self._new_inflater()

    def _new_inflater(self) -> zlib._Decompress:
        return zlib.decompressobj(-self._agreed.server_max_window_bits)

    # Writing.

    def encode(self, message: Data) -> bytes:
        """Return the frame for a message, or what `finish` will make one of.

        Raises: ValueError for a text with lone surrogates; TypeError for what is neither str nor bytes-like.
        Threads: any.
        """
        if isinstance(message, str):
            first, payload = _FIN | _TEXT, message.encode()
        else:
            first = _FIN | _BINARY
            payload = message if type(message) is bytes else memoryview(message).tobytes()
        if len(payload) < _SHORT or not self._packs:
            return self._frame(first, payload)
        if self.is_ordered:
            return bytes((first | _RSV1,)) + payload
        packed = _compressed(self._new_deflater(), payload)
        # Nothing that follows refers to it, so it may as well travel as it is.
        is_worth_it = len(packed) < len(payload)
        return self._frame(first | _RSV1, packed) if is_worth_it else self._frame(first, payload)

    def finish(self, frames: list[bytes]) -> list[bytes]:
        """Compress, in this order, what `encode` has returned, and return the frames for the wire.

        Each message refers to those compressed before it: they have to go out in this order, or nothing after them.

        Threads: one at a time (the send lock).
        """
        return [self._packed_frame(frame) if frame[0] & _RSV1 else frame for frame in frames]

    def _packed_frame(self, draft: bytes) -> bytes:
        if self._deflater is None:
            self._deflater = self._new_deflater()
        return self._frame(draft[0], _compressed(self._deflater, memoryview(draft)[1:]))

    def _new_deflater(self) -> zlib._Compress:
        bits = min(self._agreed.client_max_window_bits, _MOST_BITS)
        return zlib.compressobj(wbits=-bits, memLevel=_MEMORY_LEVEL)


def _compressed(deflater: zlib._Compress, payload: bytes | memoryview) -> bytes:
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]
