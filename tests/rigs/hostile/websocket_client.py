"""Meet one bad behaviour with bare websocket-client, and print what came of it as lines of JSON.

    websocket_client.py '{"url": …, "through": …, "port": …, "subprotocols": …, "ca": …, "timeout": …, "is_open": …}'

Ends by itself only when websocket-client does.
"""

import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import websocket

from tests.hostile.memory import peak


def connect(given: dict[str, Any]) -> websocket.WebSocket:
    options: dict[str, Any] = {"timeout": given["timeout"], "subprotocols": given["subprotocols"] or None}
    if given["ca"]:
        options["sslopt"] = {"ca_certs": given["ca"]}
    if given["through"]:
        proxy = urlsplit(given["through"])
        options |= {
            "http_proxy_host": proxy.hostname,
            "http_proxy_port": proxy.port,
            "proxy_type": proxy.scheme,
            "http_proxy_timeout": given["timeout"],
        }
    return websocket.create_connection(given["url"], **options)


def listen(ws: websocket.WebSocket) -> str:
    """Receive until that raises, ends or brings nothing within the timeout, and say which."""
    heard: list[str | bytes] = []
    while True:
        try:
            heard.append(ws.recv())
        except websocket.WebSocketTimeoutException:
            return f"delivers {told(heard[1:])}" if heard[1:] else "accepts it"
        if heard[-1] == "":
            more = heard[1:-1]
            return f"delivers {told(more)}, then ''" if more else "returns ''"


def told(messages: list[str | bytes]) -> str:
    if len(messages) == 1 and len(messages[0]) < 20:
        return repr(messages[0])
    return f"{len(messages)} messages, {sum(map(len, messages))} long"


def outcome(given: dict[str, Any]) -> str:
    try:
        ws = connect(given)
        return listen(ws) if given["is_open"] else "opens"
    except websocket.WebSocketException as error:
        return type(error).__name__
    except Exception as error:  # noqa: BLE001  # whatever it raises is the answer
        return f"foreign {type(error).__name__}"


def main() -> None:
    given = json.loads(sys.argv[1])
    began, before = time.monotonic(), peak()
    # First, for whoever ends this before it is done.
    print(json.dumps({"base": before}), flush=True)
    text = outcome(given)
    answer = {"outcome": text, "seconds": time.monotonic() - began, "memory": peak() - before}
    print(json.dumps(answer), flush=True)


main()
