"""The head of an upgrade, judged: what is let in, and what is refused with which status."""

import pytest

from connman.relay.head import HttpRefused, Request, accept, check_host, check_origin, parse_request, refuse
from tests.relay.rig import upgrade


def parsed(**headers: str | None) -> Request:
    return parse_request(upgrade(**headers)[:-4])


def refused(head: bytes) -> tuple[int, str]:
    with pytest.raises(HttpRefused) as error:
        parse_request(head)
    return error.value.status, error.value.why


def test_a_plain_upgrade() -> None:
    request = parsed(path="/any/path?x=1", x_forwarded_for="10.0.0.1")
    assert request.path == "/any/path?x=1"
    assert request.get("x-forwarded-for") == "10.0.0.1"
    assert request.bearer is None
    # The example of RFC 6455 1.3.
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n" in accept(request)


@pytest.mark.parametrize("value", ["Upgrade", "upgrade", "keep-alive, Upgrade", "Upgrade,x"])
def test_what_browsers_say_of_the_connection(value: str) -> None:
    assert parsed(connection=value).path == "/"


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer t-o-k", "t-o-k"),
        ("bearer  t-o-k ", "t-o-k"),
        ("Bearer", None),
        ("Basic t-o-k", None),
        ("", None),
    ],
)
def test_the_token_of_a_request(value: str, token: str | None) -> None:
    request = parsed(authorization=value)
    assert request.bearer == token
    assert "t-o-k" not in repr(request)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"upgrade": None}, 426),
        ({"upgrade": "h2c"}, 426),
        ({"connection": "keep-alive"}, 426),
        ({"sec_websocket_version": "8"}, 426),
        ({"sec_websocket_version": None}, 426),
        ({"sec_websocket_key": None}, 400),
        ({"sec_websocket_key": "short"}, 400),
        ({"sec_websocket_key": "dGhlIHNhbXBsZQ=="}, 400),
        ({"sec_websocket_key": "ü"}, 400),
        ({"content_length": "5"}, 400),
        ({"transfer_encoding": "chunked"}, 400),
        ({"x": "a\x00b"}, 400),
        ({"x": "a\nb"}, 400),
        ({"x": "y" * 9000}, 431),
    ],
)
def test_what_is_no_upgrade(headers: dict[str, str | None], status: int) -> None:
    assert refused(upgrade(**headers)[:-4]) == (status, "head")


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"", 400),
        (b"GET /", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET x HTTP/1.1", 400),
        (b"GET httpx HTTP/1.1", 400),
        (b"GET http:///x HTTP/1.1", 400),
        (b"GET http://evil.example/ HTTP/1.1", 400),
        (b"GET /\nX-Forwarded-For:1.2.3.4 HTTP/1.1", 400),
        (b"GET /\rx HTTP/1.1", 400),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"GET / HTTP/1.1\nx: y", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"POST / HTTP/1.1", 405),
        (b"GET / HTTP/1.0", 505),
        (b"GET / HTTP/2.0", 505),
    ],
)
def test_wrong_first_lines(first: bytes, status: int) -> None:
    assert refused(first + upgrade()[14:-4]) == (status, "head")


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1/x", "HTTPS://127.0.0.1", "http://127.0.0.1?x", "/?a=http://b"]
)
def test_targets(target: str) -> None:
    assert parsed(path=target).path == target


@pytest.mark.parametrize("more", [b"no colon", b" folded: x", b"na me: x", b": x", b"x : y"])
def test_malformed_headers(more: bytes) -> None:
    assert refused(upgrade()[:-2] + more) == (400, "head")


def test_many_headers() -> None:
    assert refused(upgrade()[:-2] + b"\r\n".join([b"x: y"] * 130)) == (431, "head")


@pytest.mark.parametrize(
    "name", [b"Host", b"origin", b"AUTHORIZATION", b"Sec-WebSocket-Key", b"Content-Length"]
)
def test_headers_that_contradict_each_other(name: bytes) -> None:
    assert refused(upgrade()[:-2] + name + b": 0\r\n" + name + b": 0") == (400, "head")


def test_no_host() -> None:
    assert refused(b"\r\n".join(line for line in upgrade()[:-4].split(b"\r\n") if b"host" not in line)) == (
        400,
        "head",
    )


def check(origin: str | None, origins: tuple[str, ...] | None, host: str = "relay.example:8765") -> bool:
    try:
        check_origin(parsed(host=host, origin=origin), origins)
    except HttpRefused as error:
        return (error.status, error.why) != (403, "origin")
    return True


def test_origins() -> None:
    assert check(None, None)
    assert check(None, ("https://good.example",))
    assert check("http://relay.example:8765", None)
    assert check("https://Relay.Example:8765", None)
    assert not check("http://relay.example", None)
    assert not check("http://evil.example", None)
    assert not check("null", None)
    assert check("https://good.example", ("https://good.example",))
    assert not check("https://good.example.evil", ("https://good.example",))
    assert not check("http://good.example", ("https://good.example",))
    assert not check("http://relay.example:8765", ("https://good.example",))
    assert check("http://evil.example", ("*",))


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1:8765", True),
        ("localhost:8765", True),
        ("LOCALHOST.", True),
        ("[::1]:8765", True),
        ("relay.internal", True),
        ("evil.example:8765", False),
        ("", False),
        ("[", False),
    ],
)
def test_hosts(host: str, good: bool) -> None:
    request = parsed(host=host)
    if good:
        check_host(request, ("Relay.internal",))
    else:
        with pytest.raises(HttpRefused):
            check_host(request, ("Relay.internal",))


def test_a_refusal_on_the_wire() -> None:
    answer = refuse(HttpRefused(429, "too many attempts", "rate", {"Retry-After": "3"}))
    assert answer == (
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nConnection: close\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 18\r\n\r\ntoo many attempts\n"
    )
