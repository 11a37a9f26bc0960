"""No secret shows: not in a log at DEBUG, nor in str, repr, tracebacks and pickles' texts of whatever happens.

Every outcome is met with a secret of its own in every place at once: token, header, cookie, query, userinfo, the proxy's
userinfo, the path of a client's key, what a login sends and receives, the reason of a close. Seen failing: websocket-client
1.9.2 logs token, header and cookie when its trace is on, those of connman's upgrade included, and connman itself showed the
reason of a close in logs, errors, statistics and the `repr` of a `Reset`.
"""

import base64
import contextlib
import logging
import pickle
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tenacity
import trustme
import websocket

import connman
from connman.errors import ConnectError
from connman.transport.tls import make_context
from tests.loopback import read_to_the_end, refusing_port, silent
from tests.promises.peers import CLOSE, PATIENCE, Peers, accept, connection, frame, frames, serve_ws
from tests.proxies import ConnectProxy
from tests.scripted import Guest
from tests.waiting import eventually

USER, PASSWORD, QUERY, HEADER, COOKIE = (
    "us3r-s3cret",
    "p4ss-s3cret",
    "qu3ry-s3cret",
    "h3ader-s3cret",
    "c00kie-s3cret",
)
TOKEN, LOGIN, ANSWER, REASON = "t0ken-s3cret", "l0gin-s3cret", "answ3r-s3cret", "r3ason-s3cret"
KEY_FOLDER = "k3y-s3cret"
PROXY_USER, PROXY_PASSWORD = "pr0xy-us3r-s3cret", "pr0xy-p4ss-s3cret"
ODD = "pä ss/s3cret:@"  # needs quoting in a URL
ODD_QUOTED = "p%C3%A4%20ss%2Fs3cret%3A%40"


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


NEEDLES = [
    USER, PASSWORD, QUERY, HEADER, COOKIE, PROXY_USER, PROXY_PASSWORD, ODD, ODD_QUOTED, "s3cret",
    TOKEN, LOGIN, ANSWER, REASON, KEY_FOLDER,
    basic(USER, PASSWORD)[:-4], basic(USER, ODD)[:-4], basic(PROXY_USER, PROXY_PASSWORD)[:-4], basic(PROXY_USER, ODD)[:-4],
]  # fmt: skip

PLANTED: dict[str, Any] = {
    "headers": lambda: {
        "Authorization": f"Bearer {TOKEN}",
        "Authorization-Too": f"Bearer {HEADER}",
        "Cookie": f"session={COOKIE}",
    },
    "proxy": None,
    "open_timeout": 1.0,
    "close_timeout": 0.1,
}


@pytest.fixture(scope="module")
def key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(KEY_FOLDER)
    trustme.CA().issue_cert("client@example.test").private_key_and_cert_chain_pem.write_to_path(
        folder / "key.pem"
    )
    return folder


@pytest.fixture(scope="module")
def planted(key_folder: Path) -> dict[str, Any]:
    context = ssl.create_default_context()
    context.load_cert_chain(key_folder / "key.pem")
    return {**PLANTED, "ssl_context": context}


def url(port: int, host: str = "127.0.0.1", scheme: str = "ws", password: str = PASSWORD) -> str:
    return f"{scheme}://{USER}:{password}@{host}:{port}/path?token={QUERY}"


