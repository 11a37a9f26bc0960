"""What is said of each kind of failure, most of them met for real."""

import errno
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme

from connman.cli import advice
from connman.cli.advice import diagnose, kind_of
from connman.cli.probe import Finding, InfoProbe, Probe, Way
from connman.clock import SystemClock
from connman.endpoint import Endpoint
from connman.errors import (
    CertificateError,
    ConnectError,
    ConnmanError,
    InvalidOption,
    ProxyRefused,
    UpgradeRefused,
    WaitTimeout,
)
from connman.options import Options
from connman.records import Step
from connman.transport.openers import EndpointDialer
from tests.loopback import PATIENCE, hanging_port, refusing_port
from tests.proxies import ConnectProxy
from tests.servers import (
    Handler,
    close_frame,
    fixed_response,
    raw_server,
    read_until,
    read_upgrade,
    reset,
    silent,
    upgrade_answer,
    upgraded,
)

SHORT = 0.2  # for those that say nothing at all
SOME = 1.0  # for those that say something first, and then nothing
TIMES = {
    "upgrade-timeout": SHORT, "tls-timeout": SHORT, "request-timeout": SHORT, "proxy-timeout": SHORT,
    "frames-swallowed": SOME, "open-timeout": SOME,
}  # fmt: skip


def found(url: str, *, open_timeout: float = PATIENCE, proxy: str | None = None) -> Finding:
    endpoint = Endpoint.parse(url)
    way = Way(endpoint.scheme, endpoint, EndpointDialer())
    return Probe(way, Options(proxy=proxy, open_timeout=open_timeout), SystemClock()).run()


def failed(error: ConnmanError, *steps: Step, url: str = "wss://host.test/") -> Finding:
    endpoint = Endpoint.parse(url)
    return Finding(Way("wss", endpoint, EndpointDialer()), None, steps, 0.1, error=error)


def refusal(status: int, *headers: str) -> Handler:
    lines = [f"HTTP/1.1 {status} No", "Content-Length: 0", *headers, "", ""]
    return fixed_response("\r\n".join(lines).encode())


def reset_at_upgrade(sock: socket.socket, _n: int) -> None:
    read_until(sock, b"\r\n\r\n")
    reset(sock)


def reset_at_tls(sock: socket.socket, _n: int) -> None:
    sock.recv(65536)
    reset(sock)


def end_at_tls(sock: socket.socket, _n: int) -> None:
    sock.recv(65536)
    sock.shutdown(socket.SHUT_WR)


def upgrade_later(sock: socket.socket, _n: int) -> None:
    """Answer with a frame that nobody may send, behind an upgrade."""
    upgraded(lambda frames: frames.send(b"\x83\x00"))(sock, _n)


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (refusal(200), "not-a-websocket"),
        (refusal(302, "Location: wss://u:s3cret@other.test/s3cret?s3cret"), "redirect"),
        (refusal(400), "upgrade-refused"),
        (refusal(401), "unauthorized"),
        (refusal(403), "forbidden"),
        (refusal(404), "not-found"),
        (refusal(426), "upgrade-required"),
        (refusal(429), "busy"),
        (refusal(502), "server"),
        (fixed_response(b"SSH-2.0-OpenSSH\r\n"), "not-http"),
        (fixed_response(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"), "bad-upgrade"),
        (fixed_response(b""), "upgrade-reset"),
        (reset_at_upgrade, "upgrade-reset"),
        (upgraded(lambda frames: frames.send(close_frame(4001, "s3cret"))), "closed"),
        (upgrade_later, "lost"),
    ],
)
def test_answers_to_the_upgrade(handler: Handler, kind: str) -> None:
    with raw_server(handler) as server:
        diagnosis = diagnose(found(server.url("/?token=s3cret")))
    assert diagnosis.kind == kind
    assert diagnosis.advice
    assert "s3cret" not in diagnosis.advice
    assert kind != "redirect" or "wss://other.test/…" in diagnosis.advice
    assert kind != "closed" or "code 4001" in diagnosis.advice


@pytest.mark.parametrize(
    ("handler", "scheme", "kind"),
    [
        (silent, "ws", "upgrade-timeout"),
        (silent, "wss", "tls-timeout"),
        (fixed_response(b"220 mail.test ESMTP\r\n", after=b""), "wss", "not-tls"),
        (reset_at_tls, "wss", "tls-reset"),
        (end_at_tls, "wss", "tls-reset"),
        pytest.param(
            upgraded(lambda frames: [*frames] and None), "ws", "frames-swallowed", marks=pytest.mark.slow
        ),
    ],
)
def test_what_is_swallowed_or_broken_off(handler: Handler, scheme: str, kind: str) -> None:
    with raw_server(handler) as server:
        diagnosis = diagnose(found(server.url(scheme=scheme), open_timeout=TIMES.get(kind, PATIENCE)))
    assert diagnosis.kind == kind


