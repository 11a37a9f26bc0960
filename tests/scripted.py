"""A TCP server on loopback that does, to each connection, exactly what a script says."""

import base64
import contextlib
import hashlib
import re
import select
import socket
import threading
from collections.abc import Callable, Iterator

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Guest:
    """One accepted connection, as the script sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.request = ""

    def read_request(self) -> str:
        """Read up to the empty line, and keep it in `request`."""
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise ConnectionAbortedError("the client left without a request")
            data += chunk
        self.request = data.decode("latin-1")
        return self.request

    def accept_key(self) -> str:
        """Return the right Sec-WebSocket-Accept for the request that was read."""
        key = re.search(r"Sec-WebSocket-Key: (\S+)", self.request)
        assert key is not None
        return base64.b64encode(hashlib.sha1((key[1] + GUID).encode()).digest()).decode()

    def upgrade_head(self, *extra: str, accept: str | None = None) -> bytes:
        """Return a good answer to the request that was read, with lines of your own behind it."""
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {self.accept_key() if accept is None else accept}", *extra]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def drip(self, data: bytes, seconds: float = 0.005) -> None:
        """Send byte by byte until all is sent or the other side has gone."""
        for byte in data:
            self.sock.sendall(bytes((byte,)))
            if select.select([self.sock], [], [], seconds)[0]:
                return

    def wait_closed(self) -> bytes:
        """Read until the other side closes, and return what it sent."""
        data = b""
        while chunk := self.sock.recv(65536):
            data += chunk
        return data


class ScriptedServer:
    """What `serve` yields: where the server is, and who came."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.port: int = listener.getsockname()[1]
        self.guests: list[Guest] = []

    def url(self, rest: str = "/", scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{rest}"


@contextlib.contextmanager
def serve(script: Callable[[Guest], None]) -> Iterator[ScriptedServer]:
    """Run a server whose connections are served one after the other; each is closed when `script` returns.

    A connection that the client breaks ends its script silently; any other exception of a script fails the test.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    server = ScriptedServer(listener)
    failures: list[BaseException] = []

    def loop() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            guest = Guest(sock)
            server.guests.append(guest)
            try:
                with sock:
                    script(guest)
            except OSError:
                pass
            except BaseException as error:  # noqa: BLE001 (top of a thread: the test's own thread raises it)
                failures.append(error)

    thread = threading.Thread(target=loop, name="scripted-server", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        # Wakes accept(), and a script that waits for a client that is still there.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        for guest in server.guests:
            with contextlib.suppress(OSError):
                guest.sock.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listener.close()
        assert not thread.is_alive(), "the script did not end"
    if failures:
        raise failures[0]
