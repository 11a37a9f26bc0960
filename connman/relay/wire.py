"""The relay's control messages, its close codes, and the first frame of each side, checked. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from connman.errors import ConnmanError

# A close that another attempt may cure lies in 4100-4299, where connman's own table says "come back".
INVALID_MESSAGE = 4000
INVALID_FIELD = 4001
PARTNER_LEFT = 4002
OTHER_LOST = 4102
NO_PROVIDER = 4104
NO_FIRST_MESSAGE = 4108
NOT_READY = 4110
BROKER_LOST = 4113
TOO_MANY = 4129
BAD_TOKEN = 3000
NOT_ALLOWED = 3003
GOING_AWAY = 1001
FAILED = 1011
TOO_BIG = 1009

REASONS = {
    OTHER_LOST: "the other side was lost",
    NO_PROVIDER: "no provider of that name",
    NO_FIRST_MESSAGE: "no first message in time",
    NOT_READY: "not ready in time",
    BROKER_LOST: "broker lost",
    GOING_AWAY: "the relay is stopping",
    BAD_TOKEN: "the token has expired",
    NOT_ALLOWED: "the token does not allow this name",
}
"""What a close says beside its code, where that is always the same."""

PROVIDED = '{"command":"provided"}'
HANDOVER = '{"command":"handover"}'
REACHED = '{"command":"reached"}'
READY = {"command": "ready"}
CONNECTED = '{"connected":true,"groupSize":2}'

LONGEST_NAME = 128
LONGEST_FIRST = 16384
"""Bytes of a first message: a token is the longest thing in it."""


class FirstMessageRefused(ConnmanError):
    """The first message of a side is none that can be served: ``code`` and ``reason`` of the close that says so."""

    def __init__(self, code: int, reason: str | None = None) -> None:
        self.code = code
        self.reason = reason = REASONS[code] if reason is None else reason
        super().__init__(f"{code} {reason}")


@dataclass(frozen=True, slots=True)
class Provide:
    """A provider's first message: it waits under ``name``."""

    name: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Reach:
    """A caller's first message: it wants a provider of ``name``."""

    name: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Group:
    """The first message of a member of a group of two: what it calls itself, and what it calls the other."""

    self_name: str
    other_name: str
    token: str | None = field(default=None, repr=False)

    @property
    def key(self) -> bytes:
        """What both members' messages have in common.

        The model's group name is the two names, sorted and joined by a comma. A digest of it: names may be long, and
        a member waits for as long as it likes.
        """
        name = ",".join(sorted((self.self_name, self.other_name)))
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


First = Provide | Reach | Group


def parse_first(text: str) -> First:
    """Return what the first message of a side asks for.

    Raises: FirstMessageRefused, with the texts of the model for what is meant for a group, stray quotes included.
    Threads: any; pure.
    """
    fields = _object(text)
    token = fields.get("token")
    if token is not None and not isinstance(token, str):
        raise FirstMessageRefused(INVALID_FIELD, 'Expected "token" to be a string')
    if "command" not in fields:
        return _group(fields, token)
    command = fields["command"]
    if command == "provide":
        return Provide(_name(fields), token)
    if command == "reach":
        return Reach(_name(fields), token)
    raise FirstMessageRefused(INVALID_FIELD, 'Expected "command" to be "provide" or "reach"')


def is_ready(text: str) -> bool:
    """Return whether this is a provider's answer to the handover.

    Threads: any; pure.
    """
    try:
        return _object(text) == READY
    except FirstMessageRefused:
        return False


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise FirstMessageRefused(INVALID_FIELD, "Invalid JSON") from None
    if not isinstance(found, dict):
        raise FirstMessageRefused(INVALID_FIELD, "Received data is not an object")
    return found


def _group(fields: dict[str, Any], token: str | None) -> Group:
    for name in ("self", "other"):
        if not isinstance(fields.get(name), str):
            raise FirstMessageRefused(INVALID_FIELD, f'Expected "{name}" to be a string"')
    if not isinstance(fields.get("spawn", ""), str):
        raise FirstMessageRefused(INVALID_FIELD, 'Expected "spawn" to be undefined or a string"')
    return Group(fields["self"], fields["other"], token)


def _name(fields: dict[str, Any]) -> str:
    name = fields.get("name")
    if not isinstance(name, str):
        raise FirstMessageRefused(INVALID_FIELD, 'Expected "name" to be a string')
    if not is_name(name):
        raise FirstMessageRefused(
            INVALID_FIELD, f'Expected "name" to have 1 to {LONGEST_NAME} printable characters'
        )
    return name


def is_name(name: str) -> bool:
    """Return whether a provider may have this name: 1 to 128 printable characters, of any script.

    Threads: any; pure.
    """
    # Not printable: control and format characters, other white space than the plain space, halves of surrogate pairs.
    return 1 <= len(name) <= LONGEST_NAME and name.isprintable()


def sendable(code: int, reason: str) -> tuple[int, str]:
    """Return code and reason as they can go out: what stands for "no close frame" has a code of its own then.

    Threads: any; pure.
    """
    if code == 1005:
        return 1000, reason
    if code == 1006 or not is_close_code(code):
        return OTHER_LOST, REASONS[OTHER_LOST]
    return code, reason


def is_close_code(code: int) -> bool:
    """Return whether a close frame may carry ``code`` (RFC 6455 7.4, and the IANA registry up to 1014).

    Threads: any; pure.
    """
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


def close_payload(code: int, reason: str) -> bytes:
    """Return the payload of a close frame; the reason is cut to 123 bytes of UTF-8, between characters.

    Threads: any; pure.
    """
    text = reason.encode("utf-8", "replace")[:123].decode("utf-8", "ignore")
    return code.to_bytes(2) + text.encode()
