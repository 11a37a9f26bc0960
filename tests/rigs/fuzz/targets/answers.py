"""Answers to the upgrade and of proxies: the whole path from the socket to what is made of them."""

import base64
import hashlib
import math
import re
from collections.abc import Callable
from random import Random

from connman.connection.backoff import retry_after
from connman.endpoint import Endpoint
from connman.errors import (
    BadUpgrade,
    ConnectError,
    ConnectTimeout,
    ProxyRefused,
    UpgradeRefused,
    retry_verdict,
)
from connman.options import Options
from connman.transport.base import Dial
from connman.transport.proxy import Proxy, open_tunnel
from connman.transport.sockets import SocketGuard
from connman.transport.upgrade import make_request
from connman.transport.websocket import Upgrade
from tests.rigs.fuzz.script import Script, cut, piece
from tests.rigs.fuzz.target import Target, expect
from tests.rigs.fuzz.targets.frames import check_error
from tests.rigs.fuzz.wire import TAILS, StepClock, Wire

_SECRET = "S3CR3T-7f1e"
_ACCEPT = b"{A}"  # in an answer: the right Sec-WebSocket-Accept
_WRONG_CASE = b"{a}"  # the same in small letters
_ECHO = b"{S}"  # in an answer: our own secret
_ENDPOINT = Endpoint.parse(f"ws://user:{_SECRET}@example.com/path?token={_SECRET}")
_PROTOCOLS = ((), ("chat",), ("chat", "mqtt"))
_OPTIONS = {
    (offer, compression): Options(subprotocols=offer, compression=compression)
    for offer in _PROTOCOLS
    for compression in (None, "deflate")
}
_DOCUMENTED = (UpgradeRefused, BadUpgrade, ConnectTimeout)
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MOST_BODY = 65536

_Result = tuple[object, ...]


def check_upgrade(case: bytes) -> None:
    """Answer an upgrade with anything, whole and in pieces."""
    script = Script(case)
    flags, tail, seed, drip = script.byte(), script.choose(TAILS), script.byte(), script.byte()
    options = _OPTIONS[_PROTOCOLS[flags % 3], "deflate" if flags & 128 else None]
    head, end, body = script.rest().partition(b"\r\n\r\n")
    # The key is another one each time: where it could be cut, or be no value, no two outcomes would be the same.
    lines = [line.partition(b":") for line in head.split(b"\r\n")]
    head = b"\r\n".join(_without_key(name) + colon + value for name, colon, value in lines)
    answer = head + end + _without_key(body)
    if drip > 200:
        _upgraded(options, lambda text: cut(text, seed), answer, tail, 0.3)
        return
    whole = _upgraded(options, lambda text: [text], answer, tail)
    pieces = _upgraded(options, lambda text: cut(text, seed), answer, tail)
    expect(whole == pieces, "a split makes a difference", whole, pieces)


def _without_key(text: bytes) -> bytes:
    return text.replace(_ACCEPT, b"").replace(_WRONG_CASE, b"")


def _upgraded(
    options: Options, chunks_of: Callable[[bytes], list[bytes]], template: bytes, tail: str, drip: float = 0.0
) -> _Result:
    """Return what comes of an upgrade: all that can be told of it."""
    clock = StepClock()
    dial = Dial(_ENDPOINT, options, clock)
    request = make_request(_ENDPOINT, [("X-Token", _SECRET)], options.subprotocols)
    whole = accept = b""

    def answer(wire: Wire) -> None:
        nonlocal whole, accept
        found = re.search(rb"Sec-WebSocket-Key: (\S+)\r\n", wire.sent)
        accept = base64.b64encode(hashlib.sha1((found[1] if found else b"") + _GUID.encode()).digest())
        whole = (
            template.replace(_ACCEPT, accept)
            .replace(_WRONG_CASE, accept.lower())
            .replace(_ECHO, _SECRET.encode())
        )
        wire.chunks = chunks_of(whole) if whole else []

    with Wire(clock, [], tail, drip) as wire:
        wire.on_send = answer
        upgrade = Upgrade(dial, SocketGuard(wire), request)
        try:
            with dial.step("upgrade"):
                upgrade.run()
        except _DOCUMENTED as error:
            _check_refusal(error, dial)
            return _told(error, accept)
        except ConnectError as error:
            expect(tail == "reset", "not an error for this", error)
            return _told(error, accept)
        _check_agreed(whole, accept, upgrade, options)
        unread = upgrade.leftover + b"".join(wire.chunks)
        expect(unread == whole.partition(b"\r\n\r\n")[2], "bytes behind the head were lost", unread)
        return "open", upgrade.subprotocol, upgrade.deflate, unread


