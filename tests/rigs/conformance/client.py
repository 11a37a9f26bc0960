"""The client under test, a process of its own: dials a fuzzing server once for each case and echoes what comes.

Reads the cases from its input, one a line, and prints a line of JSON when one has ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import ssl
import sys
import time
from typing import Protocol

import websocket

import connman

AGENT = "connman"


class Client(Protocol):
    """What runs one case."""

    def run(self, url: str, patience: float) -> str:
        """Echo until the connection ends, at most ``patience`` seconds; return how it ended."""


class Connman:
    """connman's public API, with a thread of its own for each connection or with a shared one.

    Everything happens inside `on_data`, on the reading thread: an echo is sent before anything that came behind its
    message is acted on, a violation's close frame included.
    """

    def __init__(self, readers: str, ca: str, compression: str | None) -> None:
        pool = connman.Pool(readers=1) if readers == "shared" else None
        self._open = connman.connect if pool is None else pool.add_connection
        self._context = ssl.create_default_context(cafile=ca) if ca else None
        self._compression = compression
        self._seen = 0

    def run(self, url: str, patience: float) -> str:
        """Run one case."""
        conn = self._open(
            url,
            on_data=self._echo,
            reconnect=False,
            proxy=None,
            ssl_context=self._context,
            compression="deflate" if self._compression else None,
        )
        try:
            conn.wait_closed(patience)
        except connman.errors.ConnmanError as error:
            return f"{type(error).__name__}: {error}"
        finally:
            conn.disconnect()
        return "closed by us"

    @staticmethod
    def _echo(conn: connman.Connection, data: connman.Message) -> None:
        with contextlib.suppress(connman.errors.NotConnected, connman.errors.ConnectionLost):
            conn.send(data)


class WebSocketClient:
    """Bare websocket-client, as its documentation has it: a WebSocketApp with `on_message`."""

    def __init__(self, readers: str, ca: str, compression: str | None) -> None:
        # Its complaints about the cases are no news.
        logging.getLogger("websocket").setLevel(logging.CRITICAL)
        self._tls = {"ca_certs": ca} if ca else None

    def run(self, url: str, patience: float) -> str:
        """Run one case; ``patience`` is the driver's business here."""
        ends: list[str] = []
        app = websocket.WebSocketApp(
            url,
            on_message=self._echo,
            on_error=lambda _, error: ends.append(f"{type(error).__name__}: {error}"),
            on_close=lambda _, code, reason: ends.append(f"closed {code}"),
        )
        app.run_forever(sslopt=self._tls, http_no_proxy=["127.0.0.1"])
        return "; ".join(ends)

    @staticmethod
    def _echo(app: websocket.WebSocketApp, message: str | bytes) -> None:
        is_text = isinstance(message, str)
        app.send(message, websocket.ABNF.OPCODE_TEXT if is_text else websocket.ABNF.OPCODE_BINARY)


CLIENTS: dict[str, type[Connman] | type[WebSocketClient]] = {
    "connman": Connman,
    "websocket-client": WebSocketClient,
}


def main() -> None:
    """Run the cases of the input, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("url")
    parser.add_argument("--readers", choices=["own", "shared"], default="own")
    parser.add_argument("--ca", default="")
    parser.add_argument("--compression")
    parser.add_argument("--patience", type=float, default=60.0)
    wanted = parser.parse_args()
    # A callback that failed is told there, and whoever runs this looks at it.
    logging.basicConfig(level=logging.ERROR)
    client: Client = CLIENTS[wanted.client](wanted.readers, wanted.ca, wanted.compression)
    for line in sys.stdin:
        case = line.strip()
        begin, worked = time.monotonic(), time.process_time()
        end = client.run(f"{wanted.url}/runCase?casetuple={case}&agent={AGENT}", wanted.patience)
        seconds, cpu = time.monotonic() - begin, time.process_time() - worked
        facts = {"id": case, "seconds": seconds, "cpu": cpu, "end": end}
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
