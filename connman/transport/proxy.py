"""Through a proxy: which one, and how a connected socket to it becomes a tunnel to the endpoint."""

from __future__ import annotations

import base64
import os
import re
import socket
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from connman.endpoint import Endpoint, host_of
from connman.errors import ConnectError, InvalidOption, InvalidTarget, ProxyRefused, printable
from connman.transport.base import Dial
from connman.transport.resolve import resolve
from connman.transport.sockets import DialSocket, SocketGuard

_DEFAULT_PORTS = {"http": 80, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
# In which variables of the environment, without their "_proxy", a scheme's proxy is looked for.
_PLAIN, _SECURE = ("http", "all"), ("https", "all")
_VARIABLES = {
    "tcp": ("all",), "tls": _SECURE, "ws": _PLAIN, "wss": _SECURE,
    "xhr-streaming+http": _PLAIN, "xhr-streaming+https": _SECURE,
    "xhr-polling+http": _PLAIN, "xhr-polling+https": _SECURE,
}  # fmt: skip
_MAX_LINE = 8192
_MAX_HEADERS = 128
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?: .*)?")


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a proxy is and who we are to it. ``str`` and ``repr`` show no credentials."""

    scheme: str
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def import_lazy_parts() -> None:
    """Import what the first dial would: on the caller's thread, while no thread of connman's does anything yet.

    A process that forks while a reader thread imports leaves a child whose dials wait for ever for the module's lock.

    Threads: any.
    """
    import encodings.idna  # lazy: getaddrinfo() wants it  # noqa: F401
    import urllib.request  # lazy: costs a quarter of the time of `import connman`  # noqa: F401


def choose_proxy(dial: Dial) -> Proxy | None:
    """Return the proxy that ``options.proxy`` or, when that was left out, the environment names; None for none.

    A unix or memory endpoint has none. A URL without a scheme means http.

    Raises: InvalidOption for one that `usable_proxy` refuses.
    Threads: any.
    """
    option, endpoint = dial.options.proxy, dial.endpoint
    if option is None or endpoint is None or endpoint.scheme not in _VARIABLES:
        return None
    url = option if isinstance(option, str) else _from_environment(endpoint)
    if not url:
        return None
    return usable_proxy(url)


def usable_proxy(url: str) -> Proxy:
    """Return what a proxy's URL says, if connman can go through such a proxy.

    Raises: InvalidOption for a malformed URL, a scheme that is not spoken, a missing python-socks, and credentials
    that SOCKS cannot carry; the text holds no part of the URL but its scheme. Another attempt cannot help any of them.
    Threads: any.
    """
    proxy = parse_proxy(url)
    if proxy.scheme not in _DEFAULT_PORTS:
        raise InvalidOption(f"no {proxy.scheme[:20]}:// proxies: use one of {', '.join(_DEFAULT_PORTS)}")
    if proxy.scheme.startswith("socks"):
        _socks_package()
        if any(not text.isascii() or len(text) > 255 for text in (proxy.user, proxy.password)):
            raise InvalidOption("SOCKS carries ASCII credentials of up to 255 characters only")
    return proxy


def parse_proxy(url: str) -> Proxy:
    """Return what a proxy's URL says.

    Raises: InvalidOption when it is malformed; the text holds no part of the URL.
    Threads: any; pure.
    """
    # Before urlsplit, which drops CR, LF and tabs without a word.
    if _has_controls(url):
        raise InvalidOption("proxy: a URL may hold no white space and no control characters")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port, host = parts.port, host_of(parts)
    except InvalidTarget as error:
        raise InvalidOption(f"proxy: {error}") from None
    except ValueError:
        # Without the cause: it may quote the part that holds the password.
        raise InvalidOption("proxy: the host or the port cannot be read") from None
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if port == 0:
        raise InvalidOption("proxy: the port is 0")
    if _has_controls(user, " ") or _has_controls(password, " "):
        raise InvalidOption("proxy: the user name or password holds control characters")
    return Proxy(parts.scheme, host, port or _DEFAULT_PORTS.get(parts.scheme, 0), user, password)


def open_tunnel(dial: Dial, guard: SocketGuard, proxy: Proxy, host: str, port: int) -> None:
    """Make the socket, which is connected to ``proxy``, one that leads to ``host`` and ``port``.

    http, socks4a and socks5h leave the name to the proxy; socks4 and socks5 look it up here, as curl does. Nothing
    that comes behind the proxy's answer is read.

    Raises: ProxyRefused when the proxy says no; ConnectError when it makes no sense; ConnectTimeout; the abort's error.
    Threads: the dialling thread.
    """
    if _has_controls(host):
        raise ConnectError(dial.name, dial.log, "the host holds characters that no host name has")
    if proxy.scheme in ("socks4", "socks5"):
        host = _resolved(dial, proxy, host, port)
    with dial.step("proxy", str(proxy)):
        sock = DialSocket(guard, dial.deadline)
        if proxy.scheme == "http":
            _connect_http(dial, sock, proxy, host, port)
        else:
            _connect_socks(dial, sock, proxy, host, port)


def _from_environment(endpoint: Endpoint) -> str | None:
    names = [f"{variable}_proxy" for variable in _VARIABLES[endpoint.scheme]]
    # urllib goes through the whole environment, which took a fifth of a dial; most name no proxy in it.
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in names):
        return None
    import urllib.request  # lazy: costs a quarter of the time of `import connman`

    proxies = urllib.request.getproxies_environment()
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    # Both spellings: no_proxy may name an IPv6 address with or without brackets.
    for name in (f"{host}:{endpoint.port}", endpoint.host):
        if urllib.request.proxy_bypass_environment(name, proxies):  # type: ignore[attr-defined]
            return None
    return next((proxies[name] for name in _VARIABLES[endpoint.scheme] if name in proxies), None)


def _connect_http(dial: Dial, sock: DialSocket, proxy: Proxy, host: str, port: int) -> None:
    sock.sendall(_connect_request(proxy, host, port))
    status = _read_status(sock)
    if not 200 <= status < 300:
        # Neither the reason nor the body: a proxy may quote our credentials in them.
        raise ProxyRefused(dial.name, message=f"the proxy refused with HTTP {status}", status=status)


def _connect_request(proxy: Proxy, host: str, port: int) -> bytes:
    """Return the request for a tunnel (RFC 9110 section 9.3.6), with Basic credentials (RFC 7617) if there are any."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.user or proxy.password:
        credentials = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _read_status(sock: DialSocket) -> int:
    """Read the head of the proxy's answer and return its status."""
    matched = _STATUS_LINE.fullmatch(_read_line(sock))
    if matched is None:
        raise OSError("the proxy's answer is not HTTP")
    for _ in range(_MAX_HEADERS + 1):
        if not _read_line(sock):
            return int(matched[1])
    raise OSError(f"the proxy's answer has more than {_MAX_HEADERS} headers")


