"""What a failed dial means, and what to do about it: one word and one sentence for each kind of failure."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from connman.cli.probe import Finding
from connman.errors import (
    BadUpgrade,
    CertificateError,
    ConnectionClosed,
    ConnectTimeout,
    InvalidOption,
    ProxyRefused,
    RequestRefused,
    UpgradeRefused,
    WaitTimeout,
    printable,
)

# Of a clock that is wrong by less nobody refuses a token or a certificate.
_SKEW = 120.0

# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_CERTIFICATES = {
    9: "certificate-not-yet-valid", 10: "certificate-expired", 62: "certificate-host", 64: "certificate-host",
    18: "certificate-issuer", 19: "certificate-issuer", 20: "certificate-issuer", 21: "certificate-issuer",
}  # fmt: skip
_REASONS_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG")
_ERRNOS = {
    errno.ECONNREFUSED: "refused", errno.EHOSTUNREACH: "unreachable", errno.ENETUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable", errno.EADDRNOTAVAIL: "local", errno.EMFILE: "local", errno.ENFILE: "local",
    errno.EACCES: "local", errno.EPERM: "local", errno.ENOENT: "no-socket",
    errno.ECONNRESET: "reset", errno.EPIPE: "reset", errno.ECONNABORTED: "reset",
}  # fmt: skip
_STATUSES = {
    301: "redirect", 302: "redirect", 303: "redirect", 307: "redirect", 308: "redirect",
    401: "unauthorized", 403: "forbidden", 404: "not-found", 410: "not-found", 407: "proxy-auth",
    426: "upgrade-required", 408: "busy", 425: "busy", 429: "busy",
}  # fmt: skip
# What another kind becomes where no upgrade was asked for.
_OVER_HTTP = {
    "not-found": "no-sockjs", "upgrade-required": "request-refused", "upgrade-refused": "request-refused",
    "not-a-websocket": "bad-answer",
}  # fmt: skip
_PROXY_STATUSES = {
    407: "proxy-auth", 401: "proxy-auth", 403: "proxy-forbidden", 405: "proxy-forbidden",
    502: "proxy-no-way", 503: "proxy-no-way", 504: "proxy-no-way",
}  # fmt: skip

SENTENCES = {
    "open": "",
    "dns": "the name {host} has no address: check its spelling, and whether this machine's resolver or VPN knows it",
    "resolver": "the resolver gave no answer for {host}: check /etc/resolv.conf, the VPN and the way to the name server",
    "refused": "nobody listens at port {port} of {host}, or a firewall says so: check the port and that the server runs",
    "unreachable": "there is no route to {host}: check this machine's network, its VPN, and IPv6 if that was tried",
    "dropped": "packets to port {port} of {host} vanish, as a firewall drops them: have the port opened, or go another way",
    "reset": "{host} or something before it breaks the connection off: a firewall, or a server that is overloaded",
    "local": "this machine itself refuses to connect: look at its firewall, its limits of open files, and its addresses",
    "no-socket": "there is no such socket: check the path and that the server runs",
    "proxy-down": "the proxy {proxy} itself cannot be reached: check its address, or go without (--proxy none)",
    "proxy-auth": "the proxy wants other credentials: put them into its URL (http://user:password@host:port)",
    "proxy-forbidden": "the proxy's rules forbid port {port} of {host}: have them changed, or go to port 443",
    "proxy-no-way": "the proxy works but cannot reach {host} itself: the target is down, or barred beyond the proxy",
    "proxy-timeout": "the proxy took the request and never answered: it cannot reach {host}, or swallows tunnels",
    "proxy-refused": "the proxy refused the tunnel: look into its rules or its log",
    "certificate-expired":
        "the certificate has expired, if this machine's clock is right ({now}): renew it, or set the clock",
    "certificate-not-yet-valid":
        "the certificate is not valid yet, if this machine's clock is right ({now}): most likely the clock is behind",
    "certificate-host": "the certificate is for another name than {host}: dial the name it is for, or have it reissued",
    "certificate-issuer":
        "nobody this machine trusts vouches for the certificate: a proxy that looks into TLS, or an own authority; see --ca",
    "certificate-ours": "the server wants a certificate of ours, or another one: give it with ssl_context=",
    "certificate": "the certificate was refused; who is on the way may be reading along",
    "tls-timeout": "TCP opens but TLS is never answered: something on the way lets port {port} open and drops what follows",
    "tls-reset": "TLS is broken off: a firewall that dislikes the name {host}, or a server that serves no such name",
    "not-tls": "port {port} of {host} does not speak TLS: try ws:// or tcp://, or the port for TLS",
    "tls": "TLS cannot be agreed on: the server, or something on the way, is too old or too strict",
    "redirect": "the server sends elsewhere, which is not followed{location}: dial that if you trust it",
    "unauthorized": "the server wants credentials: check the token or the password (-H, user:password@)",
    "forbidden": "it is forbidden: by the server (token, Origin), or by a proxy or firewall that refuses websockets",
    "not-found": "the server has nothing at this path: check the path of the URL",
    "upgrade-required": "something on the way takes the Upgrade out of the request, or the server wants another version of it",
    "busy": "the server is busy or limits us: wait, and dial less often",
    "server": "the server, or a proxy before it, fails itself: look into its log; its websockets may not be wired up",
    "not-a-websocket": "a web page came instead of a websocket: the path is wrong, or a proxy strips the Upgrade",
    "upgrade-refused": "the server refuses the upgrade: check the path, the headers and the subprotocols",
    "subprotocol": "the server takes none of the subprotocols that were offered: offer another one (-s)",
    "upgrade-timeout": "the request is swallowed: something on the way blocks websockets; try wss://, or HTTP (--http)",
    "upgrade-reset": "the connection is broken off at the upgrade: something on the way blocks websockets; try wss:// or --http",
    "not-http": "port {port} of {host} does not speak HTTP: it wants TLS (wss://), or is another service",
    "bad-upgrade": "the upgrade's answer is not valid: a middleman that does not understand websockets; try wss://",
    "no-sockjs": "there is no SockJS server at this path: check the base of the URL, or the server has no HTTP transports",
    "request-refused": "the server refuses the request: check the path and the headers",
    "request-timeout": "the request is never answered: the server hangs, or a proxy holds it back",
    "request-reset": "the connection is broken off at the request: a firewall, a proxy, or a server that is overloaded",
    "open-timeout": "the answer begins and then nothing comes: a proxy holds it back until it is whole, or the server hangs",
    "bad-answer": "what answers is no SockJS server: the path is wrong, or this network wants a login in a browser first",
    "no-info": "the server says nothing of itself at /info, which is no fault as long as a way over HTTP opens",
    "no-websocket": "the server says that it serves no websocket at this base: only its transports over HTTP",
    "wants-cookies": "the server wants its cookies back, as behind a load balancer: each session of connman's keeps them",
    "tree-timeout":
        "ways open alone, but none in its turn within this time: raise --open-timeout (HTTP begins seconds behind ws)",
    "frames-swallowed":
        "it opens, but no ping is answered: a middleman swallows frames; if the server knows no pings, use --expect-message",
    "silent": "it opens and pings are answered, but the server says nothing by itself: it may wait for a login first",
    "closed": "it opens and the server closes it at once{code}: look at the path, the subprotocol and the login",
    "lost": "it opens and breaks: a middleman or the server breaks off what it does not like",
    "option": "an option does not fit, or an extra is not installed",
    "unknown": "an unforeseen failure: its cause is all that is known",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a finding means: ``kind`` is one of a fixed set of words, ``advice`` a sentence without secrets."""

    kind: str
    advice: str


