"""Opening ws and wss: scripted servers that behave, lie, drip, flood and stall, and real ones."""

import base64
import contextlib
import gc
import logging
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import trustme
from websocket._handshake import CookieJar
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websockets

from connman.endpoint import Endpoint
from connman.errors import (
    BadUpgrade,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnectTimeout,
    InvalidOption,
    InvalidTarget,
    UpgradeRefused,
)
from connman.transport.base import Dial
from connman.transport.pipe import Pipe
from connman.transport.websocket import open_websocket
from tests import loopback
from tests.scripted import Guest, ScriptedServer, serve

HELLO = b"\x81\x05hello"
SECRET = "S3CR3T"


def make_dial(target: object, *, headers: Sequence[tuple[str, str]] = (), **options: Any) -> Dial:
    dial = loopback.make_dial(target, ping_interval=None, **options)
    dial.begin(headers)
    return dial


@contextlib.contextmanager
def opened(dial: Dial) -> Iterator[Pipe]:
    pipe = open_websocket(dial)
    try:
        yield pipe
    finally:
        pipe.dispose()


def upgrading(*extra: str, then: bytes = b"") -> Callable[[Guest], None]:
    """Return a script that accepts with these header lines, sends frames in the same packet, and waits."""

    def script(guest: Guest) -> None:
        guest.read_request()
        guest.send(guest.upgrade_head(*extra) + then)
        guest.wait_closed()

    return script


def answering(data: bytes, *, stays: bool = False) -> Callable[[Guest], None]:
    """Return a script that answers the request with these bytes, then closes, or stays and says no more."""

    def script(guest: Guest) -> None:
        guest.read_request()
        guest.send(data)
        if stays:
            guest.wait_closed()

    return script


def refusal(script: Callable[[Guest], None], **options: Any) -> ConnectError:
    """Return the error of opening a websocket to this server."""
    with serve(script) as server, pytest.raises(ConnectError) as caught:
        open_websocket(make_dial(server.url(), **options))
    return caught.value


def header_lines(server: ScriptedServer) -> list[str]:
    lines = server.guests[0].request.split("\r\n")
    assert lines[-2:] == ["", ""]
    return lines[:-2]


# When all is well.


def test_opens_and_delivers_what_came_with_the_answer() -> None:
    with (
        serve(upgrading(then=HELLO + b"\x82\x01x\x81\x03cut"[:-1])) as server,
        opened(make_dial(server.url())) as pipe,
    ):
        assert pipe.receive() == ["hello", b"x"]
        assert (pipe.name, pipe.subprotocol) == ("ws", None)


def test_opens_when_the_answer_drips_in() -> None:
    def script(guest: Guest) -> None:
        guest.read_request()
        guest.drip(guest.upgrade_head() + HELLO, seconds=0)
        guest.wait_closed()

    with serve(script) as server, opened(make_dial(server.url())) as pipe:
        assert pipe.receive() == ["hello"]


def test_the_request_says_what_it_should() -> None:
    with serve(upgrading()) as server, opened(make_dial(server.url("/a;b=c/%20;d?q=1&r"))):
        lines = header_lines(server)
        assert lines[0] == "GET /a;b=c/%20;d?q=1&r HTTP/1.1"
        names = sorted(line.partition(":")[0].lower() for line in lines[1:])
        assert names == [
            "connection", "host", "sec-websocket-key", "sec-websocket-version", "upgrade", "user-agent"
        ]  # fmt: skip
        assert {f"Host: 127.0.0.1:{server.port}", "Sec-WebSocket-Version: 13"} < set(lines)


def test_the_user_s_headers_all_arrive_as_latin_1() -> None:
    headers = [
        ("X-A", "1"),
        ("X-A", "2"),
        ("Host", "other.example"),
        ("Origin", "https://o"),
        ("X-B", "é"),
        ("User-Agent", "u"),
    ]
    with serve(upgrading()) as server, opened(make_dial(server.url(), headers=headers)):
        lines = header_lines(server)
        assert [line for line in lines if line.startswith("X-")] == ["X-A: 1", "X-A: 2", "X-B: é"]
        for line in ("Host: other.example", "Origin: https://o", "User-Agent: u"):
            assert [other for other in lines if other.startswith(line[:5])] == [line]