def _told(error: ConnectError, accept: bytes = b"") -> _Result:
    """Return all that an error says, but for what differs each time."""
    said = (error.status, error.headers, error.body) if isinstance(error, UpgradeRefused) else ()
    shown = (
        repr(said).replace(accept.decode(), "{A}").replace(accept.decode().lower(), "{a}") if accept else ""
    )
    return type(error).__name__, str(error), shown


def _check_refusal(error: ConnectError, dial: Dial) -> None:
    check_error(error)
    shown = f"{error} {error!r} {error.message} {dial.log}"
    expect(_SECRET not in shown and "user" not in shown, "an error that shows a secret", shown)
    retry_verdict(error)
    expect(dial.clock.now() <= 11 or dial.clock.now() >= 1e9, "the deadline is not kept", dial.clock.now())
    if isinstance(error, UpgradeRefused):
        expect(error.status != 101 and len(error.body) <= _MOST_BODY, "no refusal", error.status, error.body)
        seconds = retry_after(error)
        expect(seconds is None or (math.isfinite(seconds) and seconds >= 0), "no delay", seconds)


def _check_agreed(answer: bytes, accept: bytes, upgrade: Upgrade, options: Options) -> None:
    """Read an answer that was accepted once more, in the plainest way: nothing in it may be wrong."""
    first, *lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    pairs = [line.partition(b":") for line in lines]
    values: dict[bytes, list[bytes]] = {}
    for name, colon, value in pairs:
        expect(colon == b":" and name.strip() == name != b"", "no header", name, value)
        values.setdefault(name.lower(), []).append(value.strip(b" \t"))
    expect(re.match(rb"HTTP/1\.1 101( |$)", first) is not None, "no status 101", first)
    expect(len(lines) <= 128 and max(map(len, [first, *lines])) <= 8192, "above the limits")
    expect([v.lower() for v in values.get(b"upgrade", [])] == [b"websocket"], "no upgrade", values)
    tokens = b",".join(values.get(b"connection", [])).lower().split(b",")
    expect(b"upgrade" in [token.strip() for token in tokens], "no connection upgrade", values)
    expect(values.get(b"sec-websocket-accept") == [accept], "another key accepted", values)
    chosen = [value.decode() for value in values.get(b"sec-websocket-protocol", [])]
    expect(
        chosen == [name for name in options.subprotocols if name in chosen][:1],
        "a foreign subprotocol",
        chosen,
    )
    expect((chosen[:1] or [None]) == [upgrade.subprotocol], "another subprotocol", chosen)
    extensions = values.get(b"sec-websocket-extensions", [])
    expect(bool(extensions) == (upgrade.deflate is not None), "another extension", extensions)
    expect(not extensions or options.compression == "deflate", "an extension not offered", extensions)


# Proxies

_PROXIES = (
    Proxy("http", "proxy.test", 80),
    Proxy("http", "proxy.test", 80, "user", _SECRET),
    Proxy("socks5h", "proxy.test", 1080),
    Proxy("socks5h", "proxy.test", 1080, "user", _SECRET),
    Proxy("socks5", "proxy.test", 1080),
    Proxy("socks4a", "proxy.test", 1080, "user"),
    Proxy("socks4", "proxy.test", 1080),
)
_HOSTS = ("example.com", "10.0.0.1", "2001:db8::1", "x" * 63 + ".test")


