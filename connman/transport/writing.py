"""RFC 6455 frames as a client writes them. Pure, no I/O."""

from __future__ import annotations

from connman.records import Data
from connman.transport.closes import close_payload
from connman.transport.masking import masked, new_key, short_frame

_WHOLE_TEXT, _WHOLE_BINARY, _CLOSE, _PING = 0x81, 0x82, 0x88, 0x89
_MASKED = 0x80


class FrameWriter:
    """Writes what a client sends. ``mask=False``: frames go out unmasked, for both ends of the memory transport.

    Threads: every method from any thread.
    """

    __slots__ = ("_close_sent", "_mask")

    is_ordered = False

    def __init__(self, *, mask: bool = True) -> None:
        self._mask = mask
        # Written once by encode_close and only read by the reader, so it needs no lock.
        self._close_sent = False

    def encode(self, message: Data) -> bytes:
        """Return the frame for a message: str as text, anything bytes-like as binary.

        Raises: ValueError for a text with lone surrogates; TypeError for what is neither str nor bytes-like.
        Threads: any.
        """
        if isinstance(message, str):
            return self._frame(_WHOLE_TEXT, message.encode())
        if type(message) is bytes:
            return self._frame(_WHOLE_BINARY, message)
        # Through a memoryview, because bytes() would also take numbers and lists.
        return self._frame(_WHOLE_BINARY, memoryview(message).tobytes())

    def finish(self, frames: list[bytes]) -> list[bytes]:
        """Return ``frames`` as they are: nothing in them depends on their order.

        Threads: any; pure.
        """
        return frames

    def encode_ping(self, payload: bytes) -> bytes:
        """Return a ping frame.

        Raises: ValueError for a payload of more than 125 bytes.
        Threads: any.
        """
        if len(payload) > 125:
            raise ValueError("a ping carries at most 125 bytes")
        return self._frame(_PING, payload)

    def encode_close(self, code: int, reason: str) -> bytes:
        """Return a close frame, its reason cut to 123 bytes between two characters; the peer's close is then its answer.

        Raises: ValueError for a code that may not be sent (RFC 6455 7.4) or a reason with lone surrogates.
        Threads: any.
        """
        payload = close_payload(code, reason)
        self._close_sent = True
        return self._frame(_CLOSE, payload)

    def _frame(self, first: int, payload: bytes) -> bytes:
        length = len(payload)
        if length < 126:
            return short_frame(first, payload) if self._mask else bytes((first, length)) + payload
        size, code = (2, 126) if length < 0x10000 else (8, 127)
        bit = _MASKED if self._mask else 0
        head = bytes((first, bit | code)) + length.to_bytes(size, "big")
        if not bit:
            return head + payload
        key = new_key().to_bytes(4)
        return b"".join((head, key, masked(payload, key)))
