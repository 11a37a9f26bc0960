"""FaultProxy: every fault, on real sockets."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from connman.testing import FaultProxy
from tests.waiting import eventually

PATIENCE = 10.0


class Upstream:
    """A listening socket of the test; the test accepts by hand."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listener.settimeout(PATIENCE)
        self.port: int = self.listener.getsockname()[1]
        self.socks: list[socket.socket] = []

    def accept(self) -> socket.socket:
        sock, _ = self.listener.accept()
        sock.settimeout(PATIENCE)
        self.socks.append(sock)
        return sock


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    for sock in (made.listener, *made.socks):
        sock.close()


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", upstream.port, seed=1) as made:
        yield made


@pytest.fixture
def clients() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def link(
    upstream: Upstream, proxy: FaultProxy, clients: contextlib.ExitStack
) -> tuple[socket.socket, socket.socket]:
    """Return the client's and the server's end of one link."""
    return connect(proxy, clients), upstream.accept()


def connect(proxy: FaultProxy, clients: contextlib.ExitStack) -> socket.socket:
    return clients.enter_context(socket.create_connection(proxy.address, PATIENCE))


def receive(sock: socket.socket, count: int) -> bytes:
    """Return so many bytes, less only at the end of file."""
    got = b""
    while len(got) < count and (chunk := sock.recv(count - len(got))):
        got += chunk
    return got


def is_silent(sock: socket.socket, seconds: float = 0.1) -> bool:
    """Whether nothing comes for a while; a failure to be silent is found, however slow the machine."""
    sock.settimeout(seconds)
    try:
        return not sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE)


def fill(sock: socket.socket) -> int:
    """Send until the system takes no more for a while; return how much it took."""
    sock.settimeout(0.2)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 64 * 1024 * 1024:
            sent += sock.send(bytes(65536))
    sock.settimeout(PATIENCE)
    return sent


Link = tuple[socket.socket, socket.socket]


