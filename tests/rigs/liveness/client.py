"""Hold connections and say when one is called dead: a process of its own, so that it can be stopped.

    client.py (connman | websocket-client) PING_INTERVAL PING_TIMEOUT BLOCK KIND URL...

`connman` opens each URL twice, with a reader thread of its own and with a shared one; KIND, such as ws-own, names the
only one to open, "all" opens them all. Every callback for a message blocks
for BLOCK seconds. Prints "open SECONDS" when all are, with the time of the first, "lost SECONDS KIND ERROR" for each loss, with the monotonic clock's time,
"heard KIND BYTES" for each message, and at the end of its input "still COUNT". Each line of its input is a number of
bytes to send over all of them.
"""

import os
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import connman

WHO, INTERVAL, TIMEOUT, BLOCK, KIND, *URLS = sys.argv[1:]

alive: set[str] = set()
opened_at: list[float] = []
senders: dict[str, Callable[[bytes], object]] = {}
lock = threading.Lock()
never = threading.Event()


def say(*words: object) -> None:
    with lock:
        print(*words, flush=True)


def opened(kind: str, since: float) -> None:
    opened_at.append(since)
    alive.add(kind)


def lost(kind: str, error: object) -> None:
    if kind in alive:
        alive.discard(kind)
        say("lost", time.monotonic(), kind, str(error).partition("\n")[0] or type(error).__name__)


def heard(kind: str, data: Any) -> None:
    say("heard", kind, len(data))
    never.wait(float(BLOCK))


def scheme(url: str) -> str:
    return url.partition(":")[0]


def hold_connman() -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for readers in (None, 1):
        pool = connman.Pool(readers=readers)
        for url in URLS:
            kind = f"{scheme(url)}-{'shared' if readers else 'own'}"
            if KIND not in ("all", kind):
                continue
            options: dict[str, Any] = {"ssl_context": context} if scheme(url) == "wss" else {}
            since = time.monotonic()
            conn = pool.add_connection(
                url,
                ping_interval=float(INTERVAL),
                ping_timeout=float(TIMEOUT),
                reconnect=False,
                proxy=None,
                send_timeout=60,
                on_data=lambda _, data, kind=kind: heard(kind, data),
                on_reset=lambda _, reset, kind=kind: lost(kind, reset.error),
                **options,
            )
            conn.wait_open(10)
            opened(kind, since)
            senders[kind] = conn.send


def hold_websocket_client() -> None:
    import websocket

    for url in URLS:
        kind = scheme(url)
        if KIND not in ("all", kind):
            continue
        ready = threading.Event()
        app = websocket.WebSocketApp(
            url,
            on_open=lambda _, ready=ready: ready.set(),
            on_message=lambda _, data, kind=kind: heard(kind, data),
            on_error=lambda _, error, kind=kind: lost(kind, error),
        )

        def run(app: Any = app, kind: str = kind) -> None:
            app.run_forever(
                ping_interval=float(INTERVAL),
                ping_timeout=float(TIMEOUT),
                sslopt={"cert_reqs": ssl.CERT_NONE, "check_hostname": False},
            )
            lost(kind, "run_forever returned")

        since = time.monotonic()
        threading.Thread(target=run, daemon=True).start()
        if ready.wait(10):
            opened(kind, since)
        senders[kind] = lambda data, app=app: app.send(data, opcode=2)


def send(kind: str, size: int) -> None:
    try:
        senders[kind](bytes(size))
    except Exception as error:  # noqa: BLE001 (whatever it is, it is told)
        lost(kind, error)


(hold_connman if WHO == "connman" else hold_websocket_client)()
say("open", min(opened_at))
for line in sys.stdin:
    for kind in senders:
        threading.Thread(target=send, args=(kind, int(line)), daemon=True).start()
say("still", len(alive))
os._exit(0)
