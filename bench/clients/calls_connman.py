"""connman: `Peer.call()`, and `Peer.send()` with its Futures, to a provider behind the relay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.clients import calling
from bench.clients.meter import PATIENCE, Result
from bench.servers.calls_connman import NAME
from connman import rpc

VERSION_OF = "connman"


def dial(url: str) -> Any:
    """Return the peer that the relay gives."""
    return rpc.reach(url, NAME, call_timeout=PATIENCE)


def adder(peer: Any) -> calling.Add:
    """Return the blocking call."""
    call = peer.call
    return lambda one, other: call("add", one, other)


def calls(url: str, count: int) -> Result:
    """Measure calls a second, one at a time."""
    return calling.one_by_one(adder(dial(url)), count)


def calls_from_threads(url: str, count: int, threads: int) -> Result:
    """Measure calls a second of so many threads."""
    return calling.from_threads(adder(dial(url)), count, threads)


def calls_in_flight(url: str, count: int, window: int) -> Result:
    """Measure calls a second with so many under way."""
    peer = dial(url)

    def begin(one: int, other: int) -> Callable[[], int]:
        return peer.send("add", one, other).result

    return calling.in_flight(adder(peer), begin, count, window)
