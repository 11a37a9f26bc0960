"""connman's relay, in memory; `plain`: without what makes it faster."""

from __future__ import annotations

import sys

from bench import wire
from bench.servers.lifetime import end_with_bench, say_port

if __name__ == "__main__":
    if "plain" in sys.argv:
        # As if neither was installed: the standard library's event loop, and its integers to take masks off.
        sys.modules["uvloop"] = sys.modules["websockets.speedups"] = None  # type: ignore[assignment]
    from connman.relay import Relay  # lazy: it looks for both when it is imported

    with Relay(host=wire.HOST, port=0) as relay:
        say_port(relay.port)
        end_with_bench()
