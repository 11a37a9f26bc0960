"""A relay between two that can only dial out.

Who is who, from the user's end to the wire's::

    Relay         a thread and its loop
    Server        listens, lets in, and ends everything
      Door        a socket before its upgrade
      Side        a client after it: Frames on a Line, which is the socket
    Switchboard   what a first message leads to: who is joined with whom
      Board       which spares and members wait under which name; Waiting: callers for whom there is no spare just now
    Broker        other relays: ``cluster/`` over Redis, where a RemoteSide stands for a Side elsewhere
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connman.relay.broker import Broker, BrokerHost, BrokerLost, RemoteRefused, RemoteSide
    from connman.relay.cluster.broker import RedisBroker
    from connman.relay.counts import Rate, RelaySeen, Snapshot
    from connman.relay.jwt_tokens import JwtTokens
    from connman.relay.limits import Limits
    from connman.relay.metrics import RelayCollector
    from connman.relay.relay import Relay, RelayFailed
    from connman.relay.token_file import TokenFile
    from connman.relay.tokens import Grant, NoTokens, TokenRefused, Tokens

__all__ = [
    "Broker",
    "BrokerHost",
    "BrokerLost",
    "Grant",
    "JwtTokens",
    "Limits",
    "NoTokens",
    "Rate",
    "RedisBroker",
    "Relay",
    "RelayCollector",
    "RelayFailed",
    "RelaySeen",
    "RemoteRefused",
    "RemoteSide",
    "Snapshot",
    "TokenFile",
    "TokenRefused",
    "Tokens",
]

# Imported when they are used: the command line knows them all, and most of its commands need none. Some need a library.
_PLACES = {
    "broker": ("Broker", "BrokerHost", "BrokerLost", "RemoteRefused", "RemoteSide"),
    "cluster.broker": ("RedisBroker",),
    "counts": ("Rate", "RelaySeen", "Snapshot"),
    "jwt_tokens": ("JwtTokens",),
    "metrics": ("RelayCollector",),
    "limits": ("Limits",),
    "relay": ("Relay", "RelayFailed"),
    "token_file": ("TokenFile",),
    "tokens": ("Grant", "NoTokens", "TokenRefused", "Tokens"),
}


def __getattr__(name: str) -> Any:
    for place, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"connman.relay.{place}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
