"""Sockets that any thread may shut down, that only their owner closes, and whose waits have deadlines."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import types
import weakref

from connman.clock import Deadline

# Every guard of the process, weakly: what a forked child has to drop. Made of atomic operations, no lock at import.
_guards: weakref.WeakSet[SocketGuard] = weakref.WeakSet()

READABLE = 1  # select.POLLIN
WRITABLE = 4  # select.POLLOUT


class SocketGuard:
    """Hold the socket of one dial and, later, of its transport.

    ``socket.close()`` does not wake a thread blocked in ``recv`` or ``send``, ``shutdown`` does; and a descriptor that
    is closed while another thread is about to shut it down may by then belong to a stranger. So everyone shuts down,
    one closes, and a small lock stands between the two.

    Threads: `shutdown` from any thread; the rest from the one that owns the socket just then.
    """

    __slots__ = ("__weakref__", "_is_closed", "_is_shut", "_lock", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._lock = threading.Lock()
        # Guarded by _lock: sock (when replaced), _is_shut, _is_closed.
        self._is_shut = False
        self._is_closed = False
        _guards.add(self)

    def replace(self, sock: socket.socket) -> None:
        """Put ``sock``, which has taken over the descriptor (TLS), in the old one's place."""
        with self._lock:
            self.sock = sock
            # A shutdown() while the two were exchanged met the old object, whose descriptor had moved on already.
            if self._is_shut:
                _shut(sock)

    def shutdown(self) -> None:
        """Wake everyone who is blocked in the socket; keep the descriptor. Idempotent.

        Threads: any; never blocks.
        """
        with self._lock:
            if not self._is_closed:
                self._is_shut = True
                _shut(self.sock)

    @property
    def is_shut(self) -> bool:
        """Whether `shutdown` was called."""
        return self._is_shut

    def close(self) -> None:
        """Shut down and give the descriptor back. Idempotent."""
        with self._lock:
            if self._is_closed:
                return
            # close() alone wakes nobody: 200 of 200 readers were still blocked seconds later.
            self._is_closed = True
            _shut(self.sock)
            self.sock.close()

    def drop(self) -> None:
        """Close the descriptor inherited by a child process: no shutdown, no TLS goodbye, no lock of the parent."""
        with contextlib.suppress(OSError):
            self.sock.close()


def drop_sockets_after_fork() -> None:
    """Close every inherited descriptor silently, those that only a thread of the parent still knows included.

    Threads: the only thread of a fresh child.
    """
    for guard in list(_guards):
        guard.drop()


def below_tls(sock: socket.socket) -> type[socket.socket]:
    """Return the class whose methods act on the socket itself, beneath the TLS that its own class may add.

    Looked for in its own class: `socket.socket` may be gevent's by now, and this one older.

    Threads: any; pure.
    """
    return next(kind for kind in type(sock).__mro__ if not hasattr(kind, "do_handshake"))


def _shut(sock: socket.socket) -> None:
    # Not sock.shutdown(): SSLSocket's own throws the TLS layer away first, and later sends would leave in clear text.
    with contextlib.suppress(OSError):
        below_tls(sock).shutdown(sock, socket.SHUT_RDWR)


def is_cooperative(sock: socket.socket) -> bool:
    """Return whether another greenlet runs while a call waits: then MSG_DONTWAIT does not keep a call from waiting.

    Threads: any; pure.
    """
    # Python's own is written in C; gevent's is not.
    return not isinstance(below_tls(sock).recv, types.MethodDescriptorType)


def wait_ready(fd: int, events: int, deadline: Deadline | None) -> bool:
    """Wait until a descriptor is ready (or broken, or shut down); False when the deadline passes first, None for none.

    Threads: any.
    """
    while not poll_ready(fd, events, None if deadline is None else deadline.remaining()):
        if deadline is not None and deadline.expired:
            return False
    return True


