"""Nothing that came before the TLS handshake has ended is ever read as data, and nothing of ours leaves before it.

The shapes of CVE-2023-40217 (bytes and an end of file while Python wraps the socket) and of STARTTLS injection (bytes
glued behind a proxy's answer, with real TLS behind them). websocket-client 1.9.2 on a Python with the fix refuses all of
them too, so each test was seen failing on bugs planted in `transport/`: with a `start_tls` that went on in clear text when
the handshake failed all but the resets failed (a login was sent, and the bytes were its answer), and those behind a proxy with an answer of its that
was read 4 KiB at a time: that swallowed what was glued to it and opened as if nothing had been there.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest

import connman
from connman.errors import CertificateError, ConnectError
from tests.authorities import AUTHORITY, server_context
from tests.loopback import Server
from tests.promises.peers import PATIENCE, connection, frame
from tests.proxies import take

SECRET = "S3CR3T"
EVIL = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n" + frame("evil") + b"\nevil\n"
CONTEXT = server_context(AUTHORITY.issue_cert("localhost"))
Script = Callable[[socket.socket, bytes], None]


# Each script gets a socket, and a proxy's answer (or nothing) to send in one segment with what it has to say.


def then_fin(sock: socket.socket, first: bytes) -> None:
    sock.sendall(first + EVIL)
    sock.shutdown(socket.SHUT_WR)


def then_reset(sock: socket.socket, first: bytes) -> None:
    sock.sendall(first + EVIL)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def then_tls(sock: socket.socket, first: bytes) -> None:
    sock.sendall(first + EVIL)
    with CONTEXT.wrap_socket(sock.dup(), server_side=True) as secured:
        secured.sendall(EVIL)


def for_an_answer(sock: socket.socket, first: bytes) -> None:
    sock.sendall(first)
    hello = sock.recv(65536, socket.MSG_PEEK)
    assert hello[0] == 22  # a handshake's record
    sock.sendall(EVIL)


def as_a_record_of_data(sock: socket.socket, first: bytes) -> None:
    sock.sendall(first + b"\x17\x03\x03" + len(EVIL).to_bytes(2) + EVIL)


def behind_a_goodbye(sock: socket.socket, first: bytes) -> None:
    sock.sendall(first + b"\x15\x03\x03\x00\x02\x01\x00" + EVIL)


SCRIPTS = [then_fin, then_reset, then_tls, for_an_answer, as_a_record_of_data, behind_a_goodbye]


class Listener(Server):
    """Do what a script says to each client, at once or glued to a proxy's answer; `heard`: what they sent, as it came."""

    def __init__(self, script: Script, *, is_proxy: bool) -> None:
        super().__init__(self._run_script)
        self.heard = bytearray()
        self._script = script
        self._is_proxy = is_proxy

    def _run_script(self, sock: socket.socket) -> None:
        first = b""
        if self._is_proxy:
            while not first.endswith(b"\r\n\r\n"):
                first += take(sock, 1)
            first = b"HTTP/1.1 200 Connection established\r\n\r\n"
        with contextlib.suppress(OSError):
            self._script(sock, first)
        while chunk := sock.recv(65536):
            self.heard += chunk


@pytest.mark.parametrize("is_proxy", [False, True], ids=["own reader", "shared reader, proxy"])
@pytest.mark.parametrize("scheme", ["tls", "wss"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_bytes_before_the_handshake_are_no_data(script: Script, scheme: str, is_proxy: bool) -> None:
    seen: list[object] = []
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)

    def log_in(channel: Any) -> None:
        seen.append("a login")
        channel.send(SECRET)
        seen.append(channel.recv())

    with Listener(script, is_proxy=is_proxy) as server:
        conn = connection(
            is_proxy,
            f"{scheme}://localhost:{server.port}",
            ssl_context=client,
            proxy=f"http://127.0.0.1:{server.port}" if is_proxy else None,
            headers={"X-Key": SECRET},
            framing=connman.lines() if scheme == "tls" else None,
            handshake=log_in,
            reconnect=False,
            on_open=lambda _: seen.append("an open"),
            on_data=lambda _, data: seen.append(data),
        )
        with pytest.raises(ConnectError) as caught:
            conn.get_connected().result(PATIENCE)
        conn.disconnect()
        assert seen == []
        # A reset may be noticed as soon as the socket is connected.
        assert script is then_reset or caught.value.attempts[-1].phase == "tls"
        assert not isinstance(caught.value, CertificateError)
    assert SECRET.encode() not in server.heard
    assert b"GET" not in server.heard
    if script is not then_tls:  # which takes a part of it
        # All that has left is records of the handshake (22) and alerts (21).
        assert server.heard[:1] in (b"", b"\x16", b"\x15")


def test_bytes_while_the_socket_is_wrapped_are_no_data(seed: int) -> None:
    """The race of CVE-2023-40217 itself: the peer is gone, or not, at any moment of the wrapping."""
    seen: list[object] = []
    go = threading.Barrier(2)

    def race(sock: socket.socket) -> None:
        go.wait(PATIENCE)
        (then_reset if seed % 2 else then_fin)(sock, b"")

    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    with Server(race) as server:
        for _ in range(20):
            conn = connman.Connection(
                f"tls://localhost:{server.port}",
                ssl_context=client,
                proxy=None,
                reconnect=False,
                on_open=lambda _: seen.append("an open"),
                on_data=lambda _, data: seen.append(data),
            )
            future = conn.get_connected()
            go.wait(PATIENCE)
            assert isinstance(future.exception(PATIENCE), ConnectError)
            conn.disconnect()
    assert seen == []