def diagnose(finding: Finding) -> Diagnosis:
    """Return what to make of a finding.

    Threads: any; reads this machine's clock.
    """
    kind = kind_of(finding)
    endpoint = finding.way.endpoint
    error = finding.error
    is_about_proxy = finding.proxy is not None and stage_of(finding) in ("dns", "tcp")
    words = {
        "host": urlsplit(finding.proxy).hostname
        if is_about_proxy
        else endpoint.host
        if endpoint
        else "the host",
        "port": endpoint.port if endpoint else "",
        "proxy": finding.proxy,
        "now": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "location": _location(error) if isinstance(error, UpgradeRefused) else "",
        "code": f" (code {error.code})" if isinstance(error, ConnectionClosed) and error.code else "",
    }
    advice = SENTENCES[kind].format(**words)
    skew = _skew(error) if isinstance(error, UpgradeRefused) else 0.0
    if abs(skew) > _SKEW:
        side = "ahead of" if skew > 0 else "behind"
        advice += f"; and this machine's clock is {abs(skew):.0f} s {side} the server's, which spoils tokens"
    return Diagnosis(kind, advice)


def kind_of(finding: Finding) -> str:
    """Return the word for the kind of failure, "open" for none.

    Threads: any; pure.
    """
    error, stage = finding.error, stage_of(finding)
    if error is None:
        return _kind_of_info(finding.info or {})
    if isinstance(error, InvalidOption):
        return "option"
    if isinstance(error, CertificateError):
        code = getattr(error.__cause__, "verify_code", None)
        return "certificate-ours" if code is None else _CERTIFICATES.get(code, "certificate")
    if isinstance(error, ProxyRefused):
        return _PROXY_STATUSES.get(error.status or 0, "proxy-refused")
    if stage == "info" and (isinstance(error, BadUpgrade) or _says_nothing(error)):
        return "no-info"
    if isinstance(error, UpgradeRefused):
        return _kind_of_status(error.status, is_upgrade=not isinstance(error, RequestRefused))
    if stage in ("ping", "message"):
        return _kind_of_end(finding, error)
    if finding.proxy is not None and stage in ("dns", "tcp"):
        return "proxy-down"
    if finding.way.kind == "tree" and isinstance(error, ConnectTimeout):
        return "tree-timeout"
    return _kind_of_stage("request" if stage == "info" else stage, error)


