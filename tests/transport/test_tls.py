import contextlib
import datetime
import random
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from connman.clock import Deadline, SystemClock
from connman.errors import CertificateError, ConnectError, ConnectTimeout, InvalidOption
from connman.transport.base import Dial
from connman.transport.dial import discard_on_error, open_socket
from connman.transport.sockets import READABLE, drop_sockets_after_fork, poll_ready
from connman.transport.tls import TlsStream, make_context, start_tls, wrap_or_close
from tests.interrupts import every_point, within
from tests.loopback import (
    PATIENCE,
    Aborted,
    Server,
    drip,
    echo,
    in_thread,
    make_dial,
    read_to_the_end,
    shut,
    silent,
)
from tests.waiting import eventually

CA = trustme.CA()
CERTIFICATE = CA.issue_cert("localhost", "127.0.0.1")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])


def server_context(certificate: trustme.LeafCert = CERTIFICATE) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # as of Python 3.11.4
    certificate.configure_cert(context)
    return context


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = make_context()
    context.maximum_version = version
    CA.configure_trust(context)
    return context


class TlsServer(Server):
    """Serve TLS."""

    def __init__(self, serve: Callable[[ssl.SSLSocket], None], context: ssl.SSLContext | None = None) -> None:
        super().__init__(self._secure)
        self._secured = serve
        self._context = context or server_context()

    def _secure(self, sock: socket.socket) -> None:
        try:
            secured = wrap_or_close(self._context, sock, server_side=True)
        except OSError:  # the client has gone already
            return
        with secured:
            secured.do_handshake()
            self._secured(secured)


def open_tls(dial: Dial, hostname: str = "localhost") -> TlsStream:
    guard = open_socket(dial)
    with discard_on_error(dial, guard):
        start_tls(dial, guard, hostname)
        return TlsStream(guard)


