"""A provider behind connman's relay, which runs at the port that is given."""

from __future__ import annotations

import sys

from bench import wire
from bench.clients.meter import PATIENCE
from bench.servers.lifetime import end_with_bench, say_port
from connman import rpc

NAME = "sums"


def add(one: int, other: int) -> int:
    """Return the sum."""
    return one + other


if __name__ == "__main__":
    port = int(sys.argv[1])
    with rpc.provide(f"ws://{wire.HOST}:{port}/", NAME, {"add": add}) as provider:
        provider.wait_ready(PATIENCE)
        say_port(port)
        end_with_bench()
