"""Which ways lead to the place that a command line names, and what can be said of all of them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from connman.cli.advice import Diagnosis
from connman.cli.probe import Finding, Way
from connman.cli.report import Verdict
from connman.endpoint import Endpoint
from connman.transport.openers import EndpointDialer

_HTTP_PORT, _HTTPS_PORT = 80, 443


def ways_to(endpoint: Endpoint, *, wss: Endpoint | None = None) -> tuple[Way, ...]:
    """Return the single ways to dial, in the order of their preference.

    ``wss``: where the same is served over TLS; None: at the usual port, if ``endpoint`` is ws at its usual port.

    The other way round nothing is derived: what was meant for TLS, such as a token, must not leave in clear text.

    Threads: any; pure.
    """
    if wss is None and endpoint.scheme == "ws" and endpoint.port == _HTTP_PORT:
        wss = dataclasses.replace(endpoint, scheme="wss", port=_HTTPS_PORT)
    endpoints = [endpoint] if wss is None else [endpoint, wss]
    return tuple(Way(each.scheme, each, EndpointDialer()) for each in endpoints)


def judge(findings: Sequence[tuple[Finding, Diagnosis]]) -> Verdict:
    """Return what the findings mean together.

    Threads: any; pure.
    """
    opened = tuple(finding.way.name for finding, _ in findings if finding.error is None)
    if opened:
        return Verdict(opened, "")
    advices = [diagnosis.advice for _, diagnosis in findings]
    # Of a single way it has just been said; different failures have no common cause.
    is_common = len(findings) > 1 and len({diagnosis.kind for _, diagnosis in findings}) == 1
    return Verdict((), advices[0] if is_common else "")
