"""TLS over a dialled socket: the handshake, and a stream that one thread may read while others write."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from connman.clock import Deadline
from connman.errors import CertificateError, ConnectError, InvalidOption
from connman.options import Options
from connman.transport.base import Dial
from connman.transport.causes import describe
from connman.transport.sockets import (
    READABLE,
    WRITABLE,
    DialSocket,
    SocketGuard,
    below_tls,
    is_cooperative,
    is_readable,
    poll_ready,
    wait_ready,
)
from connman.transport.traffic import Traffic, traffic

# The largest plain text of one record (RFC 8446 5.1): a read returns no more than that. A write is given no more
# either: OpenSSL tells of a longer one only as a whole, so of one that broke we would not know how much went out; and
# the reader would wait for the lock as long.
_RECORD = 16384
_CHUNK = 65536
# How long a writer waits for incoming bytes, which the reader may have taken from under its nose.
_WANT_READ_PATIENCE = 0.05


def start_tls(dial: Dial, guard: SocketGuard, server_hostname: str) -> None:
    """Put TLS on the connected socket of ``guard`` and finish the handshake.

    ``options.ssl_context`` is used as it is; without one certificate and host name are verified against the system's
    authorities. ``server_hostname`` goes out as SNI, unless it is an address, and is what the certificate is checked for.

    Raises: CertificateError when the peer's certificate is refused, or ours by the peer; ConnectError; ConnectTimeout;
    the abort's error. The socket is closed by whoever holds the guard, also on an error.
    Threads: the dialling thread.
    """
    with dial.step("tls", server_hostname):
        # No certificate names an interface (RFC 4007), and none the root behind its last dot (RFC 6066 3).
        name = server_hostname.partition("%")[0].removesuffix(".")
        context = _context(dial.options)
        try:
            sock = wrap_or_close(context, guard.sock, server_hostname=name)
            guard.replace(sock)
            _shake_hands(sock, DialSocket(guard, dial.deadline))
        except ssl.SSLCertVerificationError as error:
            refusal = f"certificate refused: {error.verify_message}"
            raise CertificateError(dial.name, message=refusal) from error
        except ValueError as error:
            raise ConnectError(dial.name, message=f"the host name does not fit TLS: {error}") from error


def wrap_or_close(context: ssl.SSLContext, sock: socket.socket, **options: Any) -> ssl.SSLSocket:
    """Return ``sock`` with TLS around it, the handshake not begun.

    Raises: OSError or ValueError; then ``sock`` is as it was, or its descriptor is closed.
    Threads: the socket's owner.
    """
    try:
        return context.wrap_socket(sock, do_handshake_on_connect=False, suppress_ragged_eofs=False, **options)
    except (OSError, ValueError) as error:
        # CPython takes the descriptor over first and then looks at the host name and at the connection. When one is
        # unfit or the other was just reset, a half-made SSLSocket is left to the garbage collector.
        for frame, _ in traceback.walk_tb(error.__traceback__):
            half_made = frame.f_locals.get("self")
            if isinstance(half_made, ssl.SSLSocket):
                half_made.close()
        raise


def _shake_hands(sock: ssl.SSLSocket, waiter: DialSocket) -> None:
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            waiter.wait(READABLE)
        except ssl.SSLWantWriteError:
            waiter.wait(WRITABLE)


# Filled on first use, since that reads the system's certificates; dicts, because no lock may be made at import. By the
# class, because gevent puts another one in its place.
_contexts: dict[type[ssl.SSLContext], ssl.SSLContext] = {}
_locks: dict[int, threading.Lock] = {}


def _context(options: Options) -> ssl.SSLContext:
    context = options.ssl_context
    if context is None:
        return _default_context()
    if not issubclass(getattr(context, "sslsocket_class", ssl.SSLSocket), ssl.SSLSocket):
        # Python's own wrap_socket() would stumble over gevent's class in the place of its own, with a TypeError.
        raise InvalidOption(
            "ssl_context was made before gevent patched the ssl module: have it patched first"
        )
    return context


def _default_context() -> ssl.SSLContext:
    if ssl.SSLContext not in _contexts:
        # One dial reads the certificates while the others wait: many that begin at once would read for seconds. A lock
        # for each process, because a child may inherit one that is held by a thread it does not have.
        with _locks.setdefault(os.getpid(), threading.Lock()):
            if ssl.SSLContext not in _contexts:
                _contexts[ssl.SSLContext] = make_context()
    return _contexts[ssl.SSLContext]


def make_context(*, authorities: str | None = None, verify: bool = True) -> ssl.SSLContext:
    """Return the settings connman itself uses for TLS, fit for ``ssl_context=``.

    ``authorities``: path of a PEM file to trust instead of the system's; None for the system's. Without ``verify``
    any certificate passes, which lets anyone on the path read and change everything.

    Raises: InvalidOption when the file cannot be read or holds no certificate.
    Threads: any.
    """
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        raise InvalidOption(f"the file of authorities cannot be used: {describe(error)}") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # Where a certificate names no hosts Python falls back to its common name, which no browser does (RFC 9525 6.3).
    context.hostname_checks_common_name = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # In a renegotiation a writer would read, and what it reads the sleeping reader would never learn of.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Before 3.11.4 Python takes an end of file without TLS's goodbye for an orderly end: whoever is on the way could cut.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


class TlsStream:
    """A ``stream.Stream``, which documents the methods, over a socket on which `start_tls` has succeeded.

    An ``SSLSocket`` that two threads use at once breaks (bad record MAC, false ends of file). So the socket never
    blocks, each single call on it is made under one lock, and waiting for the network happens outside it.

    Threads: `recv` and `close` belong to one reader, `send_some`, `wait_writable` and `end_writing` to whoever holds
    the send lock; `shutdown` from any thread; `wait` and `read_lent` see ``stream.LendingStream``.
    """

    __slots__ = (
        "_guard", "_has_said_goodbye", "_is_draining", "_is_ended", "_is_unwrapped", "_lock", "_sock", "_write_wants",
        "can_lend", "reads_when",
    )  # fmt: skip
    lends_to_main = False

    def __init__(self, guard: SocketGuard) -> None:
        assert isinstance(guard.sock, ssl.SSLSocket)
        self._guard = guard
        self._sock = guard.sock
        self._lock = threading.Lock()
        # Guarded by _lock: every use of the TLS object in _sock, _is_ended, _is_unwrapped.
        self._is_ended = False
        self._is_unwrapped = False
        # Of whoever has the turn to read.
        self._is_draining = False
        self.reads_when = READABLE
        self.can_lend = not is_cooperative(self._sock)  # see `TcpStream`
        # Guarded by the send lock of the caller.
        self._write_wants = WRITABLE
        self._has_said_goodbye = False

    def recv(self, deadline: Deadline | None) -> bytes:
        """Block until bytes are there; see ``stream.Stream``.

        Raises: ssl.SSLEOFError when the peer's stream ends without a goodbye (it may have been cut short).
        Threads: the reader only.
        """
        while (chunk := self.recv_some()) is None:
            if not wait_ready(self._sock.fileno(), self.reads_when, deadline):
                raise TimeoutError("timed out")
        return chunk

    def wait(self, seconds: float) -> bool:
        """Wait until there may be bytes; see ``stream.LendingStream``.

        Threads: any, one at a time.
        """
        fd = self._sock.fileno()
        return fd < 0 or poll_ready(fd, self.reads_when, seconds)

    def read_lent(self, token: list[int]) -> Iterator[bytes]:
        """Read what is there; see ``stream.LendingStream``.

        Raises: ssl.SSLEOFError as `recv`.
        Threads: any but Python's main one, since `ssl` keeps what it has read in variables; the iterator one at a time.
        """
        token.pop()  # a record is read at a time
        chunk = self.recv_some()
        if chunk is None:
            raise BlockingIOError(errno.EAGAIN, "nothing is there")
        yield chunk

    def recv_some(self) -> bytes | None:
        """Return what is there; see ``stream.Stream``.

        Raises: ssl.SSLEOFError when the peer's stream ends without a goodbye (it may have been cut short).
        Threads: the reader only.
        """
        if self._guard.is_shut:
            return b""
        try:
            if self._is_draining:
                return self._drain_some()
            with self._lock:
                # An unwrapped SSLSocket reads in clear text.
                return b"" if self._is_unwrapped else self._sock.recv(_RECORD)
        except (ssl.SSLWantReadError, BlockingIOError):
            self.reads_when = READABLE
        except ssl.SSLWantWriteError:
            self.reads_when = WRITABLE
        except ssl.SSLZeroReturnError:
            return b""
        except OSError:
            if self._guard.is_shut:
                return b""
            if not self._is_ended:
                raise
            # Our goodbye met bytes that were still under way, see end_writing().
            self._is_draining = True
            return self.recv_some()
        return None

    def _drain_some(self) -> bytes | None:
        """Throw away what is there; b"" at the peer's end of file, None before it.

        Closing over unread bytes would reset the connection, and what is still on its way out would be lost.
        """
        with contextlib.suppress(ConnectionError):
            while below_tls(self._sock).recv(self._sock, _CHUNK):
                pass
        return b""

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
        """Hand over what is taken at once; see ``stream.Stream``.

        After 0 OpenSSL wants the same bytes again, which the callers' send lock sees to; where they lie may change,
        Python has set SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER.
        """
        sent = 0
        data = memoryview(data)
        while sent < len(data):
            try:
                count = self._send_once(data[sent : sent + _RECORD])
            except OSError:
                if sent:
                    break  # what was taken has to be told; the next call meets the error again
                raise
            if not count:
                break
            sent += count
        return sent

    def _send_once(self, data: bytes | memoryview) -> int:
        try:
            with self._lock:
                if self._is_ended or self._guard.is_shut:
                    raise BrokenPipeError("the sending side has ended")
                return self._sock.send(data)
        except ssl.SSLWantWriteError:
            self._write_wants = WRITABLE
        except ssl.SSLWantReadError:
            self._write_wants = READABLE
        return 0

    def wait_writable(self, seconds: float | None) -> None:
        """Block until `send_some` may succeed; see ``stream.Stream``."""
        if self._write_wants == READABLE:
            seconds = _WANT_READ_PATIENCE if seconds is None else min(seconds, _WANT_READ_PATIENCE)
        fd = self._sock.fileno()
        if fd >= 0 and not self._guard.is_shut:
            poll_ready(fd, self._write_wants, seconds)

    def end_writing(self) -> None:
        """Say goodbye (close_notify), then FIN, as far as the network takes them at once; see ``stream.Stream``.

        What the peer sends from now on may be lost: Python's unwrap() also looks for the peer's goodbye, and OpenSSL
        then takes data in its place for an error.
        """
        with self._lock:
            if self._has_said_goodbye or self._guard.is_shut:
                return
            self._is_ended = True
            # Usually ends with WANT_READ: the goodbye is out, the peer's is not here yet.
            with contextlib.suppress(OSError, ValueError):
                self._sock.unwrap()
                self._is_unwrapped = True
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown(), which throws the TLS layer away and reads on in clear text.
            below_tls(self._sock).shutdown(self._sock, socket.SHUT_WR)
        # Last: an end that a Ctrl-C cut is begun again.
        self._has_said_goodbye = True

    def shutdown(self) -> None:
        """Break the pipe; see ``stream.Stream``. The TLS layer stays, so nothing can leave in clear text."""
        self._guard.shutdown()

    def close(self) -> None:
        """Give the descriptor back; see ``stream.Stream``."""
        self._guard.close()
