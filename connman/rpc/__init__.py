"""Calls across a connection: each side may serve, and call the services of the other."""

from connman.rpc.codec import UNDEFINED, NotAllowed, Undefined
from connman.rpc.counters import CloseStatus, PeerStats
from connman.rpc.joining import RelayRefused, Token
from connman.rpc.path import PeerClosed
from connman.rpc.peer import Peer
from connman.rpc.provide import provide
from connman.rpc.provider import Provider, ProviderStats
from connman.rpc.reach import reach
from connman.rpc.reading import Stream, StreamFailed
from connman.rpc.receiving import StreamTooFast
from connman.rpc.services import Services
from connman.rpc.serving import current_peer

__all__ = [
    "UNDEFINED",
    "CloseStatus",
    "NotAllowed",
    "Peer",
    "PeerClosed",
    "PeerStats",
    "Provider",
    "ProviderStats",
    "RelayRefused",
    "Services",
    "Stream",
    "StreamFailed",
    "StreamTooFast",
    "Token",
    "Undefined",
    "current_peer",
    "provide",
    "reach",
]
