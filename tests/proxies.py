"""Tiny proxies: HTTP CONNECT, SOCKS 4, 4a and 5. They remember what they were asked."""

import contextlib
import selectors
import socket
import struct
from typing import Literal

from tests.loopback import Server, read_to_the_end, shut


class ConnectProxy(Server):
    """An HTTP proxy that knows CONNECT. `heads`: the requests it got, whole. `leads_to`: a port for whatever is asked."""

    def __init__(self, credentials: bytes | None = None, *, leads_to: int | None = None) -> None:
        super().__init__(self._tunnel)
        self.heads: list[bytes] = []
        self._leads_to = leads_to
        self._wanted = None if credentials is None else b"Proxy-Authorization: Basic " + credentials

    def _tunnel(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += take(client, 1)
        self.heads.append(head)
        if self._wanted is not None and self._wanted not in head.split(b"\r\n"):
            client.sendall(b"HTTP/1.1 407 Say please\r\nProxy-Authenticate: Basic\r\n\r\n" + head)
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        place = (host.strip("[]"), int(port)) if self._leads_to is None else ("127.0.0.1", self._leads_to)
        with socket.create_connection(place) as upstream:
            for sock in (client, upstream):  # so that nothing is held back by it that is not meant to be
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            self._carry(client, upstream)

    def _carry(self, client: socket.socket, upstream: socket.socket) -> None:
        pump(client, upstream)


Blocks = Literal["refuse", "swallow", "swallow frames"]


class WebSocketBlocker(ConnectProxy):
    """An HTTP proxy that lets every tunnel be made, looks into those in clear text, and dislikes websockets.

    `blocks`: what becomes of an upgrade from now on: it is answered with 403; it is never answered; it passes and no
    frame behind it does. None: everything passes, as plain HTTP always does. `blocked`: upgrades it has stopped.
    `holds_streams`: the answer to a request for SockJS's streaming is passed on when it has ended, which may never be.
    """

    def __init__(self, blocks: Blocks | None, *, leads_to: int | None = None) -> None:
        super().__init__(leads_to=leads_to)
        self.blocks = blocks
        self.blocked = 0
        self.holds_streams = False

    def _carry(self, client: socket.socket, upstream: socket.socket) -> None:
        head = take(client, 1)
        if head != b"\x16":  # the first byte of TLS (RFC 8446 5.1), into which nobody can look
            while not head.endswith(b"\r\n\r\n"):
                head += take(client, 1)
        blocks = self.blocks if b"\r\nupgrade: websocket\r\n" in head.lower() else None
        self.blocked += blocks is not None
        if blocks == "refuse":
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        elif blocks == "swallow":
            read_to_the_end(client)
        else:
            upstream.sendall(head)
            if blocks == "swallow frames":
                answer = b""
                while not answer.endswith(b"\r\n\r\n"):
                    answer += take(upstream, 1)
                client.sendall(answer)
                read_to_the_end(client)
            elif self.holds_streams and b"/xhr_streaming" in head.partition(b"\r\n")[0]:
                hold_back(client, upstream)
            else:
                pump(client, upstream)


class SocksProxy(Server):
    """A SOCKS proxy. `asked`: the hosts it was asked for; names lead to 127.0.0.1."""

    def __init__(self, credentials: tuple[bytes, bytes] | None = None) -> None:
        super().__init__(self._tunnel)
        self.asked: list[str] = []
        self._credentials = credentials

    def _tunnel(self, client: socket.socket) -> None:
        if take(client, 1) == b"\x05":
            self._socks5(client)
        else:
            self._socks4(client)

    def _socks5(self, client: socket.socket) -> None:
        methods = take(client, take(client, 1)[0])
        method = 0 if self._credentials is None else 2
        if method not in methods:
            client.sendall(b"\x05\xff")
            return
        client.sendall(bytes([5, method]))
        if self._credentials is not None:
            take(client, 1)
            given = (take(client, take(client, 1)[0]), take(client, take(client, 1)[0]))
            client.sendall(b"\x01\x00" if given == self._credentials else b"\x01\x01")
            if given != self._credentials:
                return
        kind = take(client, 4)[3]
        if kind == 3:
            host = take(client, take(client, 1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, take(client, size))
        (port,) = struct.unpack("!H", take(client, 2))
        self._connect(client, host, port, b"\x05\x00\x00\x01\0\0\0\0\0\0", b"\x05\x05\x00\x01\0\0\0\0\0\0")

    def _socks4(self, client: socket.socket) -> None:
        _, port, address = struct.unpack("!BH4s", take(client, 7))
        take_text(client)
        host = take_text(client) if address == b"\0\0\0\1" else socket.inet_ntoa(address)
        self._connect(client, host, port, b"\0\x5a\0\0\0\0\0\0", b"\0\x5b\0\0\0\0\0\0")

    def _connect(self, client: socket.socket, host: str, port: int, granted: bytes, refused: bytes) -> None:
        self.asked.append(host)
        try:
            upstream = socket.create_connection((host if host[0].isdigit() else "127.0.0.1", port))
        except OSError:
            client.sendall(refused)
            return
        with upstream:
            client.sendall(granted)
            pump(client, upstream)


def take(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            raise ConnectionError("the client went away")
        data += chunk
    return data


def take_text(sock: socket.socket) -> str:
    return b"".join(iter(lambda: take(sock, 1), b"\0")).decode()


def hold_back(client: socket.socket, upstream: socket.socket) -> None:
    """Carry what the client sends, and what it gets for that when there is no more to come."""
    held = b""
    with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        selector.register(client, selectors.EVENT_READ)
        selector.register(upstream, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                is_answer = key.fileobj is upstream
                chunk = (upstream if is_answer else client).recv(65536)
                if not chunk:
                    client.sendall(held)
                    shut(client, upstream)
                    return
                if is_answer:
                    held += chunk
                else:
                    upstream.sendall(chunk)


def pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until one side ends; then end both."""
    with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                source, target = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                chunk = source.recv(65536)
                if not chunk:
                    shut(one, other)
                    return
                target.sendall(chunk)