@contextlib.contextmanager
def opened(server: Server, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Iterator[TlsStream]:
    stream = open_tls(make_dial(("127.0.0.1", server.port), ssl_context=client_context(version)))
    try:
        yield stream
    finally:
        stream.close()


def soon() -> Deadline:
    return Deadline.after(SystemClock(), PATIENCE)


def read_all(stream: TlsStream) -> bytes:
    return b"".join(iter(lambda: stream.recv(soon()), b""))


def send_all(stream: TlsStream, data: bytes) -> None:
    sent = 0
    while sent < len(data):
        # A copy each time: after "would block" the same bytes may lie elsewhere.
        count = stream.send_some(memoryview(bytes(data[sent:])))
        sent += count
        if not count:
            stream.wait_writable(PATIENCE)


# The handshake


@BOTH_VERSIONS
def test_speaks_tls_and_logs_it(version: ssl.TLSVersion) -> None:
    spoken = []

    def serve(sock: ssl.SSLSocket) -> None:
        spoken.append(sock.version())
        echo(sock)

    with TlsServer(serve) as server:
        dial = make_dial(("127.0.0.1", server.port), ssl_context=client_context(version))
        stream = open_tls(dial)
        send_all(stream, b"hello")
        assert stream.recv(soon()) == b"hello"
        stream.close()
    assert spoken == [version.name.replace("_", ".")]
    assert [(step.phase, step.address, step.cause) for step in dial.log[1:]] == [("tls", "localhost", None)]


def test_the_server_is_told_the_name() -> None:
    names = []
    context = server_context()
    context.sni_callback = lambda _, name, __: names.append(name)
    with TlsServer(echo, context) as server, opened(server):
        assert names == ["localhost"]


def test_an_address_is_verified_as_one() -> None:
    with TlsServer(echo) as server:
        dial = make_dial(("127.0.0.1", server.port), ssl_context=client_context())
        open_tls(dial, "127.0.0.1").close()


EXPIRED = CA.issue_cert("localhost", not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
FOREIGN = trustme.CA().issue_cert("localhost")


@pytest.mark.parametrize(
    ("certificate", "hostname", "cause"),
    [
        (CERTIFICATE, "other.test", "Hostname mismatch"),
        (EXPIRED, "localhost", "expired"),
        (FOREIGN, "localhost", "local issuer"),
    ],
    ids=["wrong host", "expired", "foreign"],
)
def test_a_certificate_is_refused(certificate: trustme.LeafCert, hostname: str, cause: str) -> None:
    with TlsServer(echo, server_context(certificate)) as server:
        dial = make_dial(("127.0.0.1", server.port), ssl_context=client_context())
        with pytest.raises(CertificateError, match=f"certificate refused: .*{cause}") as caught:
            open_tls(dial, hostname)
    assert caught.value.attempts[-1].phase == "tls"
    assert str(caught.value).count(caught.value.message) == 2  # as the summary, and in its step


def test_without_a_context_the_certificate_is_verified() -> None:
    with TlsServer(echo) as server, pytest.raises(CertificateError):
        open_tls(make_dial(("127.0.0.1", server.port)))


def test_an_insecure_context_is_used_as_it_is() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with TlsServer(echo, server_context(FOREIGN)) as server:
        open_tls(make_dial(("127.0.0.1", server.port), ssl_context=context), "other.test").close()


@BOTH_VERSIONS
def test_a_client_certificate_is_shown(version: ssl.TLSVersion) -> None:
    shown = []

    def serve(sock: ssl.SSLSocket) -> None:
        shown.append(sock.getpeercert())
        echo(sock)

    asking = server_context()
    asking.verify_mode = ssl.CERT_REQUIRED
    CA.configure_trust(asking)
    context = client_context(version)
    CA.issue_cert("client@example.com").configure_cert(context)
    with TlsServer(serve, asking) as server:
        stream = open_tls(make_dial(("127.0.0.1", server.port), ssl_context=context))
        send_all(stream, b"hello")
        assert stream.recv(soon()) == b"hello"
        stream.close()
    assert "client@example.com" in str(shown)


@BOTH_VERSIONS
def test_a_client_certificate_that_is_missing_is_an_os_error(version: ssl.TLSVersion) -> None:
    asking = server_context()
    asking.verify_mode = ssl.CERT_REQUIRED
    CA.configure_trust(asking)
    # With TLS 1.3 the server says so only after the client has finished its handshake.
    refused = pytest.raises((ConnectError, OSError))
    with TlsServer(echo, asking) as server, refused, opened(server, version) as stream:
        stream.recv(soon())


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x15\x03\x03\x00\x02\x02\x28"]
)
def test_no_tls_at_the_other_end_is_a_connect_error(answer: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)

    with Server(serve) as server, pytest.raises(ConnectError, match="tls: ") as caught:
        open_tls(make_dial(("127.0.0.1", server.port)))
    assert not isinstance(caught.value, CertificateError | OSError)


def test_a_context_for_servers_is_a_connect_error() -> None:
    with Server(silent) as server, pytest.raises(ConnectError, match="tls: "):
        open_tls(make_dial(("127.0.0.1", server.port), ssl_context=server_context()))


def test_a_host_name_that_is_none_is_a_connect_error() -> None:
    with Server(silent) as server, pytest.raises(ConnectError, match="host name"):
        open_tls(make_dial(("127.0.0.1", server.port)), ".localhost")


def test_a_reset_before_the_handshake_leaves_no_socket() -> None:
    # CPython's wrap_socket() lost the descriptor of a connection that was reset just before.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        guard = open_socket(dial := make_dial(listener.getsockname()))
        peer = listener.accept()[0]
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert poll_ready(guard.sock.fileno(), READABLE, PATIENCE)
        with discard_on_error(dial, guard), pytest.raises(ConnectError, match="reset"):
            start_tls(dial, guard, "localhost")
        assert guard.sock.fileno() == -1
        guard.close()


def test_an_abort_ends_a_silent_handshake() -> None:
    greeted = threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        greeted.set()
        silent(sock)

    with Server(serve) as server:
        dial = make_dial(("127.0.0.1", server.port))
        dialling = in_thread(open_tls, dial)
        assert greeted.wait(PATIENCE)
        dial.abort(Aborted("enough"))
        with pytest.raises(Aborted):
            dialling.result(PATIENCE)


def drip_a_record(sock: socket.socket) -> None:
    sock.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03")  # the head of a long ServerHello
    drip(sock, b"\0")


@pytest.mark.parametrize("serve", [silent, drip_a_record])
def test_a_handshake_ends_at_the_deadline(serve: Callable[[socket.socket], None]) -> None:
    with Server(serve) as server:
        dial = make_dial(("127.0.0.1", server.port), open_timeout=0.1)
        with pytest.raises(ConnectTimeout, match="tls"):
            in_thread(open_tls, dial).result(PATIENCE)


# The stream


@BOTH_VERSIONS
def test_a_clean_end_is_an_end_of_file(version: ssl.TLSVersion) -> None:
    def serve(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"last words")
        sock.unwrap()

    with TlsServer(serve) as server, opened(server, version) as stream:
        assert read_all(stream) == b"last words"
        assert stream.recv(soon()) == b""


@BOTH_VERSIONS
def test_an_end_without_a_goodbye_is_an_error(version: ssl.TLSVersion) -> None:
    def serve(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"cut sho")
        shut(sock)

    with TlsServer(serve) as server, opened(server, version) as stream:
        assert stream.recv(soon()) == b"cut sho"
        with pytest.raises(ssl.SSLError, match=r"(?i)eof"):  # SSLEOFError as of Python 3.11.4
            stream.recv(soon())


def test_recv_ends_at_its_deadline() -> None:
    with TlsServer(echo) as server, opened(server) as stream:
        with pytest.raises(TimeoutError):
            stream.recv(Deadline.after(SystemClock(), 0.02))
        send_all(stream, b"still there")
        assert stream.recv(soon()) == b"still there"


@pytest.mark.parametrize("with_deadline", [False, True])
def test_shutdown_wakes_the_reader_and_nothing_goes_out_any_more(with_deadline: bool) -> None:
    with TlsServer(echo) as server, opened(server) as stream:
        reading = in_thread(stream.recv, soon() if with_deadline else None)
        stream.shutdown()
        assert reading.result(PATIENCE) == b""
        assert stream.recv(None) == b""
        with pytest.raises(OSError, match="ended"):
            stream.send_some(memoryview(b"secret"))
        stream.wait_writable(None)
        stream.end_writing()
        stream.close()
        stream.wait_writable(None)


def test_shutdown_wakes_a_sender() -> None:
    with TlsServer(wait_for_the_end) as server, opened(server) as stream:
        while stream.send_some(memoryview(bytes(1 << 20))):
            pass
        waiting = in_thread(stream.wait_writable, None)
        stream.shutdown()
        waiting.result(PATIENCE)


def wait_for_the_end(sock: ssl.SSLSocket) -> None:
    """Read nothing; return when the client is gone."""
    poll = select.poll()
    poll.register(sock, 0)  # hang-ups are always told
    poll.poll()


@BOTH_VERSIONS
@pytest.mark.parametrize("answers", [True, False])
def test_end_writing_says_goodbye_and_waits_for_the_peers_end(version: ssl.TLSVersion, answers: bool) -> None:
    heard = []

    def serve(sock: ssl.SSLSocket) -> None:
        heard.append(read_to_the_end(sock))  # an error, if no close_notify came
        sock.sendall(b"one more thing")
        if answers:
            sock.unwrap()

    with TlsServer(serve) as server, opened(server, version) as stream:
        send_all(stream, b"bye")
        stream.end_writing()
        stream.end_writing()
        # It may be lost, but its loss is no error.
        assert read_all(stream) in (b"one more thing", b"")
        assert heard == [b"bye"]
        with pytest.raises(OSError, match="ended"):
            stream.send_some(memoryview(b"secret"))


@pytest.mark.plain_locks
def test_a_goodbye_that_is_interrupted_at_any_point_is_said_by_the_next_call() -> None:
    # First seen failing: it counted as said before it was.
    heard = []

    def serve(sock: ssl.SSLSocket) -> None:
        heard.append(read_to_the_end(sock))  # an error, if no close_notify came

    with TlsServer(serve) as server:
        for point in every_point():
            with opened(server) as stream:
                where = point.interrupt(stream.end_writing)
                within(stream.end_writing, f"end_writing() after {where}")
                eventually(lambda point=point: len(heard) == point.number, message=f"a goodbye after {where}")  # type: ignore[misc]


def test_after_both_goodbyes_clear_text_is_neither_sent_nor_read() -> None:
    received = bytearray()

    def serve(sock: ssl.SSLSocket) -> None:
        with contextlib.suppress(ssl.SSLError):
            sock.unwrap()
        socket.socket.sendall(sock, b"clear text")
        read_raw(sock, received)

    with TlsServer(serve) as server, opened(server) as stream:
        assert stream.recv(soon()) == b""
        stream.end_writing()
        assert stream.recv(soon()) == b""
        with pytest.raises(OSError, match="ended"):
            stream.send_some(memoryview(b"secret"))
    assert b"secret" not in received


def read_raw(sock: socket.socket, into: bytearray) -> None:
    """Read what crosses the wire, below TLS, up to the end."""
    with contextlib.suppress(ConnectionError):
        while chunk := socket.socket.recv(sock, 65536):
            into += chunk


def test_end_writing_against_a_stream_of_data_ends_in_order() -> None:
    received = bytearray()

    def serve(sock: ssl.SSLSocket) -> None:
        reading = threading.Thread(target=read_raw, args=(sock, received))
        reading.start()
        sock.sendall(bytes(1 << 20))
        socket.socket.shutdown(sock, socket.SHUT_WR)
        reading.join(PATIENCE)

    with TlsServer(serve) as server, opened(server) as stream:
        stream.recv(soon())
        send_all(stream, b"x" * 100_000)
        stream.end_writing()
        assert not read_all(stream).strip(b"\0")
    # Nothing that had been accepted was lost to a reset.
    assert len(received) > 100_000


@BOTH_VERSIONS
def test_a_long_message_to_a_slow_reader_arrives_whole(version: ssl.TLSVersion) -> None:
    data = bytes(range(256)) * 65536  # 16 MiB
    go, received = threading.Event(), []

    def serve(sock: ssl.SSLSocket) -> None:
        go.wait(PATIENCE)
        received.append(read_to_the_end(sock))

    with TlsServer(serve) as server, opened(server, version) as stream:
        sent = 0
        while count := stream.send_some(memoryview(data[sent:])):
            sent += count
        assert sent < len(data)
        go.set()
        send_all(stream, data[sent:])
        stream.end_writing()
        assert stream.recv(soon()) == b""
    assert received == [data]


def test_drop_says_no_goodbye() -> None:
    errors: list[OSError] = []

    def serve(sock: ssl.SSLSocket) -> None:
        try:
            sock.recv(1)
        except OSError as error:
            errors.append(error)

    with TlsServer(serve) as server, opened(server):
        drop_sockets_after_fork()
        eventually(lambda: errors)
    # A reset, when session tickets lie unread.
    assert isinstance(errors[0], ssl.SSLError | ConnectionResetError)


@pytest.mark.parametrize(
    "version", [pytest.param(VERSIONS[0], marks=pytest.mark.slow), VERSIONS[1]], ids=["1.2", "1.3"]
)
def test_one_reader_and_four_writers(version: ssl.TLSVersion) -> None:
    count, size = 1500, 200
    with TlsServer(echo) as server:
        for _ in range(3):
            with opened(server, version) as stream:
                check_full_duplex(stream, count, size)


def check_full_duplex(stream: TlsStream, count: int, size: int) -> None:
    send_lock = threading.Lock()

    def write(writer: int) -> None:
        for number in range(count):
            line = f"{writer}:{number}:".encode().ljust(size, b".") + b"\n"
            with send_lock:
                send_all(stream, line)

    writing = [in_thread(write, writer) for writer in range(4)]
    expected = dict.fromkeys(range(4), 0)
    pending, lines = b"", 0
    while lines < 4 * count:
        chunk = stream.recv(soon())
        assert chunk
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            writer, number, _ = line.split(b":")
            assert int(number) == expected[int(writer)]
            expected[int(writer)] += 1
        lines += len(whole)
    for each in writing:
        each.result(PATIENCE)


def test_an_abort_at_any_moment_leaves_nothing(seed: int) -> None:
    chance, context = random.Random(seed), client_context()
    with TlsServer(echo) as server:
        for _ in range(100):
            dial = make_dial(("127.0.0.1", server.port), ssl_context=context)
            barrier = threading.Barrier(2)

            def run(dial: Any = dial, barrier: Any = barrier) -> TlsStream:
                barrier.wait(PATIENCE)
                return open_tls(dial)

            dialling = in_thread(run)
            barrier.wait(PATIENCE)
            threading.Event().wait(chance.random() * 0.006)
            dial.abort(Aborted("enough"))
            try:
                stream = dialling.result(PATIENCE)
            except Aborted:
                continue
            assert stream.recv(soon()) == b""
            stream.close()


def test_a_context_that_is_older_than_the_ssl_module_it_would_serve_is_refused() -> None:
    """As one that was made before gevent patched. Seen failing: a TypeError from inside Python, retried for ever."""
    context = client_context()
    context.sslsocket_class = type("Older", (socket.socket,), {})  # type: ignore[assignment]
    with Server(silent) as server, pytest.raises(InvalidOption, match="before gevent patched"):
        open_tls(make_dial(("127.0.0.1", server.port), ssl_context=context))
