"""Where a connection leads: parsed, normalised, comparable, and printed without secrets."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from connman.errors import InvalidTarget

_DEFAULT_PORTS = {
    "ws": 80, "xhr-streaming+http": 80, "xhr-polling+http": 80,
    "wss": 443, "xhr-streaming+https": 443, "xhr-polling+https": 443,
}  # fmt: skip
_SCHEMES = ("tcp", "tls", "unix", "memory", *_DEFAULT_PORTS)
# Left alone in paths and queries, "%" included: what is escaped already is not escaped again.
_SAFE = "/?#[]@!$&'()*+,;=:%~-._"
# What an error may show of a scheme: anything else could be a password that was mistyped into its place.
_SCHEME = re.compile("[a-z][a-z0-9+.-]{0,19}")
_BRACKETED = re.compile(r"\[[^\[\]]+\](:[0-9]*)?")
_HOST = re.compile("[a-z0-9._-]+")
# Of an interface's name what RFC 6874 lets a URL hold.
_ADDRESS = re.compile("[0-9a-f:.]+(%[A-Za-z0-9._~-]+)?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A normalised address. Equal endpoints are the same place reached with the same credentials.

    ``scheme``: tcp, tls, unix, memory, ws, wss, or for SockJS over HTTP xhr-streaming+http, xhr-polling+http and the
    same with https. ``host``: lower case, IDNA-encoded, without brackets; "" for unix and memory. ``port``: 1 to 65535,
    0 for unix and memory. ``path``: of the upgrade request (from "/"), of SockJS's base, the socket file (unix) or the
    name (memory). ``query``, ``user`` and ``password`` are kept out of ``str`` and ``repr``.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    query: str = field(default="", repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, target: object) -> Endpoint:
        """Return the endpoint for a URL, a ``(host, port)`` pair (meaning tcp) or an Endpoint.

        Raises: InvalidTarget when it is malformed or its scheme is unknown.
        Threads: any; pure.
        """
        if isinstance(target, Endpoint):
            return target
        if isinstance(target, str):
            return _parse_url(target)
        if isinstance(target, tuple) and len(target) == 2:
            host, port = target
            if not isinstance(host, str):
                raise InvalidTarget(f"a (host, port) pair wants a text as host, not {type(host).__name__}")
            is_bracketed = host.startswith("[") and host.endswith("]")
            return cls("tcp", _host(host[1:-1] if is_bracketed else host), _port(port))
        raise InvalidTarget(f"a target is a URL or a (host, port) pair, not {type(target).__name__}")

    @property
    def is_secure(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme in ("tls", "wss") or self.scheme.endswith("+https")

    @property
    def is_websocket(self) -> bool:
        """Whether the WebSocket protocol is spoken over the network."""
        return self.scheme in ("ws", "wss")

    @property
    def is_http(self) -> bool:
        """Whether messages travel in the bodies of HTTP requests and their answers."""
        return self.scheme.startswith("xhr-")

    @property
    def resource(self) -> str:
        """The request target of the upgrade: path and query. Holds secrets: never log it."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def authority(self) -> str:
        """``host:port`` with brackets around IPv6, the port left out where it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if _DEFAULT_PORTS.get(self.scheme) == self.port else f"{host}:{self.port}"

    def __str__(self) -> str:
        if self.scheme in ("unix", "memory"):
            return f"{self.scheme}://{self.path}"
        hidden = "?…" if self.query else ""
        path = self.path if self.is_websocket or self.is_http else ""
        return f"{self.scheme}://{self.authority}{path}{hidden}"


def _parse_url(url: str) -> Endpoint:
    # The URL itself stays out of every message: it may hold a password or a token.
    if any(c.isspace() or not c.isprintable() for c in url):
        raise InvalidTarget("a URL may hold no white space and no control characters")
    scheme, found, rest = url.partition("://")
    scheme = scheme.lower()
    if not found:
        raise InvalidTarget("not a URL: '://' is missing (such as wss://host/path)")
    if scheme not in _SCHEMES:
        shown = f"unsupported scheme {scheme!r}" if _SCHEME.fullmatch(scheme) else "unsupported scheme"
        raise InvalidTarget(f"{shown}: use one of {', '.join(_SCHEMES)}")
    if scheme in ("unix", "memory"):
        return _local_endpoint(scheme, rest)
    if "#" in url:
        raise InvalidTarget("a URL of a connection has no fragment (RFC 6455 section 3)")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidTarget(f"malformed URL: {_without_url(error)}") from None
    return _network_endpoint(scheme, parts, port)


def _local_endpoint(scheme: str, rest: str) -> Endpoint:
    path = unquote(rest) if scheme == "unix" else rest
    if not path or (scheme == "unix" and not path.startswith("/")):
        raise InvalidTarget(
            f"{scheme}:// wants {'an absolute path' if scheme == 'unix' else 'a name'} behind it"
        )
    if not path.isprintable():
        raise InvalidTarget("the path holds control characters")
    return Endpoint(scheme, path=path)


def _network_endpoint(scheme: str, parts: SplitResult, port: int | None) -> Endpoint:
    host = host_of(parts)
    chosen = _port(port if port is not None else _DEFAULT_PORTS.get(scheme))
    if scheme in ("tcp", "tls"):
        if parts.path not in ("", "/") or parts.query or parts.username is not None:
            raise InvalidTarget(f"{scheme}:// takes a host and a port, nothing more")
        return Endpoint(scheme, host, chosen)
    return Endpoint(
        scheme,
        host,
        chosen,
        quote(parts.path or "/", safe=_SAFE),
        quote(parts.query, safe=_SAFE),
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
    )


def host_of(parts: SplitResult) -> str:
    """Return the host of a URL as an endpoint has it: lower case, IDNA-encoded, without brackets.

    Raises: InvalidTarget when it is missing or malformed; the text holds no part of it.
    Threads: any; pure.
    """
    _, _, place = parts.netloc.rpartition("@")
    # urlsplit drops what stands around the brackets, and takes a backslash, where a browser's path begins, for a
    # part of the user's name: the same text must not lead others elsewhere.
    if "\\" in parts.netloc or ("[" in place and not _BRACKETED.fullmatch(place)):
        raise InvalidTarget("malformed URL: its host part cannot be read")
    # "%25" is how a URL writes the "%" before an interface's name (RFC 6874).
    return _host((parts.hostname or "").replace("%25", "%", 1))


def _host(host: str) -> str:
    if not host:
        raise InvalidTarget("the host is missing")
    if ":" in host:
        try:
            address = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise InvalidTarget("the host is no valid IPv6 address") from None
        # It takes anything for the name of an interface; neither a URL nor a request's Host can carry all of that.
        if not _ADDRESS.fullmatch(address):
            raise InvalidTarget("the host is no valid IPv6 address")
        return address
    try:
        name = host.encode("ascii" if host.isascii() else "idna").decode("ascii").lower()
    except UnicodeError:
        raise InvalidTarget("the host is no valid internationalised name") from None
    if not _HOST.fullmatch(name):
        raise InvalidTarget("the host holds characters that no host name has")
    if any(not 0 < len(label) < 64 for label in name.removesuffix(".").split(".")):
        raise InvalidTarget("a part of the host name is empty or longer than 63 characters")
    return name


def _port(port: Any) -> int:
    if port is None:
        raise InvalidTarget("the port is missing")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise InvalidTarget("a port is a number from 1 to 65535")
    return port


def _without_url(error: ValueError) -> str:
    # urllib quotes what it could not read, which may hold the password.
    text = str(error)
    return "the port is no number from 0 to 65535" if "ort" in text else "its host part cannot be read"