def test_userinfo_becomes_basic_authorization() -> None:
    with serve(upgrading()) as server:
        url = server.url().replace("//", "//us%C3%A9r:p%3Aw@")
        with opened(make_dial(url)):
            assert f"Authorization: Basic {base64.b64encode('usér:p:w'.encode()).decode()}" in header_lines(
                server
            )


def test_the_chosen_subprotocol_is_told_in_its_own_case() -> None:
    with (
        serve(upgrading("Sec-WebSocket-Protocol: Chat.v2")) as server,
        opened(make_dial(server.url(), subprotocols=("chat", "Chat.v2"))) as pipe,
    ):
        assert pipe.subprotocol == "Chat.v2"
        assert "Sec-WebSocket-Protocol: chat,Chat.v2" in header_lines(server)


def test_headers_that_servers_vary_in_are_accepted() -> None:
    def script(guest: Guest) -> None:
        guest.read_request()
        guest.send(
            b"HTTP/1.1 101\r\nupgrade:WebSocket\r\nCONNECTION: upgrade\r\nConnection:keep-alive\r\n"
            b"Server: caf\xe9\r\nX:\r\nsec-websocket-accept:\t" + guest.accept_key().encode() + b" \r\n\r\n"
        )
        guest.wait_closed()

    with serve(script) as server, opened(make_dial(server.url())):
        pass


# Answers that are refused.


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", "HTTP"),
        (b"\x00" * 5000, "HTTP"),
        (b"HTTP/1.1 xyz\r\n\r\n", "status line"),
        (b"HTTP/1.1 101 OK\r\nbroken\r\n\r\n", "header"),
        (b"HTTP/1.1 101 OK\r\nUpgrade: webso", "closed the connection"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 101 OK\r\nX: " + b"y" * 9000, "8192"),
        (b"HTTP/1.1 101 OK\r\n" + b"X: y\r\n" * 200, "128"),
        (b"HTTP/1.1 101 OK\r\n\r\n", "Upgrade"),
    ],
)
def test_what_is_no_answer_is_a_bad_upgrade(data: bytes, text: str) -> None:
    error = refusal(answering(data))
    assert isinstance(error, BadUpgrade)
    assert text in str(error)
    assert [step.phase for step in error.attempts] == ["tcp", "upgrade"]


@pytest.mark.parametrize(
    "line",
    [
        "Sec-WebSocket-Protocol: chat",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Accept: AAAA",
        "Upgrade: h2c",
    ],
)
def test_what_was_not_asked_for_is_a_bad_upgrade(line: str) -> None:
    assert isinstance(refusal(upgrading(line)), BadUpgrade)


def test_an_accept_key_in_the_wrong_case_is_a_bad_upgrade() -> None:
    def script(guest: Guest) -> None:
        guest.read_request()
        guest.send(guest.upgrade_head(accept=guest.accept_key().swapcase()))
        guest.wait_closed()

    assert isinstance(refusal(script), BadUpgrade)


def test_a_server_without_our_subprotocols_is_a_bad_upgrade() -> None:
    with serve(upgrading()) as server, pytest.raises(BadUpgrade, match="none of the subprotocols"):
        open_websocket(make_dial(server.url(), subprotocols=("chat",)))


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, ""),
        (301, "Location: ws://127.0.0.1:1/"),
        (302, "Location: /elsewhere"),
        (307, ""),
        (401, "WWW-Authenticate: Basic"),
        (404, ""),
        (503, "Retry-After: 7"),
    ],
)
def test_any_other_status_is_a_refusal_with_its_answer(status: int, headers: str) -> None:
    extra = f"{headers}\r\n" if headers else ""
    error = refusal(
        answering(f"HTTP/1.1 {status} No\r\n{extra}Content-Length: 4\r\n\r\nwhy!".encode(), stays=True)
    )
    assert isinstance(error, UpgradeRefused)
    assert (error.status, error.body) == (status, b"why!")
    name, _, value = headers.partition(": ")
    assert error.headers.get(name.lower(), "") == value
    assert str(status) in str(error)


