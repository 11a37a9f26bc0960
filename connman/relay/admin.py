"""The port for whoever runs a relay: ``/metrics``, ``/healthz`` and a page, apart from the port that clients know."""

from __future__ import annotations

import io
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from connman.errors import ConnectError
from connman.relay.addresses import is_loopback
from connman.relay.counts import Snapshot
from connman.relay.metrics import Metrics
from connman.relay.page import POLICY, NameLine, render
from connman.threads import spawn

logger = logging.getLogger("connman.relay")

MOST_CLIENTS = 16
"""Requests at a time, a thread each; one more, and the oldest is cut off."""

MOST_OF_HEAD = 16384
"""Bytes of a request that are read."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Admin:
    """Serve a relay's numbers over HTTP from a thread of its own, on loopback unless another host is given.

    ``snapshot`` is called for each request, on other threads than the relay's. ``names``, when given, puts names on the
    page; they are nowhere else. Whoever gets to the port sees everything: there are no passwords. On loopback only
    requests for a loopback host are answered, so that no page of the web may ask through a browser (DNS rebinding).
    Slow clients harm nobody: 16 at a time, ``request_timeout`` seconds each, and the oldest goes when one more comes.

    Raises: InvalidOption without prometheus_client.
    Threads: any.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        names: Callable[[], Sequence[NameLine]] | None = None,
        request_timeout: float = 10.0,
    ) -> None:
        self._snapshot = snapshot
        self._names = names
        self._host, self._port = host, port
        self._request_timeout = request_timeout
        self._metrics = Metrics(snapshot)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on; before `start`, the one that was wanted."""
        return self._port if self._server is None else int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where to look at it."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}/"

    def start(self) -> None:
        """Listen, and answer from now on.

        Raises: ConnectError when the address cannot be listened on.
        Threads: one, once.
        """
        try:
            self._server = _Server(self._host, self._port, self.answer, self._request_timeout)
        except OSError as error:
            raise ConnectError(
                f"{self._host}:{self._port}", message=f"cannot listen: {error.strerror or error}"
            ) from error
        self._thread = spawn("relay-admin", self._server.serve)

    def stop(self) -> None:
        """Cut off who is being answered, and return when its thread is gone. Idempotent.

        Threads: any but its own.
        """
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        self._port = int(server.server_address[1])
        server.shutdown()
        self._thread.join()
        server.server_close()

    def answer(self, path: str, accept: str) -> tuple[HTTPStatus, str, bytes]:
        """Return status, content type and body for a path; ``accept`` is the request's header of that name.

        Threads: any.
        """
        if path == "/metrics":
            body, content_type = self._metrics.render(accept)
            return HTTPStatus.OK, content_type, body
        if path == "/healthz":
            return self._health()
        if path == "/":
            names = None if self._names is None else self._names()
            page = render(self._snapshot(), names).encode("utf-8", "replace")
            return HTTPStatus.OK, "text/html; charset=utf-8", page
        return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/metrics, /healthz or /\n"

    def _health(self) -> tuple[HTTPStatus, str, bytes]:
        taken = self._snapshot()
        status = HTTPStatus.OK if taken.is_healthy else HTTPStatus.SERVICE_UNAVAILABLE
        told = {
            "status": "stopping" if taken.is_stopping else "ok" if taken.is_healthy else "broker lost",
            "broker": taken.broker,
            "pairs": taken.pairs,
            "uptime": round(taken.uptime, 3),
        }
        return status, "application/json", json.dumps(told).encode() + b"\n"


_Answer = Callable[[str, str], tuple[HTTPStatus, str, bytes]]


class _Server(HTTPServer):
    """A thread for each request, few of them, and none for long."""

    # The next try may come at once: nobody else gets a port that is still in TIME_WAIT.
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, answer: _Answer, request_timeout: float) -> None:
        self.answer = answer
        self.loopback_only = is_loopback(host)
        self._request_timeout = request_timeout
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._pause = threading.Event()  # never set
        self._lock = threading.Lock()
        # Guarded by _lock: _clients, oldest first: each socket, when it has to be done, and its thread.
        self._clients: dict[socket.socket, tuple[float, threading.Thread | None]] = {}
        super().__init__((host, port), _Handler)

    def serve(self) -> None:
        """Answer until `shutdown`, which may take as long as one look."""
        self.serve_forever(poll_interval=0.1)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            # Without a descriptor left, the one that waits to be accepted would be looked at without a pause.
            self._pause.wait(0.1)
            raise

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the DNS for the host's full name, for as long as that takes.
        super(HTTPServer, self).server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        deadline = time.monotonic() + self._request_timeout
        with self._lock:
            oldest = next(iter(self._clients), None) if len(self._clients) >= MOST_CLIENTS else None
            thread = None if oldest is None else self._clients[oldest][1]
            self._clients[request] = (deadline, None)
            if oldest is not None:
                self._cut_locked(oldest)
        # Its place must be free before another thread begins: it has nothing more to wait for.
        if thread is not None:
            thread.join(1.0)
        try:
            thread = spawn("relay-admin-request", lambda: self._serve(request, client_address))
        except RuntimeError:  # the system has no more threads
            self._forget(request)
            return
        with self._lock:
            if request in self._clients:
                self._clients[request] = (deadline, thread)

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # cut off, or gone
        except Exception:  # top of a thread
            logger.exception("a request on the admin port failed")
        finally:
            self._forget(request)

    def _forget(self, request: Any) -> None:
        # Closed under the lock as well: its descriptor's number may be another's at once, which nobody may cut off.
        with self._lock:
            self._clients.pop(request, None)
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off who has had its time; called with each look."""
        now = time.monotonic()
        with self._lock:
            for client, (deadline, _) in self._clients.items():
                if now >= deadline:
                    self._cut_locked(client)

    def server_close(self) -> None:
        super().server_close()
        with self._lock:
            threads = [thread for _, thread in self._clients.values() if thread is not None]
            for client in self._clients:
                self._cut_locked(client)
        for thread in threads:
            thread.join(1.0)

    def _cut_locked(self, client: socket.socket) -> None:
        # It wakes the thread, which closes.
        try:
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Of what is done on the thread that accepts.
        logger.error("a request on the admin port failed", exc_info=sys.exception())


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: _Server
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"
    # One write for the whole answer.
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.rfile = _Head(self.rfile, MOST_OF_HEAD)  # type: ignore[assignment]

    def version_string(self) -> str:
        return "connman"

    def do_GET(self) -> None:
        accept = self.headers.get("Accept", "")
        if self.server.loopback_only and not is_loopback(_host_of(self.headers.get("Host", ""))):
            text = b"only for a loopback host\n"
            self._reply(HTTPStatus.MISDIRECTED_REQUEST, "text/plain; charset=utf-8", text)
            return
        self._reply(*self.server.answer(self.path.partition("?")[0], accept))

    do_HEAD = do_GET  # noqa: N815 - http.server's name for it

    def _reply(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        # Here, so that http.server's own refusals, which quote the request, have them as well.
        if self.request_version != "HTTP/0.9":
            for name, value in _HEADERS.items():
                self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a path may be anything."""


class _Head:
    """What is read of a request: so much of it and no more, where http.server would take 6 MiB."""

    def __init__(self, file: io.BufferedIOBase, most: int) -> None:
        self._file = file
        self._left = most

    def readline(self, size: int) -> bytes:
        line = self._file.readline(min(size, self._left))
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._file.close()


def _host_of(header: str) -> str:
    """Return the host in a Host header, without its port."""
    if header.startswith("["):
        return header.partition("]")[0][1:]
    return header.partition(":")[0]