def stage_of(finding: Finding) -> str:
    """Return the phase in which it failed; "" for one that failed before any, or not at all.

    The steps of a tree's leaves are not its own: they fail while it goes on.

    Threads: any; pure.
    """
    failed = [step.phase for step in finding.steps if step.cause is not None and not step.leaf]
    return failed[-1] if failed and finding.error is not None else ""


def _kind_of_info(info: Mapping[str, object]) -> str:
    if info.get("websocket") is False:
        return "no-websocket"
    return "wants-cookies" if info.get("cookie_needed") is True else "open"


def _says_nothing(error: BaseException) -> bool:
    return isinstance(error, RequestRefused) and error.status in (404, 405, 410)


def _kind_of_status(status: int, *, is_upgrade: bool) -> str:
    kind = _STATUSES.get(status)
    if kind is None and 200 <= status < 300:
        kind = "not-a-websocket"
    if kind is None:
        kind = "server" if status >= 500 else "upgrade-refused"
    return kind if is_upgrade else _OVER_HTTP.get(kind, kind)


def _kind_of_end(finding: Finding, error: BaseException) -> str:
    if isinstance(error, WaitTimeout):
        has_pong = all(step.cause is None for step in finding.steps if step.phase == "ping")
        return "silent" if has_pong else "frames-swallowed"
    return "closed" if isinstance(error, ConnectionClosed) else "lost"


def _kind_of_stage(stage: str, error: BaseException) -> str:
    cause = error.__cause__
    number = getattr(cause, "errno", None)
    reason = getattr(cause, "reason", None) or ""
    if isinstance(error, ConnectTimeout):
        timeouts = {"dns": "resolver", "tcp": "dropped", "unix": "dropped", "proxy": "proxy-timeout"}
        return timeouts.get(stage, f"{stage}-timeout" if f"{stage}-timeout" in SENTENCES else "unknown")
    if stage == "dns":
        return "resolver" if number == socket.EAI_AGAIN else "dns"
    if stage == "tls":
        if reason in _REASONS_NOT_TLS:
            return "not-tls"
        return "tls-reset" if _ERRNOS.get(number or 0) == "reset" or "EOF" in str(cause) else "tls"
    if stage == "upgrade":
        return _kind_of_answer(error.message) if isinstance(error, BadUpgrade) else "upgrade-reset"
    if stage in ("request", "open"):
        return "bad-answer" if isinstance(error, BadUpgrade) else "request-reset"
    if stage == "proxy":
        return "proxy-refused"
    return _ERRNOS.get(number or 0, "unknown")


def _kind_of_answer(message: str) -> str:
    if "closed the connection" in message:
        return "upgrade-reset"
    if "none of the subprotocols" in message:
        return "subprotocol"
    return "not-http" if "does not speak HTTP" in message else "bad-upgrade"


def _location(error: UpgradeRefused) -> str:
    """Return where a redirect leads, without what may be a secret in it: everything behind the host."""
    try:
        parts = urlsplit(error.headers.get("location", ""))
        place = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return ""
    return f" ({printable(place, limit=100)}/…)" if parts.scheme and parts.hostname else ""


def _skew(error: UpgradeRefused) -> float:
    """Return by how many seconds this machine's clock is ahead of the server's, 0.0 where the answer does not tell."""
    try:
        return time.time() - parsedate_to_datetime(error.headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0.0
