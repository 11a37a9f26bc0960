"""Which ways lead to the place that a command line names, and what can be said of all of them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from connman.cli.advice import Diagnosis
from connman.cli.probe import Finding, Way
from connman.cli.report import Verdict
from connman.endpoint import Endpoint
from connman.transport.openers import EndpointDialer, prepare

_HTTP_PORT, _HTTPS_PORT = 80, 443


def ways_to(endpoint: Endpoint, *, wss: Endpoint | None = None, http: str | None = None) -> tuple[Way, ...]:
    """Return the single ways to dial, in the order of their preference.

    ``wss``: where the same is served over TLS; None: at the usual port, if ``endpoint`` is ws at its usual port.
    ``http``: the base URL of the same over SockJS.

    The other way round nothing is derived: what was meant for TLS, such as a token, must not leave in clear text.

    Raises: InvalidTarget; InvalidOption when a package is missing that a way needs.
    Threads: any.
    """
    if wss is None and endpoint.scheme == "ws" and endpoint.port == _HTTP_PORT:
        wss = dataclasses.replace(endpoint, scheme="wss", port=_HTTPS_PORT)
    endpoints = [endpoint] if wss is None else [endpoint, wss]
    if http is not None:
        endpoints += [Endpoint.parse(f"{kind}+{http}") for kind in ("xhr-streaming", "xhr-polling")]
    for each in endpoints:
        prepare(each)
    return tuple(Way(_name(each), each, EndpointDialer()) for each in endpoints)


def _name(endpoint: Endpoint) -> str:
    """Return what the transport is called: "xhr_streaming" for xhr-streaming+https."""
    return endpoint.scheme.partition("+")[0].replace("-", "_")


def judge(findings: Sequence[tuple[Finding, Diagnosis]]) -> Verdict:
    """Return what the findings mean together.

    Threads: any; pure.
    """
    opened = tuple(finding.way.name for finding, _ in findings if finding.error is None)
    if opened:
        return Verdict(opened, _advice_beside(findings))
    advices = [diagnosis.advice for _, diagnosis in findings]
    # Of a single way it has just been said; different failures have no common cause.
    is_common = len(findings) > 1 and len({diagnosis.kind for _, diagnosis in findings}) == 1
    return Verdict((), advices[0] if is_common else "")


def _advice_beside(findings: Sequence[tuple[Finding, Diagnosis]]) -> str:
    """Return what to make of it that some ways opened and others did not."""
    is_open = {finding.way.name: finding.error is None for finding, _ in findings}
    websockets = [is_open[name] for name in ("ws", "wss") if name in is_open]
    over_http = [is_open[name] for name in ("xhr_streaming", "xhr_polling") if name in is_open]
    if websockets and not any(websockets) and any(over_http):
        return "no websocket gets through: use connman.strategy.pusher_default() with http="
    if is_open.get("wss") and not is_open.get("ws", True):
        return "what looks into clear text stops websockets: use wss://"
    if over_http and not any(over_http) and any(websockets):
        return "only websockets open: what is at the base of --http is no SockJS server, or its path is another one"
    if is_open.get("xhr_polling") and not is_open["xhr_streaming"]:
        return "answers are held back on the way until they are whole: of the HTTP transports only xhr_polling works"
    return ""
