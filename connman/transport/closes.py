"""What a close frame carries: a code that may travel, and a reason (RFC 6455 5.5.1 and 7.4). Pure, no I/O."""

from __future__ import annotations

from connman.errors import ConnectionClosed, ProtocolError

_MOST_REASON = 123  # bytes of UTF-8: a control frame carries 125, two of them are the code (5.5.1)


def close_payload(code: int, reason: str) -> bytes:
    """Return what a close frame carries, the reason cut to 123 bytes between two characters.

    Raises: ValueError for a code that may not be sent (7.4) or a reason with lone surrogates.
    Threads: any; pure.
    """
    if not _may_travel(code):
        raise ValueError(f"close code {code} may not be sent (RFC 6455 7.4)")
    # Cutting can leave part of a character at the end, which "ignore" drops.
    text = reason.encode()[:_MOST_REASON].decode(errors="ignore")
    return code.to_bytes(2, "big") + text.encode()


def told_close(payload: bytes) -> ConnectionClosed:
    """Return what the payload of a close frame says; code 1005 for one that says nothing.

    Raises: ProtocolError; UnicodeDecodeError.
    Threads: any; pure.
    """
    if not payload:
        return ConnectionClosed(1005)
    # Of a single byte, which is a violation (5.5.1), no code comes out that is valid.
    code = int.from_bytes(payload[:2], "big")
    if not _may_travel(code):
        raise ProtocolError("a close frame without a valid code", 1002)
    return ConnectionClosed(code, payload[2:].decode())


def _may_travel(code: int) -> bool:
    # 7.4 and the IANA registry: 1004 to 1006 and 1015 never travel, 1016 to 2999 mean nothing yet.
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
