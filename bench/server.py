"""The load server, a process of its own: raw sockets and frames made in advance, so that it is never what is measured.

What a connection gets is said by the path of its upgrade:

    /blast/SIZE/COUNT          COUNT text messages of SIZE bytes, as fast as they are taken
    /echo/SIZE                 one message of SIZE bytes for each that comes
    /sink/SIZE/COUNT           one message once COUNT messages of SIZE bytes have come
    /ticks/SIZE/CLIENTS/RATE   RATE messages a second over all connections, once there are CLIENTS of them
    /idle                      nothing (pings and goodbyes are answered, as they are wherever nothing is counted)
    /never                     not even the answer to the upgrade
    /never_seen                a plain answer: how many connections are in the hands of /never
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable

from bench import wire

BLOCK = 1 << 20
"""Bytes that one send() hands to the system, about."""
SLICES_A_SECOND = 100


def blast(sock: socket.socket, size: int, count: int) -> None:
    """Send the messages and wait for the client to leave."""
    one = wire.frame(wire.text(size).encode())
    together = max(1, min(count, BLOCK // len(one)))
    block = one * together
    for _ in range(count // together):
        sock.sendall(block)
    sock.sendall(one * (count % together))
    swallow(sock)


def echo(sock: socket.socket, size: int) -> None:
    """Answer each message; the answers were made in advance."""
    incoming, answer = wire.masked_size(size), wire.frame(wire.text(size).encode())
    pending = 0
    while chunk := sock.recv(1 << 16):
        pending += len(chunk)
        count, pending = divmod(pending, incoming)
        sock.sendall(answer * count)


def sink(sock: socket.socket, size: int, count: int) -> None:
    """Count what comes and say once that all of it is there."""
    left, buffer = wire.masked_size(size) * count, bytearray(1 << 18)
    while left > 0 and (got := sock.recv_into(buffer)):
        left -= got
    sock.sendall(wire.frame(b"all"))
    swallow(sock)


def swallow(sock: socket.socket) -> None:
    """Read until the client leaves."""
    while sock.recv(1 << 16):
        pass


CONVERSATIONS: dict[str, Callable[..., None]] = {"blast": blast, "echo": echo, "sink": sink}


class Server:
    """One listener, one loop; conversations that send or receive a lot get a thread each."""

    def __init__(self) -> None:
        self._listener = socket.create_server((wire.HOST, 0), backlog=16384)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._requests: dict[socket.socket, bytes] = {}
        self._silent: set[socket.socket] = set()
        self._ticked: list[socket.socket] = []
        self._is_ticking = False

    def run(self) -> None:
        """Say the port and serve until standard input ends."""
        print(self._listener.getsockname()[1], flush=True)
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key.fileobj)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(256):
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
                self._requests[sock] = b""
                self._selector.register(sock, selectors.EVENT_READ)

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._drop(sock)
        elif sock in self._requests:
            request = self._requests[sock] = self._requests[sock] + data
            if b"\r\n\r\n" in request:
                del self._requests[sock]
                self._begin(sock, request)
        else:
            self._answer(sock, data)

    def _answer(self, sock: socket.socket, data: bytes) -> None:
        """Be a decent peer: a client that waits for the answer to its goodbye would measure that wait."""
        opcode, payload = data[0] & 0x0F, wire.unmasked(data[6:], data[2:6])
        with contextlib.suppress(OSError):
            if opcode == wire.PING:
                sock.send(wire.frame(payload, wire.PONG))
            elif opcode == wire.CLOSE:
                sock.send(wire.frame(payload, wire.CLOSE))
                self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        self._requests.pop(sock, None)
        self._silent.discard(sock)
        sock.close()

    def _begin(self, sock: socket.socket, request: bytes) -> None:
        name, *numbers = wire.path_of(request)
        if name == "never":
            self._silent.add(sock)
        elif name == "never_seen":
            sock.send(b"HTTP/1.1 200 OK\r\n\r\n%d" % len(self._silent))
            self._drop(sock)
        else:
            sock.send(wire.answer_to(request))
            self._converse(sock, name, [int(number) for number in numbers])

    def _converse(self, sock: socket.socket, name: str, numbers: list[int]) -> None:
        if name == "ticks":
            self._ticked.append(sock)
            size, clients, rate = numbers
            if len(self._ticked) >= clients and not self._is_ticking:
                self._is_ticking = True
                threading.Thread(target=self._tick, args=(size, rate), daemon=True).start()
        elif name != "idle":
            self._selector.unregister(sock)
            sock.setblocking(True)
            threading.Thread(target=converse, args=(CONVERSATIONS[name], sock, numbers), daemon=True).start()

    def _tick(self, size: int, rate: int) -> None:
        """Send round and round, evenly: a slice of the connections each hundredth of a second."""
        message = wire.frame(wire.text(size).encode())
        sent, begin = 0, time.monotonic()
        while self._ticked:
            due = int((time.monotonic() - begin) * rate)
            for number in range(sent, due):
                self._tick_one(self._ticked[number % len(self._ticked)], message)
            sent = max(sent, due)
            time.sleep(1 / SLICES_A_SECOND)

    @staticmethod
    def _tick_one(sock: socket.socket, message: bytes) -> None:
        # A client that has left, or is so far behind that its buffer is full: it counts what it gets.
        with contextlib.suppress(OSError):
            sock.send(message)


def converse(talk: Callable[..., None], sock: socket.socket, numbers: list[int]) -> None:
    """Run one conversation to its end."""
    with sock, contextlib.suppress(ConnectionError):
        talk(sock, *numbers)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


if __name__ == "__main__":
    raise_descriptor_limit()
    Server().run()
