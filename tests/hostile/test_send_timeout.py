"""A send that the peer does not take in time ends its connection, and holds nobody else up meanwhile."""

import socket
import time
from typing import Any

import pytest

import connman
from connman.clock import SystemClock
from connman.connection.sharing import SharedReaders
from connman.errors import ConnectionLost, NotConnected, SendTimeout
from tests.hostile.peer import Secure
from tests.loopback import in_thread
from tests.promises.peers import PATIENCE, Peers, accept, serve_ws, wait_stuck, within
from tests.servers import pause
from tests.waiting import eventually

SEND_TIMEOUT = 1.0
CLOSE_TIMEOUT = 0.2
SLACK = 0.5
MUCH = bytes(32 << 20)  # more than every buffer on the way


@pytest.fixture(scope="module")
def secure() -> Secure:
    return Secure.fresh()


class Deaf(Peers):
    """Opens, and reads nothing from then on."""

    def __init__(self, scheme: str, secure: Secure) -> None:
        super().__init__(self._ignore)
        self.scheme = scheme
        self._secure = secure

    def _ignore(self, sock: socket.socket) -> None:
        if self.scheme == "wss":
            with self._secure.server.wrap_socket(sock, server_side=True) as wrapped:
                accept(wrapped)
                pause(wrapped, None)
            return
        if self.scheme == "ws":
            accept(sock)
        pause(sock, None)

    def target(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}" + ("" if self.scheme == "tcp" else "/")


def made(target: str, secure: Secure, readers: SharedReaders | None, **options: Any) -> connman.Connection:
    conn = connman.Connection(
        target,
        reconnect=False,
        proxy=None,
        ssl_context=secure.client,
        close_timeout=CLOSE_TIMEOUT,
        **options,
    )
    if readers is not None:
        conn.read_by(readers)
    return conn


CASES = pytest.mark.parametrize(
    ("scheme", "is_shared"),
    [
        pytest.param(scheme, is_shared, marks=[] if scheme == "ws" and not is_shared else [pytest.mark.slow])
        for scheme in ("ws", "wss", "tcp")
        for is_shared in (False, True)
    ],
    ids=lambda value: value if isinstance(value, str) else ("shared reader" if value else "own reader"),
)


@CASES
def test_a_send_out_of_time_ends_its_connection_and_holds_nobody_up(
    scheme: str, is_shared: bool, secure: Secure
) -> None:
    """Seen failing on websocket-client 1.9.2, which says `connected` after half a frame, and takes the next message."""
    readers = SharedReaders(1, "stuck", SystemClock()) if is_shared else None
    resets: list[connman.Reset] = []
    with Deaf(scheme, secure) as deaf, Peers(serve_ws) as good:
        stuck = made(
            deaf.target(),
            secure,
            readers,
            send_timeout=SEND_TIMEOUT,
            ping_interval=0.05,  # pings wait behind the message
            ping_timeout=PATIENCE,
            on_reset=lambda _, reset: resets.append(reset),
        )
        other = made(good.url(), secure, readers, ping_interval=0.05, ping_timeout=PATIENCE)
        stuck.wait_open(PATIENCE)
        other.wait_open(PATIENCE)
        senders = [in_thread(stuck.send, MUCH) for _ in range(3)]
        times = []
        while not all(sender.done() for sender in senders):
            began = time.monotonic()
            other.send("hello")
            assert other.recv(0.9 * SEND_TIMEOUT) == "hello"
            times.append(time.monotonic() - began)
        eventually(lambda: resets, SLACK)
        assert len(times) > 1  # each in less time than the stuck ones had
        assert min(times) < 0.1, times
        assert [type(reset.error) for reset in resets] == [SendTimeout]
        assert resets[0].opened
        assert not stuck.is_open
        assert {type(sender.exception(0)) for sender in senders} <= {
            SendTimeout,
            ConnectionLost,
            NotConnected,
        }
        with pytest.raises(NotConnected):
            stuck.send("behind half a frame")
        eventually(lambda: other.stats.ping_rtt is not None)
        within(1.0, stuck.disconnect)
        within(1.0, other.disconnect)


@CASES
def test_a_stuck_send_never_holds_disconnect_up(scheme: str, is_shared: bool, secure: Secure) -> None:
    """Seen failing on websocket-client 1.9.2: close() waits for the lock that the stuck sender holds."""
    readers = SharedReaders(1, "stuck", SystemClock()) if is_shared else None
    with Deaf(scheme, secure) as deaf:
        conn = made(
            deaf.target(), secure, readers, send_timeout=PATIENCE, ping_interval=0.05, ping_timeout=PATIENCE
        )
        conn.wait_open(PATIENCE)
        senders = [in_thread(conn.send, MUCH) for _ in range(3)]
        wait_stuck(conn)
        within(CLOSE_TIMEOUT + 1.0, conn.disconnect)  # the promise
        for sender in senders:
            assert isinstance(sender.exception(PATIENCE), ConnectionLost | NotConnected)
    assert conn.state is connman.State.CLOSED
