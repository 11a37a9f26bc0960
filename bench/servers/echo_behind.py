"""A raw socket behind the picows relay at the port that is given: the provider that costs nothing."""

from __future__ import annotations

import sys

from bench import wire
from bench.servers.lifetime import end_in_background, say_port

if __name__ == "__main__":
    port, size = int(sys.argv[1]), wire.CALL_SIZE
    end_in_background()
    sock, _ = wire.dial(port, "0/take")
    say_port(port)
    incoming, answer = len(wire.frame(wire.text(size).encode())), wire.masked_frame(wire.text(size).encode())
    pending = 0
    while chunk := sock.recv(1 << 16):
        count, pending = divmod(pending + len(chunk), incoming)
        sock.sendall(answer * count)
