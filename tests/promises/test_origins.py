"""What is meant for one end never leaves for another: redirects, cookies, proxies, and what would not arrive as it was said.

websocket-client 1.9.2 follows redirects to other hosts and from wss to ws with Authorization and Cookie, keeps one cookie jar
for the process, and sends header values with line ends, blanks and characters beyond latin-1 as they are. What it does
right (the proxy's credentials) was seen failing on bugs planted in `transport/proxy.py`.
"""

import base64
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme
import websocket
from websocket._handshake import CookieJar

import connman
from connman.errors import ConnectError, InvalidOption, ProxyRefused, UpgradeRefused
from tests.loopback import read_to_the_end
from tests.promises.peers import CLOSE, PATIENCE, Peers, connection, frame, frames, serve_ws
from tests.proxies import ConnectProxy
from tests.scripted import Guest
from tests.waiting import eventually

TOKEN, COOKIE, QUERY, USER, PASSWORD = "t0ken", "c00kie", "qu3ry", "us3r", "p4ss"
PROXY_USER, PROXY_PASSWORD = "pr0xy-us3r", "pr0xy-p4ss"
OURS = {"X-Key": TOKEN, "Cookie": f"session={COOKIE}"}
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
PROXY_BASIC = base64.b64encode(f"{PROXY_USER}:{PROXY_PASSWORD}".encode()).decode()

AUTHORITY = trustme.CA()
SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
AUTHORITY.issue_cert("127.0.0.1").configure_cert(SERVER)
CLIENT = ssl.create_default_context()
AUTHORITY.configure_trust(CLIENT)

READERS = pytest.mark.parametrize("is_shared", [False, True], ids=["own reader", "shared reader"])
SCHEMES = pytest.mark.parametrize("scheme", ["ws", "wss"])


def over(scheme: str, serve: Callable[[socket.socket], object]) -> Peers:
    """Return a server that serves behind TLS for wss."""

    def secure(sock: socket.socket) -> None:
        with SERVER.wrap_socket(sock, server_side=True) as secured:
            serve(secured)

    return Peers(secure if scheme == "wss" else serve)


# Redirects


def redirect(location: str | None, status: int) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        guest = Guest(sock)
        guest.read_request()
        line = "" if location is None else f"Location: {location}\r\n"
        guest.send(f"HTTP/1.1 {status} Go\r\n{line}Content-Length: 0\r\n\r\n".encode())

    return serve


@READERS
@SCHEMES
@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize(
    "location",
    [
        "ws://127.0.0.1:{}/",
        "wss://127.0.0.1:{}/",
        "http://127.0.0.1:{}/",
        "//127.0.0.1:{}/",
        "/elsewhere",
        "",
        None,
    ],
)
def test_a_redirect_is_an_error_and_nothing_leaves_for_anywhere(
    location: str | None, status: int, scheme: str, is_shared: bool
) -> None:
    """Not to another host, not from wss to ws, not to the same host: following would hand our headers on."""
    with Peers(read_to_the_end) as elsewhere:
        target = None if location is None else location.format(elsewhere.port)
        with over(scheme, redirect(target, status)) as server:
            conn = connection(
                is_shared,
                server.url(scheme),
                proxy=None,
                ssl_context=CLIENT,
                headers=OURS,
                wait=lambda _: 0.0,
            )
            with pytest.raises(UpgradeRefused) as caught:
                conn.get_connected().result(PATIENCE)
            assert caught.value.status == status
            assert caught.value.headers.get("location") == target
            assert conn.state is connman.State.IDLE
            conn.disconnect()
            assert server.dials() == 1
        assert elsewhere.dials() == 0


# Cookies


def cookies(request: str) -> list[str]:
    return [line for line in request.split("\r\n") if line.lower().startswith("cookie")]


@READERS
@SCHEMES
def test_a_cookie_goes_to_no_other_connection(scheme: str, is_shared: bool) -> None:
    """Not to the next one of the same connection, not to one beside it, and not to or from websocket-client's jar."""
    requests: list[str] = []

    def serve(sock: socket.socket) -> None:
        guest = Guest(sock)
        requests.append(guest.read_request())
        # websocket-client keeps those with a domain, for every connection of the process.
        guest.send(guest.upgrade_head(f"Set-Cookie: theirs={len(requests)}; Domain=127.0.0.1; Path=/"))
        for _ in frames(sock):
            sock.sendall(frame((1012).to_bytes(2), CLOSE))

    with over(scheme, serve) as server:

        def connected(**options: Any) -> connman.Connection:
            return connection(
                is_shared, server.url(scheme), proxy=None, ssl_context=CLIENT, wait=lambda _: 0.0, **options
            )

        with connected() as first:
            first.send("enough")
            eventually(lambda: first.generation == 2 and first.is_open)
            with connected(headers={"Cookie": "mine=1"}):
                pass
        assert [cookies(request) for request in requests] == [[], [], ["Cookie: mine=1"]]
        stranger = websocket.create_connection(server.url(scheme), sslopt={"context": CLIENT})
        assert cookies(requests[-1]) == []  # what came for us is not in its jar
        try:
            stranger.shutdown()
            with connected():
                assert cookies(requests[-1]) == []  # and what came for it does not reach us
        finally:
            CookieJar.jar.clear()


# Proxies


