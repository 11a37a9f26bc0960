"""Servers for tests: a real WebSocket server as a process of its own, and raw TCP servers that misbehave by script."""

import base64
import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.loopback import PATIENCE, hanging_port, read_to_the_end, shut

PROGRAM = Path(__file__).with_name("ws_server.py")
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


# The real server


class WebSocketProcess:
    """The program `ws_server.py`, which documents the paths, on a port of its own that survives restarts.

    Threads: commands (`stats`, `broadcast`, …) from one thread at a time.
    """

    def __init__(self, certfile: str | Path | None = None, keyfile: str | Path | None = None) -> None:
        self._tls = [] if certfile is None else ["--certfile", str(certfile), "--keyfile", str(keyfile)]
        # Bound but never listening: the port stays ours, and refuses, while the process is dead.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.port: int = self._reservation.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process and wait until it listens."""
        assert self._process is None
        command = [sys.executable, str(PROGRAM), "--port", str(self.port), *self._tls]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._answer() == {"ready": True}

    def kill(self) -> None:
        """End it with SIGKILL, also when it is stopped, and wait: afterwards its port refuses. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def restart(self) -> None:
        """Kill it if it runs, and start it anew on the same port; it counts from 0 again."""
        self.kill()
        self.start()

    def close(self) -> None:
        self.kill()
        self._reservation.close()

    def stop(self) -> None:
        """Freeze it (SIGSTOP): the system goes on to acknowledge, and to accept up to the backlog."""
        self._running().send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Thaw it (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        return self._running().pid

    def url(self, path: str = "/echo") -> str:
        return f"{'wss' if self._tls else 'ws'}://localhost:{self.port}{path}"

    def accepted(self) -> int:
        """Count the connections it has accepted (with their TLS, if any) since it was started."""
        return self.stats()["accepted"]

    def stats(self) -> dict[str, int]:
        """Return accepted, upgraded (so far), open (now), messages (received by /echo, /login, /silent) and goodbyes.

        A goodbye is a connection that has ended behind a close frame of the client's.
        """
        counts: dict[str, int] = self._ask(cmd="stats")
        return counts

    def closes(self) -> dict[str, int]:
        """Count how upgraded clients have left, by the code of their close frame; "none" for those that sent none."""
        counts: dict[str, int] = self._ask(cmd="closes")
        return counts

    def broadcast(self, data: str) -> None:
        """Send a text to every connection."""
        self._ask(cmd="broadcast", data=data)

    def close_all(self, code: int = 1001, reason: str = "") -> None:
        """Begin to close every connection in order."""
        self._ask(cmd="close_all", code=code, reason=reason)

    def drop_all(self) -> None:
        """Abort every connection; the process lives on."""
        self._ask(cmd="drop_all")

    def _ask(self, **command: Any) -> Any:
        pipe = self._running().stdin
        assert pipe is not None
        pipe.write(json.dumps(command).encode() + b"\n")
        return self._answer()

    def _answer(self) -> Any:
        pipe = self._running().stdout
        assert pipe is not None
        line = b""
        while not line.endswith(b"\n"):
            # A bound, because a stopped process answers nothing.
            if not select.select([pipe], [], [], PATIENCE)[0] or not (chunk := os.read(pipe.fileno(), 4096)):
                raise AssertionError(f"the server process gave no answer, only {line!r}")
            line += chunk
        return json.loads(line)

    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "the server process was killed"
        return self._process


def ws_server(certfile: str | Path | None = None, keyfile: str | Path | None = None) -> WebSocketProcess:
    """Return a server to enter with `with`; with TLS when there is a certificate."""
    return WebSocketProcess(certfile, keyfile)


# Raw servers

Handler = Callable[[socket.socket, int], None]


class RawServer:
    """A listener on a free port; `handler(sock, n)` runs on a thread for the n-th connection (from 1).

    The socket is closed when the handler returns. A broken connection ends a handler silently; any other exception of one
    comes out at the end of the with-block, which shuts every socket down (that ends handlers that wait in `sock.recv`,
    `pause` or `read_to_the_end`) and waits for the threads.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        # Guarded by _lock: accepted, _is_closing, _open, _failures; and each socket's shutdown against its close.
        self.accepted = 0
        self._is_closing = False
        self._open: dict[threading.Thread, socket.socket] = {}
        self._failures: list[BaseException] = []
        self._acceptor = threading.Thread(target=self._accept_loop, name="raw-server")

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        with self._lock:
            self._is_closing = True
            threads = [self._acceptor, *self._open]
            shut(self._listener, *self._open.values())
        for thread in threads:
            thread.join(PATIENCE)
        self._listener.close()
        if kind is None and self._failures:
            raise self._failures[0]

    def url(self, path: str = "/", scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def _accept_loop(self) -> None:
        with contextlib.suppress(OSError):  # shut down
            while True:
                sock, _ = self._listener.accept()
                with self._lock:
                    if self._is_closing:
                        sock.close()
                        return
                    self.accepted += 1
                    thread = threading.Thread(
                        target=self._run, args=(sock, self.accepted), name="raw-handler"
                    )
                    self._open[thread] = sock
                    thread.start()

    def _run(self, sock: socket.socket, number: int) -> None:
        try:
            self._handler(sock, number)
        except OSError:
            pass  # the client has gone, or the test is over
        except BaseException as error:  # noqa: BLE001  # told at the end of the with-block
            self._failures.append(error)
        with self._lock:
            sock.close()
            del self._open[threading.current_thread()]


def raw_server(handler: Handler) -> RawServer:
    """Return a raw server to enter with `with`."""
    return RawServer(handler)


def silent(sock: socket.socket, _n: int) -> None:
    """Read, and never answer."""
    read_to_the_end(sock)


def unread(sock: socket.socket, _n: int) -> None:
    """Read nothing and answer nothing: the client's sends fill the network."""
    pause(sock, None)


def close_at_once(_sock: socket.socket, _n: int) -> None:
    """Close with a FIN before anything is read."""


def reset_at_once(sock: socket.socket, _n: int) -> None:
    """Close with a RST before anything is read."""
    reset(sock)


def drip(data: bytes, interval: float, *, after: bytes = b"") -> Handler:
    """Make a handler that reads up to `after`, then sends `data` a byte each `interval` seconds; then it is silent."""

    def handler(sock: socket.socket, _n: int) -> None:
        read_until(sock, after)
        for byte in data:
            sock.sendall(bytes((byte,)))
            if pause(sock, interval):
                return
        read_to_the_end(sock)

    return handler


def fixed_response(data: bytes, *, after: bytes = b"\r\n\r\n", then_close: bool = True) -> Handler:
    """Make a handler that reads up to `after`, sends `data`, and closes or stays silent."""

    def handler(sock: socket.socket, _n: int) -> None:
        read_until(sock, after)
        sock.sendall(data)
        if then_close:
            sock.shutdown(socket.SHUT_WR)
        read_to_the_end(sock)

    return handler


def upgraded(script: Callable[["Frames"], None]) -> Handler:
    """Make a handler that does the upgrade by hand and hands the frames to `script`."""

    def handler(sock: socket.socket, _n: int) -> None:
        script(Frames(sock, ws_accept(sock)))

    return handler


def pause(sock: socket.socket, seconds: float | None) -> bool:
    """Wait for a time (None: for ever), or until the connection is over; return whether it is."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def reset(sock: socket.socket) -> None:
    """Have the close, which comes when the handler returns, send a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """Read until `end` has come, and return all that was read; less than that only at the end of file."""
    data = b""
    while end not in data and (chunk := sock.recv(65536)):
        data += chunk
    return data


# WebSocket by hand


@dataclass(frozen=True)
class UpgradeRequest:
    """What a client asked for; header names in lower case, values as they came."""

    path: str
    headers: dict[str, str]
    leftover: bytes


def read_upgrade(sock: socket.socket) -> UpgradeRequest:
    """Read the head of an upgrade request."""
    head, _, leftover = read_until(sock, b"\r\n\r\n").partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return UpgradeRequest(first.split(" ")[1] if " " in first else "", headers, leftover)


def upgrade_answer(request: UpgradeRequest, *lines: str, behind: bytes = b"") -> bytes:
    """Return a correct 101 with further header lines, and `behind` glued to its end."""
    key = request.headers["sec-websocket-key"].encode()
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
    fixed = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*fixed, f"Sec-WebSocket-Accept: {accept}", *lines, "", ""]).encode() + behind


