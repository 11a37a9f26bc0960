"""A TCP server on loopback that does, to each client, exactly what a script says."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Self

from connman.threads import spawn

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_MOST_HEAD = 1 << 20
# Real seconds that a script's call on a socket, and the end of the server, take at most.
_PATIENCE = 30.0


class Guest:
    """One client of a `BadServer`, as its script sees it. ``sock``: the accepted socket; ``request``: what was read.

    Threads: the script's.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.request = ""

    def read_request(self) -> str:
        """Read up to the empty line behind an HTTP request's head; return that, and keep it in ``request``.

        Raises: ConnectionAbortedError when the client leaves before; OSError for a head of more than 1 MiB.
        Threads: the script's.
        """
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise ConnectionAbortedError("the client left without a request")
            data += chunk
            if len(data) > _MOST_HEAD:
                raise OSError("the client's request does not end")
        self.request = data.decode("latin-1")
        return self.request

    def accept_key(self) -> str:
        """Return the right Sec-WebSocket-Accept for the request that was read.

        Raises: ValueError when it is no WebSocket's.
        Threads: the script's.
        """
        key = re.search(r"Sec-WebSocket-Key: (\S+)", self.request, re.IGNORECASE)
        if key is None:
            raise ValueError("the request has no Sec-WebSocket-Key")
        # Not asked of the client's own code, whose mistake it would share.
        return base64.b64encode(hashlib.sha1((key[1] + _GUID).encode()).digest()).decode()

    def upgrade_head(self, *extra: str, accept: str | None = None) -> bytes:
        """Return a good answer to the request that was read, with lines of your own behind it.

        ``accept``: another Sec-WebSocket-Accept than the right one.
        Threads: the script's.
        """
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {self.accept_key() if accept is None else accept}", *extra]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")

    def upgrade(self) -> None:
        """Read the request of a WebSocket and agree to it: what is sent then are frames.

        Threads: the script's.
        """
        self.read_request()
        self.send(self.upgrade_head())

    def send(self, data: bytes) -> None:
        """Send all of ``data``.

        Threads: the script's.
        """
        self.sock.sendall(data)

    def drip(self, data: bytes, seconds: float = 0.005) -> None:
        """Send byte by byte, ``seconds`` apart, until all is sent or the client says something, or leaves.

        Threads: the script's.
        """
        for byte in data:
            self.sock.sendall(bytes((byte,)))
            if select.select([self.sock], [], [], seconds)[0]:
                return

    def wait_closed(self) -> bytes:
        """Read until the client closes, and return what it sent: with nothing else, a server that never answers.

        Threads: the script's.
        """
        data = b""
        while chunk := self.sock.recv(65536):
            data += chunk
        return data

    def stall(self) -> None:
        """Neither read nor send until the client is gone (it has reset or shut its side down).

        Threads: the script's.
        """
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        poll.poll(_PATIENCE * 1000)

    def end(self) -> None:
        """End this side in order (FIN), while the client may go on.

        Threads: the script's.
        """
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Have the close, which comes when the script returns, be a reset (RST).

        Threads: the script's.
        """
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class BadServer:
    r"""Serve each client by a script, on a free port of 127.0.0.1, and close it when that returns. A with-block.

    The n-th client gets the n-th script, all further ones the last; each runs on a thread of its own with a `Guest`.
    A client that breaks the connection ends its script silently. Any other exception of a script comes out at the end of
    the with-block, which shuts every connection down and waits for the scripts. No call on a socket takes over 30 s.

    ::

        def drops(guest):
            guest.upgrade()
            guest.reset()  # sent when the script returns


        def refuses(guest):
            guest.read_request()
            guest.send(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\n\r\n")


        with BadServer(drops, refuses) as server:
            conn = connman.connect(server.url(), proxy=None)

    ``guests``: who came, in order.

    Raises: TypeError without a script.
    Threads: every method from any thread.
    """

    def __init__(self, *scripts: Callable[[Guest], object]) -> None:
        if not scripts:
            raise TypeError("a BadServer wants a script")
        self.guests: list[Guest] = []
        self._scripts = scripts
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        # Guarded by _lock: guests, _is_closing, _threads, _failures; and each socket's shutdown against its close.
        self._is_closing = False
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    @property
    def port(self) -> int:
        """The port, 0 outside the with-block."""
        return 0 if self._listener is None else int(self._listener.getsockname()[1])

    def url(self, path: str = "/", scheme: str = "ws") -> str:
        """Return the URL of ``path`` on this server.

        Threads: any.
        """
        return f"{scheme}://127.0.0.1:{self.port}{'' if scheme in ('tcp', 'tls') else path}"

    def __enter__(self) -> Self:
        self._listener = listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._threads.append(spawn("bad-server", lambda: self._accept_loop(listener)))
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        listener, self._listener = self._listener, None
        with self._lock:
            self._is_closing = True
            # Wakes accept(), and scripts that wait for a client that is still there.
            for sock in (*([listener] if listener else ()), *(guest.sock for guest in self.guests)):
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
            threads = list(self._threads)
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        if listener is not None:
            listener.close()
        if kind is None:
            if any(thread.is_alive() for thread in threads):
                raise AssertionError("a script did not end")
            if self._failures:
                raise self._failures[0]

    def _accept_loop(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # shut down
            while True:
                sock, _ = listener.accept()
                sock.settimeout(_PATIENCE)
                guest = Guest(sock)
                with self._lock:
                    if self._is_closing:
                        sock.close()
                        return
                    script = self._scripts[min(len(self.guests), len(self._scripts) - 1)]
                    self.guests.append(guest)
                    self._threads.append(spawn("bad-server-script", partial(self._run, guest, script)))

    def _run(self, guest: Guest, script: Callable[[Guest], object]) -> None:
        try:
            script(guest)
        except OSError:
            pass  # the client has gone, or the test is over
        except BaseException as error:  # top of a thread: told at the end of the with-block
            self._failures.append(error)
        with self._lock:
            guest.sock.close()
