"""A relay between two that can only dial out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from connman.relay.broker import Broker, BrokerHost, BrokerLost, RemoteRefused, RemoteSide
from connman.relay.counts import Rate, RelaySeen, Snapshot
from connman.relay.limits import Limits
from connman.relay.relay import Relay, RelayFailed
from connman.relay.tokens import Grant, NoTokens, TokenRefused, Tokens

if TYPE_CHECKING:
    from connman.relay.jwt_tokens import JwtTokens
    from connman.relay.token_file import TokenFile

__all__ = [
    "Broker",
    "BrokerHost",
    "BrokerLost",
    "Grant",
    "JwtTokens",
    "Limits",
    "NoTokens",
    "Rate",
    "Relay",
    "RelayFailed",
    "RelaySeen",
    "RemoteRefused",
    "RemoteSide",
    "Snapshot",
    "TokenFile",
    "TokenRefused",
    "Tokens",
]

# Imported by whoever names them: one needs a library.
_LAZY = {"JwtTokens": "connman.relay.jwt_tokens", "TokenFile": "connman.relay.token_file"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