def ws_accept(sock: socket.socket, *lines: str, behind: bytes = b"") -> bytes:
    """Do the server's side of an upgrade and return what the client has sent behind its request."""
    request = read_upgrade(sock)
    sock.sendall(upgrade_answer(request, *lines, behind=behind))
    return request.leftover


def server_frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """Return an unmasked frame, its length in the shortest form."""
    if len(payload) < 126:
        length = bytes((len(payload),))
    elif len(payload) < 65536:
        length = b"\x7e" + struct.pack("!H", len(payload))
    else:
        length = b"\x7f" + struct.pack("!Q", len(payload))
    return bytes((fin << 7 | rsv << 4 | opcode,)) + length + payload


def close_frame(code: int = 1000, reason: str = "") -> bytes:
    return server_frame(CLOSE, struct.pack("!H", code) + reason.encode())


@dataclass(frozen=True)
class Frame:
    """A frame of the client, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True


class Frames:
    """The frames of an upgraded connection, by hand: iterate for those of the client, until its end of file."""

    def __init__(self, sock: socket.socket, leftover: bytes = b"") -> None:
        self.sock = sock
        self._data = leftover

    def __iter__(self) -> Iterator[Frame]:
        while head := self._take(2):
            size = head[1] & 127
            if size > 125:
                size = int.from_bytes(self._take(2 if size == 126 else 8))
            mask = self._take(4) if head[1] & 128 else bytes(4)
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self._take(size)))
            yield Frame(head[0] & 15, payload, bool(head[0] & 128))

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def _take(self, count: int) -> bytes:
        while len(self._data) < count and (chunk := self.sock.recv(65536)):
            self._data += chunk
        taken, self._data = self._data[:count], self._data[count:]
        return taken if len(taken) == count else b""


def never_close_reply(frames: Frames) -> None:
    """Echo and answer pings, but never a close; for `upgraded`."""
    for frame in frames:
        if frame.opcode == PING:
            frames.send(server_frame(PONG, frame.payload))
        elif frame.opcode in (TEXT, BINARY):
            frames.send(server_frame(frame.opcode, frame.payload))


# A port that never answers


@contextlib.contextmanager
def full_backlog() -> Iterator[tuple[str, int]]:
    """Hold an address whose SYN queue is full: connect() to it hangs."""
    with hanging_port() as port:
        yield ("127.0.0.1", port)
