"""The head of an HTTP answer, looked at before http.client sees it.

http.client takes interim answers but 100 for final ones, half a head for a whole one, and two different lengths for the
first of them; urllib3 logs what it cannot read, which may be an echo of our secrets.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from connman.transport.upgrade import Answer, BadAnswer, HeadReader

_CHUNK = 65536
# With all the interim answers before it, of which there may be any number otherwise.
_MOST = 65536
_LENGTH = re.compile("[0-9]{1,18}")


def read_head(recv: Callable[[int], bytes]) -> bytes:
    """Read the head of the final answer, and return it with what came behind it; b"" for an end of file before it.

    Interim answers (RFC 9110 15.2) are left out, all but 101, which ends HTTP.

    Raises: what ``recv`` raises; OSError when it is cut short; BadAnswer.
    Threads: one.
    """
    left, room = b"", _MOST
    while True:
        reader, head, answer = HeadReader(), bytearray(), None
        while answer is None:
            chunk = left or recv(_CHUNK)
            if not chunk and head:
                raise OSError("the answer was cut short")
            if not chunk:
                return b""
            head += chunk
            answer, left = reader.feed(chunk), b""
            if len(head) - len(reader.leftover) > room:
                raise BadAnswer(f"more than {_MOST} bytes before the body of the answer")
        if answer.status >= 200 or answer.status == 101:
            _check_framing(answer)
            return bytes(head)
        left = reader.leftover
        room -= len(head) - len(left)


def _check_framing(answer: Answer) -> None:
    """Refuse an answer that leaves in doubt where it ends: the next one would begin at another place (RFC 9112 6.3)."""
    codings, lengths = answer.values("transfer-encoding"), answer.values("content-length")
    if codings and ([coding.lower() for coding in codings] != ["chunked"] or lengths):
        raise BadAnswer("the answer's Transfer-Encoding is unknown, repeated, or has a length beside it")
    if len(set(lengths)) > 1 or not all(_LENGTH.fullmatch(length) for length in lengths):
        raise BadAnswer("the answer's Content-Length is no number, or there are several")