class Origin:
    """A WebSocket server that remembers what each request said."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    def __call__(self, sock: socket.socket) -> None:
        guest = Guest(sock)
        self.requests.append(guest.read_request())
        guest.send(guest.upgrade_head())
        for opcode, payload in frames(sock):
            if opcode == CLOSE:
                sock.sendall(frame(payload, CLOSE))


@pytest.fixture
def by_environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def name_it(url: str) -> None:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("https_proxy", url)

    return name_it


@READERS
@SCHEMES
@pytest.mark.parametrize("how", ["option", "environment"])
def test_the_proxys_credentials_are_the_proxys_and_ours_the_origins(
    how: str, scheme: str, is_shared: bool, by_environment: Callable[[str], None]
) -> None:
    """Planted: a CONNECT with the user's headers, and an upgrade with the proxy's, failed this."""
    origin = Origin()
    with over(scheme, origin) as server, ConnectProxy() as proxy:
        url = f"http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}"
        if how == "environment":
            by_environment(url)
        target = f"{scheme}://{USER}:{PASSWORD}@127.0.0.1:{server.port}/path?{QUERY}"
        options = {"proxy": url} if how == "option" else {}
        with connection(is_shared, target, headers=OURS, ssl_context=CLIENT, **options):
            to_proxy, to_origin = proxy.heads[0].decode(), origin.requests[0]
    assert f"Proxy-Authorization: Basic {PROXY_BASIC}\r\n" in to_proxy
    assert len(to_proxy.split("\r\n")) == 5  # what it needs: CONNECT, Host, and that
    for ours in (TOKEN, COOKIE, QUERY, USER, PASSWORD, BASIC, "/path"):
        assert ours not in to_proxy
    for theirs in ("roxy", PROXY_BASIC, PROXY_USER, PROXY_PASSWORD):
        assert theirs not in to_origin
    for ours in (TOKEN, COOKIE, QUERY, BASIC):
        assert ours in to_origin


@READERS
@SCHEMES
@pytest.mark.parametrize("status", [301, 403, 407, 502])
def test_a_proxy_that_refuses_is_not_gone_around(status: int, scheme: str, is_shared: bool) -> None:
    """Nothing reaches the origin directly, nothing is sent through a tunnel that is none, no redirect is followed."""
    heard: list[bytes] = []

    with over(scheme, serve_ws) as origin:

        def refuse(sock: socket.socket) -> None:
            Guest(sock).read_request()
            sock.sendall(
                f"HTTP/1.1 {status} No\r\nLocation: http://127.0.0.1:{origin.port}/\r\n\r\n".encode()
            )
            heard.append(read_to_the_end(sock))

        with Peers(refuse) as proxy:
            conn = connection(
                is_shared,
                origin.url(scheme),
                proxy=proxy.url("http"),
                headers=OURS,
                ssl_context=CLIENT,
                reconnect=False,
            )
            with pytest.raises(ProxyRefused) as caught:
                conn.get_connected().result(PATIENCE)
            assert caught.value.status == status
            conn.disconnect()
            eventually(lambda: heard)
        assert heard == [b""]
        assert origin.dials() == 0


# What would not arrive as it was said


BAD_VALUES = {
    "beyond latin-1": "v4lue€",
    "a lone surrogate": "v4lue\ud800",
    "a blank before": " v4lue",
    "a blank behind": "v4lue ",
    "a tab before": "\tv4lue",
    "a tab behind": "v4lue\t",
    "nothing but a blank": " ",
    "delete": "v4lue\x7f",
    "bell": "v4lue\x07",
}


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_value_that_would_not_arrive_as_it_is_is_refused(value: str) -> None:
    """Line ends and NUL are in test_bad_input.py, for every place where text may enter a request."""
    for name in ("X-Key", "Authorization", "Origin", "Host", "Cookie", "User-Agent"):
        for headers in ({name: value}, [(name, value)]):
            with pytest.raises(InvalidOption) as caught:
                connman.Connection("ws://127.0.0.1:1/", headers=headers)
            assert "v4lue" not in str(caught.value)
    check_refused_at_the_dial(lambda: {"X-Key": value})


def check_refused_at_the_dial(headers: Callable[[], dict[str, str]]) -> None:
    with Peers(serve_ws) as server:
        conn = connman.Connection(server.url(), proxy=None, headers=headers, reconnect=False)
        with pytest.raises(ConnectError) as caught:
            conn.get_connected().result(PATIENCE)
        assert isinstance(caught.value.__cause__, InvalidOption)
        conn.disconnect()
        assert server.dials() == 0


@pytest.mark.parametrize(
    "name", ["", " X", "X ", "X:", "X\t", "Ä", "X Y", "(X)", "X\r\nY", "X\0", "Content-Length", "Transfer-Encoding", "Upgrade", "connection", "Sec-WebSocket-Key"]
)  # fmt: skip
def test_a_header_name_that_is_none_or_not_ours_to_set_is_refused(name: str) -> None:
    """A blank before the colon, or a second length, is how requests are smuggled past a proxy (RFC 9112 5.1, 11.2)."""
    with pytest.raises(InvalidOption):
        connman.Connection("ws://127.0.0.1:1/", headers={name: "5"})


@pytest.mark.parametrize("value", ["", "a", "a b", "a\tb", "ä", 'a="b"; c', "Bearer a.b-c"])
def test_any_other_value_arrives_as_it_is(value: str) -> None:
    origin = Origin()
    with Peers(origin) as server, connman.Connection(server.url(), proxy=None, headers={"X-Key": value}):
        assert f"\r\nX-Key: {value}\r\n" in origin.requests[0]
