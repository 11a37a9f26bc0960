"""Pipes for the tests: pairs over memory and over sockets, a raw far end, and a reader on a thread."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

from connman.clock import Clock, Deadline, SystemClock
from connman.errors import ConnmanError
from connman.records import Message
from connman.transport.frames import FrameCodec
from connman.transport.memory import memory_pair
from connman.transport.pipe import Pipe
from connman.transport.sockets import WRITABLE, SocketGuard, poll_ready
from connman.transport.stream import Stream, write_rest
from connman.transport.tcp import TcpStream
from tests.stacks import is_in
from tests.waiting import eventually

PATIENCE = 10.0
LIMIT = 16 << 20
CAPACITY = 4 << 16
"""What a lane of the memory transport holds."""


class Pair(NamedTuple):
    """Two pipes that are each other's peer."""

    near: Pipe
    far: Pipe


def patient() -> Deadline:
    return Deadline.after(SystemClock(), PATIENCE)


@contextlib.contextmanager
def open_pair(kind: str, clock: Clock | None = None) -> Iterator[Pair]:
    clock = clock or SystemClock()
    pair = Pair(*(memory_pair(clock, LIMIT) if kind == "memory" else socket_pair(clock)))
    yield pair
    for pipe in pair:
        pipe.dispose()


def socket_pair(clock: Clock) -> tuple[Pipe, Pipe]:
    near, far = (socket_pipe(sock, clock) for sock in socket.socketpair())
    return near, far


def socket_pipe(sock: socket.socket, clock: Clock, leftover: bytes = b"") -> Pipe:
    return make_pipe(TcpStream(SocketGuard(sock)), clock, leftover)


def make_pipe(stream: Stream, clock: Clock, leftover: bytes = b"") -> Pipe:
    return Pipe("test", stream, FrameCodec(LIMIT, mask=False), clock, leftover)


class Raw:
    """The far end of a pipe as bare frames: sends what it is told, and takes apart what comes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._codec = FrameCodec(LIMIT, mask=False)
        self._bytes = b""

    def text(self, text: str) -> bytes:
        return self._codec.encode(text)

    def ping(self, payload: bytes = b"") -> bytes:
        return self._codec.encode_ping(payload)

    def pong(self, payload: bytes = b"") -> bytes:
        return b"\x8a" + bytes([len(payload)]) + payload

    def close_frame(self, code: int = 1000) -> bytes:
        return b"\x88\x02" + code.to_bytes(2, "big")

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def next_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame; (-1, b"") at the end of file."""
        head = self._read(2)
        if not head:
            return -1, b""
        size = head[1]
        if size > 125:
            size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
        return head[0] & 15, self._read(size)

    def rest(self) -> list[tuple[int, bytes]]:
        """Return every frame up to the end of file."""
        return list(iter(self.next_frame, (-1, b"")))

    def _read(self, size: int) -> bytes:
        while len(self._bytes) < size:
            chunk = self.sock.recv(1 << 20)
            if not chunk:
                assert not self._bytes, "the stream ended in the middle of a frame"
                return b""
            self._bytes += chunk
        found, self._bytes = self._bytes[:size], self._bytes[size:]
        return found


@contextlib.contextmanager
def open_raw(clock: Clock | None = None, leftover: bytes = b"") -> Iterator[tuple[Pipe, Raw]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    pipe = socket_pipe(ours, clock or SystemClock(), leftover)
    yield pipe, Raw(theirs)
    pipe.dispose()
    theirs.close()


class Reader:
    """Reads a pipe on a thread of its own until it ends; disposes of it then, as a connection's reader does."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.messages: list[Message] = []
        self.error: ConnmanError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                self.messages += self.pipe.receive()
                self.has_read()
        except ConnmanError as error:
            self.error = error
        finally:
            self.pipe.dispose()

    def has_read(self) -> None:
        """Do what a kind of reader does behind each read."""

    def ended(self) -> ConnmanError:
        """Wait for the end and return it."""
        self._thread.join(PATIENCE)
        assert self.error is not None, "the pipe did not end"
        return self.error

    def wait_for(self, count: int) -> list[Message]:
        eventually(lambda: len(self.messages) >= count, PATIENCE)
        return self.messages


def wait_until_full(sock: socket.socket) -> None:
    """Wait until a sender has filled the socket."""
    eventually(lambda: not poll_ready(sock.fileno(), WRITABLE, 0))


def wait_until_sending() -> None:
    """Wait until a thread has begun a message that does not fit into the network, and waits for room."""
    eventually(lambda: is_in(write_rest.__code__))
