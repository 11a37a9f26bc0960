"""Offer services under a name on a relay, from a process that can only dial out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

from connman.errors import InvalidOption
from connman.manager import Manager, default_manager
from connman.options import OptionArguments
from connman.rpc.joining import Joining, Token
from connman.rpc.peer import Peer
from connman.rpc.provider import Provider
from connman.rpc.services import Services


def provide(
    url: object,
    name: str,
    services: Mapping[int | str, Callable[..., object]] | Services,
    *,
    token: Token = None,
    spares: int = 2,
    max_peers: int = 100,
    max_workers: int = 32,
    call_timeout: float | None = 30.0,
    on_peer: Callable[[Peer], object] | None = None,
    manager: Manager | None = None,
    **options: Unpack[OptionArguments],
) -> Provider:
    """Offer ``services`` under ``name`` on the relay at ``url``, from now on until `Provider.close`; return at once.

    ``services``: functions by id, or a `Services`, which others may share. ``token``: what the relay lets one in for; a
    callable is asked for each attempt. ``spares``: connections that wait for callers. ``max_peers``: callers and spares
    at most; further callers are told by the relay that nobody is there. ``max_workers``: threads that run services, for
    all callers together. ``call_timeout``: of calls to the caller, see `Peer`. ``on_peer(peer)``: called with each
    caller that is joined, on the thread that reads it: it must not block. ``options``: those of `connman.Connection`
    but ``dispatch``, ``framing``, ``reconnect`` and ``subprotocols``; ``headers`` may not hold an Authorization beside ``token``.

    Raises: InvalidTarget; InvalidOption; TypeError for an unknown option.
    Threads: any; never blocks.
    """
    given: dict[str, Any] = dict(options)
    if "reconnect" in given:
        raise TypeError("unknown option 'reconnect': a provider comes back until it is closed")
    _check_count("spares", spares)
    _check_count("max_peers", max_peers)
    if on_peer is not None and not callable(on_peer):
        raise InvalidOption("on_peer is a callable or None")
    joining = Joining("provide", url, name, token, given.pop("headers", None))
    pool = services if isinstance(services, Services) else Services(services, max_workers=max_workers)
    provider = Provider(
        joining,
        pool,
        given,
        spares=spares,
        max_peers=max_peers,
        on_peer=on_peer,
        peer_options={"call_timeout": call_timeout},
        manager=manager or default_manager(),
    )
    return provider.start()


def _check_count(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption(f"{what} is a whole number from 1")
