"""Every transport against the one suite: real servers on loopback, written without connman."""

import contextlib
import functools
import itertools
import queue
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
import trustme
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from connman import length_prefixed, lines
from connman.clock import Deadline, SystemClock
from connman.errors import ConnectionClosed, ConnectionLost
from connman.records import Data, Message
from connman.transport.base import Transport
from connman.transport.memory import MemoryListener
from connman.transport.pipe import Pipe
from tests.loopback import refusing_port
from tests.transport.conformance import PATIENCE, Conformance, Peer, Subject, Traits
from tests.transport.sockjs_peers import SockjsServer, TlsSocket, as_bytes, as_text

_numbers = itertools.count()


class Wire(Protocol):
    """How messages lie in the bytes of a connection, from the server's side."""

    @property
    def is_over(self) -> bool: ...

    def encode(self, message: Message) -> bytes: ...

    def feed(self, chunk: bytes) -> list[Message]: ...

    def replies(self) -> bytes: ...

    def goodbye(self) -> bytes: ...


class RawWire:
    is_over = False

    def encode(self, message: Message) -> bytes:
        return message.encode() if isinstance(message, str) else message

    def feed(self, chunk: bytes) -> list[Message]:
        return [chunk]

    def replies(self) -> bytes:
        return b""

    def goodbye(self) -> bytes:
        return b""


class LineWire(RawWire):
    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def encode(self, message: Message) -> bytes:
        return super().encode(message) + b"\n"

    def feed(self, chunk: bytes) -> list[Message]:
        first, *others = chunk.split(b"\n")
        self._pieces.append(first)
        if not others:
            return []
        whole, self._pieces = b"".join(self._pieces), [others.pop()]
        return [whole, *others]


class LengthWire(RawWire):
    def __init__(self) -> None:
        self._bytes = bytearray()

    def encode(self, message: Message) -> bytes:
        payload = super().encode(message)
        return struct.pack("!I", len(payload)) + payload

    def feed(self, chunk: bytes) -> list[Message]:
        self._bytes += chunk
        messages: list[Message] = []
        while len(self._bytes) >= 4 and len(self._bytes) >= 4 + (
            size := struct.unpack_from("!I", self._bytes)[0]
        ):
            messages.append(bytes(self._bytes[4 : 4 + size]))
            del self._bytes[: 4 + size]
        return messages


class WebSocketWire:
    """The frames of the websockets library."""

    def __init__(self) -> None:
        # Compressed for a client that offers it.
        self._protocol = ServerProtocol(max_size=None, extensions=[ServerPerMessageDeflateFactory()])
        self._pieces: list[bytes] = []
        self._is_text = False

    def shake_hands(self, sock: socket.socket) -> None:
        while not (events := self._protocol.events_received()):
            chunk = sock.recv(65536)
            if not chunk:
                raise EOFError
            self._protocol.receive_data(chunk)
        assert isinstance(events[0], Request)
        self._protocol.send_response(self._protocol.accept(events[0]))
        sock.sendall(self.replies())

    def encode(self, message: Message) -> bytes:
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        return self.replies()

    def feed(self, chunk: bytes) -> list[Message]:
        self._protocol.receive_data(chunk)
        messages: list[Message] = []
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._is_text = frame.opcode is Opcode.TEXT or (frame.opcode is Opcode.CONT and self._is_text)
                self._pieces.append(bytes(frame.data))
                if frame.fin:
                    whole, self._pieces = b"".join(self._pieces), []
                    messages.append(whole.decode() if self._is_text else whole)
        assert self._protocol.parser_exc is None
        return messages

    @property
    def is_over(self) -> bool:
        return self._protocol.close_rcvd is not None

    def replies(self) -> bytes:
        return b"".join(self._protocol.data_to_send())

    def goodbye(self) -> bytes:
        # After the peer's close the protocol has sent its own already.
        with contextlib.suppress(Exception):
            self._protocol.send_close(1000)
        return self.replies()


