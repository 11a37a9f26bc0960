"""A SockJS server written without connman, whose sessions the tests hold in their hands."""

import contextlib
import json
import queue
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from connman.records import Message

PATIENCE = 10.0
PRELUDE = b"h" * 2048 + b"\n"


def as_text(message: Any) -> Any:
    """Return text of the same numbers for bytes and for text; anything else as it is."""
    if isinstance(message, str):
        with contextlib.suppress(UnicodeEncodeError):
            return message.encode().decode("latin-1")
    return message.decode("latin-1") if isinstance(message, bytes) else message


def as_bytes(message: Message) -> Message:
    return message.encode("latin-1") if isinstance(message, str) else message


class TlsSocket(ssl.SSLSocket):
    """One that a thread reads from while another sends, which OpenSSL's objects are not made for.

    Seen without: 1 of 600 polls ended in an SSLEOFError on both sides.
    """

    turn: threading.Lock

    def share(self) -> None:
        """Have two threads use it from now on."""
        self.turn = threading.Lock()
        self.setblocking(False)

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError), self.turn:
                return super().recv(size, flags)
            self._wait(select.POLLIN)

    def sendall(self, data: Any, flags: int = 0) -> None:
        left = memoryview(data)
        while left:
            with contextlib.suppress(ssl.SSLWantWriteError), self.turn:
                left = left[super().send(left, flags) :]
                continue
            self._wait(select.POLLOUT)

    def _wait(self, event: int) -> None:
        poll = select.poll()
        with contextlib.suppress(ValueError):  # it was closed: the next call says so
            poll.register(self, event)
            if not poll.poll(PATIENCE * 3 * 1000):
                raise TimeoutError


@dataclass
class Request:
    """A request whose body has not been read, and the connection it came on."""

    sock: socket.socket
    method: str
    path: str
    query: str
    headers: dict[str, str]
    rest: bytes
    is_answered: threading.Event = field(default_factory=threading.Event)

    @property
    def base(self) -> str:
        return "/".join(self.path.split("/")[:-3])

    @property
    def session(self) -> str:
        return self.path.split("/")[-2]

    @property
    def what(self) -> str:
        return self.path.split("/")[-1]

    def body(self) -> bytes:
        missing = int(self.headers.get("content-length", "0")) - len(self.rest)
        pieces = [self.rest]
        while missing:
            piece = self.sock.recv(min(missing, 1 << 20))
            if not piece:
                raise EOFError
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def answer(self, status: str, body: bytes | None = b"", *headers: str) -> None:
        """Answer; with a body of None in chunks that are still to come."""
        length = "Transfer-Encoding: chunked" if body is None else f"Content-Length: {len(body)}"
        lines = [f"HTTP/1.1 {status}", length, *headers, "", ""]
        self.sock.sendall("\r\n".join(lines).encode() + (body or b""))

    def chunk(self, data: bytes) -> None:
        self.sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))


def read_request(sock: socket.socket) -> Request:
    """Read the head of the next request; EOFError at the end of file."""
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            chunk = sock.recv(65536)
        except (ssl.SSLError, ConnectionError, ValueError) as error:
            raise EOFError from error
        if not chunk:
            raise EOFError
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, resource, _ = first.split(" ")
    path, _, query = resource.partition("?")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Request(sock, method, path, query, headers, rest)