class Texts(logging.Handler):
    """Everything that was logged, each record with all of its fields."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(threadName)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: value for name, value in vars(record).items() if name != "exc_info"}
        self.texts.append(f"{self.format(record)} {fields!r}")


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Log everything of everybody; websocket-client's own trace is off unless it is asked for."""
    handler, root = Texts(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.texts
    root.removeHandler(handler)
    root.setLevel(level)


def texts_of(error: BaseException) -> Iterator[str]:
    """Say an error in every way in which errors are said."""
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield from (str(one), repr(one), f"{one.args!r}")
        if isinstance(one, ConnectError):
            yield from (f"{one.attempts!r}", one.endpoint, one.message)
        # What "raise … from None" hides is what nobody is shown.
        chain += [one.__cause__, None if one.__suppress_context__ else one.__context__]
    yield "".join(traceback.TracebackException.from_exception(error, capture_locals=False).format())
    if isinstance(error, connman.ConnmanError):
        again = pickle.loads(pickle.dumps(error))
        yield from (str(again), repr(again))


def texts_of_connection(conn: connman.Connection) -> Iterator[str]:
    yield from (str(conn), repr(conn), conn.name, repr(conn.stats), repr(conn.endpoint), str(conn.endpoint))
    yield from (repr(conn.get_connected()), repr(conn.state), str(conn.transport_name))
    if conn.last_error is not None:
        yield from texts_of(conn.last_error)


def found(texts: list[str]) -> list[str]:
    return [f"{needle} in {text}" for text in texts for needle in NEEDLES if needle.lower() in text.lower()]


# What fails, and how: each yields a target and options.

Failing = Callable[[], contextlib.AbstractContextManager[tuple[str, dict[str, Any]]]]
FAILURES: dict[str, Failing] = {}


def failure(name: str) -> Callable[[Callable[[], Iterator[tuple[str, dict[str, Any]]]]], Failing]:
    def keep(function: Callable[[], Iterator[tuple[str, dict[str, Any]]]]) -> Failing:
        FAILURES[name] = contextlib.contextmanager(function)
        return FAILURES[name]

    return keep


def answering(answer: Callable[[Guest], bytes]) -> Callable[[], Iterator[tuple[str, dict[str, Any]]]]:
    def serve(sock: socket.socket) -> None:
        guest = Guest(sock)
        guest.read_request()
        guest.send(answer(guest))
        sock.shutdown(socket.SHUT_WR)
        read_to_the_end(sock)

    def failing() -> Iterator[tuple[str, dict[str, Any]]]:
        with Peers(serve) as server:
            yield url(server.port), {}

    return failing


def request_of(guest: Guest) -> bytes:
    return guest.request.encode("latin-1")


@failure("refused")
def refused() -> Iterator[tuple[str, dict[str, Any]]]:
    with refusing_port() as port:
        yield url(port), {}


@failure("refused, odd password")
def refused_odd() -> Iterator[tuple[str, dict[str, Any]]]:
    with refusing_port() as port:
        yield url(port, password=ODD_QUOTED), {}


@failure("no such name")
def no_such_name() -> Iterator[tuple[str, dict[str, Any]]]:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", fail)
        yield url(80, "nowhere.invalid"), {}


failure("upgrade closed")(answering(lambda _: b""))
failure("upgrade answered with our own request")(answering(request_of))
failure("401 that quotes us")(
    answering(
        lambda guest: (
            b"HTTP/1.1 401 "
            + USER.encode()
            + b"\r\nX-Echo: "
            + HEADER.encode()
            + b"\r\n\r\n"
            + request_of(guest)
        )
    )
)
failure("redirect that quotes us")(
    answering(
        lambda _: f"HTTP/1.1 302 Go\r\nLocation: ws://{USER}:{PASSWORD}@other/?{QUERY}\r\n\r\n".encode()
    )
)
failure("a status line that quotes us")(answering(lambda _: f"HTTP/1.1 {PASSWORD}\r\n\r\n".encode()))
failure("a header that quotes us")(answering(lambda _: f"HTTP/1.1 101 OK\r\n{COOKIE}\r\n\r\n".encode()))
failure("a wrong accept key that quotes us")(answering(lambda guest: guest.upgrade_head(accept=QUERY)))
failure("a subprotocol that quotes us")(
    answering(lambda guest: guest.upgrade_head(f"Sec-WebSocket-Protocol: {HEADER}"))
)


@failure("timeout")
def timeout() -> Iterator[tuple[str, dict[str, Any]]]:
    with Peers(silent) as server:
        yield url(server.port), {"open_timeout": 0.2}


@failure("certificate")
def certificate() -> Iterator[tuple[str, dict[str, Any]]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secure:
            serve_ws(secure)

    with Peers(serve) as server:
        yield url(server.port, scheme="wss"), {}


@failure("not TLS")
def not_tls() -> Iterator[tuple[str, dict[str, Any]]]:
    with Peers(lambda sock: sock.sendall(USER.encode())) as server:
        yield url(server.port, scheme="wss"), {}


def proxied(
    serve: Callable[[socket.socket], None], scheme: str = "http", password: str = PROXY_PASSWORD
) -> Any:
    def failing() -> Iterator[tuple[str, dict[str, Any]]]:
        with Peers(serve) as server:
            yield (
                url(80, "192.0.2.1"),
                {"proxy": f"{scheme}://{PROXY_USER}:{password}@127.0.0.1:{server.port}"},
            )

    return failing


def echo_once(sock: socket.socket) -> None:
    sock.sendall(sock.recv(65536))


def refuse_and_quote(sock: socket.socket) -> None:
    request = sock.recv(65536)
    sock.sendall(b"HTTP/1.1 407 " + PROXY_PASSWORD.encode() + b"\r\n\r\n" + request)


failure("proxy refuses and quotes us")(proxied(refuse_and_quote))
failure("proxy answers with our own request")(proxied(echo_once))
failure("proxy answers with our own request, odd password")(proxied(echo_once, password=ODD_QUOTED))
failure("socks proxy answers with our own request")(proxied(echo_once, "socks5h"))
failure("proxy closes")(proxied(lambda sock: None))


@failure("proxy refused")
def proxy_refused() -> Iterator[tuple[str, dict[str, Any]]]:
    with refusing_port() as port:
        yield url(80, "192.0.2.1"), {"proxy": f"http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:{port}"}


@failure("our certificate refused")
def our_certificate_refused() -> Iterator[tuple[str, dict[str, Any]]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secure:
            serve_ws(secure)

    with Peers(serve) as server:
        yield url(server.port, scheme="wss"), {}


def log_in(channel: Any) -> None:
    channel.send(LOGIN)
    if channel.recv() != ANSWER:
        raise PermissionError("another answer")


def behind_the_login(
    then: Callable[[socket.socket], object], **options: Any
) -> Callable[[], Iterator[tuple[str, dict[str, Any]]]]:
    """Answer the login, wait for a message, and then do something."""

    def serve(sock: socket.socket) -> None:
        accept(sock)
        sock.recv(65536)
        sock.sendall(frame(ANSWER))
        sock.recv(65536)
        then(sock)

    def failing() -> Iterator[tuple[str, dict[str, Any]]]:
        with Peers(serve) as server:
            yield url(server.port), options

    return failing


def instead_of_an_answer(
    then: Callable[[socket.socket], object], **options: Any
) -> Callable[[], Iterator[tuple[str, dict[str, Any]]]]:
    def serve(sock: socket.socket) -> None:
        accept(sock)
        sock.recv(65536)
        then(sock)

    def failing() -> Iterator[tuple[str, dict[str, Any]]]:
        with Peers(serve) as server:
            yield url(server.port), options

    return failing


def close_with(code: int) -> Callable[[socket.socket], object]:
    def close(sock: socket.socket) -> None:
        sock.sendall(frame(code.to_bytes(2) + REASON.encode(), CLOSE))
        read_to_the_end(sock)

    return close


failure("login: the peer closes with a reason")(instead_of_an_answer(close_with(4001)))
failure("login: the peer is restarted")(instead_of_an_answer(close_with(1012)))
failure("login: no answer")(instead_of_an_answer(read_to_the_end, handshake_timeout=0.1))
failure("login: another answer")(instead_of_an_answer(lambda sock: sock.sendall(frame(REASON))))
failure("login: the peer goes")(instead_of_an_answer(lambda sock: None))
failure("login: a violation")(instead_of_an_answer(lambda sock: sock.sendall(b"\xff\xff")))
failure("login: no text")(
    instead_of_an_answer(lambda sock: sock.sendall(frame(REASON.encode() + b"\xff", 1)))
)
failure("login: too long an answer")(
    instead_of_an_answer(lambda sock: sock.sendall(frame(REASON * 100)), max_message_size=1000)
)

# What opens, and then ends.
LOSSES: dict[str, Failing] = {}


def loss(name: str, failing: Callable[[], Iterator[tuple[str, dict[str, Any]]]]) -> None:
    LOSSES[name] = contextlib.contextmanager(failing)


loss("closed with a reason, for good", behind_the_login(close_with(4001)))
loss("closed with a reason", behind_the_login(close_with(1000)))
loss("restarted with a reason", behind_the_login(close_with(1012)))
loss("the peer goes", behind_the_login(lambda sock: None))
loss("a violation", behind_the_login(lambda sock: sock.sendall(b"\xff\xff" + REASON.encode())))
loss("no text", behind_the_login(lambda sock: sock.sendall(frame(REASON.encode() + b"\xff", 1))))
loss("too long", behind_the_login(lambda sock: sock.sendall(frame(REASON * 100)), max_message_size=1000))
loss("silence", behind_the_login(read_to_the_end, ping_interval=0.05, ping_timeout=0.05))


@failure("gave up")
def gave_up() -> Iterator[tuple[str, dict[str, Any]]]:
    with refusing_port() as port:
        yield url(port), {"reconnect": True, "wait": lambda _: 0.0, "stop": tenacity.stop_after_attempt(3)}


@failure("a header that cannot be sent")
def bad_header() -> Iterator[tuple[str, dict[str, Any]]]:
    with refusing_port() as port:
        yield url(port), {"headers": lambda: {"Authorization": f"Bearer {HEADER}\r\n"}}


# On shared readers all goes through a proxy that wants credentials, unless the outcome has a proxy of its own.
READERS = pytest.mark.parametrize("is_shared", [False, True], ids=["own reader", "shared reader, proxy"])


@contextlib.contextmanager
def opening(
    outcome: Failing, planted: dict[str, Any], is_shared: bool, texts: list[str]
) -> Iterator[connman.Connection]:
    """Make a connection that is going to meet an outcome; `texts` gets what it says of itself on the way."""
    with outcome() as (target, options), ConnectProxy() as proxy:
        through = f"http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}" if is_shared else None
        conn = connection(
            is_shared,
            target,
            on_open=lambda conn: texts.extend(texts_of_connection(conn)),
            on_reset=lambda conn, reset: texts.extend(
                [repr(reset), str(reset), *texts_of(reset.error), *texts_of_connection(conn)]
            ),
            **{**planted, "reconnect": False, "handshake": log_in, "proxy": through, **options},
        )
        texts += [*texts_of_connection(conn), *(repr(thread) for thread in threading.enumerate())]
        yield conn
        conn.disconnect(reason=REASON)
        texts += texts_of_connection(conn)
        with pytest.raises(connman.errors.ConnectionClosed) as closed:
            conn.get_connected().result(PATIENCE)
        texts += texts_of(closed.value)


def check(texts: list[str], logged: list[str]) -> None:
    assert logged, "nothing was logged"
    assert found(texts + logged) == []


@pytest.mark.parametrize(
    "is_shared",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["own reader", "shared reader, proxy"],
)
@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_shows_no_secret(
    name: str, is_shared: bool, planted: dict[str, Any], logged: list[str]
) -> None:
    texts: list[str] = []
    with opening(FAILURES[name], planted, is_shared, texts) as conn:
        with pytest.raises(ConnectError) as caught:
            conn.get_connected().result(PATIENCE)
        texts += texts_of(caught.value)
        texts += [repr(thread) for thread in threading.enumerate()]
        with pytest.raises(connman.errors.NotConnected) as not_open:
            conn.send(LOGIN)
        texts += texts_of(not_open.value)
    check(texts, logged)


@READERS
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_shows_no_secret(
    name: str, is_shared: bool, planted: dict[str, Any], logged: list[str]
) -> None:
    texts: list[str] = []
    with opening(LOSSES[name], planted, is_shared, texts) as conn:
        conn.wait_open(PATIENCE)
        texts += [*texts_of_connection(conn), *(repr(thread) for thread in threading.enumerate())]
        if name != "silence":  # which needs no message to come, and may have come already
            conn.send(LOGIN)
        eventually(lambda: conn.last_error)
        assert conn.last_error is not None
        if "reason" in name:
            # Whoever asks for it gets it.
            assert getattr(conn.last_error, "reason", "") == REASON
    check(texts, logged)


@READERS
def test_an_end_of_our_own_shows_no_secret(
    is_shared: bool, planted: dict[str, Any], logged: list[str]
) -> None:
    texts: list[str] = []
    outcome = contextlib.contextmanager(behind_the_login(read_to_the_end))
    with opening(outcome, planted, is_shared, texts) as conn:
        conn.wait_open(PATIENCE)
    with pytest.raises(connman.errors.NotConnected) as not_open:
        conn.send(LOGIN)
    check([*texts, *texts_of(not_open.value)], logged)


def test_what_was_to_be_hidden_was_sent(planted: dict[str, Any]) -> None:
    """Else the rest would prove nothing."""
    requests: list[str] = []

    def serve(sock: socket.socket) -> None:
        requests.append(accept(sock).request)
        requests.extend(str(payload) for _, payload in frames(sock))

    with Peers(serve) as server, ConnectProxy() as proxy:
        proxied_by = f"http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}"
        options = {**planted, "proxy": proxied_by, "handshake": lambda channel: channel.send(LOGIN)}
        with connman.Connection(url(server.port), **options) as conn:
            conn.disconnect(reason=REASON)
        eventually(lambda: len(requests) == 3)
        assert basic(PROXY_USER, PROXY_PASSWORD).encode() in proxy.heads[0]
    for secret in (QUERY, TOKEN, HEADER, COOKIE, LOGIN, REASON):
        assert secret in " ".join(requests)


def test_websocket_clients_trace_shows_no_secret(planted: dict[str, Any], logged: list[str]) -> None:
    """Its trace is one switch for the process, which somebody may have turned for a connection of their own.

    websocket-client 1.9.2 logs the whole request, and connman's did too while websocket-client wrote its headers.
    """
    websocket.enableTrace(True, logging.NullHandler())
    try:
        texts: list[str] = []
        outcome = contextlib.contextmanager(behind_the_login(close_with(1000)))
        with opening(outcome, planted, False, texts) as conn:
            conn.wait_open(PATIENCE)
    finally:
        websocket.enableTrace(False)
    assert [text for text in logged if text.startswith("websocket ")]
    check(texts, logged)


def test_a_file_that_cannot_be_read_is_not_named(key_folder: Path) -> None:
    (key_folder / "empty.pem").write_text("no certificate")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(connman.errors.InvalidOption) as caught:
            make_context(authorities=str(key_folder / name))
        assert found([str(caught.value), repr(caught.value)]) == []


def test_a_working_connection_and_its_losses_show_no_secret(logged: list[str]) -> None:
    texts: list[str] = []

    def serve(sock: socket.socket) -> None:
        accept(sock)
        sock.sendall(frame("hello"))
        sock.recv(65536)
        sock.sendall(b"\xff\xff")  # a violation

    with Peers(serve) as server, ConnectProxy() as proxy:
        options = {**PLANTED, "proxy": f"http://{PROXY_USER}:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}"}
        manager = connman.Manager()
        pool = manager.create_pool("devices", on_reset=lambda _, reset: texts.append(repr(reset)), **options)
        conns = [pool.add_connection(url(server.port)), manager.connect(url(server.port), **options)]
        pool.wait_open(PATIENCE)
        for conn in conns:
            conn.wait_open(PATIENCE)
            texts += texts_of_connection(conn)
            conn.send("go")
            eventually(lambda: conn.stats.losses)  # noqa: B023
            texts += texts_of_connection(conn)
        texts += [repr(pool), repr(pool.stats), repr(manager), repr(manager.get_connection(url(server.port)))]
        manager.disconnect_all()
        # They were sent, so there was something to hide.
        assert any(basic(PROXY_USER, PROXY_PASSWORD).encode() in head for head in proxy.heads)
    assert found(texts + logged) == []


@pytest.mark.parametrize(
    ("target", "options"),
    [
        (f"http://{USER}:{PASSWORD}@host/?{QUERY}", {}),
        (f"{PASSWORD}", {}),
        (f"ws://{USER}:{PASSWORD}@ho st/?{QUERY}", {}),
        (f"ws://{USER}:{PASSWORD}@host:{PASSWORD}/", {}),
        (f"ws://{USER}:{PASSWORD}@[::/?{QUERY}", {}),
        (f"ws://{USER}:{PASSWORD}/{QUERY}", {}),
        (f"ws://host/?{QUERY}#{PASSWORD}", {}),
        (f"tcp://{USER}:{PASSWORD}@host:1", {}),
        ("ws://host/", {"headers": {"Cookie": f"{COOKIE}\n"}}),
        ("ws://host/", {"headers": {f"{HEADER} x": "a"}}),
        ("ws://host/", {"headers": [(HEADER,)]}),
        ("ws://host/", {"proxy": f"http://{PROXY_USER}:{PROXY_PASSWORD}@host:{PROXY_PASSWORD}"}),
        ("ws://host/", {"proxy": f"http://{PROXY_USER}:{PROXY_PASSWORD}@ho st"}),
        ("ws://host/", {"proxy": f"ftp://{PROXY_USER}:{PROXY_PASSWORD}@host"}),
        ("ws://host/", {"proxy": f"socks5://{PROXY_USER}:{ODD_QUOTED}@host"}),
        ("ws://host/", {"subprotocols": [f"{HEADER} x"]}),
    ],
)
def test_what_is_refused_at_once_shows_no_secret(
    target: str, options: dict[str, Any], logged: list[str]
) -> None:
    with pytest.raises((connman.errors.InvalidTarget, connman.errors.InvalidOption)) as caught:
        connman.Connection(target, **options)
    texts = list(texts_of(caught.value))
    # The test's own line stands in its traceback, and names no secret.
    assert found(texts + logged) == []