def check_proxy(case: bytes) -> None:
    """Answer as a proxy with anything, whole and in pieces."""
    script = Script(case)
    proxy, host, tail = script.choose(_PROXIES), script.choose(_HOSTS), script.choose(TAILS)
    seed, answer = script.byte(), script.rest().replace(_ECHO, _SECRET.encode())
    if proxy.scheme == "socks4":
        host = "10.0.0.1"  # others would be looked up
    if proxy.scheme == "socks5" and ":" not in host:
        host = "10.0.0.1"
    whole = _tunnelled(proxy, host, [answer], tail)
    pieces = _tunnelled(proxy, host, cut(answer, seed), tail)
    expect(whole == pieces, "a split makes a difference", whole, pieces)
    if whole[0] == "open":
        expected = _behind_http(answer) if proxy.scheme == "http" else _behind_socks(proxy, answer)
        expect(whole[1] == expected, "a tunnel that begins at the wrong byte", whole[1], expected)


def _tunnelled(proxy: Proxy, host: str, chunks: list[bytes], tail: str) -> _Result:
    clock = StepClock()
    dial = Dial(Endpoint("tcp", host, 443), Options(), clock)
    with Wire(clock, [chunk for chunk in chunks if chunk], tail) as wire:
        try:
            open_tunnel(dial, SocketGuard(wire), proxy, host, 443)
        except ConnectError as error:
            shown = f"{error} {error!r} {dial.log}"
            expect(_SECRET not in shown, "an error that shows a secret", shown)
            expect(
                isinstance(error, ProxyRefused | ConnectTimeout) or type(error) is ConnectError, "kind", error
            )
            retry_verdict(error)
            check_error(error)
            return _told(error)
        return "open", b"".join(wire.chunks)


def _behind_http(answer: bytes) -> bytes | None:
    """Return what follows the head; a line may end with LF alone."""
    first, *_ = answer.split(b"\n", 1)
    expect(re.match(rb"HTTP/1\.[01] 2\d\d", first) is not None, "no success", first)
    end = re.search(rb"\n\r*\n", answer)
    return answer[end.end() :] if end else None


def _behind_socks(proxy: Proxy, answer: bytes) -> bytes | None:
    if proxy.scheme.startswith("socks4"):
        return answer[8:] if answer[:2] == b"\0\x5a" else None
    if answer[:1] != b"\5" or answer[1:2] not in ((b"\0", b"\2") if proxy.user else (b"\0",)):
        return None
    pos = 2
    if answer[1:2] == b"\2":
        if answer[2:4] != b"\1\0":
            return None
        pos = 4
    if answer[pos : pos + 2] != b"\5\0":
        return None
    kind = answer[pos + 3]
    size = {1: 4, 3: 1 + answer[pos + 4], 4: 16}.get(kind)
    return None if size is None else answer[pos + 4 + size + 2 :]


# Making answers

