"""How messages lie in a byte stream that has none of its own: as they come, in lines, or behind their length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from connman.errors import (
    ConnectionClosed,
    ConnectionLost,
    ConnmanError,
    InvalidOption,
    MessageTooBig,
    ProtocolError,
)
from connman.options import Framing
from connman.records import Data, Message


class _StreamCodec(ABC):
    """What the codecs here share: no control frames, no close frame, and an end of file that is an orderly end.

    Threads: `feed`, `eof` and the attributes from the reader only; the encoders from any thread.
    """

    __slots__ = ("_cut", "_limit", "end", "frames", "pong", "replies", "rest")

    is_ordered = False

    def __init__(self, max_message_size: int) -> None:
        self.frames = 0
        self.rest = b""
        self.replies: list[bytes] = []
        self.pong: bytes | None = None
        self.end: ConnmanError | None = None
        self._limit = max_message_size
        # The message that the last chunk cut, with its head or without its delimiter.
        self._cut = bytearray()

    def feed(self, chunk: bytes) -> list[Message]:
        """Take what arrived and return the messages that are now complete; see ``stream.Codec``.

        Threads: the reader only.
        """
        if self.end is not None:
            return []
        messages: list[Message] = []
        try:
            self._parse(chunk, messages)
        except ProtocolError as error:
            # Without the traceback, which would hold the chunk, the messages, and this codec in a cycle.
            self.end = error.with_traceback(None)
            self._cut = bytearray()
        self.frames += len(messages)
        return messages

    def eof(self) -> ConnmanError:
        """Return the error for the peer's end of file: a loss only in the middle of a message.

        Threads: the reader only.
        """
        if self.end is not None:
            return self.end
        if self._cut:
            return ConnectionLost("the stream ended in the middle of a message")
        return ConnectionClosed()

    def finish(self, frames: list[bytes]) -> list[bytes]:
        """Return ``frames`` as they are: nothing in them depends on their order.

        Threads: any; pure.
        """
        return frames

    def encode_ping(self, payload: bytes) -> bytes | None:
        """Return None: there are no pings.

        Threads: any.
        """
        return None

    def encode_close(self, code: int, reason: str) -> bytes | None:
        """Return None: the end of the stream is the close.

        Threads: any.
        """
        return None

    @abstractmethod
    def encode(self, message: Data) -> bytes:
        """Return the bytes that carry ``message``; see ``stream.Codec``.

        Threads: any.
        """

    @abstractmethod
    def _parse(self, chunk: bytes, messages: list[Message]) -> None:
        """Append the messages that are now complete.

        Raises: ProtocolError, after the messages before it were appended.
        """

    def _too_big(self) -> MessageTooBig:
        return MessageTooBig(f"a message of more than {self._limit} bytes")


class RawCodec(_StreamCodec):
    """No framing: each chunk that arrives is a message of bytes, however the sender had cut it.

    ``max_message_size`` has no meaning here, since there are no messages that could exceed it.

    Threads: `feed`, `eof` and the attributes from the reader only; the encoders from any thread.
    """

    __slots__ = ()

    def encode(self, message: Data) -> bytes:
        """Return the bytes themselves; a str as UTF-8.

        Raises: ValueError for a str with lone surrogates; TypeError for what is neither str nor bytes-like.
        Threads: any.
        """
        return _payload(message)

    def _parse(self, chunk: bytes, messages: list[Message]) -> None:
        if chunk:
            messages.append(chunk)


@dataclass(frozen=True, slots=True)
class Lines:
    """The value `lines` returns."""

    delimiter: bytes = b"\n"
    encoding: str | None = None

    def __post_init__(self) -> None:
        delimiter: object = self.delimiter
        if not isinstance(delimiter, bytes) or not delimiter:
            raise InvalidOption("delimiter is one byte or more")
        try:
            "".encode("utf-8" if self.encoding is None else self.encoding)
        except (LookupError, TypeError, ValueError):
            raise InvalidOption("encoding is the name of a text encoding or None") from None

    def codec(self, max_message_size: int) -> LineCodec:
        """Return a fresh codec for one transport.

        Threads: any.
        """
        return LineCodec(max_message_size, self)


class LineCodec(_StreamCodec):
    """Messages that end with a delimiter.

    Threads: `feed`, `eof` and the attributes from the reader only; the encoders from any thread.
    """

    __slots__ = ("_delimiter", "_encoding", "_slack", "_strips_return")

    def __init__(self, max_message_size: int, framing: Lines) -> None:
        super().__init__(max_message_size)
        self._delimiter = framing.delimiter
        self._encoding = framing.encoding
        self._strips_return = framing.delimiter == b"\n"
        # What an unfinished message may hold above the limit: the beginning of its delimiter, or a return.
        self._slack = len(framing.delimiter) - 1 + self._strips_return

    def encode(self, message: Data) -> bytes:
        """Return the message with the delimiter behind it.

        Raises: ValueError for a message that holds the delimiter, or ends so that the delimiter would be found too
        early, or cannot be encoded; TypeError for what is neither str nor bytes-like.
        Threads: any.
        """
        payload = _payload(message, self._encoding or "utf-8")
        line = payload + self._delimiter
        if line.find(self._delimiter) != len(payload):
            raise ValueError("the message contains the delimiter")
        return line

    def _parse(self, chunk: bytes, messages: list[Message]) -> None:
        # What was searched before is not searched again, but for a delimiter that the chunk's edge cut.
        searched = max(0, len(self._cut) - len(self._delimiter) + 1)
        self._cut += chunk
        if self._cut.find(self._delimiter, searched) >= 0:
            *whole, rest = bytes(self._cut).split(self._delimiter)
            self._cut = bytearray(rest)
            self._take(whole, messages)
        if len(self._cut) > self._limit + self._slack:
            raise self._too_big()

    def _take(self, whole: list[bytes], messages: list[Message]) -> None:
        for line in whole:
            message = line[:-1] if self._strips_return and line.endswith(b"\r") else line
            if len(message) > self._limit:
                raise self._too_big()
            messages.append(message if self._encoding is None else self._decoded(message, self._encoding))

    def _decoded(self, line: bytes, encoding: str) -> str:
        try:
            return line.decode(encoding)
        except UnicodeError:
            raise ProtocolError(f"a line that is not valid {encoding}") from None


@dataclass(frozen=True, slots=True)
class LengthPrefixed:
    """The value `length_prefixed` returns."""

    size: int = 4
    byteorder: Literal["big", "little"] = "big"

    def __post_init__(self) -> None:
        size: object = self.size
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 8:
            raise InvalidOption("size is 1 to 8 bytes")
        if self.byteorder not in ("big", "little"):
            raise InvalidOption("byteorder is 'big' or 'little'")

    def codec(self, max_message_size: int) -> LengthCodec:
        """Return a fresh codec for one transport.

        Threads: any.
        """
        return LengthCodec(max_message_size, self)


class LengthCodec(_StreamCodec):
    """Messages behind their length, an unsigned number of fixed size that does not count itself.

    Threads: `feed`, `eof` and the attributes from the reader only; the encoders from any thread.
    """

    __slots__ = ("_byteorder", "_needed", "_size")

    def __init__(self, max_message_size: int, framing: LengthPrefixed) -> None:
        super().__init__(max_message_size)
        self._size = framing.size
        self._byteorder = framing.byteorder
        self._needed = 0

    def encode(self, message: Data) -> bytes:
        """Return the message with its length before it; a str as UTF-8.

        Raises: ValueError for a message whose length does not fit, or a str with lone surrogates; TypeError for what
        is neither str nor bytes-like.
        Threads: any.
        """
        payload = _payload(message)
        try:
            return len(payload).to_bytes(self._size, self._byteorder) + payload
        except OverflowError:
            raise ValueError(
                f"{len(payload)} bytes are more than a length of {self._size} bytes can say"
            ) from None

    def _parse(self, chunk: bytes, messages: list[Message]) -> None:
        if self._cut:
            self._cut += chunk
            # Nothing is parsed again before it can be whole: a drip would take quadratic time.
            if len(self._cut) < self._needed:
                return
            chunk, self._cut = bytes(self._cut), bytearray()
        pos = 0
        # Cut out of the chunk where they lie: only the message that a chunk's end has cut is put together.
        while (end := pos + self._measure(chunk, pos)) <= len(chunk):
            messages.append(chunk[pos + self._size : end])
            pos = end
        self._cut += chunk[pos:]
        self._needed = end - pos

    def _measure(self, chunk: bytes, pos: int) -> int:
        """Return the size of the message at ``pos`` with its length, as far as that is there."""
        begin = pos + self._size
        if begin > len(chunk):
            return self._size
        length = int.from_bytes(chunk[pos:begin], self._byteorder)
        # By its length alone, before any of it has arrived: that is what bounds the memory.
        if length > self._limit:
            raise self._too_big()
        return self._size + length


def lines(delimiter: bytes = b"\n", *, encoding: str | None = None) -> Framing:
    r"""Frame messages as lines.

    The delimiter is taken off, with ``\n`` also a ``\r`` before it. With ``encoding`` messages are received as str,
    without as bytes; str sent is encoded with it, or as UTF-8. Sending a message that holds the delimiter is a
    ValueError. A line that is not valid in ``encoding`` is a `ProtocolError`.

    Raises: InvalidOption for an empty delimiter or an unknown encoding.
    Threads: any; pure.
    """
    return Lines(delimiter, encoding)


def length_prefixed(size: int = 4, byteorder: Literal["big", "little"] = "big") -> Framing:
    """Frame messages with their length before them: an unsigned number of ``size`` bytes, not counting itself.

    Messages are received as bytes; str sent is encoded as UTF-8.

    Raises: InvalidOption for a size outside 1 to 8 or another byte order.
    Threads: any; pure.
    """
    return LengthPrefixed(size, byteorder)


def _payload(message: Data, encoding: str = "utf-8") -> bytes:
    if isinstance(message, str):
        return message.encode(encoding)
    if type(message) is bytes:
        return message
    # Through a memoryview, because bytes() would also take numbers and lists.
    return memoryview(message).tobytes()
