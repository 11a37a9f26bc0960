"""rpyc, its threaded server: a thread for each connection."""

from __future__ import annotations

import rpyc
from rpyc.utils.server import ThreadedServer

from bench import wire
from bench.servers.lifetime import end_in_background, say_port


class Sums(rpyc.Service):
    """What is called."""

    def exposed_add(self, one: int, other: int) -> int:
        """Return the sum."""
        return one + other


if __name__ == "__main__":
    server = ThreadedServer(Sums(), hostname=wire.HOST, port=0)
    say_port(server.port)
    end_in_background()
    server.start()
