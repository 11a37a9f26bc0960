"""The extension that we offer, permessage-deflate (RFC 7692), and what a server may answer. Pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from connman.transport.upgrade import BadAnswer

_NAME = "permessage-deflate"
OFFER = f"Sec-WebSocket-Extensions: {_NAME}; client_max_window_bits"

_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_BITS = ("server_max_window_bits", "client_max_window_bits")
# A value may stand in quotation marks (RFC 6455 9.1), but has no zero in front (RFC 7692 7.1.2).
_BITS_VALUE = re.compile(r'=[ \t]*(?:([89]|1[0-5])|"([89]|1[0-5])")')


@dataclass(frozen=True, slots=True, kw_only=True)
class Deflate:
    """What was agreed on (RFC 7692 7.1). ``…_max_window_bits``: 8 to 15, of the window that side compresses with."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15


def agreed_deflate(values: Sequence[str], *, is_offered: bool) -> Deflate | None:
    """Return what an answer's Sec-WebSocket-Extensions agree to; None without any: the server declines.

    Raises: BadAnswer for anything but one answer to `OFFER` that RFC 7692 allows, or when it was not offered.
    Threads: any; pure.
    """
    if not values:
        return None
    if len(values) > 1:
        raise BadAnswer("the answer has more than one Sec-WebSocket-Extensions (RFC 6455 11.3.2)")
    name, *texts = (text.strip(" \t") for text in values[0].split(";"))
    if name != _NAME or not is_offered:
        raise BadAnswer("the answer has an extension that was not offered, or one twice")
    found: dict[str, int] = {}
    for text in texts:
        parameter = text.partition("=")[0].rstrip(" \t")
        value = text[len(parameter) :].lstrip(" \t")
        if parameter in found:
            raise BadAnswer("the answer has a parameter of permessage-deflate twice")
        if parameter in _FLAGS and not value:
            found[parameter] = True
        elif parameter in _BITS and (match := _BITS_VALUE.fullmatch(value)):
            found[parameter] = int(match[1] or match[2])
        else:
            raise BadAnswer("the answer has a parameter of permessage-deflate that is unknown or invalid")
    return Deflate(
        server_no_context_takeover="server_no_context_takeover" in found,
        client_no_context_takeover="client_no_context_takeover" in found,
        server_max_window_bits=found.get("server_max_window_bits", 15),
        client_max_window_bits=found.get("client_max_window_bits", 15),
    )
