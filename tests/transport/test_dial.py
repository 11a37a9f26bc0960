import contextlib
import errno
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connman.errors import ConnectError, ConnectTimeout
from connman.transport.dial import _raise_pending, apply_keepalive, connect_tcp, connect_unix, open_socket
from connman.transport.sockets import SocketGuard
from tests.loopback import (
    PATIENCE,
    Aborted,
    Server,
    dialling_sockets,
    echo,
    hanging_port,
    held_port,
    in_thread,
    make_dial,
    refusing_port,
    silent,
)
from tests.proxies import ConnectProxy
from tests.waiting import eventually


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(echo) as running:
        yield running


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[Any, ...]) -> None:
    answer = [
        (socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
        for address in addresses
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)


def check_and_close(guard: SocketGuard) -> None:
    guard.sock.setblocking(True)
    guard.sock.sendall(b"hello")
    assert guard.sock.recv(5) == b"hello"
    guard.close()


def test_connects(server: Server) -> None:
    dial = make_dial(("127.0.0.1", server.port))
    guard = open_socket(dial)
    assert guard.sock.getblocking() is False
    assert guard.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    check_and_close(guard)
    assert [(step.phase, step.address, step.cause) for step in dial.log] == [
        ("tcp", f"127.0.0.1:{server.port}", None)
    ]


def test_the_open_socket_is_still_the_dials_to_abort(server: Server) -> None:
    dial = make_dial(("127.0.0.1", server.port))
    guard = open_socket(dial)
    dial.abort(Aborted("enough"))
    assert guard.sock.recv(1) == b""
    guard.close()


def test_refused_names_the_address_and_the_cause() -> None:
    with refusing_port() as port:
        dial = make_dial(("127.0.0.1", port))
        with pytest.raises(ConnectError, match=rf"127\.0\.0\.1:{port} .*Connection refused") as caught:
            open_socket(dial)
    assert not isinstance(caught.value, OSError)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_all_addresses_are_tried_families_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing_port() as port, refusing_port(socket.AF_INET6) as port6:
        six, four = ("::1", port6, 0, 0), ("127.0.0.1", port)
        resolve_to(monkeypatch, six, ("::1", port6, 0, 1), four, ("127.0.0.2", port))
        dial = make_dial("tcp://name:1")
        with pytest.raises(ConnectError, match="none of 4 addresses") as caught:
            connect_tcp(dial, "name", 1)
    tried = [step.address for step in caught.value.attempts if step.phase == "tcp"]
    assert tried == [f"[::1]:{port6}", f"127.0.0.1:{port}", f"[::1]:{port6}", f"127.0.0.2:{port}"]
    assert all(address in str(caught.value) for address in tried)


def test_a_dead_first_address_is_passed_over(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    with refusing_port(socket.AF_INET6) as port6:
        resolve_to(monkeypatch, ("::1", port6, 0, 0), ("127.0.0.1", server.port))
        dial = make_dial("tcp://name:1")
        check_and_close(connect_tcp(dial, "name", 1))
    assert [step.cause for step in dial.log] == [None, "Connection refused", None]


def test_a_silent_first_address_is_overtaken_and_closed(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    with hanging_port() as port:
        fillers = dialling_sockets(port)
        resolve_to(monkeypatch, ("127.0.0.1", port), ("127.0.0.1", server.port))
        dial = make_dial("tcp://name:1")
        guard = in_thread(connect_tcp, dial, "name", 1).result(PATIENCE)
        assert guard.sock.getpeername()[1] == server.port
        assert dialling_sockets(port) == fillers
        check_and_close(guard)
    assert {step.address for step in dial.log[1:]} == {f"127.0.0.1:{port}", f"127.0.0.1:{server.port}"}


def test_the_deadline_names_who_did_not_answer() -> None:
    with hanging_port() as port:
        dial = make_dial(("127.0.0.1", port), open_timeout=0.05)
        with pytest.raises(ConnectTimeout, match=rf"127\.0\.0\.1:{port} .*no answer"):
            in_thread(open_socket, dial).result(PATIENCE)


@pytest.mark.parametrize("count", [1, 3])
def test_an_abort_ends_unanswered_connects(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(hanging_port()) for _ in range(count)]
        fillers = [dialling_sockets(port) for port in ports]
        resolve_to(monkeypatch, *(("127.0.0.1", port) for port in ports))
        dial = make_dial("tcp://name:1")
        dialling = in_thread(open_socket, dial)
        eventually(lambda: [dialling_sockets(port) for port in ports] == [number + 1 for number in fillers])
        dial.abort(Aborted("enough"))
        with pytest.raises(Aborted):
            dialling.result(PATIENCE)
        assert [dialling_sockets(port) for port in ports] == fillers


def test_an_abort_between_socket_and_connect_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with hanging_port() as port:
        dial = make_dial(("127.0.0.1", port))
        register = dial.add_abortable

        def register_and_abort(wake: Any) -> None:
            register(wake)
            dial.abort(Aborted("enough"))

        monkeypatch.setattr(dial, "add_abortable", register_and_abort)
        with pytest.raises(Aborted):
            in_thread(open_socket, dial).result(PATIENCE)


def test_an_abort_before_the_dial_opens_nothing(server: Server) -> None:
    dial = make_dial(("127.0.0.1", server.port))
    dial.abort(Aborted("enough"))
    with pytest.raises(Aborted):
        open_socket(dial)
    assert server.accepted == 0


def test_no_socket_to_be_had_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        with pytest.raises(ConnectError, match="Too many open files"):
            open_socket(make_dial("tcp://127.0.0.1:1"))


def test_a_socket_connected_to_itself_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unlucky(socket.socket):
        """Get the dialled port as its own, as one dial in some 28,000 to a dead local server does."""

        def connect_ex(self, address: Any) -> int:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(address)
            return super().connect_ex(address)

    with held_port() as port, monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Unlucky)
        with pytest.raises(ConnectError, match="Connection refused"):
            open_socket(make_dial(("127.0.0.1", port)))


def test_a_reset_between_two_looks_is_told_as_one() -> None:
    """Seen told as "Transport endpoint is not connected", which nobody can do anything about."""

    pending = [0, errno.ECONNRESET]

    class Reset:
        def getsockopt(self, *_: int) -> int:
            return pending.pop(0)

        def getsockname(self) -> Any:
            return "127.0.0.1", 1

        def getpeername(self) -> Any:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    sock: Any = Reset()
    with pytest.raises(ConnectionResetError, match="reset by peer"):
        _raise_pending(sock)


def test_unix_connects(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server(echo, unix=path):
        check_and_close(open_socket(make_dial(f"unix://{path}")))


@pytest.mark.parametrize("name", ["missing", "long" * 50])
def test_unix_refused_is_a_connect_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConnectError, match="unix"):
        open_socket(make_dial(f"unix://{tmp_path / name}"))


@pytest.fixture
def full_unix(tmp_path: Path) -> Iterator[socket.socket]:
    """Listen on a unix socket whose backlog is full, without accepting."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(0)
        filler.connect(listener.getsockname())
        yield listener


def test_unix_full_backlog_waits_for_room(full_unix: socket.socket) -> None:
    dial = make_dial(f"unix://{full_unix.getsockname()}")
    dialling = in_thread(connect_unix, dial, full_unix.getsockname())
    full_unix.accept()[0].close()
    dialling.result(PATIENCE).close()


def test_unix_full_backlog_ends_at_an_abort(full_unix: socket.socket) -> None:
    dial = make_dial(f"unix://{full_unix.getsockname()}")
    dialling = in_thread(connect_unix, dial, full_unix.getsockname())
    dial.abort(Aborted("enough"))
    with pytest.raises(Aborted):
        dialling.result(PATIENCE)


def test_unix_full_backlog_ends_at_the_deadline(full_unix: socket.socket) -> None:
    dial = make_dial(f"unix://{full_unix.getsockname()}", open_timeout=0.05)
    with pytest.raises(ConnectTimeout):
        in_thread(connect_unix, dial, full_unix.getsockname()).result(PATIENCE)


def test_a_proxy_is_used_where_one_is_named(server: Server) -> None:
    with ConnectProxy() as proxy:
        dial = make_dial(("127.0.0.1", server.port), proxy=f"http://127.0.0.1:{proxy.port}")
        check_and_close(open_socket(dial))
        assert proxy.heads[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % server.port)
    assert [step.phase for step in dial.log] == ["tcp", "proxy"]


def test_an_abort_at_any_moment_leaves_nothing(server: Server, seed: int) -> None:
    chance = random.Random(seed)
    with ConnectProxy() as proxy:
        for _ in range(100):
            dial = make_dial(("127.0.0.1", server.port), proxy=f"http://127.0.0.1:{proxy.port}")
            barrier = threading.Barrier(2)

            def run(dial: Any = dial, barrier: Any = barrier) -> SocketGuard:
                barrier.wait(PATIENCE)
                return open_socket(dial)

            dialling = in_thread(run)
            barrier.wait(PATIENCE)
            threading.Event().wait(chance.random() * 0.003)
            dial.abort(Aborted("enough"))
            try:
                guard = dialling.result(PATIENCE)
            except Aborted:
                continue
            # It was open before the abort, which then reached the socket.
            assert guard.is_shut
            guard.close()


def option(sock: socket.socket, name: str) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))


def test_keepalive_follows_the_pings() -> None:
    with socket.socket() as sock:
        apply_keepalive(sock, 20.0, 15.0)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert option(sock, "TCP_KEEPIDLE") == 20
        assert option(sock, "TCP_KEEPINTVL") * option(sock, "TCP_KEEPCNT") == 15
        assert option(sock, "TCP_USER_TIMEOUT") == 35_000


def test_keepalive_off() -> None:
    with socket.socket() as sock:
        apply_keepalive(sock, None, 15.0)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert option(sock, "TCP_USER_TIMEOUT") == 0


@pytest.mark.parametrize("seconds", [0.0001, 0.4, 1e9])
def test_keepalive_takes_any_number(seconds: float) -> None:
    with socket.socket() as sock:
        apply_keepalive(sock, seconds, seconds)
        assert option(sock, "TCP_KEEPIDLE") >= 1
        assert option(sock, "TCP_USER_TIMEOUT") >= 1


def test_a_very_long_open_timeout_is_no_overflow(server: Server) -> None:
    dial = make_dial(("127.0.0.1", server.port), open_timeout=1e8)  # seconds: more than poll() takes
    check_and_close(open_socket(dial))


def test_silent_server_still_connects() -> None:
    with Server(silent) as server:
        open_socket(make_dial(("127.0.0.1", server.port), ping_interval=None)).close()
