"""Tokens that stand in a file: each with what it grants."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import json
import logging
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from connman.errors import InvalidOption
from connman.relay.tokens import EVERYTHING, Grant, TokenRefused, checked_length
from connman.relay.watched import WatchedFile

logger = logging.getLogger("connman.relay")

SHORT_TOKEN = 16
"""Characters below which a token in clear text is warned of: it can be guessed."""

_Entry = tuple[bytes, Grant]  # the SHA-256 of a token, and what it grants


class TokenFile:
    """Knows the tokens of a file, which is read again within ``interval`` seconds when it has changed.

    Either lines, ``TOKEN provide=device-*,gateway reach=* expires=2030-01-31``, where a token alone may do everything
    and ``#`` begins a comment line; or JSON, ``[{"token": …, "provide": […], "reach": […], "expires": …}, …]``. Instead
    of the token, ``sha256:`` and the hexadecimal SHA-256 of it may stand there. A file that is broken or empty when it is
    read again changes nothing, and the log says so; lines whose last one is not ended count two seconds after they were
    written. No token is kept in memory in clear.

    Raises: InvalidOption when the file cannot be read, or is malformed; the text names the line and quotes no token.
    Threads: one at a time (the relay's).
    """

    def __init__(
        self, path: str | os.PathLike[str], *, interval: float = 1.0, now: Callable[[], float] = time.time
    ) -> None:
        # The table is looked up by a digest nobody can foresee: how far a wrong token is right cannot be timed.
        self._key = secrets.token_bytes(32)
        self._now = now
        self._file = WatchedFile(path, self._table, interval=interval, is_whole=_is_whole)

    def check(self, token: str | None) -> Grant:
        """Return what ``token`` grants.

        Raises: TokenRefused.
        Threads: one at a time.
        """
        wanted = self._digest(_sha256(checked_length(token)))
        known = self._file.get().get(wanted[:16])
        if known is None or not hmac.compare_digest(known[0], wanted):
            raise TokenRefused("the token is not known")
        if known[1].is_expired(self._now()):
            raise TokenRefused("the token has expired")
        return known[1]

    def _digest(self, sha256: bytes) -> bytes:
        return hmac.digest(self._key, sha256, "sha256")

    def _table(self, content: bytes) -> dict[bytes, _Entry]:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InvalidOption("not UTF-8") from None
        if not text.strip():
            # As it is for a moment while it is written. Who wants to let nobody in writes a comment, or [].
            raise InvalidOption("empty")
        table: dict[bytes, _Entry] = {}
        for where, (sha256, grant) in _entries(text):
            digest = self._digest(sha256)
            if digest[:16] in table:
                raise InvalidOption(f"{where}: the token stands there twice")
            table[digest[:16]] = (digest, grant)
        return table


def _is_whole(content: bytes) -> bool:
    # Half a file of lines reads as well, and half a line grants more than the whole one: what it allows, and when it
    # ends, stands behind the token. Half of a JSON text is none.
    return content.endswith(b"\n") or content.lstrip()[:1] in (b"[", b"{", b"")


def _entries(text: str) -> Iterator[tuple[str, _Entry]]:
    if text.lstrip()[:1] in ("[", "{"):
        yield from _from_json(text)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if words and not words[0].startswith("#"):
            yield f"line {number}", _from_words(words, f"line {number}")


def _from_words(words: list[str], where: str) -> _Entry:
    fields: dict[str, Any] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if key not in ("provide", "reach", "expires") or not equals or key in fields:
            raise InvalidOption(
                f"{where}: behind a token stand provide=…, reach=… and expires=…, each once at most"
            )
        fields[key] = value if key == "expires" else [part for part in value.split(",") if part]
    return _named(words[0], where), _grant(fields, where)


def _from_json(text: str) -> Iterator[tuple[str, _Entry]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        # Not the error's own text, which may quote; its place is enough.
        line = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidOption(f"not JSON{line}") from None
    if not isinstance(found, list):
        raise InvalidOption("a list of objects is wanted")
    for number, fields in enumerate(found, start=1):
        where = f"entry {number}"
        if not isinstance(fields, dict) or not isinstance(fields.get("token"), str) or not fields["token"]:
            raise InvalidOption(f'{where}: an object with "token", a text, is wanted')
        if unknown := fields.keys() - {"token", "provide", "reach", "expires"}:
            raise InvalidOption(f"{where}: {len(unknown)} unknown keys")
        yield where, (_named(fields["token"], where), _grant(fields, where))


def _named(token: str, where: str) -> bytes:
    if token.startswith("sha256:"):
        if not re.fullmatch("[0-9a-fA-F]{64}", token[7:]):
            raise InvalidOption(f"{where}: behind sha256: stand 64 hexadecimal digits")
        return bytes.fromhex(token[7:])
    if len(token) < SHORT_TOKEN:
        logger.warning("%s of the tokens: it has %d characters and can be guessed", where, len(token))
    return _sha256(token)


def _sha256(token: str) -> bytes:
    # A client may send half of a surrogate pair in JSON.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _grant(fields: Mapping[str, Any], where: str) -> Grant:
    expires = None if fields.get("expires") is None else _unix(fields["expires"], where)
    if "provide" not in fields and "reach" not in fields:
        return Grant(EVERYTHING.provide, EVERYTHING.reach, expires)
    return Grant(
        _patterns(fields.get("provide", ()), where), _patterns(fields.get("reach", ()), where), expires
    )


def _patterns(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidOption(f"{where}: provide and reach are lists of patterns")
    patterns = tuple(value)
    if not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise InvalidOption(f"{where}: a pattern is a text that is not empty")
    return patterns


def _unix(value: object, where: str) -> float:
    if isinstance(value, str):
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None:
            return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an int of hundreds of digits
            if math.isfinite(value):
                return float(value)
    raise InvalidOption(f"{where}: expires is a date such as 2030-01-31, a time in UTC or Unix seconds")
