"""Opening transports over HTTP, and what holds for connections on them."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import connman
from connman.errors import (
    BadUpgrade,
    CertificateError,
    ConnectError,
    ConnectionClosed,
    ConnectTimeout,
    HandshakeFailed,
    InvalidOption,
    ProxyRefused,
    RequestRefused,
    Retry,
    retry_verdict,
)
from connman.transport.openers import EndpointDialer
from connman.transport.sockjs import ask_info
from tests.loopback import (
    PATIENCE,
    Aborted,
    Server,
    hanging_port,
    in_thread,
    make_dial,
    refusing_port,
    silent,
)
from tests.promises.peers import connection, within
from tests.proxies import ConnectProxy, SocksProxy
from tests.transport.sockjs_peers import SockjsServer, TlsSocket, echoing, read_request
from tests.transport.test_conformance import tls_contexts
from tests.waiting import eventually

KINDS = pytest.mark.parametrize("kind", ["streaming", "polling"])
SHARED = pytest.mark.parametrize("is_shared", [False, True], ids=["thread", "shared"])
SECRET = "S3CR3T"


def says(data: bytes) -> Callable[[socket.socket], None]:
    """Answer the first request with these bytes."""

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(EOFError):
            read_request(sock)
            sock.sendall(data)
            read_request(sock)

    return serve


def answer(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def failure(data: bytes, **options: Any) -> ConnectError:
    """Return why a dial failed whose request was answered with these bytes."""
    with Server(says(data)) as server:
        dial = make_dial(f"xhr-streaming+http://127.0.0.1:{server.port}/base?token={SECRET}", **options)
        with pytest.raises(ConnectError) as caught:
            EndpointDialer().dial(dial)
        assert SECRET not in str(caught.value)
        assert caught.value.attempts
        return caught.value


# Refusals


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(404, Retry.NEVER), (500, Retry.AGAIN), (401, Retry.ONCE), (302, Retry.NEVER), (204, Retry.AGAIN)],
)
def test_another_status_is_a_refusal_that_says_all(status: int, verdict: Retry) -> None:
    error = failure(answer(f"{status} Whatever", b"" if status == 204 else b"why", "X-Why: because"))
    assert isinstance(error, RequestRefused)
    assert (error.status, error.headers["x-why"]) == (status, "because")
    assert error.body == (b"" if status == 204 else b"why")
    assert retry_verdict(error) is verdict
    assert [step.phase for step in error.attempts][-1] == "request"


BAD = {
    "a page of somebody else's": answer("200 OK", b"<html>please log in</html>"),
    "the same, without an end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n<html>\r\n",
    "no opening frame": answer("200 OK", b""),
    "heartbeats only": answer("200 OK", b"h" * 2048 + b"\n"),
    "an opening frame cut short": answer("200 OK", b"o"),
    "a message first": answer("200 OK", b'a["x"]\no\n'),
    "a line of letters": answer("200 OK", b"open\n"),
    "endless heartbeats": answer("200 OK", b"h\n" * 50_000),
    "a broken host": answer("200 OK", b'o{"hostname":"a b"}\n'),
    "no host": answer("200 OK", b'o{"hostname":5}\n'),
    "deep nesting": answer("200 OK", b"o" + b"[" * 60_000 + b"\n"),
    "compressed": answer("200 OK", b"o\n", "Content-Encoding: gzip"),
    "no HTTP": b"SSH-2.0-OpenSSH_9\r\n",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_does_not_open_a_session_is_refused_at_once(data: bytes) -> None:
    error = failure(data)
    assert isinstance(error, BadUpgrade)
    assert retry_verdict(error) is Retry.AGAIN


def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    for data in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nh\n"):
        error = failure(data, open_timeout=0.1)
        assert isinstance(error, ConnectTimeout)


def test_a_session_that_is_closed_at_once_opens_and_ends() -> None:
    with SockjsServer() as server:
        server.opening = b'c[3000,"Go away!"]\n'
        transport = EndpointDialer().dial(make_dial(server.target))
        with pytest.raises(ConnectionClosed) as caught:
            transport.receive()
        assert caught.value.code == 3000
        transport.dispose()


def test_the_log_tells_the_phases() -> None:
    with SockjsServer("xhr-streaming+https", tls_contexts(TlsSocket)[0]) as server:
        dial = make_dial(server.target, ssl_context=tls_contexts(TlsSocket)[1])
        EndpointDialer().dial(dial).dispose()
        assert [step.phase for step in dial.log][-4:] == ["tcp", "tls", "request", "open"]


def test_the_certificate_is_checked() -> None:
    with (
        SockjsServer("xhr-polling+https", tls_contexts(TlsSocket)[0]) as server,
        pytest.raises(CertificateError),
    ):
        EndpointDialer().dial(make_dial(server.target))


# The host that the server names


def test_another_host_gets_all_that_follows() -> None:
    with SockjsServer() as server:
        server.opening = b'o{"hostname":"localhost"}\n'
        transport = EndpointDialer().dial(make_dial(server.target))
        peer = server.accept()
        transport.send(["x"], PATIENCE)
        assert peer.recv() == b"x"
        peer.frames(b'a["y"]\n', is_last=True)
        assert transport.receive() == ["y"]
        eventually(lambda: len(server.requests) == 3)
        hosts = [request.headers["host"].partition(":")[0] for request in server.requests]
        assert hosts == ["127.0.0.1", "localhost", "localhost"]
        transport.dispose()


# /info


def test_a_server_says_what_it_has() -> None:
    seen: list[str] = []

    def serve(sock: socket.socket) -> None:
        request = read_request(sock)
        seen.append(f"{request.method} {request.path}?{request.query}")
        request.answer("200 OK", b'{"websocket": true, "cookie_needed": false}')

    with Server(serve) as server:
        dial = make_dial(f"xhr-polling+http://127.0.0.1:{server.port}/base/?a=b")
        assert ask_info(dial) == {"websocket": True, "cookie_needed": False}
        assert seen == ["GET /base/info?a=b"]
        assert [step.phase for step in dial.log] == ["tcp", "info"]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (answer("404 No", b""), RequestRefused),
        (answer("200 OK", b"[]"), BadUpgrade),
        (answer("200 OK", b"{"), BadUpgrade),
    ],
)
def test_a_server_that_says_nothing_of_use(data: bytes, kind: type[ConnectError]) -> None:
    with Server(says(data)) as server, pytest.raises(kind):
        ask_info(make_dial(f"xhr-polling+http://127.0.0.1:{server.port}/base"))


# Connections


@KINDS
@SHARED
def test_a_connection_and_what_its_callbacks_get(kind: str, is_shared: bool) -> None:
    got: list[object] = []
    with echoing(f"xhr-{kind}+http") as server:
        conn = connection(
            is_shared, server.target, proxy=None, on_data=lambda _, message: got.append(message)
        )
        conn.wait_open(PATIENCE)
        assert conn.transport_name == f"xhr_{kind}"
        conn.send_many(map(str, range(300)))
        eventually(lambda: len(got) == 300)
        assert got == list(map(str, range(300)))
        with pytest.raises(TypeError):
            conn.send(b"binary")
        assert conn.is_open
        conn.disconnect(timeout=PATIENCE)


@KINDS
def test_a_login_and_what_came_behind_it(kind: str) -> None:
    def log_in(channel: Any) -> None:
        channel.send("pass")
        assert channel.recv() == "pass"
        channel.send("more")

    with echoing(f"xhr-{kind}+http") as server:
        conn = connman.connect(server.target, handshake=log_in, proxy=None)
        assert conn.wait_open(PATIENCE).recv(PATIENCE) == "more"
        conn.disconnect()


def test_a_login_that_fails_closes_what_was_opened() -> None:
    def log_in(channel: Any) -> None:
        raise ValueError("no")

    with SockjsServer() as server:
        conn = connman.connect(server.target, handshake=log_in, reconnect=False, proxy=None)
        assert isinstance(conn.get_connected().exception(PATIENCE), HandshakeFailed)
        with pytest.raises(EOFError):
            server.accept().recv()
        conn.disconnect()


@SHARED
def test_a_connection_comes_back_with_a_new_session(is_shared: bool) -> None:
    with SockjsServer() as server:
        conn = connection(is_shared, server.target, proxy=None, wait=lambda _: 0.01)
        conn.wait_open(PATIENCE)
        server.accept().drop()
        eventually(lambda: conn.generation == 2)
        conn.wait_open(PATIENCE)
        first, second = {request.session for request in server.requests}
        assert first != second
        conn.disconnect(timeout=PATIENCE)


def test_our_end_lets_out_what_was_sent() -> None:
    with SockjsServer() as server:
        conn = connman.connect(server.target, proxy=None)
        conn.wait_open(PATIENCE)
        peer = server.accept()
        conn.send_many(["x"] * 500)
        reading = in_thread(lambda: [peer.recv() for _ in range(500)])
        conn.disconnect(timeout=PATIENCE)
        assert reading.result(PATIENCE) == [b"x"] * 500
        with pytest.raises(EOFError):
            peer.recv()


def test_a_child_process_does_not_disturb_its_parent() -> None:
    with echoing() as server, connman.connect(server.target, proxy=None) as conn:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if conn.state is connman.State.IDLE else 1)
        assert os.waitpid(pid, 0)[1] == 0
        conn.send("still here")
        assert conn.recv(PATIENCE) == "still here"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"framing": connman.lines()}, "framing is for byte streams"),
        ({"compression": "deflate"}, "compression is for ws and wss"),
        ({"subprotocols": ["x"]}, "subprotocols are for ws and wss"),
    ],
)
def test_options_that_mean_nothing_over_http_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        connman.Connection("xhr-polling+http://h/base", **options)


# Ways there


@pytest.mark.parametrize("tls", [False, True])
@KINDS
def test_through_proxies(kind: str, tls: bool) -> None:
    scheme = f"xhr-{kind}+http{'s' if tls else ''}"
    options = {"ssl_context": tls_contexts(TlsSocket)[1]} if tls else {}
    with (
        echoing(scheme, tls_contexts(TlsSocket)[0] if tls else None) as server,
        ConnectProxy(b"dTpw") as proxy,
        SocksProxy() as socks,
    ):
        ways = [f"http://u:p@127.0.0.1:{proxy.port}", f"socks5h://127.0.0.1:{socks.port}"]
        for way in ways:
            with connman.connect(server.target, proxy=way, **options) as conn:
                conn.send("x")
                assert conn.recv(PATIENCE) == "x"
        # One for what arrives, one for what is sent.
        assert len(proxy.heads) == len(socks.asked) == 2


def test_a_proxy_that_refuses_is_told() -> None:
    with ConnectProxy(b"dTpw") as proxy, pytest.raises(ProxyRefused):
        EndpointDialer().dial(
            make_dial("xhr-polling+http://127.0.0.1:1/b", proxy=f"http://127.0.0.1:{proxy.port}")
        )


@pytest.mark.parametrize(
    ("scheme", "variable"), [("http", "http_proxy"), ("https", "HTTPS_PROXY"), ("http", "all_proxy")]
)
def test_the_environment_names_a_proxy(monkeypatch: pytest.MonkeyPatch, scheme: str, variable: str) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with ConnectProxy(b"nobody") as proxy:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(ProxyRefused):
            EndpointDialer().dial(make_dial(f"xhr-streaming+{scheme}://example.invalid/b", proxy=...))


# disconnect() in every phase, from another thread


@contextlib.contextmanager
def lookup_hangs() -> Iterator[tuple[str, Callable[[], object], dict[str, Any]]]:
    asked, answers = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        asked.set()
        answers.wait(PATIENCE)
        raise socket.gaierror("cancelled")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", hang)
        try:
            yield "xhr-streaming+http://example.invalid/base", asked.is_set, {}
        finally:
            answers.set()


@contextlib.contextmanager
def tcp_hangs() -> Iterator[tuple[str, Callable[[], object], dict[str, Any]]]:
    with hanging_port() as port:
        yield f"xhr-streaming+http://127.0.0.1:{port}/base", lambda: True, {}


def peer_hangs(scheme: str, data: bytes) -> Any:
    @contextlib.contextmanager
    def phase() -> Iterator[tuple[str, Callable[[], object], dict[str, Any]]]:
        with Server(says(data) if data else silent) as server:
            yield f"{scheme}://127.0.0.1:{server.port}/base", lambda: server.accepted, {}

    return phase


def open_and(act: Callable[[connman.Connection], object], kind: str = "streaming") -> Any:
    """An open connection, with something going on whose peer does not answer."""

    @contextlib.contextmanager
    def phase() -> Iterator[tuple[str, Callable[[], object], dict[str, Any]]]:
        with SockjsServer(f"xhr-{kind}+http") as server:
            yield server.target, lambda: server.requests, {"on_open": act}

    return phase


PHASES = {
    "lookup": lookup_hangs,
    "tcp": tcp_hangs,
    "tls": peer_hangs("xhr-streaming+https", b""),
    "request": peer_hangs("xhr-streaming+http", b""),
    "the head": peer_hangs("xhr-polling+http", b"HTTP/1.1 200 OK\r\nContent-"),
    "opening": peer_hangs("xhr-streaming+http", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhhh\n"),
    "streaming": open_and(lambda _: None),
    "polling": open_and(lambda _: None, "polling"),
    "sending": open_and(lambda conn: conn.send("x")),
    "sending much": open_and(lambda conn: in_thread(conn.send, "x" * 20_000_000)),
}


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
@SHARED
def test_disconnect_ends_it_in_every_phase(phase: Any, is_shared: bool) -> None:
    with phase() as (target, is_there, options):
        conn = connection(is_shared, target, proxy=None, close_timeout=0.3, **options)
        conn.connect()
        eventually(is_there)
        within(2.0, conn.disconnect)
        assert not [
            thread
            for thread in threading.enumerate()
            if thread.name.startswith(("connman-receive", "connman-send"))
        ]


@KINDS
def test_an_abort_of_the_dial_ends_it_in_every_phase(kind: str) -> None:
    for phase in (lookup_hangs, tcp_hangs, peer_hangs(f"xhr-{kind}+http", b"")):
        with phase() as (target, is_there, _):
            dial, error = make_dial(target), Aborted("enough")
            dialling = in_thread(EndpointDialer().dial, dial)
            eventually(is_there)
            dial.abort(error)
            assert dialling.exception(PATIENCE) is error


def test_a_port_without_a_server_is_a_connect_error() -> None:
    with refusing_port() as port, pytest.raises(ConnectError, match="refused"):
        EndpointDialer().dial(make_dial(f"xhr-polling+http://127.0.0.1:{port}/"))
