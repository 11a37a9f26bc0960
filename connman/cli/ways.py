"""Which ways lead to the place that a command line names, and what can be said of all of them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set

from connman.cli.advice import Diagnosis
from connman.cli.probe import Finding, Way
from connman.cli.report import Verdict
from connman.endpoint import Endpoint
from connman.strategy import Strategy, pusher_default
from connman.strategy.store import Store
from connman.transport.openers import EndpointDialer, prepare

_HTTP_PORT, _HTTPS_PORT = 80, 443
# Seconds for a whole tree, whose polling over HTTP begins up to 9 s behind the first websocket.
TREE_TIMEOUT = 15.0
# Failures of a websocket that its server itself has told, and no network.
_TOLD = {"not-found", "unauthorized", "redirect", "subprotocol", "closed", "silent", "option"}


def ways_to(endpoint: Endpoint, *, wss: Endpoint | None = None, http: str | None = None) -> tuple[Way, ...]:
    """Return what to dial: the single ways in the order of their preference, and what tells more than one of them does.

    ``wss``: where the same is served over TLS; None: at the usual port, if ``endpoint`` is ws at its usual port.
    ``http``: the base URL of the same over SockJS, which is also asked what it says of itself. Where there are several
    ways, the tree of them all is the last one.

    The other way round nothing is derived: what was meant for TLS, such as a token, must not leave in clear text.

    Raises: InvalidTarget; InvalidOption when a package is missing that a way needs.
    Threads: any.
    """
    endpoints = [each for each in (endpoint, _sibling(endpoint, wss)) if each is not None]
    if http is not None:
        endpoints += [Endpoint.parse(f"{kind}+{http}") for kind in ("xhr-streaming", "xhr-polling")]
    for each in endpoints:
        prepare(each)
    ways = [Way(_name(each), each, EndpointDialer()) for each in endpoints]
    if http is not None:
        ways.append(Way("info", endpoints[-1], EndpointDialer(), "info"))
    if len(endpoints) > 1:
        # With a memory of its own: a diagnosis neither believes what was kept elsewhere nor leaves anything there.
        ways.append(Way("default", None, default_tree(endpoint, wss=wss, http=http, store={}), "tree"))
    return tuple(ways)


def default_tree(
    endpoint: Endpoint, *, wss: Endpoint | None = None, http: str | None = None, store: Store | None = None
) -> Strategy:
    """Return `pusher_default` of the same ways; ``store`` as there.

    Raises: InvalidTarget; InvalidOption when a package is missing that a way needs.
    Threads: any.
    """
    return pusher_default(endpoint, wss=_sibling(endpoint, wss), http=http, store=store)


def _sibling(endpoint: Endpoint, wss: Endpoint | None) -> Endpoint | None:
    if wss is None and endpoint.scheme == "ws" and endpoint.port == _HTTP_PORT:
        return dataclasses.replace(endpoint, scheme="wss", port=_HTTPS_PORT)
    return wss


def _name(endpoint: Endpoint) -> str:
    """Return what the transport is called: "xhr_streaming" for xhr-streaming+https."""
    return endpoint.scheme.partition("+")[0].replace("-", "_")


def judge(findings: Sequence[tuple[Finding, Diagnosis]]) -> Verdict:
    """Return what the findings mean together; only single ways count.

    Threads: any; pure.
    """
    findings = [each for each in findings if each[0].way.kind == "way"]
    opened = tuple(finding.way.name for finding, _ in findings if finding.error is None)
    if opened:
        return Verdict(opened, _advice_beside({finding.way.name: found.kind for finding, found in findings}))
    advices = [diagnosis.advice for _, diagnosis in findings]
    # Of a single way it has just been said; different failures have no common cause.
    is_common = len(findings) > 1 and len({diagnosis.kind for _, diagnosis in findings}) == 1
    return Verdict((), advices[0] if is_common else "")


def _advice_beside(kinds: Mapping[str, str]) -> str:
    """Return what to make of it that some ways opened and others did not."""
    is_open = {name: kind == "open" for name, kind in kinds.items()}
    websockets = [name for name in ("ws", "wss") if name in kinds]
    over_http = [name for name in ("xhr_streaming", "xhr_polling") if name in kinds]
    has_websocket = any(is_open[name] for name in websockets)
    has_http = any(is_open[name] for name in over_http)
    if websockets and has_http and not has_websocket:
        return _advice_for_http({kinds[name] for name in websockets})
    if is_open.get("wss") and not is_open.get("ws", True):
        return "what looks into clear text stops websockets: use wss://"
    if over_http and not has_http:
        return "only websockets open: what is at the base of --http is no SockJS server, or its path is another one"
    if is_open.get("xhr_polling") and not is_open.get("xhr_streaming", True):
        return "answers are held back on the way until they are whole: of the HTTP transports only xhr_polling works"
    return ""


def _advice_for_http(kinds: Set[str]) -> str:
    if kinds <= _TOLD:
        return ""
    use = "no websocket gets through: use connman.strategy.pusher_default() with http="
    if "frames-swallowed" in kinds:
        return (
            f"{use}, and a handshake= that hears the server: nothing else finds out that frames are swallowed"
        )
    return f"{use}, or connect --strategy default --http"
