"""The price feed, a process of its own: a WebSocket server that pushes ticks to whoever shows the pass first.

stdin: one JSON line, ``{"pass": …, "port": …, "mode": "serve" | "deaf"}``. Its end is the order to stop, so the server
never outlives the demo. In mode "deaf" TCP connections are accepted and the upgrade is never answered.

stdout: a JSON line for everything that somebody may want to count, ``{"event": "listening" | "socket" | "pass" |
"refused"}``, each written before the client can know, so that a SIGKILL loses none.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

HOST = "127.0.0.1"
SYMBOLS = ("ACME", "BOLT", "CRUX", "DUNE", "ECHO")
TICK_INTERVAL = 0.02  # seconds between two ticks of one symbol
PASS_TIMEOUT = 2.0
NO_PASS = 4001  # the close code for a wrong pass, or for none in time


def tell(event: str) -> None:
    """Report one event to the parent process."""
    print(json.dumps({"event": event}), flush=True)


class CountedConnection(ServerConnection):
    """A connection that is reported the moment its socket has been accepted."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Report the socket."""
        tell("socket")
        super().connection_made(transport)


class Market:
    """Prices and who listens to them.

    Threads: the event loop's.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._listeners: set[ServerConnection] = set()
        self._prices = dict.fromkeys(SYMBOLS, 100.0)
        self._next = dict.fromkeys(SYMBOLS, 1)

    async def serve_one(self, conn: ServerConnection) -> None:
        """Ask for the pass, then leave ``conn`` to `push_loop` until it is closed."""
        if not await self._shows_pass(conn):
            tell("refused")
            await conn.close(NO_PASS, "no valid pass")
            return
        tell("pass")
        # No await from here to add(): no tick can come between the snapshot and the first one it announces.
        broadcast([conn], json.dumps({"welcome": True}))
        broadcast([conn], json.dumps({"snapshot": self._next}))
        self._listeners.add(conn)
        try:
            await conn.wait_closed()
        finally:
            self._listeners.discard(conn)

    async def _shows_pass(self, conn: ServerConnection) -> bool:
        try:
            shown = await asyncio.wait_for(conn.recv(), PASS_TIMEOUT)
        except (TimeoutError, ConnectionClosed):
            return False
        return isinstance(shown, str) and hmac.compare_digest(shown.encode(), self._secret)

    async def push_loop(self) -> None:
        """Send every listener a tick of every symbol, again and again."""
        while True:
            await asyncio.sleep(TICK_INTERVAL)
            for symbol in SYMBOLS:
                broadcast(self._listeners, self._tick(symbol))

    def _tick(self, symbol: str) -> str:
        seq, price = self._next[symbol], self._prices[symbol] * random.uniform(0.999, 1.001)
        self._next[symbol], self._prices[symbol] = seq + 1, price
        return json.dumps({"symbol": symbol, "seq": seq, "price": round(price, 2)})


@asynccontextmanager
async def feed(secret: str, port: int) -> AsyncIterator[None]:
    """Serve the price feed inside the block."""
    market = Market(secret)
    serving = serve(
        market.serve_one, HOST, port, create_connection=CountedConnection, compression=None, reuse_port=True
    )
    async with serving:
        pushing = asyncio.create_task(market.push_loop())
        try:
            yield
        finally:
            pushing.cancel()


@asynccontextmanager
async def deaf(port: int) -> AsyncIterator[None]:
    """Accept connections and never answer, inside the block."""

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tell("socket")
        while await reader.read(4096):
            pass
        writer.close()

    server = await asyncio.start_server(ignore, HOST, port, reuse_port=True)
    try:
        yield
    finally:
        server.close()


async def stdin_ended() -> None:
    """Return when the parent process has closed our stdin, or is gone."""
    ended = asyncio.Event()

    def look() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            ended.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), look)
    await ended.wait()
    loop.remove_reader(sys.stdin.fileno())


async def run(order: dict[str, object]) -> None:
    """Serve in the mode that was ordered until stdin ends."""
    secret, port = str(order["pass"]), int(str(order["port"]))
    async with deaf(port) if order["mode"] == "deaf" else feed(secret, port):
        tell("listening")
        await stdin_ended()


def main() -> None:
    """Read the order and carry it out."""
    # Clients that leave in the middle of an upgrade are what the demo is about, not worth a traceback.
    logging.getLogger("websockets").addHandler(logging.NullHandler())
    try:
        asyncio.run(run(json.loads(sys.stdin.readline())))
    except BrokenPipeError:
        os._exit(1)  # nobody reads our reports any more; a flush at exit would complain about that


if __name__ == "__main__":
    main()
