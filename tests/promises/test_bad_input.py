"""Bad input, from the user or from the network, ends in a documented error: nothing is injected, nothing hangs.

websocket-client 1.9.2 lets line ends through in headers, origin, host, cookies and subprotocols, follows redirects, and its
timeouts are those of each `recv`. Seen failing here on planted bugs: without the look at white space and controls in a URL,
or in a header's value, what would end a line is sent; with a path that is unquoted what is quoted does; with redirects that
are retried they are dialled for ever; with longer deadlines those about them fail, with one for each step that of one for all.
"""

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

import connman
from connman.errors import (
    ConnectError,
    ConnectTimeout,
    HandshakeTimeout,
    InvalidOption,
    InvalidTarget,
    UpgradeRefused,
)
from connman.testing import FaultProxy
from tests.loopback import drip, hanging_port, read_to_the_end
from tests.promises.peers import PATIENCE, Peers, accept, frame, serve_ws, within
from tests.scripted import Guest

# Targets


BAD_TARGETS: list[object] = [
    "", "localhost", "localhost:80", "//localhost:80", "ws:/localhost", "ws:localhost", "://localhost", "ws://", "ws:///path",
    "ws://:80/", "ws://localhost:0/", "ws://localhost:65536/", "ws://localhost:-1/", "ws://localhost:80x/", "ws://localhost:٣/",
    "ws://localhost: 80/", "ws://local host/", "ws://localhost/a b", "ws://localhost/#part", "ws://localhost\\@evil/",
    "ws://[::1/", "ws://::1]/", "ws://[nonsense]/", "ws://a..b/", "ws://" + "a" * 64 + "/", "ws://./", "ws://a/\x7f", "ws://a\t/",
    "http://localhost/", "https://localhost/", "wws://localhost/", "file:///etc/passwd", "javascript:alert(1)",
    "tcp://localhost", "tcp://localhost:5000/path", "tcp://user@localhost:5000", "tls://localhost", "unix://relative",
    "unix://", "memory://", ("localhost",), ("localhost", 1, 2), ("localhost", "80"), ("localhost", 0), ("localhost", 65536),
    ("localhost", True), ("", 80), (b"localhost", 80), ("local\nhost", 80), None, 80, b"ws://localhost/", ["ws://localhost/"],
]  # fmt: skip


@pytest.mark.parametrize("target", BAD_TARGETS, ids=repr)
def test_a_malformed_target_is_refused_at_once(target: object) -> None:
    threads = set(threading.enumerate())
    for make in (connman.Connection, connman.connect, connman.Pool().add_connection):
        with pytest.raises(InvalidTarget):
            make(target)
    assert set(threading.enumerate()) <= threads


# Injection


EVILS = [
    "\r\nX-Evil: 1",
    "\nX-Evil: 1",
    "\rX-Evil: 1",
    "\0X-Evil: 1",
    "\r\n\r\nGET /evil HTTP/1.1\r\nX-Evil: 1\r\n\r\n",
]
PLACES: dict[str, Callable[[str, int], tuple[object, dict[str, Any]]]] = {
    "header value": lambda evil, port: (f"ws://127.0.0.1:{port}/", {"headers": {"X-Good": f"a{evil}"}}),
    "header name": lambda evil, port: (f"ws://127.0.0.1:{port}/", {"headers": {f"X-Good{evil}": "a"}}),
    "header pairs": lambda evil, port: (f"ws://127.0.0.1:{port}/", {"headers": [("X-Good", f"a{evil}")]}),
    "headers called": lambda evil, port: (
        f"ws://127.0.0.1:{port}/",
        {"headers": lambda: {"X-Good": f"a{evil}"}},
    ),
    "user-agent": lambda evil, port: (f"ws://127.0.0.1:{port}/", {"headers": {"User-Agent": f"a{evil}"}}),
    "cookie": lambda evil, port: (f"ws://127.0.0.1:{port}/", {"headers": {"Cookie": f"a=b{evil}"}}),
    "origin": lambda evil, port: (f"ws://127.0.0.1:{port}/", {"headers": {"Origin": f"http://a{evil}"}}),
    "host header": lambda evil, port: (f"ws://127.0.0.1:{port}/", {"headers": {"Host": f"a{evil}"}}),
    "subprotocol": lambda evil, port: (f"ws://127.0.0.1:{port}/", {"subprotocols": [f"a{evil}"]}),
    "host": lambda evil, port: (f"ws://127.0.0.1{evil}:{port}/", {}),
    "path": lambda evil, port: (f"ws://127.0.0.1:{port}/a{evil}", {}),
    "query": lambda evil, port: (f"ws://127.0.0.1:{port}/?a={evil}", {}),
    "user": lambda evil, port: (f"ws://u{evil}:p@127.0.0.1:{port}/", {}),
    "password": lambda evil, port: (f"ws://u:p{evil}@127.0.0.1:{port}/", {}),
    "proxy user": lambda evil, port: ("ws://192.0.2.1/", {"proxy": f"http://u{evil}:p@127.0.0.1:{port}"}),
    "proxy password": lambda evil, port: ("ws://192.0.2.1/", {"proxy": f"http://u:p{evil}@127.0.0.1:{port}"}),
    "proxy host": lambda evil, port: ("ws://192.0.2.1/", {"proxy": f"http://127.0.0.1{evil}:{port}"}),
}


