"""One end of large streams through a relay: `stream_end.py provide URL` or `stream_end.py read|write|hold URL MIB`.

A provider says "ready" and ends with its stdin. The others print one line of JSON: the bytes, by how many MiB the peak of
the own memory has grown meanwhile, and that of the provider's; and the slowest of the calls that went on beside.
"""

import json
import resource
import sys
import threading
import time
from collections.abc import Iterator

from connman import rpc

CHUNK = bytes(range(256)) * 4096  # 1 MiB


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def chunks(mib: int) -> Iterator[bytes]:
    for _ in range(mib):
        yield CHUNK


def provide(url: str) -> None:
    services = {
        "get": chunks, "put": lambda upload: sum(map(len, upload)), "peak": peak, "add": lambda a, b: a + b,
    }  # fmt: skip
    with rpc.provide(url, "large", services) as provider:
        provider.wait_ready(30)
        print("ready", flush=True)
        sys.stdin.read()


class Beside:
    """Calls one after another on a thread of their own."""

    def __init__(self, peer: rpc.Peer) -> None:
        self._peer = peer
        self._is_over = threading.Event()
        self.times: list[float] = []
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        while not self._is_over.wait(0.01):
            began = time.perf_counter()
            assert self._peer.call("add", len(self.times), 1) == len(self.times) + 1
            self.times.append(time.perf_counter() - began)

    def end(self) -> list[float]:
        self._is_over.set()
        self._thread.join()
        return sorted(self.times)


def move(url: str, how: str, mib: int) -> None:
    with rpc.reach(url, "large") as peer:
        peer.call("put", chunks(8))
        for _ in peer.stream("get", 8):
            pass
        own, far = peak(), peer.call("peak")
        beside = Beside(peer)
        began = time.perf_counter()
        if how == "read":
            size = sum(map(len, peer.stream("get", mib)))
        elif how == "write":
            size = peer.call("put", chunks(mib), timeout=300)
        else:
            size = hold(peer, mib)
        seconds = time.perf_counter() - began
        times = beside.end()
        told = {
            "size": size, "own": peak() - own, "far": peer.call("peak") - far, "seconds": round(seconds, 2),
            "calls": len(times), "median": times[len(times) // 2], "slowest": times[-1],
        }  # fmt: skip
        print(json.dumps(told), flush=True)


def hold(peer: rpc.Peer, streams: int) -> int:
    """Open streams and read a first chunk of each alone, while calls go on."""
    held = [peer.stream("get", 64) for _ in range(streams)]
    for stream in held:
        next(stream)
    for _ in range(300):
        peer.call("add", 1, 2)
    for stream in held:
        stream.close()
    return len(held)


if __name__ == "__main__":
    if sys.argv[1] == "provide":
        provide(sys.argv[2])
    else:
        move(sys.argv[2], sys.argv[1], int(sys.argv[3]))
