"""Bad ways to the server: proxies that lie and stall, TLS that never gets done."""

import socket

from connman.errors import BadUpgrade, ConnectError, ConnectionLost, ProxyRefused, Retry
from tests.hostile.acts import (
    Act,
    Bad,
    drip,
    flood,
    late,
    leave,
    listen,
    nothing,
    opened,
    reads_first,
    reset_now,
    says,
    says_dripping,
    says_endlessly,
)
from tests.scripted import Guest

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


def through_http(name: str, act: Act, text: str, **fields: object) -> Bad:
    return Bad(name=f"http proxy: {name}", act=act, text=text, **{"error": ConnectError, "stage": "proxy", "through": "http", **fields})  # type: ignore[arg-type]  # fmt: skip


def refused(status: int, retry: Retry = Retry.AGAIN) -> Bad:
    answer = f"HTTP/1.1 {status} No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n".encode()
    text = f"the proxy refused with HTTP {status}"
    return through_http(f"{status}", says(answer), text, error=ProxyRefused, retry=retry)


HTTP_PROXIES = [
    late("http proxy: never answers", nothing, "proxy", through="http"),
    late("http proxy: drips its status line", says_dripping(b"x", b"HTTP/1.1 200 "), "proxy", through="http"),
    late("http proxy: drips headers", says_dripping(b"X: x\r\n", b"HTTP/1.1 200 OK\r\n"), "proxy", through="http"),
    through_http("closes", reads_first(leave), "closed the connection instead of answering"),
    through_http("resets", reads_first(reset_now), "reset"),
    through_http("garbage", says(bytes(range(256))), "is not HTTP"),
    through_http("an endless line", says_endlessly(b"x" * 65536, b"HTTP/1.1 200 "), "a line of more than 8192 bytes"),
    through_http("endless headers", says_endlessly(b"X: x\r\n" * 1000, b"HTTP/1.1 200 OK\r\n"), "more than 128 headers"),
    through_http("endless long headers", says_endlessly(b"X: " + b"x" * 8000 + b"\r\n", b"HTTP/1.1 200 OK\r\n"), "more than"),
    through_http("continue, and continue, …", says_endlessly(b"HTTP/1.1 100 Continue\r\n\r\n"), "the proxy refused with HTTP 100", error=ProxyRefused),
    through_http("a status that is no number", says(b"HTTP/1.1 2x0 OK\r\n\r\n"), "is not HTTP"),
    refused(407, Retry.NEVER),
    refused(502),
    refused(302),
    late("http proxy: a tunnel to nowhere", says(OK, nothing), "upgrade", through="http"),
    through_http("a tunnel that ends", says(OK), "closed the connection without an answer", error=BadUpgrade, stage="upgrade"),
    through_http("a tunnel that begins to speak first", says(OK + b"220 mail.example.com ESMTP\r\n"), "does not speak HTTP/1.1", error=BadUpgrade, stage="upgrade"),
]  # fmt: skip


def socks(name: str, data: bytes, text: str, act: Act = leave, **fields: object) -> Bad:
    """Return a row for a SOCKS 5 proxy that answers the greeting and all that follows with ``data``."""

    def answer(guest: Guest) -> bytes:
        guest.sock.recv(65536)
        guest.send(data)
        return act(guest)

    return Bad(name=f"socks5 proxy: {name}", act=answer, text=text, **{"error": ConnectError, "stage": "proxy", "through": "socks5h", **fields})  # type: ignore[arg-type]  # fmt: skip


def dripping_socks(guest: Guest) -> bytes:
    guest.sock.recv(65536)
    guest.send(b"\x05\x00\x05\x00\x00\x03\xff")  # a name of 255 bytes, and it drips
    return drip(guest, b"x")


