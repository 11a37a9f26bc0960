"""Five kinds of servers, each behind a proxy that fails at random: what `scripts/soak` connects to, as a process of its own.

It prints the ports as one line of JSON when all listen, and ends when stdin ends.

| kind | what it does |
|---|---|
| echo | sends every message back, answers pings and closes |
| rst | resets right after accept, or in the middle of a message, in turn |
| busy | refuses the upgrade with 503 and Retry-After: 0 |
| hole | reads, and never answers |
| liar | answers the upgrade wrongly, in one way after the other |
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import sys
import threading

from connman.testing import FaultProxy
from tests.servers import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frames,
    Handler,
    RawServer,
    read_until,
    reset,
    reset_at_once,
    server_frame,
    silent,
    upgraded,
    ws_accept,
)

# What becomes of a link, in how many of a hundred rounds.
CHAOS = {
    "calm": 40,
    "late": 10,
    "sliced": 10,
    "slow": 5,
    "deaf": 10,
    "cut": 10,
    "reset": 5,
    "short": 5,
    "refuse": 5,
}
ROUND = 0.05  # seconds

LIES = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: bm8=\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    b"HTTP/1.1 101 Switching Pro",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 40,
    b"HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
)


def echo(frames: Frames) -> None:
    for frame in frames:
        if frame.opcode in (TEXT, BINARY):
            frames.send(server_frame(frame.opcode, frame.payload))
        elif frame.opcode == PING:
            frames.send(server_frame(PONG, frame.payload))
        elif frame.opcode == CLOSE:
            frames.send(server_frame(CLOSE, frame.payload))
            return


def rst(sock: socket.socket, number: int) -> None:
    if number % 2:
        reset_at_once(sock, number)
        return
    ws_accept(sock)
    sock.sendall(server_frame(TEXT, b"whole") + server_frame(TEXT, bytes(1000))[:500])
    reset(sock)


def busy(sock: socket.socket, _: int) -> None:
    read_until(sock, b"\r\n\r\n")
    sock.sendall(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy")


def liar(sock: socket.socket, number: int) -> None:
    read_until(sock, b"\r\n\r\n")
    sock.sendall(LIES[number % len(LIES)])


KINDS: dict[str, Handler] = {
    "echo": upgraded(echo),
    "rst": rst,
    "busy": busy,
    "hole": silent,
    "liar": liar,
}


def patient(handler: Handler) -> Handler:
    """Make a handler that does not mind a request that was cut."""

    def patient_handler(sock: socket.socket, number: int) -> None:
        with contextlib.suppress(KeyError):
            handler(sock, number)

    return patient_handler


def meddle(proxy: FaultProxy, chance: random.Random, end: threading.Event) -> None:
    """Fail in one way after the other until the end."""
    while not end.is_set():
        fault = chance.choices(list(CHAOS), list(CHAOS.values()))[0]
        with contextlib.ExitStack() as healing:
            if fault == "late":
                healing.callback(setattr, proxy, "latency", 0.0)
                proxy.latency = 0.01
            elif fault == "sliced":
                healing.callback(setattr, proxy, "slice", None)
                proxy.slice = 7
            elif fault == "slow":
                healing.callback(setattr, proxy, "rate", None)
                proxy.rate = 20_000
            elif fault == "deaf":
                healing.callback(proxy.deaf, False)
                proxy.deaf(True)
            elif fault == "refuse":
                healing.callback(proxy.refuse, False)
                proxy.refuse(True)
            elif fault == "short":
                healing.callback(proxy.cut_after, None)
                proxy.cut_after(chance.randrange(1, 600))
            elif fault == "cut":
                proxy.cut()
            elif fault == "reset":
                proxy.reset()
            end.wait(ROUND)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    chance = random.Random(parser.parse_args().seed)
    end = threading.Event()
    with contextlib.ExitStack() as running:
        ports = {}
        meddlers = []
        for kind, handler in KINDS.items():
            server = running.enter_context(RawServer(patient(handler)))
            proxy = running.enter_context(FaultProxy("127.0.0.1", server.port, seed=chance.randrange(2**32)))
            ports[kind] = proxy.port
            own = random.Random(chance.random())
            meddlers.append(threading.Thread(target=meddle, args=(proxy, own, end), name=f"chaos-{kind}"))
        for meddler in meddlers:
            meddler.start()
        print(json.dumps(ports), flush=True)
        sys.stdin.read()
        end.set()
        for meddler in meddlers:
            meddler.join()


if __name__ == "__main__":
    main()