class SockjsPeer:
    """One session: a `Peer` of the conformance suite. It reads what is sent in `recv` only."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.sent: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._waiting: list[Message] = []
        self._changed = threading.Condition()
        # Guarded by _changed: _asking (the request for messages that is not answered, or the stream under way), _is_gone.
        self._asking: Request | None = None
        self._is_gone = False

    @property
    def is_gone(self) -> bool:
        """Whether nobody reads what is sent any more."""
        with self._changed:
            return self._is_gone

    def asked(self, request: Request) -> None:
        """Take a request for messages."""
        with self._changed:
            if self._is_gone:
                raise EOFError
            self._asking = request
            self._changed.notify_all()

    def gone(self, request: Request) -> None:
        with self._changed:
            # Between two requests a client may take another connection.
            if self._asking is not request:
                self._changed.wait_for(lambda: self._asking is not None or self._is_gone, 0.5)
            if self._asking in (request, None):
                self._is_gone = True
                self.sent.put(None)
                self._changed.notify_all()

    def asking(self) -> Request:
        """Wait for a request for messages and take it over, to answer it by hand."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._asking is not None, PATIENCE)
            request, self._asking = self._asking, None
            assert request is not None
            return request

    def frames(self, data: bytes, *, is_last: bool = False) -> None:
        """Answer the request for messages, now or when there is one; with `is_last` a stream ends as well."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._asking is not None or self._is_gone, PATIENCE):
                raise AssertionError("nobody asks for messages")
            if self._asking is None or self._is_gone:
                raise BrokenPipeError("the client has gone")
            request = self._asking
            if request.what == "xhr" or is_last:
                self._asking = None
        if request.what == "xhr":
            request.answer("200 OK", data)
            return
        request.chunk(data)
        if is_last:
            request.sock.sendall(b"0\r\n\r\n")

    def send(self, message: Message) -> None:
        self.frames(b"a" + json.dumps([as_text(message)]).encode() + b"\n")

    def recv(self) -> Message:
        while not self._waiting:
            request = self.sent.get(timeout=PATIENCE)
            if request is None:
                self.sent.put(None)
                raise EOFError
            try:
                self._waiting = [as_bytes(text) for text in json.loads(request.body())]
                request.answer("204 No Content")
            except (OSError, ValueError) as error:
                raise EOFError from error
            finally:
                request.is_answered.set()
        return self._waiting.pop(0)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.frames(b'c[1000,"bye"]\n', is_last=True)

    def drop(self) -> None:
        with self._changed:
            self._is_gone = True
            self._changed.notify_all()
        self.sent.put(None)
        for request in self.requests:
            request.is_answered.set()
            with contextlib.suppress(OSError):
                socket.socket.shutdown(request.sock, socket.SHUT_RDWR)


class SockjsServer:
    """Serves `/base` on a free port; a with-block. A context `tls` makes `TlsSocket`s."""

    def __init__(self, scheme: str = "xhr-streaming+http", tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.target = f"{scheme}://127.0.0.1:{self.port}/base"
        self.requests: list[Request] = []
        self.opening = b"o\n"
        self.headers: list[str] = []
        self.accept_within = PATIENCE
        self.refusing = ""
        """What every request is answered with instead."""
        self._sessions: dict[str, SockjsPeer] = {}
        self._peers: queue.SimpleQueue[SockjsPeer] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, socket.socket] = {}
        self._acceptor = threading.Thread(target=self._accept_loop)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(PATIENCE)
        self._listener.close()
        for peer in list(self._sessions.values()):
            peer.drop()
        with self._lock:
            threads = list(self._open)
            for sock in self._open.values():
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)

    def accept(self) -> SockjsPeer:
        return self._peers.get(timeout=self.accept_within)

    def forget(self) -> None:
        """Know none of the sessions any more."""
        self._sessions.clear()

    def _accept_loop(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.settimeout(PATIENCE * 3)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(target=self._run, args=(sock,))
                with self._lock:
                    self._open[thread] = sock
                thread.start()

    def _run(self, raw: socket.socket) -> None:
        sock = raw
        with contextlib.suppress(OSError, EOFError):
            if self._tls is not None:
                sock = self._tls.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False)
                assert isinstance(sock, TlsSocket)
                sock.share()
                with self._lock:
                    self._open[threading.current_thread()] = sock
            self._serve(sock)
        with self._lock:
            sock.close()
            del self._open[threading.current_thread()]

    def _serve(self, sock: socket.socket) -> None:
        request = read_request(sock)
        while True:
            self.requests.append(request)
            if self.refusing:
                request.body()
                request.answer(self.refusing)
                request = read_request(sock)
                continue
            peer = self._sessions.get(request.session)
            if request.what == "xhr_send":
                self._take(request, peer)
                request = read_request(sock)
                continue
            peer = self._give(request, peer)
            try:
                request = read_request(sock)
            except (EOFError, OSError):
                peer.gone(request)
                raise

    def _take(self, request: Request, peer: SockjsPeer | None) -> None:
        if peer is None:
            request.body()
            request.answer("404 Not Found", b"", *self.headers)
            return
        peer.requests.append(request)
        if peer.is_gone:  # behind that: `drop` may have looked before
            raise EOFError
        peer.sent.put(request)
        request.is_answered.wait(PATIENCE * 3)

    def _give(self, request: Request, peer: SockjsPeer | None) -> SockjsPeer:
        """Answer a request for messages, or leave that to the peer."""
        is_new = peer is None
        peer = self._sessions.setdefault(request.session, SockjsPeer()) if peer is None else peer
        peer.requests.append(request)
        if request.what != "xhr":
            request.answer("200 OK", None, *self.headers)
            request.chunk(PRELUDE)
            if is_new:
                request.chunk(self.opening)
        if is_new and request.what == "xhr":
            request.answer("200 OK", self.opening, *self.headers)
        else:
            peer.asked(request)
        if is_new:
            self._peers.put(peer)
        return peer


def serve_echo(server: SockjsServer, stop: threading.Event) -> None:
    """Send every session back what it sends."""

    def echo(peer: SockjsPeer) -> None:
        with contextlib.suppress(EOFError, OSError, AssertionError):
            while not stop.is_set():
                peer.send(peer.recv())

    while not stop.is_set():
        with contextlib.suppress(Exception):
            threading.Thread(target=echo, args=(server.accept(),), daemon=True).start()


@contextlib.contextmanager
def echoing(scheme: str = "xhr-streaming+http", tls: ssl.SSLContext | None = None) -> Iterator[SockjsServer]:
    """Run a server that sends back what it gets."""
    stop = threading.Event()
    with SockjsServer(scheme, tls) as server:
        server.accept_within = 0.05
        thread = threading.Thread(target=serve_echo, args=(server, stop))
        thread.start()
        try:
            yield server
        finally:
            stop.set()
            thread.join(PATIENCE)
