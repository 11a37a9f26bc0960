"""Clients of a relay by hand: raw sockets and frames, so that every byte both ways is the test's own."""

import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Self

from connman.relay import Limits, Relay
from tests.loopback import PATIENCE

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="

PROVIDED = {"command": "provided"}
HANDOVER = {"command": "handover"}
REACHED = {"command": "reached"}
CONNECTED = {"connected": True, "groupSize": 2}
READY = '{"command":"ready"}'
LOST = (4102, "the other side was lost")


def upgrade(host: str = "127.0.0.1", path: str = "/", **headers: str | None) -> bytes:
    """Return the head of an upgrade; a header that is None is left out."""
    told = {
        "host": host,
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec_websocket_key": KEY.decode(),
        "sec_websocket_version": "13",
        **headers,
    }
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in told.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, first: int | None = None) -> bytes:
    """Return a client's frame, masked."""
    size = len(payload)
    start = bytes(((0x80 if fin else 0) | opcode,)) if first is None else bytes((first,))
    if size < 126:
        head = start + bytes((0x80 | size,))
    elif size < 65536:
        head = start + b"\xfe" + size.to_bytes(2)
    else:
        head = start + b"\xff" + size.to_bytes(8)
    key = b"\x37\xfa\x21\x3d"  # always the same, so that a test has the same name in each process
    return head + key + mask(payload, key)


def mask(payload: bytes, key: bytes) -> bytes:
    stream = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(stream)).to_bytes(len(payload))


def close_frame(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2) + reason)


class Raw:
    """A socket to a relay, before any upgrade."""

    def __init__(
        self, relay: Relay, context: ssl.SSLContext | None = None, source: str = "127.0.0.1"
    ) -> None:
        sock = socket.create_connection(("127.0.0.1", relay.port), PATIENCE, (source, 0))
        self.sock = sock if context is None else context.wrap_socket(sock, server_hostname="127.0.0.1")
        self._data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def take(self, count: int) -> bytes:
        """Return exactly so many bytes; fewer at the end of file."""
        while len(self._data) < count:
            try:
                chunk = self.sock.recv(65536)
            except ConnectionResetError:
                break
            if not chunk:
                break
            self._data += chunk
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def head(self) -> bytes:
        """Return the head of an HTTP answer, without the empty line."""
        while b"\r\n\r\n" not in self._data:
            chunk = self.sock.recv(65536)
            if not chunk:
                break
            self._data += chunk
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        return head

    def answer(self) -> tuple[int, dict[str, str], str]:
        """Return status, headers and body of an HTTP answer."""
        first, *lines = self.head().decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = self.take(int(headers.get("content-length", 0))).decode()
        return int(first.split(" ")[1]), headers, body

    def is_at_end(self) -> bool:
        return self.take(1) == b""


class Client(Raw):
    """A WebSocket to a relay."""

    def __init__(
        self,
        relay: Relay,
        first: Mapping[str, Any] | str | bytes | None = None,
        *,
        context: ssl.SSLContext | None = None,
        source: str = "127.0.0.1",
        **headers: str | None,
    ) -> None:
        super().__init__(relay, context, source)
        self.write(upgrade(**headers))
        status = self.head().split(b"\r\n")[0]
        if status != b"HTTP/1.1 101 Switching Protocols":
            self.sock.close()
            raise AssertionError(status)
        if first is not None:
            self.say(first if isinstance(first, str | bytes) else json.dumps(first))

    def say(self, message: str | bytes) -> None:
        text = isinstance(message, str)
        self.write(frame(TEXT if text else BINARY, message.encode() if isinstance(message, str) else message))

    def frame(self) -> tuple[int, bool, bytes]:
        """Return the next frame: opcode, fin, payload."""
        first, second = self.take(2)
        assert not second & 0x80, "masked"
        assert not first & 0x70, "reserved bits"
        size = second
        if size > 125:
            size = int.from_bytes(self.take(2 if size == 126 else 8))
        return first & 15, bool(first & 0x80), self.take(size)

    def hear(self) -> str | bytes:
        """Return the next message, whole; pings are answered."""
        kind, parts = 0, b""
        while True:
            opcode, fin, payload = self.frame()
            if opcode == PING:
                self.write(frame(PONG, payload))
                continue
            assert opcode in (0, TEXT, BINARY), (opcode, payload)
            kind, parts = opcode or kind, parts + payload
            if fin:
                return parts.decode() if kind == TEXT else parts

    def told(self) -> Any:
        """Return the next message, out of its JSON."""
        return json.loads(self.hear())

    def closed(self) -> tuple[int | None, str]:
        """Return code and reason of the close, which comes next, answer it, and see the end of the socket."""
        opcode, _, payload = self.frame()
        assert opcode == CLOSE, (opcode, payload)
        self.write(close_frame(int.from_bytes(payload[:2]) if payload else None))
        assert self.is_at_end()
        return (int.from_bytes(payload[:2]) if payload else None), payload[2:].decode()

    def leave(self, code: int | None = 1000, reason: str = "") -> tuple[int | None, str]:
        """Close, and return what the relay answers."""
        self.write(close_frame(code, reason.encode()))
        opcode, _, payload = self.frame()
        assert opcode == CLOSE
        assert self.is_at_end()
        return (int.from_bytes(payload[:2]) if payload else None), payload[2:].decode()


def provider(relay: Relay, name: str = "device", **options: Any) -> Client:
    client = Client(relay, {"command": "provide", "name": name}, **options)
    assert client.told() == PROVIDED
    return client


def caller(relay: Relay, name: str = "device", **options: Any) -> Client:
    return Client(relay, {"command": "reach", "name": name}, **options)


def pair(relay: Relay, name: str = "device") -> tuple[Client, Client]:
    """Return a caller and a provider that are joined."""
    far = provider(relay, name)
    near = caller(relay, name)
    assert far.told() == HANDOVER
    far.say(READY)
    assert near.told() == REACHED
    return near, far


def group(relay: Relay, one: str = "a", two: str = "b") -> tuple[Client, Client]:
    """Return two members that are joined."""
    first = Client(relay, {"self": one, "other": two})
    second = Client(relay, {"self": two, "other": one})
    assert first.told() == CONNECTED
    assert second.told() == CONNECTED
    return first, second


def make(**limits: Any) -> Relay:
    return Relay(port=0, limits=Limits(**limits))
