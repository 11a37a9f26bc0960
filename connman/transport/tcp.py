"""Byte streams over a plain socket, and the openers of the transports that carry bytes: tcp, tls, unix."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Iterator

from connman.clock import Deadline
from connman.options import Options
from connman.transport.base import Dial
from connman.transport.dial import discard_on_error, open_socket
from connman.transport.framing import RawCodec
from connman.transport.pipe import Pipe
from connman.transport.sockets import (
    READABLE,
    WRITABLE,
    SocketGuard,
    is_cooperative,
    is_readable,
    poll_ready,
    wait_ready,
)
from connman.transport.stream import Codec, Stream
from connman.transport.tls import TlsStream, start_tls
from connman.transport.traffic import Traffic, traffic

_CHUNK = 65536
# For a thread of its own that has found a whole chunk: half the system calls, and half the frames that a chunk cuts.
# Measured: 1.2 times the messages of 1 KiB that 64 KiB give; 256 KiB give no more.
_MUCH = 131072
# While little comes. A thread that waits in recv() holds the memory for all it may get, and what is freed from
# between such pieces stays in holes: 64 KiB for each idle connection cost 9 KiB.
_LITTLE = 256


def open_tcp(dial: Dial) -> Pipe:
    """Open a plain TCP transport, through a proxy where one is named.

    Raises: ConnectError and its kinds; the abort's error.
    Threads: the dialling thread.
    """
    return _open(dial, TcpStream)


def open_unix(dial: Dial) -> Pipe:
    """Open a transport over a unix socket.

    Raises: ConnectError and its kinds; the abort's error.
    Threads: the dialling thread.
    """
    return _open(dial, TcpStream)


def open_tls(dial: Dial) -> Pipe:
    """Open a TLS transport, through a proxy where one is named; the certificate is checked for the endpoint's host.

    Raises: CertificateError; ConnectError and its kinds; the abort's error.
    Threads: the dialling thread.
    """

    def secure(guard: SocketGuard) -> Stream:
        assert dial.endpoint is not None
        start_tls(dial, guard, dial.endpoint.host)
        return TlsStream(guard)

    return _open(dial, secure)


def _open(dial: Dial, make_stream: Callable[[SocketGuard], Stream]) -> Pipe:
    guard = open_socket(dial)
    assert dial.endpoint is not None
    with discard_on_error(dial, guard):
        pipe = Pipe(dial.endpoint.scheme, make_stream(guard), _codec(dial.options), dial.clock)
        dial.remove_abortable(guard.shutdown)
        # An abort until now has shut the socket down and is raised here; a later one is for the pipe's new owner.
        dial.check()
    return pipe


def _codec(options: Options) -> Codec:
    if options.framing is None:
        return RawCodec(options.max_message_size)
    codec: Codec = options.framing.codec(options.max_message_size)
    return codec


class TcpStream:
    """A ``stream.Stream``, which documents the methods, over a connected TCP or unix socket, which it makes blocking.

    Reading without a deadline is one system call. Writing never blocks: it asks for that call by call. Where that cannot
    be asked for (gevent) the socket never blocks, and waiting is done beside it: it lets the other greenlets run as well,
    however fast the peer sends.

    Threads: `recv` and `close` belong to one reader, `send_some`, `wait_writable` and `end_writing` to whoever holds
    the send lock; `shutdown` from any thread; `wait` and `read_lent` see ``stream.LendingStream``.
    """

    __slots__ = ("_guard", "_must_wait", "_poll", "_size", "_sock", "can_lend")

    reads_when = READABLE
    lends_to_main = True

    def __init__(self, guard: SocketGuard) -> None:
        self._guard = guard
        self._sock = guard.sock
        self._must_wait = is_cooperative(self._sock)
        self.can_lend = not self._must_wait  # a greenlet is not woken: whoever reads costs the same
        self._sock.setblocking(not self._must_wait)
        self._poll: select.poll | None = None  # of who waits: one at a time
        self._size = _LITTLE

    def recv(self, deadline: Deadline | None) -> bytes:
        """Block until bytes are there; see ``stream.Stream``.

        Threads: the reader only.
        """
        if (deadline is not None or self._must_wait) and not wait_ready(
            self._sock.fileno(), READABLE, deadline
        ):
            raise TimeoutError("timed out")
        if self._guard.is_shut:
            return b""
        try:
            chunk = self._sock.recv(self._size)
        except BlockingIOError:
            return self.recv(deadline)  # another greenlet was quicker, or it was woken for nothing
        except OSError:
            if self._guard.is_shut:
                return b""
            raise
        size = len(chunk)
        self._size = _LITTLE if size < _LITTLE else _MUCH if size >= _CHUNK else _CHUNK
        return chunk

    def recv_some(self) -> bytes | None:
        """Return what is there; see ``stream.Stream``.

        Threads: the reader only.
        """
        try:
            chunk = self._sock.recv(self._size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            if self._guard.is_shut:
                return b""
            raise
        self._size = _LITTLE if len(chunk) < _LITTLE else _CHUNK
        return chunk

    def wait(self, seconds: float) -> bool:
        """Wait until there may be bytes; see ``stream.LendingStream``.

        Threads: any, one at a time.
        """
        poll = self._poll
        if poll is None:
            fd = self._sock.fileno()
            if fd < 0:
                return True
            poll = select.poll()
            poll.register(fd, READABLE)
            self._poll = poll  # last: a Ctrl-C leaves none that looks at nothing
        return bool(poll.poll(max(1, round(seconds * 1000))))

    def read_lent(self, token: list[int]) -> Iterator[bytes]:
        """Read what is there; see ``stream.LendingStream``.

        Threads: any; the iterator one at a time.
        """
        return map(self._sock.recv, map(token.pop, (0,)), (socket.MSG_DONTWAIT,))

    def is_readable(self) -> bool:
        """Return whether something is there; see ``stream.Stream``.

        Threads: any.
        """
        return is_readable(self._sock)

    def traffic(self) -> Traffic | None:
        """Return what the system knows of the bytes on their way; see ``stream.Stream``.

        Threads: any.
        """
        return traffic(self._sock)

    def fileno(self) -> int:
        """Return the descriptor; see ``stream.Stream``.

        Threads: the reader only.
        """
        return self._sock.fileno()

    def watch(self, callback: Callable[[], None]) -> None:
        """Do nothing: there is a descriptor to watch.

        Threads: the reader only.
        """

    def send_some(self, data: bytes | memoryview) -> int:
        """Hand over what is taken at once; see ``stream.Stream``."""
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def wait_writable(self, seconds: float | None) -> None:
        """Block until `send_some` may succeed; see ``stream.Stream``."""
        fd = self._sock.fileno()
        if fd >= 0:  # or it was closed by a reader that has waited for the sender in vain: sending tells
            poll_ready(fd, WRITABLE, seconds)

    def end_writing(self) -> None:
        """Send FIN behind what was sent; see ``stream.Stream``."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def shutdown(self) -> None:
        """Break the pipe; see ``stream.Stream``."""
        self._guard.shutdown()

    def close(self) -> None:
        """Give the descriptor back; see ``stream.Stream``."""
        self._guard.close()
