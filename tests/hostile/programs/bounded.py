"""Meet one bad server in a fresh process, and print what that cost as a line of JSON.

    bounded.py URL OWN-OR-SHARED OPTIONS

OPTIONS: of the connection, as JSON. Prints seconds (from the dial to `on_reset`) and cpu (of those, on a processor),
base and peak (most bytes resident before, and in all), error, its text, and code.
"""

import json
import sys
import threading
import time
from typing import Any

import connman
from tests.hostile.memory import peak
from tests.promises.peers import connection

PATIENCE = 30.0


def main() -> None:
    url, reader, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    over = threading.Event()
    resets: list[connman.Reset] = []

    def on_reset(_: connman.Connection, reset: connman.Reset) -> None:
        resets.append(reset)
        over.set()

    conn = connection(
        reader == "shared", url, reconnect=False, proxy=None, on_data=lambda *_: None, on_reset=on_reset, **options
    )  # fmt: skip
    base, began, cpu = peak(), time.monotonic(), time.process_time()
    conn.connect()
    over.wait(PATIENCE)
    answer: dict[str, Any] = {
        "seconds": time.monotonic() - began, "cpu": time.process_time() - cpu, "base": base, "peak": peak()
    }  # fmt: skip
    conn.disconnect()
    if resets:
        error = resets[0].error
        answer |= {"error": type(error).__name__, "text": str(error), "code": getattr(error, "code", None)}
    print(json.dumps(answer))


main()
