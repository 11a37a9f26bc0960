"""websocket-client, its `WebSocketApp`: a thread and a callback for each connection; `unchecked` leaves out its check of UTF-8."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import websocket

from bench.clients.crowd import Gathering, start_threads
from bench.clients.meter import Meter, Result

VERSION_OF = "websocket-client"


def receive(url: str, size: int, count: int, unchecked: int = 0) -> Result:
    """Messages a second through on_message."""
    meter = Meter(count)
    app = websocket.WebSocketApp(url, on_message=meter.callback())
    start_threads([lambda: app.run_forever(skip_utf8_validation=bool(unchecked))])
    meter.wait()
    return meter.rate()


def open_many(
    url: str, count: int, on_message: Callable[[Any, Any], object] | None, **options: Any
) -> object:
    """Open so many connections; the options are those of run_forever()."""
    everyone = Gathering(count)
    kept = [
        websocket.WebSocketApp(url, on_open=everyone.one_more, on_message=on_message) for _ in range(count)
    ]
    start_threads(functools.partial(app.run_forever, **options) for app in kept)
    everyone.wait()
    return kept
