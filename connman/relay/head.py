"""The HTTP head that opens a WebSocket, as a server judges it: bytes in, a request or a refusal out. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from connman.errors import ConnmanError
from connman.relay.addresses import parse as parse_address

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_MOST_HEADERS = 128
_LONGEST_LINE = 8192
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# A path, or a whole address (RFC 9112 3.2.2); no control characters, which split the line for whoever reads it next.
_TARGET = re.compile(rb"(?:https?://([^/?#\x00-\x20\x7f]+)(?=[/?]|\Z)|(?=/))[^\x00-\x20\x7f]*", re.IGNORECASE)
# Control characters in a value could split it for whoever reads it next.
_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# A second one of these contradicts the first: which one counts is for an attacker to choose.
_ONCE = frozenset(
    ("host", "origin", "authorization", "sec-websocket-key", "sec-websocket-version", "content-length")
)


class HttpRefused(ConnmanError):
    """The upgrade is not made: ``status`` and ``text`` are told to the client, and ``why`` is counted."""

    def __init__(self, status: int, text: str, why: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.text = text
        self.why = why
        self.headers = dict(headers or {})
        super().__init__(f"{status} {text}")


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """A well-formed upgrade. Not shown: path and headers may hold secrets."""

    path: str
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """Return the first header of that name, in lower case.

        Threads: any.
        """
        return next((value for key, value in self.headers if key == name), None)

    @property
    def bearer(self) -> str | None:
        """The token of the Authorization header, None without one."""
        scheme, _, token = (self.get("authorization") or "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None


def parse_request(head: bytes) -> Request:
    """Return the upgrade that ``head`` asks for; it ends before the empty line.

    Raises: HttpRefused.
    Threads: any; pure.
    """
    first, *lines = head.split(b"\r\n")
    if len(lines) > _MOST_HEADERS or any(len(line) > _LONGEST_LINE for line in (first, *lines)):
        raise HttpRefused(431, "too many headers, or too long ones", "head")
    words = first.split(b" ")
    target = _TARGET.fullmatch(words[1]) if len(words) == 3 else None
    if target is None or not words[2].startswith(b"HTTP/"):
        raise _bad("no HTTP request")
    if words[2] != b"HTTP/1.1":
        raise HttpRefused(505, "only HTTP/1.1", "head")
    if words[0] != b"GET":
        raise HttpRefused(405, "only GET", "head", {"Allow": "GET"})
    request = Request(words[1].decode("latin-1"), tuple(_header(line) for line in lines))
    _check_upgrade(request)
    if target[1] is not None and target[1].decode("latin-1").lower() != (request.get("host") or "").lower():
        raise _bad("target and Host differ")  # which one counts is for an attacker to choose
    return request


def _header(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    # A name with a space before the colon, or a folded line, fails here as well (RFC 9112 5.1, 5.2).
    if not colon or not _TOKEN.fullmatch(name) or _UNFIT.search(value):
        raise _bad("a header is malformed")
    return name.decode("ascii").lower(), value.decode("latin-1")


def _check_upgrade(request: Request) -> None:
    names = [name for name, _ in request.headers]
    if any(name in _ONCE and names.count(name) > 1 for name in names):
        raise _bad("a header stands there twice")
    if "host" not in names:
        raise _bad("there is no Host")
    if "transfer-encoding" in names or (request.get("content-length") or "0").strip("0"):
        raise _bad("an upgrade has no body")
    if "websocket" not in _words(request, "upgrade") or "upgrade" not in _words(request, "connection"):
        raise HttpRefused(426, "this is a WebSocket server", "head", {"Upgrade": "websocket"})
    if request.get("sec-websocket-version") != "13":
        raise HttpRefused(426, "only version 13", "head", {"Sec-WebSocket-Version": "13"})
    try:
        key = base64.b64decode(request.get("sec-websocket-key") or "", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise _bad("the key is not 16 bytes")


def _words(request: Request, name: str) -> list[str]:
    # Firefox says "Connection: keep-alive, Upgrade".
    values = ",".join(value for key, value in request.headers if key == name)
    return [word.strip().lower() for word in values.split(",")]


def _bad(text: str) -> HttpRefused:
    return HttpRefused(400, text, "head")


def check_origin(request: Request, origins: tuple[str, ...] | None) -> None:
    """Let in what no browser sends, and pages of the allowed origins; without a list, of the same origin as the relay.

    A page of anybody's may open a WebSocket to anywhere, and the browser sends what it knows of the user with it.

    Raises: HttpRefused.
    Threads: any; pure.
    """
    origin = request.get("origin")
    if origin is None or (origins is not None and "*" in origins):
        return
    if origins is None:
        host = (request.get("host") or "").lower()
        allowed = origin.lower() in (f"http://{host}", f"https://{host}")
    else:
        allowed = origin.lower() in (known.lower() for known in origins)
    if not allowed:
        raise HttpRefused(403, "this origin is not allowed", "origin")


def check_host(request: Request, hosts: tuple[str, ...]) -> None:
    """Let in those who name the relay by an address, as localhost, or as one of ``hosts``.

    For a relay without tokens: a page whose own name was made to point at this machine (DNS rebinding) names that.

    Raises: HttpRefused.
    Threads: any; pure.
    """
    try:
        name = (urlsplit("//" + (request.get("host") or "")).hostname or "").rstrip(".")
    except ValueError:
        name = ""
    is_local = name == "localhost" or name.endswith(".localhost")
    if not (is_local or parse_address(name) is not None or name in (host.lower() for host in hosts)):
        raise HttpRefused(403, "this host is not served here", "host")


def accept(request: Request) -> bytes:
    """Return the answer that makes a WebSocket of it; no subprotocol and no extension is taken.

    Threads: any; pure.
    """
    key = (request.get("sec-websocket-key") or "").encode("latin-1")
    digest = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % digest
    )


def refuse(refused: HttpRefused) -> bytes:
    """Return the answer that refuses.

    Threads: any; pure.
    """
    body = (refused.text + "\n").encode()
    phrase = HTTPStatus(refused.status).phrase
    lines = [f"HTTP/1.1 {refused.status} {phrase}", *(f"{k}: {v}" for k, v in refused.headers.items())]
    lines += ["Connection: close", "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
