"""connman's relay, in memory, as the command line starts it."""

from __future__ import annotations

from bench import wire
from bench.servers.lifetime import end_with_bench, say_port
from connman.relay import Limits, Relay

if __name__ == "__main__":
    with Relay(host=wire.HOST, port=0, limits=Limits()) as relay:
        say_port(relay.port)
        end_with_bench()