def test_a_redirect_is_not_followed() -> None:
    with serve(upgrading()) as other:
        answer = f"HTTP/1.1 302 Found\r\nLocation: {other.url()}\r\nContent-Length: 0\r\n\r\n".encode()
        assert isinstance(refusal(answering(answer)), UpgradeRefused)
        assert other.guests == []


@pytest.mark.parametrize(
    ("head", "sent", "body"),
    [
        (b"Content-Length: 99999999999\r\n", bytes(70_000), bytes(65536)),
        (b"Content-Length: 0\r\n", b"more", b""),
        (b"Content-Length: 4\r\n", b"ab", b"ab"),
        (b"Content-Length: x\r\n", b"ab", b"ab"),
        (b"Content-Length: " + b"9" * 5000 + b"\r\n", b"ab", b"ab"),
        (b"", b"until the end", b"until the end"),
        (b"Transfer-Encoding: chunked\r\n", b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
    ],
)
def test_the_body_of_a_refusal_has_its_bounds(head: bytes, sent: bytes, body: bytes) -> None:
    error = refusal(answering(b"HTTP/1.0 500 x\r\n" + head + b"\r\n" + sent))
    assert isinstance(error, UpgradeRefused)
    assert error.body == body


# Were it waited for, the server would go on for minutes.
@pytest.mark.timeout(20)
@pytest.mark.parametrize("open_timeout", [0.3, pytest.param(600.0, marks=pytest.mark.slow)])
def test_a_body_that_never_ends_is_not_waited_for(open_timeout: float) -> None:
    def script(guest: Guest) -> None:
        guest.read_request()
        guest.send(b"HTTP/1.1 503 x\r\nRetry-After: 3\r\n\r\n")
        guest.drip(b"x" * 100_000)

    error = refusal(script, open_timeout=open_timeout)
    assert isinstance(error, UpgradeRefused)
    assert error.headers["retry-after"] == "3"
    assert error.body.startswith(b"x")


def test_an_endless_body_is_cut() -> None:
    def script(guest: Guest) -> None:
        guest.read_request()
        guest.send(b"HTTP/1.1 500 x\r\n\r\n")
        while True:
            guest.send(bytes(65536))

    error = refusal(script)
    assert isinstance(error, UpgradeRefused)
    assert len(error.body) == 65536


# One deadline, and one abort.


@pytest.mark.parametrize(
    "drip", [b"", b"X: y\r\n" * 100, b"X: " + b"y" * 8000], ids=["nothing", "headers", "a line"]
)
def test_the_deadline_holds_against_a_server_that_drips(drip: bytes) -> None:
    def script(guest: Guest) -> None:
        guest.read_request()
        guest.send(b"HTTP/1.1 101 OK\r\n")
        guest.drip(drip)
        guest.wait_closed()

    error = refusal(script, open_timeout=0.3)
    assert isinstance(error, ConnectTimeout)
    assert error.attempts[-1].phase == "upgrade"


def test_an_abort_ends_the_upgrade_with_its_error() -> None:
    waiting = threading.Event()

    def script(guest: Guest) -> None:
        guest.read_request()
        waiting.set()
        guest.wait_closed()

    with serve(script) as server:
        dial = make_dial(server.url())
        error = ConnectionClosed(1000, "enough")
        stopper = threading.Thread(target=lambda: waiting.wait(10) and dial.abort(error))
        stopper.start()
        with pytest.raises(ConnectionClosed) as caught:
            open_websocket(dial)
        stopper.join()
        assert caught.value is error


def test_a_reset_in_the_upgrade_is_a_connect_error() -> None:
    def script(guest: Guest) -> None:
        guest.read_request()
        guest.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    error = refusal(script)
    assert type(error) is ConnectError
    assert "reset" in str(error)


# Secrets and strangers.


def test_cookies_are_neither_stored_nor_sent() -> None:
    CookieJar.set("alice=1; domain=127.0.0.1")
    before = {name: str(cookie) for name, cookie in CookieJar.jar.items()}
    try:
        with serve(
            upgrading("Set-Cookie: bob=2; Domain=127.0.0.1", "Set-Cookie: x=3; Domain=example.com")
        ) as server:
            with opened(make_dial(server.url())):
                assert "cookie" not in server.guests[0].request.lower()
            with opened(make_dial(server.url(), headers=[("Cookie", "mine=1")])):
                assert [line for line in header_lines_of(server.guests[1]) if "ookie" in line] == [
                    "Cookie: mine=1"
                ]
        assert {name: str(cookie) for name, cookie in CookieJar.jar.items()} == before
    finally:
        CookieJar.jar.clear()


def header_lines_of(guest: Guest) -> list[str]:
    return guest.request.split("\r\n")[:-2]


@pytest.mark.parametrize("bad", ["\r\nX: y", "\n", "\r", "\0"])
def test_nothing_can_be_injected_into_the_request(bad: str) -> None:
    with serve(upgrading()) as server:
        host, port = "127.0.0.1", server.port
        for endpoint in (
            Endpoint("ws", host + bad, port, "/"),
            Endpoint("ws", host, port, "/" + bad),
            Endpoint("ws", host, port, "/", "q=" + bad),
        ):
            with pytest.raises(InvalidTarget):
                open_websocket(make_dial(endpoint))
        for name in ("X", "Host", "Origin", "Cookie", "User-Agent", "Authorization", f"X{bad}"):
            with pytest.raises(InvalidOption):
                open_websocket(make_dial(server.url(), headers=[(name, "v" + bad)]))
        dial = make_dial(server.url(), subprotocols=("chat",))
        object.__setattr__(dial.options, "subprotocols", ("chat" + bad,))
        with pytest.raises(InvalidOption):
            open_websocket(dial)
        # In userinfo it is harmless: it goes through base64.
        with opened(make_dial(Endpoint("ws", host, port, "/", "", "user" + bad, "pass" + bad))):
            assert not [line for line in header_lines(server) if line.startswith("X")]
        assert len(server.guests) == 1


def echo_request(guest: Guest) -> None:
    guest.send(guest.read_request().encode("latin-1"))


@pytest.mark.parametrize(
    "script",
    [
        echo_request,
        answering(b"HTTP/1.1 401 No\r\nSet-Cookie: a=S3CR3T\r\nX: S3CR3T\r\nContent-Length: 6\r\n\r\nS3CR3T"),
        answering(b"HTTP/1.1 101 S3CR3T\r\nS3CR3T\r\n\r\n"),
        answering(b"HTTP/1.1 101 S3CR3T\r\nX: S3CR3T\r\n\r\n"),
        answering(b"HTTP/1.1 101 OK\r\nUpg"),
    ],
)
def test_no_secret_is_in_an_error_or_a_log(
    script: Callable[[Guest], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serve(script) as server:
        url = server.url(f"/p?token={SECRET}").replace("//", f"//{SECRET}:{SECRET}@")
        with pytest.raises(ConnectError) as caught:
            open_websocket(make_dial(url, headers=[("X-Key", SECRET), ("Cookie", SECRET)]))
    error = caught.value
    texts = [str(error), repr(error), repr(error.attempts), caplog.text, *traceback.format_exception(error)]
    assert not [text for text in texts if SECRET in text]


# Compression.


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


def test_compression_is_offered_only_when_asked_for() -> None:
    with serve(upgrading()) as server:
        for compression, offers in ((None, []), ("deflate", [f"{DEFLATE}; client_max_window_bits"])):
            with opened(make_dial(server.url(), compression=compression)) as pipe:
                lines = server.guests[-1].request.split("\r\n")
                assert [line for line in lines if "Extensions" in line] == offers
                pipe.send(["x" * 1000], 10)  # a server that declines gets it as it is
                assert pipe.bytes_out == 1008


def test_what_came_compressed_with_the_answer_is_inflated() -> None:
    packed = bytes.fromhex("c107f248cdc9c90700")
    with (
        serve(upgrading(f"{DEFLATE}; server_max_window_bits=10", then=packed + HELLO)) as server,
        opened(make_dial(server.url(), compression="deflate")) as pipe,
    ):
        assert pipe.receive() == ["Hello", "hello"]


@pytest.mark.parametrize(
    "lines",
    [
        [f"{DEFLATE}; x={SECRET}"],
        [f"{DEFLATE}; client_max_window_bits=7"],
        [f"{DEFLATE}, permessage-deflate"],
        [DEFLATE, DEFLATE],
        [f"Sec-WebSocket-Extensions: {SECRET}"],
    ],
)
def test_an_answer_that_no_offer_was_made_for_is_a_bad_upgrade(lines: list[str]) -> None:
    error = refusal(upgrading(*lines), compression="deflate")
    assert isinstance(error, BadUpgrade)
    assert SECRET not in str(error)


# Real servers.


@contextlib.contextmanager
def echo_server(context: ssl.SSLContext | None = None, **options: Any) -> Iterator[int]:
    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    options = {"compression": None, "max_size": None, **options}
    with serve_websockets(echo, "127.0.0.1", 0, ssl=context, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()
            # The library leaves its selector to the garbage collector.
            gc.collect()


MESSAGES = ["", "hello", "é" * 1000, b"\x00\xff", "x" * 70_000, bytes(200_000)]


def test_speaks_with_a_real_server() -> None:
    with echo_server() as port, opened(make_dial(f"ws://127.0.0.1:{port}/")) as pipe:
        converse(pipe)


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the server's and ours."""
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return server_context, context


@pytest.mark.slow
@pytest.mark.parametrize("is_secure", [False, True])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"server_no_context_takeover": True},
        {"client_no_context_takeover": True},
        {"server_no_context_takeover": True, "client_no_context_takeover": True},
        {"server_max_window_bits": 9, "client_max_window_bits": 9},
        {"server_max_window_bits": 15, "client_max_window_bits": 15},
        {"client_max_window_bits": 8},
        {"client_max_window_bits": 10, "require_client_max_window_bits": True},
    ],
)
def test_speaks_compressed_with_a_real_server(parameters: dict[str, Any], is_secure: bool) -> None:
    server_context, context = tls_contexts() if is_secure else (None, None)
    url = f"{'wss' if is_secure else 'ws'}://127.0.0.1:"
    with (
        echo_server(server_context, extensions=[ServerPerMessageDeflateFactory(**parameters)]) as port,
        opened(make_dial(f"{url}{port}/", ssl_context=context, compression="deflate")) as pipe,
    ):
        converse(pipe)
        assert pipe.bytes_in < 20_000
        assert (pipe.bytes_out > 200_000) == (parameters.get("client_max_window_bits") == 8)


def test_a_real_server_that_declines_is_spoken_to_uncompressed() -> None:
    with echo_server() as port, opened(make_dial(f"ws://127.0.0.1:{port}/", compression="deflate")) as pipe:
        converse(pipe)
        assert min(pipe.bytes_in, pipe.bytes_out) > 200_000


def test_speaks_with_a_real_server_over_tls() -> None:
    server_context, context = tls_contexts()
    with (
        echo_server(server_context) as port,
        opened(make_dial(f"wss://127.0.0.1:{port}/", ssl_context=context)) as pipe,
    ):
        assert pipe.name == "wss"
        converse(pipe)


def converse(pipe: Pipe) -> None:
    received: list[str | bytes] = []
    for message in MESSAGES:
        pipe.send([message], 10)
        while len(received) <= MESSAGES.index(message):
            received += pipe.receive()
    assert received == MESSAGES
    pipe.close(1000, "done", 5)
    with pytest.raises(ConnectionClosed) as caught:
        pipe.receive()
    assert caught.value.code == 1000


def test_a_loss_right_after_the_upgrade_is_told_by_the_pipe() -> None:
    def script(guest: Guest) -> None:
        guest.read_request()
        guest.send(guest.upgrade_head() + HELLO)

    with serve(script) as server, opened(make_dial(server.url())) as pipe:
        assert pipe.receive() == ["hello"]
        with pytest.raises(ConnectionLost):
            pipe.receive()