class SocketPeer:
    """A `Peer` on a socket."""

    def __init__(self, sock: socket.socket, wire: Wire) -> None:
        self._sock = sock
        self._wire = wire
        self._waiting: list[Message] = []

    def send(self, message: Message) -> None:
        self._sock.sendall(self._wire.encode(message))

    def recv(self) -> Message:
        while not self._waiting:
            if self._wire.is_over:
                raise EOFError
            try:
                chunk = self._sock.recv(1 << 20)
            except (ssl.SSLError, ConnectionError) as error:
                raise EOFError from error
            if not chunk:
                raise EOFError
            self._waiting = self._wire.feed(chunk)
            self._send_quietly(self._wire.replies())
        return self._waiting.pop(0)

    def close(self) -> None:
        self._send_quietly(self._wire.goodbye())
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.settimeout(0)
            with contextlib.suppress(OSError, ValueError):
                self._sock.unwrap()
            self._sock.settimeout(PATIENCE)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_WR)

    def _send_quietly(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # whoever has gone hears nothing
            if data:
                self._sock.sendall(data)

    def drop(self) -> None:
        with contextlib.suppress(OSError):  # a reset instead of an end of file
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


class SocketServer:
    """Accepts on a thread of its own, because the client's dial wants answers at once."""

    def __init__(
        self, listener: socket.socket, target: str, wire: Callable[[], Wire], tls: ssl.SSLContext | None
    ) -> None:
        self.target = target
        self._listener = listener
        self._wire = wire
        self._tls = tls
        self._peers: queue.SimpleQueue[Peer] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._accept_loop)
        self._thread.start()

    def _accept_loop(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.settimeout(PATIENCE)
                try:
                    self._peers.put(self._welcome(sock))
                except (OSError, EOFError):
                    sock.close()

    def _welcome(self, sock: socket.socket) -> Peer:
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
        wire = self._wire()
        if isinstance(wire, WebSocketWire):
            wire.shake_hands(sock)
        return SocketPeer(sock, wire)

    def accept(self) -> Peer:
        return self._peers.get(timeout=PATIENCE)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listener.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._peers.get_nowait().drop()


class SocketSubject(Subject):
    def __init__(
        self,
        traits: Traits,
        wire: Callable[[], Wire],
        scheme: str,
        *,
        is_secure: bool = False,
        **options: Any,
    ) -> None:
        self.traits = traits
        self._wire = wire
        self._scheme = scheme
        self._is_secure = is_secure
        self._options = options

    def options(self) -> dict[str, Any]:
        return {**self._options, "ssl_context": tls_contexts()[1]} if self._is_secure else self._options

    @contextlib.contextmanager
    def serve(self) -> Iterator[SocketServer]:
        with contextlib.ExitStack() as stack:
            if self._scheme == "unix":
                path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "socket"
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(str(path))
                listener.listen()
                target = f"unix://{path}"
            else:
                listener = socket.create_server(("127.0.0.1", 0))
                target = f"{self._scheme}://127.0.0.1:{listener.getsockname()[1]}"
            server = SocketServer(
                listener, target, self._wire, tls_contexts()[0] if self._is_secure else None
            )
            stack.callback(server.stop)
            yield server

    @contextlib.contextmanager
    def nowhere(self) -> Iterator[object]:
        if self._scheme == "unix":
            yield "unix:///nobody/is/here"
        else:
            with refusing_port() as port:
                yield f"{self._scheme}://127.0.0.1:{port}"


class MemoryPeer:
    """The memory transport's other end is one of our own pipes."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._waiting: list[Message] = []

    def send(self, message: Message) -> None:
        self._pipe.send([message], PATIENCE)

    def recv(self) -> Message:
        try:
            if not self._waiting:
                self._waiting = self._pipe.receive(Deadline.after(SystemClock(), PATIENCE))
        except (ConnectionClosed, ConnectionLost) as error:
            raise EOFError from error
        return self._waiting.pop(0)

    def close(self) -> None:
        self._pipe.close(1000, "", PATIENCE)

    def drop(self) -> None:
        self._pipe.dispose()


class MemoryServer:
    def __init__(self, listener: MemoryListener) -> None:
        self.target = f"memory://{listener.name}"
        self._listener = listener

    def accept(self) -> Peer:
        return MemoryPeer(self._listener.accept(PATIENCE))


class MemorySubject(Subject):
    traits = Traits("memory", has_text=True, has_pings=True)

    @contextlib.contextmanager
    def serve(self) -> Iterator[MemoryServer]:
        with MemoryListener(f"conformance-{next(_numbers)}") as listener:
            yield MemoryServer(listener)

    @contextlib.contextmanager
    def nowhere(self) -> Iterator[object]:
        yield "memory://nowhere"


class SockjsSubject(Subject):
    """Text only: the suite's messages travel as text of the same numbers, and all come back as bytes."""

    def __init__(
        self, scheme: str, contexts: "Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]] | None" = None
    ) -> None:
        name = scheme.partition("+")[0].replace("-", "_")
        self.traits = Traits(name, has_pings=True, hears_after_close=False)
        self._scheme = scheme
        self._contexts = contexts

    def options(self) -> dict[str, Any]:
        return {} if self._contexts is None else {"ssl_context": self._contexts()[1]}

    @contextlib.contextmanager
    def serve(self) -> Iterator[SockjsServer]:
        with SockjsServer(self._scheme, None if self._contexts is None else self._contexts()[0]) as server:
            yield server

    @contextlib.contextmanager
    def nowhere(self) -> Iterator[object]:
        with refusing_port() as port:
            yield f"{self._scheme}://127.0.0.1:{port}/base"

    def seen(self, transport: Transport) -> Transport:
        return cast(Transport, TextTransport(transport))


class TextTransport:
    """A transport that carries text, for those who send bytes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def send(self, messages: Sequence[Data], timeout: float) -> None:
        self._transport.send([as_text(message) for message in messages], timeout)

    def receive(self, deadline: Deadline | None = None) -> list[Message]:
        return [as_bytes(message) for message in self._transport.receive(deadline)]


@functools.cache
def tls_contexts(
    servers_socket: type[ssl.SSLSocket] = ssl.SSLSocket,
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make the server's and the client's context, once for each kind of socket."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    server.sslsocket_class = servers_socket
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


SUBJECTS = {
    "tcp": SocketSubject(Traits("tcp", has_boundaries=False), RawWire, "tcp"),
    "tcp lines": SocketSubject(Traits("tcp"), LineWire, "tcp", framing=lines()),
    "tcp length": SocketSubject(Traits("tcp"), LengthWire, "tcp", framing=length_prefixed()),
    # Once our goodbye has met bytes under way OpenSSL reads nothing more.
    "tls": SocketSubject(
        Traits("tls", has_boundaries=False, hears_after_close=False), RawWire, "tls", is_secure=True
    ),
    "tls lines": SocketSubject(
        Traits("tls", hears_after_close=False), LineWire, "tls", is_secure=True, framing=lines()
    ),
    "unix": SocketSubject(Traits("unix", has_boundaries=False, tells_drops=False), RawWire, "unix"),
    "ws": SocketSubject(Traits("ws", has_text=True, has_pings=True), WebSocketWire, "ws"),
    "wss": SocketSubject(Traits("wss", has_text=True, has_pings=True), WebSocketWire, "wss", is_secure=True),
    "ws deflate": SocketSubject(
        Traits("ws", has_text=True, has_pings=True), WebSocketWire, "ws", compression="deflate"
    ),
    "wss deflate": SocketSubject(
        Traits("wss", has_text=True, has_pings=True),
        WebSocketWire,
        "wss",
        is_secure=True,
        compression="deflate",
    ),
    "memory": MemorySubject(),
    "xhr_streaming": SockjsSubject("xhr-streaming+http"),
    "xhr_polling": SockjsSubject("xhr-polling+http"),
    "xhr_streaming tls": SockjsSubject("xhr-streaming+https", lambda: tls_contexts(TlsSocket)),
    "xhr_polling tls": SockjsSubject("xhr-polling+https", lambda: tls_contexts(TlsSocket)),
}


# Compression has tests of its own among the quick ones. Of the transports over HTTP one is enough for those.
SLOW = {"ws deflate", "wss deflate", "xhr_polling", "xhr_streaming tls", "xhr_polling tls"}


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SUBJECTS]
)
def subject(request: pytest.FixtureRequest) -> Subject:
    return SUBJECTS[request.param]


class TestConformance(Conformance):
    """All of it, for each of SUBJECTS."""