def quoted(text: str) -> str:
    return "".join(f"%{ord(c):02x}" if c in "\r\n\0 :/?" else c for c in text)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("evil", EVILS, ids=repr)
def test_what_would_end_a_line_is_refused_before_anything_is_sent(place: str, evil: str) -> None:
    heard: list[bytes] = []
    with Peers(lambda sock: heard.append(sock.recv(65536))) as server:
        target, options = PLACES[place](evil, server.port)
        with pytest.raises((InvalidTarget, InvalidOption, ConnectError)) as caught:
            conn = connman.Connection(target, **{"proxy": None, "reconnect": False, **options})
            # Only what is asked for at each attempt gets as far as this.
            assert place == "headers called"
            conn.get_connected().result(PATIENCE)
        assert "X-Evil" not in str(caught.value)
        if place == "headers called":
            assert isinstance(caught.value.__cause__, InvalidOption)
            conn.disconnect()
        assert server.dials() == 0
    assert heard == []


@pytest.mark.parametrize(
    "place", ["path", "query", "user", "password", "proxy user", "proxy password", "host", "proxy host"]
)
@pytest.mark.parametrize("evil", EVILS, ids=repr)
def test_what_would_end_a_line_once_it_is_unquoted_never_does(place: str, evil: str) -> None:
    """Percent-encoded it passes a URL's check, and some clients decode it afterwards."""
    heard: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        heard.append(sock.recv(65536))

    with Peers(serve) as server:
        target, options = PLACES[place](quoted(evil), server.port)
        try:
            conn = connman.Connection(target, **{"proxy": None, "reconnect": False, **options})
        except (InvalidTarget, InvalidOption):
            assert server.dials() == 0
            return
        with pytest.raises(ConnectError):
            conn.get_connected().result(PATIENCE)
        conn.disconnect()
    for request in heard:
        head, _, behind = request.partition(b"\r\n\r\n")
        assert behind == b""
        lines = head.split(b"\r\n")
        assert not re.search(rb"[\r\n\0]", b"".join(lines))
        assert [line for line in lines[1:] if line.lower().startswith(b"x-evil")] == []
        assert lines[0].count(b" ") == 2


# Answers: tests/hostile has every bad one.


def plain(data: bytes) -> Callable[[Guest], bytes]:
    return lambda _: data


def answering(answer: Callable[[Guest], bytes]) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        guest = Guest(sock)
        guest.read_request()
        guest.send(answer(guest))
        sock.shutdown(socket.SHUT_WR)
        read_to_the_end(sock)

    return serve


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(status: int) -> None:
    with Peers(serve_ws) as elsewhere:
        location = f"ws://127.0.0.1:{elsewhere.port}/"
        head = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        with Peers(answering(plain(head.encode()))) as server:
            # Retrying is on: asking again would get the same answer, so it ends.
            conn = connman.Connection(
                server.url(), proxy=None, headers={"Authorization": "Bearer token"}, wait=lambda _: 0.0
            )
            with pytest.raises(UpgradeRefused) as caught:
                conn.get_connected().result(PATIENCE)
            assert caught.value.status == status
            assert caught.value.headers["location"] == location
            assert server.dials() == 1
            conn.disconnect()
        assert elsewhere.dials() == 0


