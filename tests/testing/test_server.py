"""The server for users' tests: what it does to a client, seen from a plain socket and from a connection."""

import socket

import pytest

import connman
from connman.errors import UpgradeRefused
from connman.testing import BadServer, Guest
from tests.loopback import PATIENCE
from tests.waiting import eventually


def client(server: BadServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)


def test_each_client_gets_its_script_and_the_others_the_last() -> None:
    with BadServer(lambda guest: guest.send(b"one"), lambda guest: guest.send(b"other")) as server:
        heard = []
        for _ in range(3):
            with client(server) as sock:
                heard.append(sock.recv(100))
        assert len(server.guests) == 3
    assert heard == [b"one", b"other", b"other"]
    assert server.port == 0


def test_it_refuses_and_opens_and_drops_a_connection() -> None:
    """A connection is refused, opened, dropped, and refused again."""

    def refuses(guest: Guest) -> None:
        guest.read_request()
        guest.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    def drops(guest: Guest) -> None:
        guest.upgrade()
        guest.send(b"\x81\x05hello")
        guest.sock.recv(100)
        guest.reset()

    resets: list[connman.Reset] = []
    with BadServer(refuses, drops, refuses) as server:
        conn = connman.Connection(
            server.url("/feed"),
            proxy=None,
            wait=lambda _: 0.0,
            on_reset=lambda _, reset: resets.append(reset),
        )
        assert conn.connect().recv(PATIENCE) == "hello"
        conn.send("now")
        eventually(lambda: len(resets) >= 3)
        conn.disconnect()
        assert server.guests[1].request.startswith("GET /feed HTTP/1.1\r\n")
    assert isinstance(resets[0].error, UpgradeRefused)
    assert [reset.opened for reset in resets[:3]] == [False, True, False]


def test_a_reset_an_end_and_silence() -> None:
    def ends(guest: Guest) -> None:
        guest.end()
        heard.append(guest.wait_closed())

    heard: list[bytes] = []
    with BadServer(lambda guest: guest.reset(), ends, lambda guest: guest.stall()) as server:
        with pytest.raises(ConnectionResetError), client(server) as sock:
            sock.recv(1)
        with client(server) as sock:
            assert sock.recv(1) == b""
            sock.sendall(b"still here")
        # A client that is still there when the block ends holds nothing up.
        with client(server) as silent:
            silent.settimeout(0.05)
            with pytest.raises(TimeoutError):
                silent.recv(1)
            server.__exit__(None, None, None)
    assert heard == [b"still here"]


def test_a_drip_goes_on_until_all_is_said_or_the_client_says_something() -> None:
    def drips(guest: Guest) -> None:
        guest.drip(b"x" * 10**6)
        assert guest.sock.recv(100) == b"stop"

    with BadServer(lambda guest: guest.drip(b"abc", 0.001), drips) as server:
        with client(server) as sock:
            assert b"".join(iter(lambda: sock.recv(100), b"")) == b"abc"
        with client(server) as sock:
            sock.sendall(b"stop")
            assert len(b"".join(iter(lambda: sock.recv(100), b""))) < 10**6


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n"])
def test_a_client_that_leaves_early_ends_its_script_silently(data: bytes) -> None:
    with BadServer(lambda guest: guest.upgrade()) as server, client(server) as sock:
        sock.sendall(data)


def test_what_a_script_raises_comes_out_at_the_end() -> None:
    def fails(_: Guest) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), BadServer(fails) as server, client(server) as sock:
        assert sock.recv(1) == b""


def test_an_upgrade_of_what_is_no_websocket_is_the_tests_mistake() -> None:
    mistake = pytest.raises(ValueError, match="no Sec-WebSocket-Key")
    with mistake, BadServer(lambda guest: guest.upgrade()) as server, client(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert sock.recv(1) == b""


def test_it_wants_a_script() -> None:
    with pytest.raises(TypeError):
        BadServer()
