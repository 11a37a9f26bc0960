"""The servers that other tests rely on do what they say."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect as asyncio_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests import servers
from tests.loopback import PATIENCE
from tests.servers import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    Frames,
    RawServer,
    WebSocketProcess,
    close_frame,
    raw_server,
    server_frame,
    ws_accept,
    ws_server,
)
from tests.waiting import eventually


@pytest.fixture(scope="module")
def process() -> Iterator[WebSocketProcess]:
    with ws_server() as server:
        yield server


def client(url: str, **options: Any) -> ClientConnection:
    made: ClientConnection = connect(url, proxy=None, compression=None, ping_interval=None, **options)
    return made


def raw_client(server: RawServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE)


# The process


def test_echo_and_the_counts(process: WebSocketProcess) -> None:
    eventually(lambda: process.stats()["open"] == 0)  # those of the test before may be leaving
    before = process.stats()
    with client(process.url("/echo")) as ws:
        ws.send("hello")
        assert ws.recv() == "hello"
        now = process.stats()
        assert now["accepted"] - before["accepted"] == now["upgraded"] - before["upgraded"] == 1
        assert now["messages"] - before["messages"] == 1
    eventually(lambda: process.stats()["open"] == before["open"])
    with socket.create_connection(("127.0.0.1", process.port)):
        eventually(lambda: process.accepted() - before["accepted"] == 2)


def test_how_clients_leave() -> None:
    with ws_server() as process:
        for code in (1000, 1001, 1001):
            with client(process.url("/echo")) as ws:
                ws.close(code)
        with client(process.url("/echo")) as ws:
            ws.socket.shutdown(socket.SHUT_RDWR)
        with pytest.raises(InvalidStatus):
            client(process.url("/http?status=503"))
        with socket.create_connection(("127.0.0.1", process.port)):
            pass  # never upgraded: not counted
        eventually(lambda: process.accepted() == 6 and process.stats()["open"] == 0)
        assert process.closes() == {"1000": 1, "1001": 2, "none": 1}


def test_feed(process: WebSocketProcess) -> None:
    with client(process.url("/feed?count=200&size=5")) as ws:
        assert list(ws) == [str(number).ljust(5) for number in range(1, 201)]
    with client(process.url("/feed?interval=0.001")) as ws:
        assert [ws.recv() for _ in range(5)] == list("12345")


def test_login(process: WebSocketProcess) -> None:
    with client(process.url("/login")) as ws:
        ws.send('{"pass": "open sesame"}')
        assert json.loads(ws.recv()) == {"ok": True}
        ws.send("in")
        assert ws.recv() == "in"
    for wrong in ('{"pass": "open barley"}', "garbage"):
        with client(process.url("/login")) as ws:
            ws.send(wrong)
            with pytest.raises(ConnectionClosed):
                ws.recv()
            assert ws.close_code == 4001


def test_close_and_burst(process: WebSocketProcess) -> None:
    with client(process.url("/close?code=4242&reason=so%20be%20it")) as ws:
        assert list_until_closed(ws) == []
        assert (ws.close_code, ws.close_reason) == (4242, "so be it")
    with client(process.url("/burst-then-close?code=1012")) as ws:
        assert list_until_closed(ws) == [str(number) for number in range(1, 101)]
        assert ws.close_code == 1012


def list_until_closed(ws: ClientConnection) -> list[str | bytes]:
    messages: list[str | bytes] = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            messages.append(ws.recv())
    return messages


def test_deaf_answers_no_close(process: WebSocketProcess) -> None:
    with client(process.url("/deaf"), close_timeout=0.1) as ws:
        pong = ws.ping()
    assert not pong.is_set()
    assert ws.close_code == 1006
    process.drop_all()


def test_silent_answers_a_ping_and_nothing_else(process: WebSocketProcess) -> None:
    with client(process.url("/silent")) as ws:
        ws.send("anybody?")
        assert ws.ping().wait(PATIENCE)


def test_refusals(process: WebSocketProcess) -> None:
    with pytest.raises(InvalidStatus) as caught, client(process.url("/http?status=429&Retry-After=7")):
        pass
    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["Retry-After"] == "7"
    with pytest.raises(InvalidStatus), client(process.url("/nowhere")):
        pass
    with pytest.raises(TimeoutError), client(process.url("/hang"), open_timeout=0.1):
        pass


def test_commands_reach_every_connection(process: WebSocketProcess) -> None:
    with client(process.url()) as one, client(process.url()) as two:
        process.broadcast("to all")
        assert one.recv() == two.recv() == "to all"
        process.close_all(1012, "restart")
        for ws in (one, two):
            assert list_until_closed(ws) == []
            assert ws.close_code == 1012
    with client(process.url()) as ws:
        process.drop_all()
        assert list_until_closed(ws) == []
        assert ws.close_code == 1006


def test_it_freezes_dies_and_comes_back_on_its_port() -> None:
    with ws_server() as process:
        first = process.pid
        with client(process.url()) as ws:
            process.stop()
            ws.send("frozen")
            with pytest.raises(TimeoutError):
                ws.recv(timeout=0.1)
            process.cont()
            assert ws.recv(timeout=PATIENCE) == "frozen"
            process.stop()
            process.kill()
            process.kill()
            assert list_until_closed(ws) == []
        with pytest.raises(ConnectionRefusedError), client(process.url()):
            pass
        process.restart()
        assert process.pid != first
        with client(process.url()) as ws:
            ws.send("back")
            assert ws.recv() == "back"
        assert process.accepted() == 1


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    cert = authority.issue_cert("localhost")
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    certfile.write_bytes(b"".join(pem.bytes() for pem in cert.cert_chain_pems))
    keyfile.write_bytes(cert.private_key_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)

    # Not the threaded client: it reads and writes one SSLSocket on two threads, and hangs now and then.
    async def talk(url: str) -> str | bytes:
        async with asyncio_connect(url, ssl=context, proxy=None) as ws:
            await ws.send("secret")
            return await ws.recv()

    with ws_server(certfile, keyfile) as process:
        assert process.url().startswith("wss://localhost:")
        assert asyncio.run(talk(process.url())) == "secret"
        assert process.accepted() == 1


# Raw servers


def test_a_raw_server_numbers_its_connections() -> None:
    with raw_server(lambda sock, n: sock.sendall(str(n).encode())) as server:
        for number in (b"1", b"2", b"3"):
            with raw_client(server) as sock:
                assert sock.recv(10) == number
                assert sock.recv(10) == b""
        assert server.accepted == 3


def test_a_raw_server_tells_what_its_handler_raised() -> None:
    def handler(_sock: socket.socket, n: int) -> None:
        assert n > 1, "the first one"

    def use() -> None:
        with raw_server(handler) as server, raw_client(server) as sock:
            assert sock.recv(1) == b""

    with pytest.raises(AssertionError, match="the first one"):
        use()


@pytest.mark.parametrize("handler", [servers.silent, servers.unread, servers.drip(b"x" * 1000, 1)])
def test_leaving_a_raw_server_ends_handlers_that_wait(handler: servers.Handler) -> None:
    with raw_server(handler) as server:
        sock = raw_client(server)
        eventually(lambda: server.accepted)
    with sock:
        assert sock.recv(1) in (b"", b"x")


def test_close_at_once_and_reset_at_once() -> None:
    with raw_server(servers.close_at_once) as server, raw_client(server) as sock:
        assert sock.recv(1) == b""
    with raw_server(servers.reset_at_once) as server, pytest.raises(ConnectionResetError):  # noqa: SIM117
        with raw_client(server) as sock:
            sock.recv(1)


def test_drip() -> None:
    with raw_server(servers.drip(b"drip", 0.001, after=b"go")) as server, raw_client(server) as sock:
        sock.sendall(b"go")
        got = b""
        while got != b"drip":
            chunk = sock.recv(10)
            assert chunk
            got += chunk


def test_fixed_response() -> None:
    with raw_server(servers.fixed_response(b"HTTP/1.1 503 No\r\n\r\n")) as server:
        with raw_client(server) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert sock.recv(100) == b"HTTP/1.1 503 No\r\n\r\n"
            assert sock.recv(100) == b""
        with pytest.raises(InvalidStatus), client(server.url()):
            pass


def test_an_upgrade_by_hand_satisfies_a_real_client() -> None:
    def handler(sock: socket.socket, _n: int) -> None:
        frames = Frames(sock, ws_accept(sock, "X-Extra: yes", behind=server_frame(TEXT, b"early")))
        for size in (1, 125, 126, 65535, 65536):
            frames.send(server_frame(TEXT, b"x" * size))
        frames.send(
            server_frame(TEXT, b"in ", fin=False), server_frame(PING, b"?"), server_frame(0, b"parts")
        )
        assert next(iter(frames)) == Frame(PONG, b"?")
        assert next(iter(frames)) == Frame(TEXT, b"y" * 70_000)
        frames.send(close_frame(4000, "bye"))
        assert next(iter(frames)).opcode == CLOSE

    with raw_server(handler) as server, client(server.url("/path?q=1")) as ws:
        assert ws.response is not None
        assert ws.response.headers["X-Extra"] == "yes"
        assert ws.recv() == "early"
        assert [len(ws.recv()) for _ in range(5)] == [1, 125, 126, 65535, 65536]
        assert ws.recv() == "in parts"
        ws.send("y" * 70_000)
        assert list_until_closed(ws) == []
        assert (ws.close_code, ws.close_reason) == (4000, "bye")


def test_a_request_is_told() -> None:
    seen: list[servers.UpgradeRequest] = []
    with raw_server(lambda sock, _: seen.append(servers.read_upgrade(sock))) as server:
        with raw_client(server) as sock:
            sock.sendall(b"GET /path?q=1 HTTP/1.1\r\nHost: here\r\nX-Token: a: b\r\n\r\nbehind")
        eventually(lambda: seen)
    assert seen == [servers.UpgradeRequest("/path?q=1", {"host": "here", "x-token": "a: b"}, b"behind")]


def test_never_close_reply() -> None:
    with raw_server(servers.upgraded(servers.never_close_reply)) as server:
        with client(server.url(), close_timeout=0.1) as ws:
            ws.send("hello")
            assert ws.recv() == "hello"
            assert ws.ping().wait(PATIENCE)
        assert ws.close_code == 1006


def test_a_full_backlog_makes_connect_hang() -> None:
    with servers.full_backlog() as address, pytest.raises(TimeoutError):
        socket.create_connection(address, 0.2)
