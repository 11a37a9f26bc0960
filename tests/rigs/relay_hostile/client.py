"""A client that may do everything wrong: plain sockets, frames put together by hand."""

import base64
import os
import socket
import struct
import time
from typing import Self

from tests.rigs.relay_hostile.relay import ORIGIN

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask = 0x80 if masked else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, mask | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, mask | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, mask | 127, len(payload))
    # A mask of zeros leaves the payload as it is.
    return head + (bytes(4) if masked else b"") + payload


def upgrade(token: str | None = None, **headers: str) -> bytes:
    """Return the head of a good upgrade; `headers` replace its own or come on top, an empty one takes one away."""
    lines = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Origin": ORIGIN,
    }
    if token is not None:
        lines["Authorization"] = f"Bearer {token}"
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"GET / HTTP/1.1\r\n{text}\r\n".encode("latin-1")


class Client:
    """One socket, from an address of its own on the loopback. `outcome` says in a word how it ended."""

    def __init__(self, port: int, source: str = "127.0.0.2", timeout: float = 8.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout, (source, 0))
        self._timeout = timeout
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send; False when the relay has ended it, which is what bad clients have to expect."""
        try:
            self.socket.sendall(data)
        except ConnectionError:
            return False
        return True

    def status(self) -> int:
        """Return the HTTP status of the answer, 0 when there is none."""
        while b"\r\n\r\n" not in self._rest:
            if not self._fill():
                return 0
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1])

    def upgraded(self, token: str | None = None, **headers: str) -> Self:
        """Upgrade, which must succeed."""
        self.send(upgrade(token, **headers))
        status = self.status()
        assert status == 101, status
        return self

    def frame(self) -> tuple[int, bytes] | None:
        """Return opcode and payload of the next frame, None at the end."""
        if not self._have(2):
            return None
        size, at = self._rest[1], 2
        if size == 126:
            if not self._have(4):
                return None
            size, at = struct.unpack_from("!H", self._rest, 2)[0], 4
        elif size == 127:
            if not self._have(10):
                return None
            size, at = struct.unpack_from("!Q", self._rest, 2)[0], 10
        if not self._have(at + size):
            return None
        opcode, payload = self._rest[0] & 0x0F, self._rest[at : at + size]
        self._rest = self._rest[at + size :]
        return opcode, payload

    def outcome(self) -> str:
        """Read until the relay says how it ends: "closed CODE", "cut", or "silent" when it does nothing for too long."""
        end = time.monotonic() + self._timeout
        try:
            while (found := self.frame()) is not None:
                if found[0] == CLOSE:
                    return f"closed {struct.unpack('!H', found[1][:2])[0]}" if found[1] else "closed"
                if time.monotonic() > end:
                    return "silent"
        except TimeoutError:
            return "silent"
        return "cut"

    def answer(self) -> str:
        """Return what a whole attempt came to, upgrade included: "HTTP STATUS", or its `outcome`."""
        try:
            status = self.status()
        except TimeoutError:
            return "silent"
        if status == 101:
            return self.outcome()
        return f"HTTP {status}" if status else "cut"

    def _have(self, size: int) -> bool:
        while len(self._rest) < size:
            if not self._fill():
                return False
        return True

    def _fill(self) -> bool:
        try:
            chunk = self.socket.recv(65536)
        except ConnectionError:
            return False
        self._rest += chunk
        return bool(chunk)
