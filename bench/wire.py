"""The least of RFC 6455 that a load server and the physical floor need, done by hand so that it costs next to nothing."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct

HOST = "127.0.0.1"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CALL_SIZE = 64
"""Bytes of a request, and of an answer, about."""
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


def answer_to(request: bytes) -> bytes:
    """Return the answer that completes an upgrade."""
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    accept = base64.b64encode(hashlib.sha1(key.partition(b":")[2].strip() + _GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def path_of(request: bytes) -> list[str]:
    """Return the parts of the path: what the client wants of the server, such as ["blast", "32", "1000"]."""
    return request.split(b" ", 2)[1].decode("ascii").strip("/").split("/")


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a whole unmasked frame, as a server sends it."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return head + payload


def text(size: int) -> str:
    """Return a message of so many bytes."""
    return ("connman! " * (size // 9 + 1))[:size]


def masked_size(size: int) -> int:
    """Return how many bytes a client's frame has on the wire."""
    return size + 4 + (2 if size < 126 else 4 if size < 1 << 16 else 10)


def masked_text(size: int) -> bytes:
    """Return a client's text frame. The mask is zero, which the protocol allows to nobody but to a measurement."""
    head = bytearray(frame(text(size).encode()))
    head[1] |= 0x80
    at = len(head) - size
    return bytes(head[:at]) + bytes(4) + bytes(head[at:])


def masked_frame(payload: bytes, mask: bytes = b"\x9d\x31\x5c\xe7") -> bytes:
    """Return a client's text frame with a mask that is one: for servers that would find out that zero needs no work."""
    head = bytearray(frame(payload)[: -len(payload) or None])
    head[1] |= 0x80
    return bytes(head) + mask + unmasked(payload, mask)


def unmasked(payload: bytes, mask: bytes) -> bytes:
    """Return a short payload without its mask."""
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def dial(port: int, path: str) -> tuple[socket.socket, bytes]:
    """Open a connection by hand; return it and what came behind the answer to the upgrade."""
    sock = socket.create_connection((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        f"GET /{path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    got = b""
    while b"\r\n\r\n" not in got:
        got += sock.recv(4096)
    return sock, got.partition(b"\r\n\r\n")[2]
