"""Call the services of a process that can only dial out, by its name on a relay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

from connman.connection.callbacks import OnOpen, OnReset
from connman.connection.connection import Connection
from connman.manager import Manager, default_manager
from connman.options import OptionArguments
from connman.rpc.joining import Joining, Token
from connman.rpc.peer import Peer
from connman.rpc.services import Services

# Seconds between two attempts, at most: who waits for calls wants to know soon that there is somebody again.
_LONGEST_PAUSE = 10.0


def reach(
    url: object,
    name: str,
    *,
    token: Token = None,
    services: Mapping[int | str, Callable[..., object]] | Services | None = None,
    call_timeout: float | None = 30.0,
    max_workers: int = 32,
    on_open: OnOpen | None = None,
    on_reset: OnReset | None = None,
    manager: Manager | None = None,
    **options: Unpack[OptionArguments],
) -> Peer:
    """Return a peer that calls whoever provides ``name`` on the relay at ``url``; dialling begins at once.

    Its connection is its own: `Peer.close` ends it. When the provider or the relay is lost it comes back, to that
    provider or another of the name, and the same peer goes on. While nobody provides the name, calls fail with
    NoSuchPeer, and those with ``retry_safe=True`` wait. ``services``: what the provider may call here; ``max_workers``
    threads run them. ``token``: what the relay lets one in for; a callable is asked for each attempt. ``call_timeout``:
    see `Peer`. ``on_open``, ``on_reset`` and ``options``: those of `connman.Connection`, but ``dispatch``, ``framing``
    and ``subprotocols``; ``headers`` may not hold an Authorization beside ``token``.

    Raises: InvalidTarget; InvalidOption; TypeError for an unknown option.
    Threads: any; never blocks.
    """
    given: dict[str, Any] = dict(options)
    joining = Joining("reach", url, name, token, given.pop("headers", None))
    chosen = joining.options(given, longest_pause=_LONGEST_PAUSE)
    conn = Connection(joining, on_open=on_open, on_reset=on_reset, **chosen)
    peer = Peer(conn, services=services, call_timeout=call_timeout, max_workers=max_workers)
    (manager or default_manager()).add(conn)
    return peer