def test_passes_bytes_both_ways_and_counts_them(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    client.sendall(b"question")
    assert receive(server, 8) == b"question"
    server.sendall(b"an answer")
    assert receive(client, 9) == b"an answer"
    assert (proxy.accepted, proxy.open_links) == (1, 1)
    eventually(lambda: (proxy.bytes_up, proxy.bytes_down) == (8, 9))


def test_large_data_arrives_whole(proxy: FaultProxy, link: Link, seed: int) -> None:
    client, server = link
    data = random.Random(seed).randbytes(5_000_000)
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    assert receive(server, len(data)) == data
    sender.join()


def test_says_where_it_is(proxy: FaultProxy) -> None:
    host, port = proxy.address
    assert (host, port) == ("127.0.0.1", proxy.port)
    assert proxy.url("ws", "/feed?x=1") == f"ws://127.0.0.1:{port}/feed?x=1"
    assert proxy.url("tcp") == f"tcp://127.0.0.1:{port}"
    assert proxy.url() == f"ws://127.0.0.1:{port}/"


def test_the_end_of_one_direction_leaves_the_other(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert receive(server, 100) == b"last words"
    server.sendall(b"heard")
    assert receive(client, 5) == b"heard"
    server.close()
    assert client.recv(1) == b""
    eventually(lambda: proxy.open_links == 0)


def test_a_reset_of_one_side_reaches_the_other(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    eventually(lambda: proxy.open_links == 0)


def test_an_upstream_that_refuses_resets_the_client(clients: contextlib.ExitStack) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refused
        with FaultProxy("127.0.0.1", nobody.getsockname()[1]) as proxy:
            with pytest.raises(ConnectionResetError):  # it may come before connect() has returned
                connect(proxy, clients).recv(1)
            eventually(lambda: proxy.open_links == 0)


def test_cut_ends_every_link_with_eof_on_both_sides(
    upstream: Upstream, proxy: FaultProxy, clients: contextlib.ExitStack
) -> None:
    links = [(connect(proxy, clients), upstream.accept()) for _ in range(3)]
    proxy.cut()
    assert proxy.open_links == 0
    for client, server in links:
        assert client.recv(1) == b""
        assert server.recv(1) == b""
    connect(proxy, clients).sendall(b"back")
    assert receive(upstream.accept(), 4) == b"back"


def test_cut_gives_eof_although_bytes_were_under_way(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    proxy.deaf()
    client.sendall(b"never read")
    proxy.cut()
    for end in (client, server):
        assert end.recv(1) == b""
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0  # no RST behind the FIN


def test_cut_reaches_a_client_that_has_just_connected(
    proxy: FaultProxy, clients: contextlib.ExitStack
) -> None:
    for _ in range(50):
        client = connect(proxy, clients)
        proxy.cut()
        assert client.recv(1) == b""


def test_reset_resets_both_sides(proxy: FaultProxy, link: Link) -> None:
    proxy.reset()
    for end in link:
        with pytest.raises(ConnectionResetError):
            end.recv(1)


def test_deaf_keeps_links_and_passes_nothing_until_it_hears_again(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    proxy.deaf()
    client.sendall(b"up")
    server.sendall(b"down")
    assert is_silent(server)
    assert is_silent(client)
    assert proxy.open_links == 1
    proxy.deaf(False)
    assert receive(server, 2) == b"up"
    assert receive(client, 4) == b"down"


def test_deaf_accepts_new_links_and_hides_ends(
    upstream: Upstream, proxy: FaultProxy, link: Link, clients: contextlib.ExitStack
) -> None:
    _, server = link
    proxy.deaf()
    server.close()
    new = connect(proxy, clients)
    new.sendall(b"anybody?")
    eventually(lambda: proxy.accepted == 2)
    assert is_silent(new)
    assert is_silent(link[0])
    proxy.deaf(False)
    assert receive(upstream.accept(), 8) == b"anybody?"
    assert link[0].recv(1) == b""


@pytest.mark.parametrize("way", ["up", "down"])
def test_deaf_one_way_leaves_the_other(proxy: FaultProxy, link: Link, way: str) -> None:
    """Fails where `deaf` ignores its direction."""
    client, server = link
    sender, hearer = (client, server) if way == "up" else (server, client)
    proxy.deaf(way=way)  # type: ignore[arg-type]
    sender.sendall(b"lost for now")
    hearer.sendall(b"arrives")
    assert receive(sender, 7) == b"arrives"
    assert is_silent(hearer)
    sender.shutdown(socket.SHUT_WR)
    assert is_silent(hearer)
    proxy.deaf(False, way)  # type: ignore[arg-type]
    assert receive(hearer, 100) == b"lost for now"  # and the end of file behind it


def test_deaf_adds_up_way_by_way(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    proxy.deaf(way="up")
    proxy.deaf(way="down")
    client.sendall(b"up")
    server.sendall(b"down")
    assert is_silent(server)
    assert is_silent(client)
    proxy.deaf(False, "up")
    assert receive(server, 2) == b"up"
    assert is_silent(client)
    proxy.deaf(False)
    assert receive(client, 4) == b"down"


def test_deaf_one_way_still_reaches_the_upstream(
    upstream: Upstream, proxy: FaultProxy, clients: contextlib.ExitStack
) -> None:
    proxy.deaf(way="down")
    client = connect(proxy, clients)
    client.sendall(b"work")
    server = upstream.accept()
    assert receive(server, 4) == b"work"
    server.sendall(b"done")
    assert is_silent(client)


def test_kill_every_resets_each_nth_client(proxy: FaultProxy, clients: contextlib.ExitStack) -> None:
    """Fails where the count is off by one."""
    proxy.kill_every = 3
    killed = []
    for _ in range(7):
        client = None
        with contextlib.suppress(ConnectionResetError):  # it may come before connect() has returned
            client = connect(proxy, clients)
        eventually(lambda: proxy.accepted == len(killed) + 1)
        proxy.jitter = 0  # done by its loop, behind what that does to a new client
        if client is None:
            killed.append(True)
            continue
        client.settimeout(0.1)
        try:
            killed.append(not client.recv(1))
        except TimeoutError:
            killed.append(False)
        except ConnectionResetError:
            killed.append(True)
    assert killed == [False, False, True, False, False, True, False]
    proxy.kill_every = None
    assert proxy.kill_every is None
    assert proxy.open_links == 5


def test_refuse_refuses_and_comes_back_on_the_same_port(
    upstream: Upstream, proxy: FaultProxy, link: Link, clients: contextlib.ExitStack
) -> None:
    client, server = link
    port = proxy.port
    for _ in range(3):
        proxy.refuse()
        proxy.refuse()  # twice is once
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), PATIENCE)
        proxy.refuse(False)
        connect(proxy, clients).close()
        upstream.accept()
    client.sendall(b"still open")
    assert receive(server, 10) == b"still open"
    assert proxy.port == port


def test_latency_delays_and_keeps_the_order(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    proxy.latency = 0.15
    proxy.jitter = 0.05
    for number in range(20):
        began = time.monotonic()
        client.sendall(bytes([number]) * 10)
        if number == 0:
            assert receive(server, 1) == b"\0"
            # A lower bound, which a slow machine cannot break.
            assert time.monotonic() - began >= 0.15
    expected = b"".join(bytes([number]) * 10 for number in range(20))
    assert receive(server, len(expected) - 1) == expected[1:]
    proxy.latency = proxy.jitter = 0
    assert (proxy.latency, proxy.jitter) == (0, 0)


def test_the_end_of_file_is_late_too(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    proxy.latency = 0.1
    client.sendall(b"x")
    client.close()
    assert receive(server, 10) == b"x"
    eventually(lambda: proxy.bytes_up == 1)


def test_rate_limits_each_direction(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    proxy.rate = 100_000
    began = time.monotonic()
    client.sendall(bytes(30_000))
    assert len(receive(server, 30_000)) == 30_000
    # The last piece goes out when those before it have taken their time: a lower bound.
    assert time.monotonic() - began >= 0.2
    proxy.rate = None
    assert proxy.rate is None


def test_slice_cuts_into_pieces_and_nothing_is_lost(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    proxy.slice = 1
    data = bytes(range(200))
    client.sendall(data)
    pieces: list[bytes] = []
    while len(b"".join(pieces)) < len(data):
        pieces.append(server.recv(1000))
    assert b"".join(pieces) == data
    assert proxy.slice == 1


@pytest.mark.parametrize(("way", "up", "down"), [("up", 7, 100), ("both", 7, 0)])
def test_cut_after_passes_exactly_so_many_bytes(
    proxy: FaultProxy, link: Link, way: str, up: int, down: int
) -> None:
    client, server = link
    proxy.cut_after(7, way)  # type: ignore[arg-type]
    server.sendall(bytes(down))
    assert len(receive(client, down)) == down
    client.sendall(b"0123456789")
    assert receive(server, 100) == b"0123456"[:up]
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""
    assert proxy.open_links == 0
    assert proxy.bytes_up == up


def test_cut_after_holds_for_later_links_and_can_be_ended(
    upstream: Upstream, proxy: FaultProxy, clients: contextlib.ExitStack
) -> None:
    proxy.cut_after(3, "down")
    for _ in range(2):
        client, server = connect(proxy, clients), upstream.accept()
        server.sendall(b"abcdef")
        assert receive(client, 100) == b"abc"
    proxy.cut_after(None)
    client, server = connect(proxy, clients), upstream.accept()
    server.sendall(b"abcdef")
    assert receive(client, 6) == b"abcdef"


def test_a_sender_is_held_back_when_nobody_reads(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    sent = fill(client)
    assert sent < 64 * 1024 * 1024
    assert len(receive(server, sent)) == sent


def test_a_proxy_that_is_deaf_holds_little(proxy: FaultProxy, link: Link) -> None:
    client, server = link
    proxy.deaf()
    sent = fill(client)
    assert proxy.bytes_up == 0
    proxy.deaf(False)
    assert len(receive(server, sent)) == sent


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latency", -1),
        ("jitter", -0.1),
        ("rate", 0),
        ("slice", 0),
        ("kill_every", 0),
        ("latency", float("nan")),
    ],
)
def test_a_value_that_cannot_work_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError):
        setattr(FaultProxy("127.0.0.1", 1), name, value)


def test_a_cut_after_nothing_is_refused() -> None:
    with pytest.raises(ValueError):
        FaultProxy("127.0.0.1", 1).cut_after(0)


def test_faults_may_be_chosen_before_the_start(upstream: Upstream) -> None:
    proxy = FaultProxy("localhost", upstream.port)
    assert proxy.port == 0
    proxy.refuse()
    proxy.cut()
    proxy.latency = 0.01
    with proxy:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(proxy.address, PATIENCE)
        proxy.refuse(False)
        socket.create_connection(proxy.address, PATIENCE).close()


def test_close_is_final_and_idempotent(upstream: Upstream, clients: contextlib.ExitStack) -> None:
    proxy = FaultProxy("127.0.0.1", upstream.port)
    with proxy:
        client, server = connect(proxy, clients), upstream.accept()
    assert client.recv(1) == b""
    assert server.recv(1) == b""
    proxy.close()
    proxy.cut()
    proxy.refuse(False)
    proxy.deaf()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(proxy.address, PATIENCE)
    with pytest.raises(RuntimeError):
        proxy.start()


def test_close_without_start_is_nothing() -> None:
    FaultProxy("127.0.0.1", 1).close()


def test_an_unknown_upstream_leaves_nothing_behind() -> None:
    proxy = FaultProxy("no-such-host.invalid", 1)
    with pytest.raises(OSError):
        proxy.start()
    proxy.close()


# WebSockets

UPGRADE = b"GET /feed HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
PLAIN = b"GET /feed HTTP/1.1\r\nHost: x\r\n\r\n"


def read_to_the_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_an_upgrade_is_refused_and_the_server_never_hears_of_it(
    link: tuple[socket.socket, socket.socket], proxy: FaultProxy
) -> None:
    client, server = link
    proxy.websockets = "refuse"
    client.sendall(UPGRADE)
    assert read_to_the_end(client).startswith(b"HTTP/1.1 403 ")
    assert read_to_the_end(server) == b""
    eventually(lambda: proxy.open_links == 0)


def test_an_upgrade_is_swallowed_with_all_that_follows_until_the_client_leaves(
    link: tuple[socket.socket, socket.socket], proxy: FaultProxy
) -> None:
    client, server = link
    proxy.websockets = "swallow"
    client.sendall(UPGRADE)
    client.sendall(b"frames")
    client.shutdown(socket.SHUT_WR)
    assert read_to_the_end(server) == b""


@pytest.mark.parametrize(
    "sent", [PLAIN, b"\x16\x03\x01GET ", b"G", b"GE", b"POST / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"]
)
def test_what_is_no_upgrade_passes(
    link: tuple[socket.socket, socket.socket], proxy: FaultProxy, sent: bytes
) -> None:
    client, server = link
    proxy.websockets = "refuse"
    client.sendall(sent)
    client.sendall(b"etter")
    if b"GET ".startswith(sent):
        proxy.websockets = "pass"  # a head that is held back is let go
    assert server.recv(len(sent), socket.MSG_WAITALL) == sent


def test_a_link_is_judged_by_its_first_request_only(
    link: tuple[socket.socket, socket.socket], proxy: FaultProxy
) -> None:
    client, server = link
    proxy.websockets = "refuse"
    client.sendall(PLAIN)
    assert server.recv(len(PLAIN), socket.MSG_WAITALL) == PLAIN
    client.sendall(UPGRADE)
    assert server.recv(len(UPGRADE), socket.MSG_WAITALL) == UPGRADE


def test_an_unknown_fate_of_websockets_is_refused(proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match="swallow"):
        proxy.websockets = "sometimes"  # type: ignore[assignment]
    assert proxy.websockets == "pass"