def _read_line(sock: DialSocket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        if len(line) >= _MAX_LINE:
            raise OSError(f"the proxy's answer has a line of more than {_MAX_LINE} bytes")
        # Looked at first: what comes behind the head belongs to the tunnel and stays in the socket.
        seen = sock.recv(_MAX_LINE - len(line), socket.MSG_PEEK)
        if not seen:
            raise OSError("the proxy closed the connection instead of answering")
        line += sock.recv(seen.find(b"\n") + 1 or len(seen))
    return bytes(line).rstrip(b"\r\n")


class _Forward:
    """What python-socks takes for an outer proxy: it asks it for a socket and gets ours, abortable and with a deadline."""

    def __init__(self, sock: DialSocket) -> None:
        self._sock = sock

    def connect(self, dest_host: str, dest_port: int, timeout: float | None = None) -> DialSocket:
        return self._sock


def _connect_socks(dial: Dial, sock: DialSocket, proxy: Proxy, host: str, port: int) -> None:
    python_socks = _socks_package()
    types = python_socks.ProxyType
    kind = types.SOCKS5 if proxy.scheme.startswith("socks5") else types.SOCKS4
    forward: Any = _Forward(sock)
    client = python_socks.sync.Proxy(
        kind, proxy.host, proxy.port, proxy.user, proxy.password, rdns=True, forward=forward
    )
    try:
        client.connect(host, port, timeout=dial.deadline.remaining())
    except python_socks.ProxyError as error:
        raise ProxyRefused(dial.name, message=f"the proxy refused: {printable(str(error))}") from error
    except ValueError:
        # Without the cause: python-socks quotes what it could not encode.
        raise ConnectError(dial.name, message="the proxy's answer is no valid SOCKS") from None


def _socks_package() -> Any:
    try:
        import python_socks  # lazy: an extra
        import python_socks.sync  # lazy: an extra
    except ImportError:
        raise InvalidOption("SOCKS proxies need: pip install connman[proxy]") from None
    return python_socks


def _resolved(dial: Dial, proxy: Proxy, host: str, port: int) -> str:
    families = (socket.AF_INET,) if proxy.scheme == "socks4" else (socket.AF_INET, socket.AF_INET6)
    for family, address in resolve(dial, host, port):
        if family in families:
            return str(address[0])
    raise ConnectError(dial.name, dial.log, f"{host} has no IPv4 address, which socks4 needs")


def _has_controls(text: str, allowed: str = "") -> bool:
    return any(c not in allowed and (c.isspace() or not c.isprintable()) for c in text)
