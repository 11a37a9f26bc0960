"""The frames of streams, as tests write them."""

import struct
from typing import Any

from connman.rpc import Stream
from connman.rpc.receiving import WINDOW
from tests.rpc.wired import Raw

GENERIC = "Error while reading the file stream"


def binary(number: float, chunk: bytes) -> bytes:
    return struct.pack("<d", number) + chunk


def text(number: int, chunk: str, **more: Any) -> dict[str, Any]:
    return {"responseId": number, "type": "stream", "chunk": chunk, **more}


def end(number: int) -> dict[str, Any]:
    return {"responseId": number, "type": "stream-end"}


def leave(number: int) -> dict[str, Any]:
    return {"requestId": number, "type": "write-stream-error"}


def opened(pair: Raw, **options: Any) -> Stream:
    """Ask for a stream, and take the request for it off the wire."""
    stream = pair.peer.stream("tail", "a", **options)
    request = pair.recv()
    assert request == {
        "requestId": request["requestId"], "type": "request", "serviceId": "tail", "args": ["a"], "window": WINDOW,
    }  # fmt: skip
    return stream


def follow_up(pair: Raw, number: int) -> None:
    """Show that the peer is as well as before, and that nothing else went out meanwhile."""
    future = pair.peer.send("more")
    assert pair.recv()["requestId"] == number
    pair.send({"responseId": number, "type": "data", "data": "fine"})
    assert future.result(10) == "fine"
