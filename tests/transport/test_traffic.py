"""What the system tells of a connection's bytes, and what of that is a peer that moves."""

import math
import socket
from collections.abc import Iterator

import pytest

from connman.transport.traffic import Traffic, TrafficWatch, traffic
from tests.loopback import PATIENCE
from tests.waiting import eventually

Pair = tuple[socket.socket, socket.socket]

needs_tcp_info = pytest.mark.skipif(
    not hasattr(socket, "TCP_INFO"), reason="this system tells nothing of a TCP connection"
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), PATIENCE)
        server, _ = listener.accept()
        with client, server:
            server.settimeout(PATIENCE)
            yield client, server


def seen(sock: socket.socket) -> Traffic:
    told = traffic(sock)
    assert told is not None
    return told


@needs_tcp_info
def test_bytes_of_both_directions_are_counted(pair: Pair) -> None:
    client, server = pair
    before = seen(client)
    client.sendall(bytes(3000))
    server.sendall(bytes(500))
    eventually(lambda: seen(client).acknowledged - before.acknowledged == 3000)
    eventually(lambda: seen(client).received - before.received == 500)
    assert seen(client).unacknowledged == 0
    assert 0 <= seen(client).heard_ago < PATIENCE
    assert 0 <= seen(client).taken_ago < PATIENCE


@needs_tcp_info
def test_what_the_peer_has_no_room_for_is_unacknowledged(pair: Pair) -> None:
    client, server = pair
    client.setblocking(False)
    before, sent = seen(client), 0
    try:
        while True:
            sent += client.send(bytes(65536))
    except BlockingIOError:
        pass
    eventually(lambda: seen(client).acknowledged > before.acknowledged)
    after = seen(client)
    assert after.unacknowledged > 0
    assert after.acknowledged - before.acknowledged + after.unacknowledged <= sent
    while sent:
        sent -= len(server.recv(1 << 20))
    eventually(lambda: seen(client).unacknowledged == 0)


def test_no_tcp_and_no_socket_tell_nothing(pair: Pair) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert traffic(ours) is None
    assert traffic(ours) is None
    client, _ = pair
    client.close()
    assert traffic(client) is None


def test_without_the_systems_help_nothing_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_INFO", raising=False)
    assert traffic(pair[0]) is None


def look(received: int = 0, acknowledged: int = 0, unacknowledged: int = 0, ago: float = 0.0) -> Traffic:
    return Traffic(received, acknowledged, unacknowledged, ago, ago)


def test_the_first_look_tells_nothing() -> None:
    assert TrafficWatch(1.0).moved_at(look(10**9, 10**9), 5.0) == -math.inf


def test_enough_that_arrived_is_a_move_at_the_time_it_came() -> None:
    watch = TrafficWatch(1.0)
    watch.moved_at(look(5), 0.0)
    assert watch.moved_at(look(5 + 1023), 1.0) == -math.inf
    assert watch.moved_at(look(5 + 1024, ago=0.2), 1.5) == pytest.approx(1.3)


def test_over_a_long_time_a_drip_does_not_add_up() -> None:
    watch = TrafficWatch(1.0)
    watch.moved_at(look(), 0.0)
    assert watch.moved_at(look(5000), 20.0) == -math.inf
    assert watch.moved_at(look(6024), 20.5) == 20.5


def test_what_leaves_counts_up_to_the_oldest_ping_without_an_answer() -> None:
    watch = TrafficWatch(1.0)
    watch.moved_at(look(), 0.0)
    assert watch.moved_at(look(acknowledged=5000), 0.5) == -math.inf  # no ping is under way
    watch.pinged(look(acknowledged=5000, unacknowledged=3000))
    watch.pinged(look(acknowledged=5000, unacknowledged=90_000))
    assert watch.moved_at(look(acknowledged=6024, ago=0.1), 1.0) == pytest.approx(0.9)
    assert watch.moved_at(look(acknowledged=50_000), 1.5) == 1.5  # the rest before the ping
    assert watch.moved_at(look(acknowledged=90_000), 2.0) == -math.inf
    watch.answered()
    watch.pinged(look(acknowledged=90_000, unacknowledged=2000))
    assert watch.moved_at(look(acknowledged=92_000), 2.5) == 2.5


def test_a_system_that_tells_nothing_marks_no_ping() -> None:
    watch = TrafficWatch(1.0)
    watch.moved_at(look(), 0.0)
    watch.pinged(None)
    assert watch.moved_at(look(acknowledged=5000), 0.5) == -math.inf
