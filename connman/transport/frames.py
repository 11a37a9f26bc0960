"""RFC 6455 frames as a client reads them: bytes in, messages out. Pure, no I/O."""

from __future__ import annotations

import codecs

from connman.errors import ConnectionLost, ConnmanError, MessageTooBig, ProtocolError
from connman.records import Message
from connman.transport.closes import told_close
from connman.transport.writing import FrameWriter

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_FIN, _RESERVED, _OPCODE = 0x80, 0x70, 0x0F
_MASKED = 0x80
_WHOLE_TEXT, _WHOLE_BINARY = _FIN | _TEXT, _FIN | _BINARY

_MOST_REPLIES = 64
# So many fragments a message, and one more for every `_FRAGMENT` bytes: each takes time, and may bring nothing.
_MOST_FRAGMENTS = 65536
_FRAGMENT = 64
# So many frames that are no whole message are looked at in one `feed`: a chunk may hold 65,536, and others wait.
_AT_ONCE = 1024
# How much of a fragment is taken at once. Kept until it is whole it would be held twice, and a check of all its text
# would make a str of four times its bytes.
_SLICE = 65536


class FrameCodec(FrameWriter):
    """Reads what a server sends and writes what a client sends.

    ``mask=False``: frames go out unmasked, for both ends of the memory transport. Frames that come in are unmasked
    always; a masked one is a violation (5.1). Sizes are checked as soon as a header is seen, so no more than
    ``max_message_size`` is ever held of a message, in however many fragments it comes.

    Threads: `feed`, `eof` and the attributes from the reader only; the encoders from any thread.
    """

    __slots__ = (
        "_cut", "_cut_size", "_first", "_fragments", "_limit", "_message", "_opcode", "_remaining", "_short",
        "_utf8", "end", "frames", "pong", "replies", "rest",
    )  # fmt: skip

    def __init__(self, max_message_size: int, *, mask: bool = True) -> None:
        super().__init__(mask=mask)
        self.frames = 0
        self.rest = b""
        self.replies: list[bytes] = []
        self.pong: bytes | None = None
        self.end: ConnmanError | None = None
        self._limit = max_message_size
        self._short = min(max_message_size, 125)
        # Buffers are made for what they hold: empty ones, and the decoder, took 0.2 KiB of each idle connection.
        # The frame that the last chunk cut: what is there of it, and how much of it is known to be needed.
        self._cut: bytes | bytearray = b""
        self._cut_size = 0
        # The fragmented message under way. One buffer, not a list of pieces: tiny ones then cost no memory of their own.
        self._opcode = 0
        self._message: bytes | bytearray = b""
        self._utf8: codecs.IncrementalDecoder | None = None
        self._fragments = 0
        # Of its newest fragment: the first byte, and how much of it is still to come.
        self._first = 0
        self._remaining = 0

    def feed(self, chunk: bytes) -> list[Message]:
        """Take what arrived and return the messages that are now complete.

        Never raises: a violation sets `end` and puts the close frame that tells of it into `replies`; messages that
        were complete before it are returned. After `end` is set nothing more is parsed.

        Threads: the reader only.
        """
        messages: list[Message] = []
        if self.end is None:
            try:
                self._parse(chunk, messages)
            except ProtocolError as error:
                self._fail(error)
            except UnicodeDecodeError:
                self._fail(ProtocolError("text that is not valid UTF-8", 1007))
        return messages

    def only_text(self, chunk: bytes) -> str | None:
        """Return the text if ``chunk`` is one whole text message; see ``stream.LendingCodec``.

        Threads: whoever has the turn to read.
        """
        size = len(chunk)
        if size < 2 or chunk[0] != _WHOLE_TEXT or self._cut or self._opcode or self.end is not None:
            return None
        begin, length = 2, chunk[1]
        if length > 125:
            if length != 126 or size < 130:
                return None
            begin, length = 4, chunk[2] << 8 | chunk[3]
        if begin + length != size or length > self._limit:
            return None
        try:
            return chunk[begin:].decode()
        except UnicodeDecodeError:
            return None

    def eof(self) -> ConnmanError:
        """Return the error for the peer's end of file at this point: always a loss unless `end` is set already.

        Threads: the reader only.
        """
        if self.end is not None:
            return self.end
        if self._cut or self._remaining:
            return ConnectionLost("the stream ended in the middle of a frame")
        if self._opcode:
            return ConnectionLost("the stream ended in the middle of a fragmented message")
        return ConnectionLost("the stream ended without a close frame")

    def _parse(self, chunk: bytes, messages: list[Message]) -> None:
        self.rest = b""
        pos = self._resume(chunk, messages) if self._cut else 0
        left = _AT_ONCE
        while pos < len(chunk) and self.end is None:
            if not self._opcode:
                pos = self._whole_messages(chunk, pos, messages)
                if pos == len(chunk):
                    return
            if not left:
                self.rest = chunk[pos:]
                return
            left -= 1
            pos = self._careful(chunk, pos, messages)

    def _whole_messages(self, chunk: bytes, pos: int, messages: list[Message]) -> int:
        """Take the run of whole text and binary frames at ``pos`` and return where it ends.

        The hot loop. It stops at anything else, without judging it: `_careful` does.
        """
        # Measured with texts of 32 bytes in chunks of 256 KiB, CPython 3.11, in millions a second: this loop 8.3 (3.12 6.9,
        # 3.13 6.5, no variant better); messages.append in a local 8.1; the head through struct 8.0; slices of a str decoded
        # at once as latin-1 7.9; str(…, "utf-8") 6.7; slices of a memoryview 5.5. One for text alone would give 8.5.
        size = len(chunk)
        limit = self._limit
        short = self._short
        before = len(messages)
        try:
            while pos < size:
                length = chunk[pos + 1]
                if length <= short:
                    begin = pos + 2
                elif length == 126:
                    length = chunk[pos + 2] << 8 | chunk[pos + 3]
                    if not 126 <= length <= limit:
                        break
                    begin = pos + 4
                else:
                    break
                end = begin + length
                if end > size:
                    break
                first = chunk[pos]
                if first == _WHOLE_TEXT:
                    messages.append(chunk[begin:end].decode())
                elif first == _WHOLE_BINARY:
                    messages.append(chunk[begin:end])
                else:
                    break
                pos = end
        except IndexError:
            pass  # the chunk ends within a header
        finally:
            self.frames += len(messages) - before
        return pos

    def _careful(self, chunk: bytes, pos: int, messages: list[Message]) -> int:
        """Take the one frame at ``pos``, of any kind, or keep it if it is cut; return where the next begins."""
        size = self._measure(chunk, pos)
        if pos + size <= len(chunk):
            self._take(memoryview(chunk)[pos : pos + size], messages)
            return pos + size
        self._cut = bytearray(chunk[pos:])
        self._cut_size = size
        return len(chunk)

    def _resume(self, chunk: bytes, messages: list[Message]) -> int:
        """Complete the cut frame with the beginning of ``chunk`` and return how much that took.

        Every byte is copied once into the buffer and once out of it, however many chunks a frame comes in.
        """
        pos = 0
        while (missing := self._cut_size - len(self._cut)) > 0:
            self._cut += chunk[pos : pos + missing]
            pos += missing
            if pos > len(chunk):
                return len(chunk)
            self._cut_size = self._measure(self._cut, 0)
        frame, self._cut = self._cut, b""
        self._take(memoryview(frame), messages)
        return pos

    def _measure(self, data: bytes | bytearray, pos: int) -> int:
        """Return the size of the frame at ``pos``, or of the next piece of a long fragment, as far as it is known.

        Raises: ProtocolError, MessageTooBig.
        """
        if self._remaining:
            return min(self._remaining, _SLICE)
        available = len(data) - pos
        if available < 2:
            return 2
        self._check_head(data[pos], data[pos + 1])
        length = data[pos + 1]
        head = head_size(length)
        if available < head:
            return head
        if length > 125:
            length = int.from_bytes(data[pos + 2 : pos + head], "big")
            if length < (126 if head == 4 else 0x10000) or length >> 63:
                raise ProtocolError("a frame length that is not in its shortest form, or negative", 1002)
        if data[pos] & _OPCODE < _CLOSE and len(self._message) + length > self._limit:
            self._judge_long(data[pos], length)
        if length > _SLICE and not (data[pos] & _FIN and data[pos] & _OPCODE):
            return head + _SLICE
        return head + length

    def _judge_long(self, first: int, length: int) -> None:
        """Refuse a data frame that makes its message too big."""
        raise self._too_big()

    def _too_big(self) -> MessageTooBig:
        return MessageTooBig(f"a message of more than {self._limit} bytes", 1009)

    def _check_head(self, first: int, second: int) -> None:
        opcode = first & _OPCODE
        if first & _RESERVED:
            raise ProtocolError("reserved bits are set for which nothing was agreed on", 1002)
        if second & _MASKED:
            raise ProtocolError("a masked frame from the server", 1002)
        if opcode >= _CLOSE:
            if opcode > _PONG:
                raise ProtocolError(f"unknown opcode {opcode:#x}", 1002)
            if not first & _FIN or second > 125:
                raise ProtocolError("a control frame that is fragmented or longer than 125 bytes", 1002)
        elif opcode > _BINARY:
            raise ProtocolError(f"unknown opcode {opcode:#x}", 1002)
        elif opcode and self._opcode:
            raise ProtocolError("a new message within a fragmented one", 1002)
        elif not opcode and not self._opcode:
            raise ProtocolError("a continuation of nothing", 1002)

    def _take(self, frame: memoryview, messages: list[Message]) -> None:
        """Act on one complete frame, or on a piece of a long fragment, of which `_measure` has seen the header."""
        if self._remaining:
            self._remaining -= len(frame)
            self._take_piece(frame, messages)
            return
        first = frame[0]
        payload = frame[head_size(frame[1]) :]
        opcode = first & _OPCODE
        if opcode >= _CLOSE:
            self._take_control(opcode, bytes(payload))
        elif first == _WHOLE_TEXT:
            messages.append(str(payload, "utf-8"))
        elif first == _WHOLE_BINARY:
            messages.append(bytes(payload))
        else:
            self._begin_fragment(frame)
            self._take_piece(payload, messages)
            return
        self.frames += 1

    def _begin_fragment(self, frame: memoryview) -> None:
        """Note what the head of a fragment says, and how much of it is still to come."""
        self._first = frame[0]
        self._opcode = self._opcode or self._first & _OPCODE
        self._fragments += 1
        if self._fragments > _MOST_FRAGMENTS + len(self._message) // _FRAGMENT:
            raise MessageTooBig("a message in too many fragments", 1009)
        size = head_size(frame[1])
        length = frame[1] if size == 2 else int.from_bytes(frame[2:size], "big")
        self._remaining = length - (len(frame) - size)

    def _take_piece(self, payload: memoryview, messages: list[Message]) -> None:
        """Add to the message under way, which counts as a frame when it ends: until then it has to grow."""
        self._keep(payload)
        is_last = bool(self._first & _FIN) and not self._remaining
        if self._opcode == _TEXT:
            self._check_text(payload, is_last=is_last)
        if is_last:
            whole, self._message = self._message, b""
            messages.append(str(whole, "utf-8") if self._opcode == _TEXT else bytes(whole))
            self._opcode = self._fragments = 0
            self.frames += 1

    def _keep(self, piece: bytes | memoryview) -> None:
        if not self._message:
            self._message = bytearray()
        self._message += piece

    def _check_text(self, piece: bytes | memoryview, *, is_last: bool) -> None:
        # Only a check, so that invalid text ends the connection with the fragment that it is in. The pieces are
        # thrown away: kept, small ones would take many times the memory of their bytes.
        if self._utf8 is None:
            self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._utf8.decode(piece, is_last)

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self.replies.append(self._frame(_FIN | _PONG, payload))
            # 5.5.3 allows to answer only the newest pings; a flood must not make us hoard answers.
            del self.replies[:-_MOST_REPLIES]
        elif opcode == _PONG:
            self.pong = payload
        else:
            self.end = told_close(payload)
            if not self._close_sent:
                self.replies.append(self._frame(_FIN | _CLOSE, payload[:2]))

    def _fail(self, error: ProtocolError) -> None:
        # Without the traceback, which would hold the chunk and the messages, and this codec in a cycle.
        self.end = error.with_traceback(None)
        self._cut = self._message = b""
        if not self._close_sent and error.code is not None:
            self.replies.append(self._frame(_FIN | _CLOSE, error.code.to_bytes(2, "big")))


def head_size(second: int) -> int:
    """Return the size of an unmasked header from its second byte.

    Threads: any; pure.
    """
    return 2 if second < 126 else 4 if second == 126 else 10