def test_subprotocols_that_the_server_does_not_take() -> None:
    def accept(sock: socket.socket, _n: int) -> None:
        sock.sendall(upgrade_answer(read_upgrade(sock)))
        sock.recv(1)

    with raw_server(accept) as server:
        endpoint = Endpoint.parse(server.url())
        options = Options(proxy=None, open_timeout=PATIENCE, subprotocols=("chat",))
        finding = Probe(Way("ws", endpoint, EndpointDialer()), options, SystemClock()).run()
    assert kind_of(finding) == "subprotocol"


def test_what_answers_no_ping_and_says_nothing_is_swallowed_and_not_silent() -> None:
    no_pong, no_message = Step("ping", "", 1.0, "no answer"), Step("message", "", 1.0, "no message")
    error = WaitTimeout("no message")
    assert kind_of(failed(error, no_pong, no_message)) == "frames-swallowed"
    assert kind_of(failed(error, Step("ping", "", 0.1), no_message)) == "silent"


def test_ports_that_refuse_and_ports_that_drop() -> None:
    with refusing_port() as port:
        diagnosis = diagnose(found(f"ws://127.0.0.1:{port}/"))
        assert diagnosis.kind == "refused"
        assert f"port {port} of 127.0.0.1" in diagnosis.advice
    with hanging_port() as port:
        assert kind_of(found(f"ws://127.0.0.1:{port}/", open_timeout=SHORT)) == "dropped"


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    assert kind_of(found(f"unix://{tmp_path}/none")) == "no-socket"


OPENING = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2000\r\n\r\n"


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (refusal(404), "no-sockjs"),
        (refusal(400), "request-refused"),
        (refusal(403), "forbidden"),
        (refusal(204), "bad-answer"),
        (refusal(502), "server"),
        (silent, "request-timeout"),
        (reset_at_upgrade, "request-reset"),
        (fixed_response(OPENING + b"<html>\n"), "bad-answer"),
        pytest.param(
            fixed_response(OPENING + b"hh", then_close=False), "open-timeout", marks=pytest.mark.slow
        ),
        (fixed_response(b'HTTP/1.1 200 OK\r\n\r\nc[3000,"Go away!"]\n'), "closed"),
    ],
)
def test_answers_over_http(handler: Handler, kind: str) -> None:
    with raw_server(handler) as server:
        url = server.url(scheme="xhr-streaming+http")
        assert kind_of(found(url, open_timeout=TIMES.get(kind, PATIENCE))) == kind


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (fixed_response(b"HTTP/1.1 200 OK\r\n\r\n{}"), "open"),
        (fixed_response(b'HTTP/1.1 200 OK\r\n\r\n{"websocket":true,"cookie_needed":false}'), "open"),
        (fixed_response(b'HTTP/1.1 200 OK\r\n\r\n{"websocket":false,"cookie_needed":true}'), "no-websocket"),
        (fixed_response(b'HTTP/1.1 200 OK\r\n\r\n{"cookie_needed":true}'), "wants-cookies"),
        (fixed_response(b"HTTP/1.1 200 OK\r\n\r\n<html>"), "no-info"),
        (refusal(404), "no-info"),
        (refusal(403), "forbidden"),
        (refusal(502), "server"),
        (reset_at_upgrade, "request-reset"),
    ],
)
def test_answers_about_the_server_itself(handler: Handler, kind: str) -> None:
    with raw_server(handler) as server:
        way = Way("info", Endpoint.parse(server.url(scheme="xhr-streaming+http")), EndpointDialer(), "info")
        finding = InfoProbe(way, Options(proxy=None, open_timeout=PATIENCE), SystemClock()).run()
    assert kind_of(finding) == kind
    assert kind == "open" or diagnose(finding).advice


def test_an_answer_about_the_server_itself_that_never_comes() -> None:
    with raw_server(silent) as server:
        way = Way("info", Endpoint.parse(server.url(scheme="xhr-streaming+http")), EndpointDialer(), "info")
        finding = InfoProbe(way, Options(proxy=None, open_timeout=SHORT), SystemClock()).run()
    assert kind_of(finding) == "request-timeout"


# Proxies


def answering_proxy(status: int) -> Handler:
    return fixed_response(f"HTTP/1.1 {status} No\r\n\r\n".encode())


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (answering_proxy(407), "proxy-auth"),
        (answering_proxy(403), "proxy-forbidden"),
        (answering_proxy(502), "proxy-no-way"),
        (answering_proxy(418), "proxy-refused"),
        (fixed_response(b"hello\r\n"), "proxy-refused"),
        (silent, "proxy-timeout"),
    ],
)
def test_proxies_that_do_not_let_us_through(handler: Handler, kind: str) -> None:
    with raw_server(handler) as proxy:
        proxy_url = proxy.url(scheme="http").replace("//", "//u:s3cret@")
        diagnosis = diagnose(
            found("wss://host.test/", proxy=proxy_url, open_timeout=TIMES.get(kind, PATIENCE))
        )
    assert diagnosis.kind == kind
    assert "s3cret" not in diagnosis.advice