_HEADERS = (
    b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: {A}", b"Sec-WebSocket-Protocol: chat",
    b"Sec-WebSocket-Protocol: mqtt", b"Sec-WebSocket-Extensions: permessage-deflate", b"Set-Cookie: a={S}; Path=/",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10; client_no_context_takeover",
    b'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits="9"', b"Connection: keep-alive, upgrade",
    b"Server: {S}", b"Retry-After: 120", b"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", b"Content-Length: 5",
    b"Retry-After: 99999999999999999999", b"Retry-After: Fri, 31 Dec 9999 23:59:59 -2359", b"Retry-After: Mon, 1 Jan 1 0:0",
    b"Transfer-Encoding: chunked", b"Content-Length: 99999999999", b"Content-Length: -1", b"Location: http://x/{S}",
    b"Sec-WebSocket-Accept: {a}", b"X: " + b"y" * 300, b"A:", b":", b"X : y", b" folded", b"X: \xff\xe9", b"X: \0", b"X: a\rb", b"X: a\nb",
)  # fmt: skip
_STATUSES = (
    b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 101 ", b"HTTP/1.1 101", b"HTTP/1.0 101 x", b"HTTP/1.1 200 OK",
    b"HTTP/1.1 503 {S}", b"HTTP/1.1 401 \xc3\xa9", b"HTTP/1.1 302 Found", b"HTTP/1.1 1012 x", b"HTTP/2 101", b"SSH-2.0-x",
    b"HTTP/1.1 407 {S}", b"HTTP/1.1 204 x", b"HTTP/1.1 100 Continue", b"HTTP/1.1 999", b"http/1.1 101 x", b"",
)  # fmt: skip
_BODIES = (
    b"",
    b"\x81\x02hi",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"ffffffff\r\nx",
    b"0\r\n\r\n",
    b"7\r\n0\r\n\r\nhi\r\n0\r\n\r\n",
    b"x" * 600,
)


def make_upgrade(random: Random) -> bytes:
    head = random.randbytes(4)
    lines = [_STATUSES[0] if random.random() < 0.5 else random.choice(_STATUSES)]
    if random.random() < 0.8:
        lines += _HEADERS[:3]
        if random.random() < 0.03:
            lines[-1] = b"Sec-WebSocket-Accept: {a}"
        offer = head[0] % 3
        if offer and random.random() < 0.9:
            lines.append(_HEADERS[3])
        if head[0] & 128 and random.random() < 0.5:
            lines.append(random.choice((_HEADERS[5], _HEADERS[7], _HEADERS[8])))
    lines += random.choices(_HEADERS, k=int(random.random() ** 2 * 4))
    if random.random() < 0.3:
        lines[1:] = random.sample(lines[1:], len(lines) - 1)
    if random.random() < 0.01:
        lines += (
            [b"A: b"] * 130 if random.random() < 0.5 else [b"A: " + b"x" * random.choice((8189, 8190, 9000))]
        )
    return head + b"\r\n".join([*lines, b"", random.choice(_BODIES)])


def make_proxy(random: Random) -> bytes:
    head = random.randbytes(4)
    proxy = _PROXIES[head[0] % len(_PROXIES)]
    if proxy.scheme == "http":
        status = random.choice((b"HTTP/1.1 200 Connection established", b"HTTP/1.0 200 x", *_STATUSES))
        lines = [status, *random.choices(_HEADERS, k=random.randrange(3)), b"", random.choice(_BODIES)]
        return head + random.choice((b"\r\n", b"\r\n", b"\n")).join(lines)
    if proxy.scheme.startswith("socks4"):
        return head + bytes((0, random.choice((0x5A, 0x5A, 0x5B, 0x5D, 1)))) + random.randbytes(6) + b"behind"
    method = b"\5\2\1\0" if proxy.user and random.random() < 0.8 else b"\5\0"
    address = random.choice(
        (b"\1\x0a\0\0\1", b"\4" + bytes(16), b"\3" + piece(b"host"), b"\3\xffx", b"\2", b"\3\0")
    )
    return head + method + bytes((5, random.choice((0, 0, 0, 1, 8, 255)), 0)) + address + b"\0\x50behind"


UPGRADE = Target(
    "upgrade", "answers to the WebSocket upgrade", 200_000, check_upgrade, make_upgrade,
    (*_HEADERS, *_STATUSES, *_BODIES, b"\r\n", b"\r", b"\n", _ACCEPT, _WRONG_CASE, _ECHO, b"; ", b"=", b","),
)  # fmt: skip
PROXY = Target(
    "proxy", "answers of HTTP and SOCKS proxies", 50_000, check_proxy, make_proxy,
    (*_HEADERS[:3], *_STATUSES, b"\r\n", b"\n", b"\5\0", b"\5\2", b"\1\0", b"\5\0\0\1", b"\0\x5a"),
)  # fmt: skip
