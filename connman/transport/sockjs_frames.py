"""SockJS frames: `o a m h c`, one a line (SockJS protocol 0.3.3, "Framing"). Pure, no I/O."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from json.encoder import encode_basestring  # as json.dumps() does without ASCII, in a third of the time
from typing import Any

from connman.errors import (
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    MessageTooBig,
    ProtocolError,
    SessionLost,
)
from connman.records import Data, Message

HEAD = struct.Struct("!cQ")
"""What stands before a message in the bytes for `sockjs_boxes.Outbox`: its kind, and its size."""
MESSAGE, PING = b"m", b"p"

# A line may be longer than the largest message: servers put all that waits into one array, and escape.
_LINE = 2 << 20
# Of one array: more than that, or one for every 64 bytes, only cost memory.
_MOST = 65536
_MOST_CLOSE = 65536
# An array of texts and nothing else: json.loads() makes some thirty times as much memory of some others. Possessive, so
# that no text takes more than one look at each character.
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_ARRAY = re.compile(rb"\[[ \t\r]*+(?:%b[ \t\r]*+(?:,[ \t\r]*+(?=\")|(?=\])))*+\][ \t\r]*+" % _TEXT)
_ONE = re.compile(rb"%b[ \t\r]*+" % _TEXT)
_EACH = re.compile(_TEXT)


class Told(bytes):
    """A chunk that no server sent: the payload of a ping that was answered, or why there is no more to come.

    By its type: nothing that arrives can pass for one.
    """

    error: ConnmanError | None

    def __new__(cls, payload: bytes = b"", error: ConnmanError | None = None) -> Told:
        told = super().__new__(cls, payload or b"\0")  # an empty one would be the end of file
        told.error = error
        return told


class SockjsCodec:
    """A ``stream.Codec``, which documents the methods: lines in, texts out, and texts in, requests' parts out.

    ``answers``: whether a heartbeat is answered with a ping, as pusher's client does while it streams.

    Threads: `feed`, `eof` and the attributes from the reader only; the encoders from any thread.
    """

    __slots__ = ("_answers", "_cut", "_limit", "end", "frames", "pong", "replies", "rest")

    is_ordered = False

    def __init__(self, max_message_size: int, *, answers: bool = False) -> None:
        self.frames = 0
        self.rest = b""
        self.replies: list[bytes] = []
        self.pong: bytes | None = None
        self.end: ConnmanError | None = None
        self._limit = max_message_size
        self._answers = answers
        self._cut = bytearray()  # the line that the last chunk has cut

    def feed(self, chunk: bytes) -> list[Message]:
        """Take what arrived and return the messages that are now complete; see ``stream.Codec``.

        Threads: the reader only.
        """
        messages: list[Message] = []
        if self.end is not None:
            return messages
        try:
            if isinstance(chunk, Told):
                self._hear(chunk)
            else:
                self._parse(chunk, messages)
        except ProtocolError as error:
            # Without the traceback, which would hold the chunk, the messages, and this codec in a cycle.
            self.end = error.with_traceback(None)
        if self.end is not None:
            self._cut = bytearray()
        return messages

    def _hear(self, told: Told) -> None:
        if told.error is not None:
            self.end = told.error
        else:
            self.pong = bytes(told)
            self.frames += 1

    def _parse(self, chunk: bytes, messages: list[Message]) -> None:
        begin = 0
        # Only the chunk is searched, never again what was cut before: a drip would take quadratic time.
        while (end := chunk.find(b"\n", begin)) >= 0:
            line = chunk[begin:end]
            if self._cut:
                self._check_line(len(line))
                self._cut += line
                line, self._cut = bytes(self._cut), bytearray()
            begin = end + 1
            self._take(line, messages)
            if self.end is not None:
                return
        self._check_line(len(chunk) - begin)
        self._cut += chunk[begin:]

    def _check_line(self, more: int) -> None:
        if len(self._cut) + more > 2 * self._limit + _LINE:
            raise MessageTooBig(
                f"a frame is larger than {2 * self._limit + _LINE} bytes, which max_message_size allows"
            )

    def _take(self, line: bytes, messages: list[Message]) -> None:
        kind = line[:1]
        if kind == b"a":
            messages += self._texts(line, _ARRAY)
        elif kind == b"m":
            messages += self._texts(line, _ONE)
        elif kind == b"c":
            self.end = closed_by(line)
        elif kind == b"o":
            self.end = SessionLost("the server has lost the session and begun another")
        elif kind != b"h" or line.strip(b"h\r"):  # many are what a stream begins with
            if line.strip(b"\r"):
                raise ProtocolError("a line that is no SockJS frame")
            return
        elif self._answers and line.rstrip(b"\r") == b"h":
            self.replies = [self.encode_ping(b"")]
        self.frames += 1

    def _texts(self, line: bytes, form: re.Pattern[bytes]) -> list[str]:
        if form.fullmatch(line, 1) is None:
            raise ProtocolError("a frame that holds anything but texts")
        if line.count(b'"') - line.count(rb"\"") > 2 * (_MOST + self._limit // 64):
            raise ProtocolError("a frame of too many messages")
        try:
            if len(line) > self._limit:
                return list(self._within_limit(line))
            found: Any = json.loads(line[1:].decode())
            texts: list[str] = [found] if isinstance(found, str) else found
            if rb"\u" in line:
                "".join(texts).encode()  # halves of pairs: no other transport could carry them
        except ValueError:
            raise ProtocolError("a frame that is no valid JSON") from None
        return texts

    def _within_limit(self, line: bytes) -> Iterator[str]:
        """Yield the texts of a line that has room for one that is too large: each by itself, before the next is made."""
        for found in _EACH.finditer(line, 1):
            # No escape stands for less than a sixth of its bytes, so the worst need not be made to be refused.
            if len(found[0]) - 2 - 5 * found[0].count(b"\\") <= self._limit:
                text: str = json.loads(found[0].decode())
                if len(text.encode()) <= self._limit:
                    yield text
                    continue
            raise MessageTooBig(f"a message is larger than {self._limit} bytes (max_message_size)")

    def eof(self) -> ConnmanError:
        """Return the error for an end that nobody has told of.

        Threads: the reader only.
        """
        return ConnectionLost("the server's answers have ended")

    def encode(self, message: Data) -> bytes:
        """Return what carries a text.

        Raises: TypeError for what is no str, bytes included: SockJS carries text only; ValueError for lone surrogates.
        Threads: any.
        """
        if not isinstance(message, str):
            raise TypeError(f"SockJS carries text only: send a str, not {type(message).__name__}")
        payload = encode_basestring(message).encode()
        return HEAD.pack(MESSAGE, len(payload)) + payload

    def finish(self, frames: list[bytes]) -> list[bytes]:
        """Return ``frames`` as they are: nothing in them depends on their order.

        Threads: any; pure.
        """
        return frames

    def encode_ping(self, payload: bytes) -> bytes:
        """Return a ping: the answer to a request that carries it is the pong.

        Threads: any.
        """
        return HEAD.pack(PING, len(payload)) + payload

    def encode_close(self, code: int, reason: str) -> None:
        """Return None: a client of SockJS cannot say goodbye, it stops asking.

        Threads: any; pure.
        """


def closed_by(line: bytes) -> ConnectionClosed:
    """Return what a close frame says.

    Raises: ProtocolError.
    Threads: any; pure.
    """
    try:
        # Bounded, since json.loads() would make anything of a longer one; RecursionError of what is nested too deep.
        code, reason = json.loads(line[1:] if len(line) <= _MOST_CLOSE else b"")
        if type(code) is int and 0 <= code < 65536 and isinstance(reason, str):
            reason.encode()  # halves of pairs: whoever prints it would fail
            return ConnectionClosed(code, reason)
    except (ValueError, TypeError, RecursionError):
        pass
    raise ProtocolError("a close frame without a code and a reason")
