"""`WebSocketApp` that pings as connman does: without pings it never notices a peer that has gone silent."""

from __future__ import annotations

import functools

from bench.clients import websocket_app

VERSION_OF = websocket_app.VERSION_OF
open_many = functools.partial(websocket_app.open_many, ping_interval=20, ping_timeout=19)
