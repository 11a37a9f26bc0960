"""A peer as its user sees it; over real WebSockets by a server that echoes: the peer is its own other side."""

import copy
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import connman
from connman import Connection
from connman.errors import ConnectTimeout, InvalidOption, NoSuchService, PeerGone, RemoteError
from connman.rpc import CloseStatus, Peer, PeerClosed, PeerStats, Services
from connman.testing import ScriptedDialer
from tests.rpc.rig import PATIENCE, Pair, Wired
from tests.servers import WebSocketProcess, ws_server
from tests.waiting import eventually


@pytest.fixture(scope="module")
def echo() -> Iterator[WebSocketProcess]:
    with ws_server() as server:
        yield server


# Over a real WebSocket


def test_calling_over_a_real_websocket(echo: WebSocketProcess) -> None:
    conn = Connection(echo.url())
    with Peer(conn, services={"add": lambda a, b: a + b, 7: lambda: "seven"}) as peer:
        assert peer.call("add", 1, 2) == 3
        assert peer.call(7) == "seven"
        assert peer.call("add", "ü€😀", "x" * 100_000) == "ü€😀" + "x" * 100_000
        with pytest.raises(RemoteError, match="unsupported operand"):
            peer.call("add", 1, None)
        with pytest.raises(NoSuchService, match="no service"):
            peer.call("nothing")
    assert peer.closed.result(PATIENCE).code == 1000


def test_many_threads_call_over_a_real_websocket(echo: WebSocketProcess) -> None:
    with (
        Peer(Connection(echo.url()), services={"double": lambda x: 2 * x}) as peer,
        ThreadPoolExecutor(16) as pool,
    ):
        assert list(pool.map(lambda x: peer.call("double", x), range(400))) == [2 * x for x in range(400)]
        futures = [peer.send("double", x) for x in range(400)]
        assert [future.result(PATIENCE) for future in futures] == [2 * x for x in range(400)]
        eventually(
            lambda: peer.stats.bytes_sent == peer.stats.bytes_received, PATIENCE
        )  # counted when they have gone
        stats = peer.stats
        assert stats.requests_sent_total == stats.requests_received_total == 800
        assert stats.bytes_received > 0
        assert stats.calls_in_flight == 0


def test_the_server_comes_back(echo: WebSocketProcess) -> None:
    with Peer(Connection(echo.url(), wait=lambda _: 0.01), services={"echo": lambda x: x}) as peer:
        for number in range(3):
            assert peer.call("echo", number, retry_safe=True, timeout=PATIENCE) == number
            echo.drop_all()


def test_a_server_that_drops_calls(echo: WebSocketProcess) -> None:
    is_running, may_return = threading.Event(), threading.Event()

    def slow() -> None:
        is_running.set()
        may_return.wait(PATIENCE)

    with Peer(Connection(echo.url(), wait=lambda _: 0.01), services={"slow": slow}) as peer:
        future = peer.send("slow")
        assert is_running.wait(PATIENCE)
        echo.drop_all()
        began = time.monotonic()
        assert isinstance(future.exception(PATIENCE), PeerGone)
        assert time.monotonic() - began < 1.0  # the promise: at once, never by waiting out its timeout
        may_return.set()


# Construction


@pytest.mark.parametrize("url", ["tcp://localhost:1", "tls://localhost:1", "unix:///x"])
def test_a_stream_of_bytes_is_not_enough(url: str) -> None:
    with pytest.raises(InvalidOption, match="messages"):
        Peer(Connection(url))


def test_a_connection_with_on_data_is_taken() -> None:
    with pytest.raises(TypeError, match="on_data"):
        Peer(Connection(ScriptedDialer([]), on_data=print))


def test_a_connection_has_one_peer() -> None:
    conn = Connection(ScriptedDialer([]))
    Peer(conn)
    with pytest.raises(ValueError, match="already"):
        Peer(conn)


@pytest.mark.parametrize("timeout", [0, -1, "5", True, float("nan"), float("inf")])
def test_call_timeouts_that_cannot_be(timeout: Any) -> None:
    with pytest.raises(InvalidOption):
        Peer(Connection(ScriptedDialer([])), call_timeout=timeout)


def test_it_is_inert_until_it_is_used() -> None:
    before = set(threading.enumerate())
    dialer = ScriptedDialer([])
    peer = Peer(Connection(dialer), services={1: len})
    assert set(threading.enumerate()) <= before
    assert not dialer.dials
    assert peer.stats == PeerStats()


def test_services_are_shared_or_its_own() -> None:
    shared = Services({1: len})
    one, two = (Peer(Connection(ScriptedDialer([])), services=shared) for _ in range(2))
    one.add_service(2, max)
    assert two.services.get(2) is max
    assert Peer(Connection(ScriptedDialer([]))).services is not shared


# The with-block, and looking


def test_the_block_waits_until_it_is_open_and_closes_it() -> None:
    conn = Connection(ScriptedDialer([ScriptedDialer.OPEN]), ping_interval=None)
    with Peer(conn) as peer:
        assert conn.is_open
        assert peer.conn is conn
        assert peer.conn_id == conn.id
        assert repr(peer) == f"<Peer {conn.name} open>"
    assert conn.state == "closed"


def test_the_block_ends_what_does_not_open() -> None:
    conn = Connection(ScriptedDialer([ScriptedDialer.HANG]), open_timeout=0.01, reconnect=True)
    with pytest.raises(ConnectTimeout), Peer(conn):
        pass
    assert conn.state == "closed"


def test_recv_is_the_peers() -> None:
    with Wired() as wire, pytest.raises(TypeError):
        wire.conn.recv(0)


def test_the_facade_is_lazy() -> None:
    assert connman.rpc.Peer is Peer
    assert "rpc" in connman.__all__


# Errors and values travel


def test_errors_can_be_pickled() -> None:
    gone = PeerGone("x")
    gone.sent = False
    assert pickle.loads(pickle.dumps(gone)).sent is False
    assert PeerGone("x").sent is True
    closed = PeerClosed(4000, "why")
    closed.status = CloseStatus(4000, "why", PeerStats(), (1, "x"))
    found = pickle.loads(pickle.dumps(closed))
    assert (found.code, found.reason, found.status) == (4000, "why", closed.status)
    assert copy.copy(closed).status == closed.status


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        2**53,
        1.5,
        1e300,
        "",
        "ü",
        [],
        {},
        [[]],
        {"a": {"b": [1, None, "x"]}},
        "\x00",
        '"',
        "\\u0024",
    ],
)
def test_values_come_through(value: object) -> None:
    with Pair({"same": lambda x: x}) as pair:
        assert pair.here.call("same", value) == value


def test_secrets_are_not_told() -> None:
    """Neither arguments nor answers are in what a peer, its calls and its errors say of themselves."""
    with Wired() as wire:
        future = wire.peer.send("service", "S3CR3T-argument", timeout=0.01)
        error = future.exception(PATIENCE)
        lost = wire.peer.send("service", "S3CR3T-argument")
        wire.far.drop()
        for text in (repr(wire.peer), repr(future), str(error), repr(error), str(lost.exception(PATIENCE))):
            assert "S3CR3T" not in text