SOCKS_PROXIES = [
    late("socks5 proxy: never answers", nothing, "proxy", through="socks5h"),
    late("socks5 proxy: drips", dripping_socks, "proxy", through="socks5h"),
    socks("closes", b"", "closed", error=(ConnectError, ProxyRefused)),
    socks("another version", b"\x04\x00", "refused|no valid SOCKS", error=(ConnectError, ProxyRefused)),
    socks("garbage", b"HTTP/1.1 400 Bad Request\r\n\r\n", "refused|no valid SOCKS", error=(ConnectError, ProxyRefused)),
    socks("wants no method that there is", b"\x05\xff", "refused", error=ProxyRefused),
    socks("wants a method that was not offered", b"\x05\x02", "refused|no valid", error=(ConnectError, ProxyRefused)),
    socks("fails", b"\x05\x00\x05\x01\x00\x01\0\0\0\0\0\0", "refused", error=ProxyRefused),
    socks("an error nobody knows", b"\x05\x00\x05\x77\x00\x01\0\0\0\0\0\0", "refused", error=(ConnectError, ProxyRefused)),
    socks("an address of an unknown kind", b"\x05\x00\x05\x00\x00\x09\0\0\0\0\0\0", "refused|no valid", error=(ConnectError, ProxyRefused)),
    socks("ends within its answer", b"\x05\x00\x05\x00\x00", "closed|refused|no valid", error=(ConnectError, ProxyRefused)),
    socks("a name that is no text", b"\x05\x00\x05\x00\x00\x03\x04\xff\xfe\xfd\xfc\0\0", "no valid|without an answer|refused", error=(ConnectError, ProxyRefused, BadUpgrade), stage="proxy|upgrade"),
]  # fmt: skip


def tls(name: str, act: Act, text: str, **fields: object) -> Bad:
    return Bad(name=f"tls: {name}", act=act, text=text, **{"error": ConnectError, "stage": "tls", "scheme": "wss", **fields})  # type: ignore[arg-type]  # fmt: skip


def hears_client_hello(act: Act) -> Act:
    def hear(guest: Guest) -> bytes:
        guest.sock.recv(65536)
        return act(guest)

    return hear


def raw(data: bytes, act: Act = leave) -> Act:
    def say(guest: Guest) -> bytes:
        guest.sock.recv(65536)
        guest.send(data)
        return act(guest)

    return say


def cut(data: bytes) -> Act:
    """Open, say the beginning of a frame, and end TCP without a TLS goodbye."""
    return opened(data, end_tcp)


def end_tcp(guest: Guest) -> bytes:
    socket.socket.shutdown(guest.sock, socket.SHUT_WR)
    return listen(guest)


TLS = [
    late("tls: never answers", nothing, "tls", scheme="wss"),
    late("tls: half a hello", raw(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03", nothing), "tls", scheme="wss"),
    late("tls: drips", raw(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb\x03\x03", lambda guest: drip(guest, b"\0")), "tls", scheme="wss"),
    tls("closes", hears_client_hello(leave), "EOF|closed"),
    tls("resets", hears_client_hello(reset_now), "reset"),
    tls("answers in clear", raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "(?i)wrong version|record|http request"),
    tls("garbage without an end", raw(b"", lambda guest: flood(guest, bytes(65536))), "(?i)wrong version|record|unexpected"),
    tls("an alert", raw(b"\x15\x03\x03\x00\x02\x02\x28"), "(?i)alert"),
    late("wss: never answers the upgrade", nothing, "upgrade", scheme="wss", is_secure=True),
    late("wss: drips its answer", says_dripping(b"X: x\r\n", b"HTTP/1.1 101 Switching Protocols\r\n"), "upgrade", scheme="wss", is_secure=True),
    tls("the stream is cut within a frame", cut(b"\x81\x0ahalf"), "(?i)EOF|middle of a frame", error=ConnectionLost, stage="open", is_secure=True),
    tls("the stream is cut between frames", cut(b""), "(?i)EOF|without a close", error=ConnectionLost, stage="open", is_secure=True),
]  # fmt: skip

WAYS = [*HTTP_PROXIES, *SOCKS_PROXIES, *TLS]
