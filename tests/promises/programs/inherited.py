"""A WSGI application that asks over a connection which a master may have opened before it forked; run by test_workers.py.

TARGET is the server, which echoes. OPENED: open the connection at import, and another that prints who hears what.
BARE: with websocket-client alone, to see what happens without connman.
"""

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

TARGET = os.environ["TARGET"]
PATIENCE = 20.0


def with_connman() -> Callable[[str], Any]:
    import connman

    pool = connman.Pool(url=TARGET, size=1)
    if os.environ.get("OPENED"):
        pool.wait_open(PATIENCE)
        connman.connect(
            TARGET, on_data=lambda _, message: print(f"{os.getpid()} heard {message}", flush=True)
        ).wait_open()

    def say(word: str) -> Any:
        with pool.connection(PATIENCE) as conn:
            conn.send(word)
            return conn.recv(PATIENCE)

    return say


def with_websocket_client() -> Callable[[str], Any]:
    import websocket

    conn = websocket.create_connection(TARGET, timeout=5)
    lock = threading.Lock()

    def say(word: str) -> Any:
        with lock:
            conn.send(word)
            return conn.recv()

    return say


say = with_websocket_client() if os.environ.get("BARE") else with_connman()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    answer = say(environ["PATH_INFO"].rpartition("/")[2])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