def test_a_proxy_that_is_down_is_blamed_and_not_the_target() -> None:
    with refusing_port() as port:
        diagnosis = diagnose(found("wss://host.test/", proxy=f"http://127.0.0.1:{port}"))
    assert diagnosis.kind == "proxy-down"
    assert f"http://127.0.0.1:{port}" in diagnosis.advice


def test_what_lies_behind_a_proxy_is_judged_as_without_one() -> None:
    with raw_server(refusal(403)) as server, ConnectProxy() as proxy:
        assert kind_of(found(server.url(), proxy=f"http://127.0.0.1:{proxy.port}")) == "forbidden"


# Names and certificates


@pytest.mark.parametrize(("number", "kind"), [(socket.EAI_NONAME, "dns"), (socket.EAI_AGAIN, "resolver")])
def test_names_that_are_not_found(number: int, kind: str) -> None:
    error = ConnectError("wss://host.test/", (), "dns: no")
    error.__cause__ = socket.gaierror(number, "no")
    diagnosis = diagnose(failed(error, Step("dns", "host.test", 0.1, "no")))
    assert diagnosis.kind == kind
    assert "host.test" in diagnosis.advice


def test_a_certificate_for_another_name_and_one_that_nobody_vouches_for() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.test").configure_cert(server_side)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    def handler(sock: socket.socket, _n: int) -> None:
        server_side.wrap_socket(sock, server_side=True).close()

    with raw_server(handler) as server:
        endpoint = Endpoint.parse(server.url(scheme="wss"))
        way = Way("wss", endpoint, EndpointDialer())
        kinds = [
            kind_of(Probe(way, Options(proxy=None, ssl_context=context), SystemClock()).run())
            for context in (trusting, None)
        ]
    assert kinds == ["certificate-host", "certificate-issuer"]


@pytest.mark.parametrize(
    ("code", "kind"), [(10, "certificate-expired"), (9, "certificate-not-yet-valid"), (23, "certificate")]
)
def test_certificates_out_of_time_show_this_machines_clock(code: int, kind: str) -> None:
    cause = ssl.SSLCertVerificationError("no")
    cause.verify_code = code
    error = CertificateError("wss://host.test/", (), "certificate refused")
    error.__cause__ = cause
    diagnosis = diagnose(failed(error, Step("tls", "host.test", 0.1, "no")))
    assert diagnosis.kind == kind
    assert (time.strftime("%Y-", time.gmtime()) in diagnosis.advice) == (kind != "certificate")


def test_a_certificate_of_ours_that_is_refused() -> None:
    error = CertificateError("wss://host.test/", (), "the peer refused our certificate")
    assert kind_of(failed(error, Step("tls", "host.test", 0.1, "no"))) == "certificate-ours"


@pytest.mark.parametrize(("offset", "side"), [(3600, "behind"), (-3600, "ahead of"), (1, None)])
def test_a_wrong_clock_is_noticed_by_the_servers_date(offset: float, side: str | None) -> None:
    error = UpgradeRefused(401, {"date": formatdate(time.time() + offset, usegmt=True)})
    text = diagnose(failed(error)).advice
    assert ("clock" in text) == (side is not None)
    assert side is None or f"s {side} the server's" in text


@pytest.mark.parametrize("date", ["", "garbage", "Mon, 99 Foo 9999999999 00:00:00 GMT"])
def test_a_date_that_is_none_says_nothing(date: str) -> None:
    assert "clock" not in diagnose(failed(UpgradeRefused(401, {"date": date}))).advice


# The table


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENETUNREACH, "unreachable"),
        (errno.EADDRNOTAVAIL, "local"),
        (errno.ECONNRESET, "reset"),
        (errno.EXDEV, "unknown"),
    ],
)
def test_errors_of_the_system(number: int, kind: str) -> None:
    error = ConnectError("wss://host.test/", (), "tcp: no")
    error.__cause__ = OSError(number, "no")
    assert kind_of(failed(error, Step("tcp", "127.0.0.1:1", 0.1, "no"))) == kind


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProxyRefused("", (), "no", 407),
        lambda: InvalidOption("no"),
        lambda: ConnectError("", (), "no"),
    ],
)
def test_errors_without_a_phase_are_judged_too(make: Callable[[], ConnectError]) -> None:
    assert diagnose(failed(make())).advice


def test_every_kind_has_one_sentence() -> None:
    words = {"host": "h", "port": 1, "proxy": "p", "now": "n", "location": "", "code": ""}
    for kind, text in advice.SENTENCES.items():
        sentence = text.format(**words)
        assert (sentence == "") == (kind == "open")
        assert "\n" not in sentence
        assert len(sentence) < 140
