"""The far ends of the promises' connections: just enough of a WebSocket server, and bounds for what must return."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import connman
from connman.clock import SystemClock
from connman.connection.sharing import SharedReaders
from tests.loopback import Server, in_thread, tcp_table
from tests.scripted import Guest
from tests.waiting import Stalls, eventually

T = TypeVar("T")

PATIENCE = 10.0  # seconds that only a failing test reaches
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def connection(is_shared: bool, target: object, **options: Any) -> connman.Connection:
    """Make a connection with a reader thread of its own, or, as those of a pool with `readers=1`, with a shared one."""
    conn = connman.Connection(target, **options)
    if is_shared:
        conn.read_by(SharedReaders(1, f"shared by {conn.name}", SystemClock()))
    return conn


def by_dispatch(dispatch: str, target: object, **options: Any) -> connman.Connection:
    """Make a connection; the dispatch "shared" is that of the reader, on a shared one."""
    is_shared = dispatch == "shared"
    return connection(is_shared, target, dispatch="reader" if is_shared else dispatch, **options)


def within(seconds: float, function: Callable[..., T], *args: Any) -> T:
    """Run `function` on a thread and return what it returned; fail when that takes longer than `seconds`.

    While the machine stood still no time passed.
    """
    future, left = in_thread(function, *args), seconds
    while left:
        with Stalls() as stalls:
            try:
                return future.result(left)
            except TimeoutError:
                if future.done():
                    raise
        left = stalls.seconds
    pytest.fail(f"{getattr(function, '__qualname__', function)} did not return within {seconds:g} s")


def wait_stuck(conn: connman.Connection) -> None:
    """Wait until the network takes no more of what is sent: two looks in a row see the same queue of the system."""
    last = [0]

    def no_progress() -> bool:
        queued = unsent_bytes(conn)
        is_full = queued > 0 and queued == last[0]
        last[0] = queued
        return is_full

    eventually(no_progress)


def unsent_bytes(conn: connman.Connection) -> int:
    """Return what the system holds for the peer, from the tx_queue column of its table."""
    assert conn.endpoint is not None
    rows = [*tcp_table("tcp"), *tcp_table("tcp6")]
    port = f":{conn.endpoint.port:04X}"
    return sum(int(row[4].split(":")[0], 16) for row in rows if row[2].endswith(port) and row[3] == "01")


def frame(payload: str | bytes, opcode: int | None = None) -> bytes:
    """Return a server's frame, which is not masked."""
    kind = (TEXT if isinstance(payload, str) else BINARY) if opcode is None else opcode
    data = payload.encode() if isinstance(payload, str) else payload
    if len(data) < 126:
        return bytes((0x80 | kind, len(data))) + data
    if len(data) < 0x10000:
        return bytes((0x80 | kind, 126)) + len(data).to_bytes(2) + data
    return bytes((0x80 | kind, 127)) + len(data).to_bytes(8) + data


def frames(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield opcode and payload of what a client sends, until it ends its side."""
    buffer = bytearray()

    def need(count: int) -> bool:
        while len(buffer) < count:
            chunk = sock.recv(65536)
            if not chunk:
                return False
            buffer.extend(chunk)
        return True

    while need(2):
        length, head = buffer[1] & 0x7F, 2
        if length > 125:
            head = 4 if length == 126 else 10
            if not need(head):
                return
            length = int.from_bytes(buffer[2:head])
        if not need(head + 4 + length):
            return
        key, payload = buffer[head : head + 4], buffer[head + 4 : head + 4 + length]
        opcode = buffer[0] & 0x0F
        del buffer[: head + 4 + length]
        mask = int.from_bytes((bytes(key) * (length // 4 + 1))[:length])
        yield opcode, (int.from_bytes(payload) ^ mask).to_bytes(length)


def accept(sock: socket.socket) -> Guest:
    """Read the upgrade and agree to it."""
    guest = Guest(sock)
    if "\r\n\r\n" not in guest.read_request():
        raise ConnectionError("the client went away")
    guest.send(guest.upgrade_head())
    return guest


def serve_ws(sock: socket.socket, on_message: Callable[[str | bytes], object] | None = None) -> None:
    """Be a well-behaved WebSocket server: pongs for pings, a close for a close; without `on_message` it echoes."""
    accept(sock)
    for opcode, payload in frames(sock):
        if opcode == CLOSE:
            sock.sendall(frame(payload, CLOSE))
            return
        if opcode == PING:
            sock.sendall(frame(payload, PONG))
        elif opcode in (TEXT, BINARY):
            if on_message is None:
                sock.sendall(frame(payload, opcode))
            else:
                on_message(payload.decode() if opcode == TEXT else payload)


def deaf_ws(sock: socket.socket) -> None:
    """Open, then read and never say anything again, not even the answer to a close."""
    accept(sock)
    while sock.recv(65536):
        pass


class Peers(Server):
    """A `Server` on TCP that can say how many sockets have been dialled to it until now."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        super().__init__(self._serve_or_note)
        self._serve_dialler = serve
        # How many probes there were. They cannot be told by their ports: a port may soon be used again.
        self._probed = 0
        # Each is a single operation on a set: atomic.
        self._probes: set[Any] = set()
        self._noted: set[Any] = set()
        self._served: set[Any] = set()

    def url(self, scheme: str = "ws", rest: str = "") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{rest}"

    def _serve_or_note(self, sock: socket.socket) -> None:
        name = sock.getpeername()
        if name in self._probes:
            self._noted.add(name)
        else:
            self._served.add(name)
            try:
                self._serve_dialler(sock)
            finally:
                self._served.discard(name)

    @property
    def is_deserted(self) -> bool:
        """Whether every client that was served has gone (as far as `serve` reads to the end)."""
        return not self._served

    def dials(self) -> int:
        """Count the sockets that were dialled before this call: the backlog is a queue, so one of ours is the last."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            name = sock.getsockname()
            self._noted.discard(name)
            self._probes.add(name)
            self._probed += 1
            sock.connect(("127.0.0.1", self.port))
            eventually(lambda: name in self._noted, message="the server to accept a probe")
            self._probes.discard(name)  # the port may be a client's next
        return self.accepted - self._probed


PROGRAMS = Path(__file__).with_name("programs")


def program_environment() -> dict[str, str]:
    """Return an environment in which the programs find connman, and no proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "PYTHONPATH": str(PROGRAMS.parents[2]), "PYTHONWARNINGS": ""}


def run_program(name: str, *arguments: str, timeout: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """Run a program of this folder by this interpreter to its end, which must come within `timeout` seconds."""
    command = [sys.executable, str(PROGRAMS / name), *arguments]
    # A session of its own, so that what it left behind can be found and ended as well.
    process = subprocess.Popen(
        command,
        env=program_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(
            f"{name} {' '.join(arguments)} did not end within {timeout:g} s:\n{out}\n{err}", pytrace=False
        )
    return subprocess.CompletedProcess(command, process.returncode, out, err)
