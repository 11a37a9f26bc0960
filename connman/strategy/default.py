"""The tree that Pusher's clients connect with: websockets, and HTTP where they do not get through."""

from __future__ import annotations

import os
from typing import Unpack, cast

from connman.errors import InvalidTarget
from connman.options import OptionArguments
from connman.strategy.base import Strategy, Watcher
from connman.strategy.best import BestConnected
from connman.strategy.branch import If
from connman.strategy.cached import Cached
from connman.strategy.delayed import Delayed
from connman.strategy.first import FirstConnected
from connman.strategy.health import TransportManager
from connman.strategy.leaf import Transport
from connman.strategy.sequential import Sequential
from connman.strategy.store import Store

# pusher-js 8.6.0, src/runtimes/isomorphic/default_strategy.ts: the slots, and who waits how long for whom.
_SLOT = 15.0
_LONGEST_SLOT = 60.0
_BEHIND_WS = 2.0
_BEHIND_BOTH = 5.0
_BEHIND_STREAMING = 4.0
# Of HTTP streaming, which some proxies hold back or cut: polling is there as well.
_LIVES = 2


def pusher_default(
    ws: object,
    *,
    wss: object = None,
    http: str | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    ttl: float = 1800.0,
    manager: Watcher | None = None,
    http_manager: Watcher | None = None,
    **options: Unpack[OptionArguments],
) -> Strategy:
    """Return the tree of pusher-js: ``ws`` at once, ``http`` beside it 2 s later, each again and again.

    ``ws``: a URL of ws or wss, or any other target. ``wss``: its TLS sibling when ``ws`` is without, tried 2 s later;
    ``http`` then comes after 5 s. ``http``: http(s)://host/base of a SockJS server, for which connman[http] is needed;
    its polling starts 4 s behind its streaming. ``store``, ``ttl``: where the way that worked is kept, and for how many
    seconds, see `Cached`; without ``http`` and ``store`` there is nothing worth keeping, and no cache. ``manager``:
    watches over the websockets; None for one that never gives them up. ``http_manager``: watches over the streaming;
    None for one with two lives. ``options``: for every leaf, see `Transport`. See `pusher_tree` for the pace.

    The connection's ``open_timeout`` bounds it all, and every attempt begins anew: with less than 7 s polling is never
    tried (10 s when there is a ``wss``).

    Raises: InvalidTarget; InvalidOption; TypeError for an option that is not a leaf's.
    Threads: any.
    """
    # Never given up: where only websockets work, a few short lives must not end them. What it learns is how often to ping.
    manager = manager or TransportManager()
    streaming = polling = None
    if http is not None:
        if not http.startswith(("http://", "https://")):
            raise InvalidTarget("http= is a URL of http or https")
        # Not a thing of HTTP, where a leaf refuses it.
        plain = cast(
            OptionArguments, {name: value for name, value in options.items() if name != "compression"}
        )
        streaming = Transport(
            f"xhr-streaming+{http}", manager=http_manager or TransportManager(lives=_LIVES), **plain
        )
        polling = Transport(f"xhr-polling+{http}", **plain)
    tree = pusher_tree(
        Transport(ws, manager=manager, **options),
        wss=None if wss is None else Transport(wss, manager=manager, **options),
        streaming=streaming,
        polling=polling,
    )
    return tree if http is None and store is None else Cached(tree, store, ttl)


def pusher_tree(
    ws: Strategy,
    *,
    wss: Strategy | None = None,
    streaming: Strategy | None = None,
    polling: Strategy | None = None,
) -> Strategy:
    """Return the same tree of leaves of your own; None leaves one out.

    Each leaf is tried for 15 s, then for 30 s, then for 60 s again and again; one that fails earlier is waited out.
    HTTP as a whole begins anew at the same pace. It stands alone while ``ws`` cannot be tried.

    Threads: any.
    """
    http = _http(streaming, polling)
    ways = [_loop(ws)]
    if wss is not None:
        ways.append(Delayed(_loop(wss), _BEHIND_WS))
    if http is None:
        return FirstConnected(BestConnected(*ways))
    ways.append(Delayed(http, _BEHIND_WS if wss is None else _BEHIND_BOTH))
    return FirstConnected(If(ws.is_supported, BestConnected(*ways), http))


def _http(streaming: Strategy | None, polling: Strategy | None) -> Strategy | None:
    if streaming is None or polling is None:
        only = streaming or polling
        return None if only is None else _loop(_loop(only))
    both = BestConnected(_loop(streaming), Delayed(_loop(polling), _BEHIND_STREAMING))
    return _loop(If(streaming.is_supported, both, _loop(polling)))


def _loop(child: Strategy) -> Strategy:
    return Sequential(child, loop=True, timeout=_SLOT, timeout_limit=_LONGEST_SLOT)
