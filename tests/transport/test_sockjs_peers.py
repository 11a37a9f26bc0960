"""The tests' own SockJS server: a request that comes behind the end of its session is not left waiting."""

import socket
from collections.abc import Iterator

import pytest

from tests.loopback import PATIENCE, read_to_the_end
from tests.transport.sockjs_peers import Request, SockjsPeer, SockjsServer

WHATS = pytest.mark.parametrize("what", ["xhr_send", "xhr"])


@pytest.fixture
def server() -> Iterator[SockjsServer]:
    with SockjsServer() as running:
        yield running


class Dropping(list[Request]):
    """The requests of a peer, which is dropped as one more is noted: just before that, or just behind."""

    def __init__(self, peer: SockjsPeer, *, is_before: bool) -> None:
        super().__init__(peer.requests)
        self._peer = peer
        self._is_before = is_before

    def append(self, request: Request) -> None:
        if self._is_before:
            self._peer.drop()
        super().append(request)
        if not self._is_before:
            self._peer.drop()


def ask(server: SockjsServer, what: str) -> socket.socket:
    """Make a request of the one session on a connection of its own."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    sock.sendall(f"POST /base/000/session/{what} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
    return sock


@WHATS
def test_a_request_behind_the_end_of_its_session_is_cut_off(server: SockjsServer, what: str) -> None:
    with ask(server, "xhr_streaming"):
        server.accept().drop()
        with ask(server, what) as late:
            assert read_to_the_end(late) == b""


@WHATS
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "behind"])
def test_a_request_on_which_its_session_ends_is_cut_off(
    server: SockjsServer, what: str, is_before: bool
) -> None:
    """It waited for half a minute when it came while the peer was dropped, and its thread was left behind."""
    with ask(server, "xhr_streaming"):
        peer = server.accept()
        peer.requests = Dropping(peer, is_before=is_before)
        with ask(server, what) as late:
            assert read_to_the_end(late) == b""