# One deadline, of which tests/hostile has more: whoever is dialled, stalls and drips in every phase.


OPEN_TIMEOUT = 0.5
SLACK = 1.0
DEADLINE = {"open_timeout": OPEN_TIMEOUT, "reconnect": False, "proxy": None}


def ends_in_time(
    conn: connman.Connection, kind: type[ConnectError] = ConnectTimeout, timeout: float = OPEN_TIMEOUT
) -> ConnectError:
    """Return the error with which opening ends within the deadline."""
    error = within(timeout + SLACK, conn.get_connected().exception)
    assert isinstance(error, kind)
    within(1.0, conn.disconnect)
    return error


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float | None], None]]:
    """Have names under .invalid be this machine's, after a time; None: never, until the test ends."""
    over = threading.Event()
    lookup = socket.getaddrinfo
    seconds: list[float | None] = [0.0]

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not str(host).endswith(".invalid"):
            return lookup(host, *args, **kwargs)
        over.wait(60 if seconds[0] is None else seconds[0])
        return lookup("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield lambda chosen: seconds.__setitem__(0, chosen)
    over.set()


@pytest.mark.slow
def test_the_deadline_holds_for_a_name(slow_names: Callable[[float | None], None]) -> None:
    slow_names(None)
    error = ends_in_time(connman.Connection("ws://hangs.invalid/", **DEADLINE))
    assert [step.phase for step in error.attempts] == ["dns"]


def test_the_deadline_holds_for_tcp() -> None:
    with hanging_port() as port:
        error = ends_in_time(connman.Connection(f"ws://127.0.0.1:{port}/", **DEADLINE))
        assert [step.phase for step in error.attempts] == ["tcp"]


def test_the_deadline_holds_for_tls_that_drips() -> None:
    authority = trustme.CA()
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    authority.configure_trust(client_side)

    def serve(sock: socket.socket) -> None:
        with server_side.wrap_socket(sock, server_side=True) as secure:
            serve_ws(secure)

    with Peers(serve) as server, FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.rate = 100
        error = ends_in_time(connman.Connection(proxy.url("wss"), ssl_context=client_side, **DEADLINE))
        assert [step.phase for step in error.attempts] == ["tcp", "tls"]


def test_it_is_one_deadline_over_all_of_them(slow_names: Callable[[float | None], None]) -> None:
    """Each step takes a part of it, and none takes too long by itself: with a deadline for each it would open."""
    slow_names(0.3)

    def serve(sock: socket.socket) -> None:
        guest = Guest(sock)
        assert guest.read_request().startswith("CONNECT slow.invalid:80 ")
        threading.Event().wait(0.1)
        guest.send(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Event().wait(0.8)
        serve_ws(sock)

    with Peers(serve) as server:
        options = {**DEADLINE, "open_timeout": 1.0, "proxy": f"http://proxy.invalid:{server.port}"}
        error = ends_in_time(connman.Connection("ws://slow.invalid/", **options), timeout=1.0)
        assert [(step.phase, step.cause is None) for step in error.attempts] == [
            ("dns", True), ("tcp", True), ("proxy", True), ("upgrade", False),
        ]  # fmt: skip


def test_a_login_has_a_deadline_of_its_own() -> None:
    def serve(sock: socket.socket) -> None:
        accept(sock)
        drip(sock, frame("not yet"))

    def handshake(channel: Any) -> None:
        while channel.recv() != "welcome":
            pass

    with Peers(serve) as server:
        conn = connman.Connection(
            server.url(), handshake=handshake, handshake_timeout=OPEN_TIMEOUT, reconnect=False, proxy=None
        )
        ends_in_time(conn, HandshakeTimeout)