def poll_ready(fd: int, events: int, seconds: float | None) -> bool:
    """Wait up to ``seconds`` (None: without a limit) until a descriptor is ready, broken or shut down.

    Threads: any. ``select.poll`` because descriptors above 1023 must work; looked up at call time for gevent.
    """
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(milliseconds(seconds)))


def is_readable(sock: socket.socket) -> bool:
    """Return whether bytes, an end of file or an error wait to be read; False for a socket that is closed.

    Threads: any; never blocks.
    """
    fd = sock.fileno()
    if fd < 0:
        return False
    poll = select.poll()
    poll.register(fd, READABLE)
    return bool(poll.poll(0))  # not `poll_ready`, whose shortest wait is a millisecond


def milliseconds(seconds: float | None) -> int | None:
    """Return a time limit as ``poll`` takes it, None for none; 0 and less are the shortest there is.

    Longer than 24 days is cut short: callers wait in a loop.

    Threads: any; pure.
    """
    # Rounded up: poll counts whole milliseconds, and waking early would spin. Never negative: that is "for ever" to it.
    return None if seconds is None else min(int(max(0.0, seconds) * 1000) + 1, 2**31 - 1)


class DialSocket:
    """A blocking face for a non-blocking socket in the middle of a dial: every wait ends at the one deadline.

    Speaks enough of the socket interface for websocket-client and python-socks.

    Threads: the dialling thread only.
    """

    def __init__(self, guard: SocketGuard, deadline: Deadline) -> None:
        self._guard = guard
        self._deadline = deadline

    def wait(self, events: int) -> None:
        """Wait until the socket is ready.

        Raises: TimeoutError at the deadline.
        """
        # Also when it is ready: a peer that is always a little ready must not outlast the deadline.
        if self._deadline.expired or not wait_ready(self._guard.sock.fileno(), events, self._deadline):
            raise TimeoutError("timed out")

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return up to ``size`` bytes, b"" at the end of file; ``flags`` as of the system's call, not with TLS.

        Raises: OSError; TimeoutError at the deadline, however slowly bytes drip in.
        """
        while True:
            if self._deadline.expired:
                raise TimeoutError("timed out")
            try:
                return self._guard.sock.recv(size, flags)
            except (BlockingIOError, ssl.SSLWantReadError):
                self.wait(READABLE)
            except ssl.SSLWantWriteError:
                self.wait(WRITABLE)

    def recv_unpacked(self) -> bytes:
        """Return what is left of the TLS record that was read last: no selector tells of it. Nothing without TLS.

        Raises: OSError.
        """
        sock = self._guard.sock
        return sock.recv(sock.pending()) if isinstance(sock, ssl.SSLSocket) and sock.pending() else b""

    def sendall(self, data: bytes) -> None:
        """Send all of ``data``.

        Raises: OSError; TimeoutError at the deadline.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[self._guard.sock.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self.wait(WRITABLE)
            except ssl.SSLWantReadError:
                self.wait(READABLE)
            except (ssl.SSLEOFError, ConnectionError):
                self._raise_alert()
                raise

    def _raise_alert(self) -> None:
        """Raise the TLS alert that the peer sent before it closed, which is why nothing more can be sent."""
        if isinstance(self._guard.sock, ssl.SSLSocket):
            with contextlib.suppress(ssl.SSLEOFError, ssl.SSLWantReadError, ConnectionError):
                self._guard.sock.recv(1)

    def send(self, data: bytes) -> int:
        """Send all of ``data`` and return its length.

        Raises: OSError; TimeoutError at the deadline.
        """
        self.sendall(data)
        return len(data)

    def gettimeout(self) -> float | None:
        """Return the seconds left.

        Threads: the dialling thread.
        """
        return self._deadline.remaining()

    def settimeout(self, seconds: float | None) -> None:
        """Ignore it: the dial's deadline rules."""

    def close(self) -> None:
        """Ignore it: the dial owns the socket."""
