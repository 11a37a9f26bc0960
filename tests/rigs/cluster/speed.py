"""How fast frames go through one relay and across two: raw sockets, so that the clients are not what is measured."""

import json
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass

FRAME_BYTES = 64


class RawClient:
    """A websocket client by hand: frames with a mask of zeros, made once."""

    def __init__(self, port: int, **first: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = "AAAAAAAAAAAAAAAAAAAAAA=="
        self.sock.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101"), head
        self.send(json.dumps(first).encode(), 0x81)

    def send(self, payload: bytes, first: int = 0x82) -> None:
        self.sock.sendall(frame(payload, first))

    def hear(self) -> bytes:
        """Return the payload of the next short frame."""
        _, size = self.take(2)
        return self.take(size)

    def take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.sock.recv(size - len(data))
            assert chunk, "the relay has closed"
            data += chunk
        return data


def frame(payload: bytes, first: int = 0x82) -> bytes:
    return struct.pack("!BBI", first, 0x80 | len(payload), 0) + payload


def joined(caller_port: int, provider_port: int, name: str) -> tuple[RawClient, RawClient]:
    """Join a caller with a provider."""
    provider = RawClient(provider_port, command="provide", name=name)
    assert b"provided" in provider.hear()
    for _ in range(200):
        caller = RawClient(caller_port, command="reach", name=name)
        provider.sock.settimeout(0.05)
        try:
            heard = provider.hear()
        except TimeoutError:
            caller.sock.close()  # the other relay has not heard of the name yet
            continue
        finally:
            provider.sock.settimeout(30)
        assert b"handover" in heard
        provider.send(b'{"command":"ready"}', 0x81)
        assert b"reached" in caller.hear()
        return caller, provider
    raise AssertionError("the other relay never knew the name")


@dataclass(frozen=True)
class Speed:
    frames: float  # a second, of 64 bytes, in one direction
    median: float  # of a round trip of one frame, in seconds
    worst: float  # of 100


def measured(caller_port: int, provider_port: int, frames: int, rounds: int = 1000) -> Speed:
    """Time frames that go as fast as they may, and then one at a time there and back."""
    caller, provider = joined(caller_port, provider_port, f"speed-{os.urandom(4).hex()}")
    block = frame(b"x" * FRAME_BYTES) * 1000
    begin = time.perf_counter()
    sending = threading.Thread(target=lambda: [caller.sock.sendall(block) for _ in range(frames // 1000)])
    sending.start()
    left = frames * (FRAME_BYTES + 2)
    while left:
        left -= len(provider.sock.recv(1 << 20))
    rate = frames / (time.perf_counter() - begin)
    sending.join()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        caller.send(b"ping")
        assert provider.hear() == b"ping"
        provider.send(b"pong")
        assert caller.hear() == b"pong"
        times.append(time.perf_counter() - begin)
    times.sort()
    for client in (caller, provider):
        client.sock.close()
    return Speed(rate, times[rounds // 2], times[rounds * 99 // 100])
