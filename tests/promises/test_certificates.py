"""Who is at the other end of TLS: every certificate but a right one is refused, on either side of a proxy.

websocket-client 1.9.2 by itself refuses a wrong host, an expired certificate and a foreign authority too, but takes a
name that stands in the common name only. So the tests were seen failing on bugs planted in `transport/tls.py`: without
verification 35 of 88 failed, with the name of where the socket leads in place of the endpoint's 62; and those about the
common name, the last dot, the interface and the alert without the line that sees to it.
"""

import contextlib
import datetime
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tenacity
import trustme

import connman
from connman.errors import CertificateError, ConnectError, GaveUp
from connman.transport.tls import make_context
from tests.authorities import AUTHORITY, NOW, authority_file, odd_certificate, server_context
from tests.loopback import read_to_the_end
from tests.promises.peers import PATIENCE, Peers, accept, connection, serve_ws
from tests.proxies import ConnectProxy
from tests.waiting import eventually

DAY = datetime.timedelta(days=1)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
# The dial is the same code for both kinds of readers, called from other threads: one kind for each side of a proxy.
ROUTES = pytest.mark.parametrize("is_proxied", [False, True], ids=["own reader", "shared reader, proxy"])


class SecurePeers(Peers):
    """A WebSocket server behind TLS; `heard`: what each client got through, `names`: the SNI of each."""

    def __init__(
        self, context: ssl.SSLContext, serve: Callable[[ssl.SSLSocket], object] | None = None
    ) -> None:
        super().__init__(self._secure)
        self.heard: list[str] = []
        self.names: list[str | None] = []
        self.shown: list[Any] = []
        self.agreed: list[str | None] = []
        self._context = context
        self._serve_secured = serve or serve_ws
        context.sni_callback = lambda _, name, __: self.names.append(name)

    def _secure(self, sock: socket.socket) -> None:
        # A duplicate stays: a socket that is closed over unread bytes resets the connection, and the alert is lost.
        with sock.dup() as below:
            try:
                secured = self._context.wrap_socket(sock, server_side=True)
            except OSError:
                read_to_the_end(below)
                return
            with secured:
                self.heard.append(secured.version() or "")
                self.shown.append(secured.getpeercert())
                self.agreed.append(secured.selected_alpn_protocol())
                try:
                    self._serve_secured(secured)
                except (
                    ssl.SSLError
                ):  # its handshake has ended, but not the client's: it did not like what it saw
                    read_to_the_end(below)


@pytest.fixture(autouse=True)
def names_lead_here(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, port, *_, **__: [(*answer, ("127.0.0.1", port))])


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Return connman's own settings, but with the tests' authority in place of the system's."""
    return make_context(authorities=str(authority_file(tmp_path_factory.mktemp("tls"))))


@contextlib.contextmanager
def opening(
    server: SecurePeers, host: str, context: ssl.SSLContext | None, is_proxied: bool, **options: Any
) -> Iterator[connman.Connection]:
    """Make a connection to `host` over wss, with retries that cost no time; asking for it begins the only dial."""
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(ConnectProxy(leads_to=server.port)) if is_proxied else None
        conn = connection(
            is_proxied,
            f"wss://{host}:{server.port}/",
            ssl_context=context,
            proxy=None if proxy is None else f"http://127.0.0.1:{proxy.port}",
            wait=lambda _: 0.0,
            **options,
        )
        stack.callback(conn.disconnect)
        yield conn


def speaks(conn: connman.Connection) -> None:
    conn.wait_open(PATIENCE)
    conn.send("hello")
    assert conn.recv(PATIENCE) == "hello"


# The server's certificate


@dataclass(frozen=True)
class Case:
    certificate: trustme.LeafCert = field(repr=False)
    cause: str | None = None  # None: it opens
    host: str = "localhost"
    trusts: trustme.LeafCert | trustme.CA = field(default=AUTHORITY, repr=False)


def issued(*names: str, **times: datetime.datetime) -> trustme.LeafCert:
    return AUTHORITY.issue_cert(*names, **times)


def without_its_chain() -> trustme.LeafCert:
    whole = AUTHORITY.create_child_ca().issue_cert("localhost")
    return trustme.LeafCert(whole.private_key_pem.bytes(), whole.cert_chain_pems[0].bytes(), [])


SELF_SIGNED = odd_certificate("localhost", is_self_signed=True)
CASES = {
    "right": Case(issued("localhost")),
    "one of several names": Case(issued("a.test", "localhost", "b.test")),
    "in capitals": Case(issued("localhost"), host="LocalHost"),
    "a dot behind the name": Case(issued("localhost"), host="localhost."),
    "a wildcard": Case(issued("*.a.test"), host="b.a.test"),
    "an internationalised name": Case(issued("xn--bcher-kva.test"), host="bücher.test"),
    "an address": Case(issued("127.0.0.1"), host="127.0.0.1"),
    "an IPv6 address": Case(issued("::1"), host="[::1]"),
    "through an authority between": Case(AUTHORITY.create_child_ca().issue_cert("localhost")),
    "self-signed and trusted": Case(SELF_SIGNED, trusts=SELF_SIGNED),
    "wrong host": Case(issued("other.test"), "Hostname mismatch"),
    "the host's parent": Case(issued("a.test"), "Hostname mismatch", "b.a.test"),
    "a wildcard for two labels": Case(issued("*.a.test"), "Hostname mismatch", "c.b.a.test"),
    "a wildcard for part of a label": Case(odd_certificate("w*.a.test"), "Hostname mismatch", "www.a.test"),
    "the name in the common name only": Case(odd_certificate(common_name="localhost"), "Hostname mismatch"),
    "another address": Case(issued("127.0.0.2"), "IP address mismatch", "127.0.0.1"),
    "a name where an address is dialled": Case(issued("localhost"), "IP address mismatch", "127.0.0.1"),
    "an address written as a name": Case(odd_certificate("127.0.0.1"), "IP address mismatch", "127.0.0.1"),
    "the proxy's": Case(issued("127.0.0.1"), "Hostname mismatch"),
    "expired": Case(issued("localhost", not_before=NOW - 2 * DAY, not_after=NOW - DAY), "has expired"),
    "not valid yet": Case(
        issued("localhost", not_before=NOW + DAY, not_after=NOW + 2 * DAY), "not yet valid"
    ),
    "a foreign authority's": Case(trustme.CA().issue_cert("localhost"), "local issuer"),
    "self-signed": Case(SELF_SIGNED, "self-signed"),
    "the link to its authority missing": Case(without_its_chain(), "local issuer"),
    "a client's": Case(odd_certificate("localhost", is_client_only=True), "certificate purpose"),
}


# Behind a proxy these stand for all in the quick part.
ON_BOTH_ROUTES = ("right", "an IPv6 address", "wrong host", "the proxy's")


@pytest.mark.parametrize(
    ("name", "is_proxied"),
    [
        pytest.param(
            name,
            is_proxied,
            id=f"{name}, {'shared reader, proxy' if is_proxied else 'own reader'}",
            marks=pytest.mark.slow if is_proxied and name not in ON_BOTH_ROUTES else (),
        )
        for name in CASES
        for is_proxied in (False, True)
        if is_proxied or CASES[name].host != "[::1]"  # the tests' servers speak IPv4, the proxy leads to one
    ],
)
def test_a_certificate_is_taken_or_refused(
    name: str, is_proxied: bool, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    case = CASES[name]
    context = trusting
    if isinstance(case.trusts, trustme.LeafCert):
        case.trusts.cert_chain_pems[0].write_to_path(tmp_path / "own.pem")
        context = make_context(authorities=str(tmp_path / "own.pem"))
    with (
        SecurePeers(server_context(case.certificate)) as server,
        opening(server, case.host, context, is_proxied) as conn,
    ):
        if case.cause is None:
            speaks(conn)
            return
        with pytest.raises(CertificateError, match=f"certificate refused: .*{case.cause}") as caught:
            conn.get_connected().result(PATIENCE)
        check_refused(conn, caught.value, server, is_proxied)
        assert server.heard == []


def check_refused(
    conn: connman.Connection, error: CertificateError, server: SecurePeers, is_proxied: bool
) -> None:
    """Check that the error names its stage and its cause, and that no second attempt was made."""
    phases = [step.phase for step in error.attempts if step.phase != "dns"]
    assert phases == (["tcp", "proxy", "tls"] if is_proxied else ["tcp", "tls"])
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert error.attempts[-1].cause == error.message
    assert conn.last_error is error
    eventually(lambda: conn.state is connman.State.IDLE)
    assert server.dials() == 1


def test_without_a_context_nothing_but_the_systems_authorities_is_trusted() -> None:
    with (
        SecurePeers(server_context(issued("localhost"))) as server,
        opening(server, "localhost", None, False) as conn,
        pytest.raises(CertificateError, match="local issuer"),
    ):
        conn.get_connected().result(PATIENCE)


@ROUTES
def test_a_tls_target_is_verified_as_wss_is(is_proxied: bool, trusting: ssl.SSLContext) -> None:
    for name, cause in {"localhost": None, "other.test": "Hostname mismatch"}.items():
        with (
            SecurePeers(server_context(issued(name)), lambda sock: sock.sendall(sock.recv(5))) as server,
            ConnectProxy(leads_to=server.port) as proxy,
        ):
            conn = connection(
                is_proxied,
                f"tls://localhost:{server.port}",
                ssl_context=trusting,
                proxy=f"http://127.0.0.1:{proxy.port}" if is_proxied else None,
            )
            if cause is None:
                with conn:
                    conn.send(b"hello")
                    assert conn.recv(PATIENCE) == b"hello"
                continue
            with pytest.raises(CertificateError, match=cause):
                conn.get_connected().result(PATIENCE)
            conn.disconnect()


def test_verification_is_decided_anew_for_each_connection(trusting: ssl.SSLContext) -> None:
    """One that was told to trust anybody leaves nothing behind for the next to the same host (no TLS session either)."""
    with SecurePeers(server_context(issued("other.test"))) as server:
        with opening(server, "localhost", make_context(verify=False), False) as careless:
            speaks(careless)
        with opening(server, "localhost", trusting, False) as conn, pytest.raises(CertificateError):
            conn.get_connected().result(PATIENCE)


def test_it_is_verified_at_each_reconnect(trusting: ssl.SSLContext) -> None:
    def until_told(sock: ssl.SSLSocket) -> None:
        accept(sock)
        sock.recv(65536)

    context = server_context(issued("localhost"))
    with SecurePeers(context, until_told) as server, opening(server, "localhost", trusting, False) as conn:
        conn.wait_open(PATIENCE)
        issued("other.test").configure_cert(context)
        conn.send("enough")
        eventually(lambda: conn.state is connman.State.IDLE, message=lambda: f"the end, not {conn!r}")
        assert isinstance(conn.last_error, CertificateError)


# What the server is told


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST", "localhost"),
        ("localhost.", "localhost"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("127.0.0.1", None),
        ("[::1]", None),
        ("[fe80::1%25lo]", None),
    ],
)
def test_the_server_is_told_the_name_and_no_address(
    host: str, sent: str | None, trusting: ssl.SSLContext
) -> None:
    """RFC 6066 3: a name without its last dot, and never an address. The same is what the certificate has to name."""
    certificate = issued("localhost", "xn--bcher-kva.test", "127.0.0.1", "::1", "fe80::1")
    with (
        SecurePeers(server_context(certificate)) as server,
        opening(server, host, trusting, True) as conn,
    ):
        speaks(conn)
        assert server.names == [sent]


# Versions and ALPN


OLD = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]


@ROUTES
@pytest.mark.parametrize("version", OLD, ids=["1.0", "1.1"])
def test_a_server_of_old_is_refused(
    version: ssl.TLSVersion, is_proxied: bool, trusting: ssl.SSLContext
) -> None:
    """A server may be renewed: no wrong certificate, so the next attempt comes as after any failure."""
    with (
        SecurePeers(server_context(issued("localhost"), version)) as server,
        opening(server, "localhost", trusting, is_proxied, stop=tenacity.stop_after_attempt(2)) as conn,
    ):
        with pytest.raises(GaveUp) as caught:
            conn.get_connected().result(PATIENCE)
        error = caught.value.__cause__
        assert isinstance(error, ConnectError)
        assert not isinstance(error, CertificateError)
        assert "protocol" in str(error)
        assert error.attempts[-1].phase == "tls"
        assert server.heard == []
        assert server.dials() == 2


@ROUTES
@BOTH_VERSIONS
def test_a_server_of_one_version_is_spoken_to(
    version: ssl.TLSVersion, is_proxied: bool, trusting: ssl.SSLContext
) -> None:
    with (
        SecurePeers(server_context(issued("localhost"), version)) as server,
        opening(server, "localhost", trusting, is_proxied) as conn,
    ):
        speaks(conn)
        assert server.heard == [version.name.replace("_", ".")]


@pytest.mark.parametrize("offered", [[], ["http/1.1"]], ids=["nothing", "http/1.1"])
def test_what_is_spoken_inside_is_offered_only_if_the_context_says_so(offered: list[str]) -> None:
    context, client = server_context(issued("localhost")), ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    AUTHORITY.configure_trust(client)
    if offered:
        client.set_alpn_protocols(offered)
    with SecurePeers(context) as server, opening(server, "localhost", client, False) as conn:
        speaks(conn)
        assert server.agreed == (offered or [None])


# Our own certificate

CLIENTS = {
    "right": AUTHORITY.issue_cert("client@example.test"),
    "none": None,
    "foreign": trustme.CA().issue_cert("client@example.test"),
    "expired": AUTHORITY.issue_cert("client@example.test", not_before=NOW - 2 * DAY, not_after=NOW - DAY),
}


@ROUTES
@BOTH_VERSIONS
@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_wants_a_certificate_of_ours(
    client: str, version: ssl.TLSVersion, is_proxied: bool, tmp_path: Path
) -> None:
    """What it says of ours cannot get better by asking again, so its alert is as final as our own refusal.

    Planted: without the look at the alert each of them was a plain ConnectError, tried for ever.
    """
    asking = server_context(issued("localhost"), version)
    asking.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(asking)
    context, ours = make_context(authorities=str(authority_file(tmp_path))), CLIENTS[client]
    if ours is not None:
        ours.configure_cert(context)
    with (
        SecurePeers(asking) as server,
        opening(server, "localhost", context, is_proxied, stop=tenacity.stop_after_attempt(2)) as conn,
    ):
        if client == "right":
            speaks(conn)
            assert "client@example.test" in str(server.shown)
            return
        if client == "none" and version is ssl.TLSVersion.TLSv1_2:
            # It says "handshake failure", which may be anything.
            with pytest.raises(GaveUp, match="handshake failure"):
                conn.get_connected().result(PATIENCE)
            return
        with pytest.raises(CertificateError, match="peer refused our certificate") as caught:
            conn.get_connected().result(PATIENCE)
        # With TLS 1.3 our handshake has ended before the server looks at what we showed.
        phase = "tls" if version is ssl.TLSVersion.TLSv1_2 else "upgrade"
        assert caught.value.attempts[-1].phase == phase
        assert server.heard == []
        assert server.dials() == 1


def test_an_alert_is_heard_though_the_server_closes_right_behind_it(tmp_path: Path) -> None:
    """With TLS 1.3 it crosses our upgrade, whose sending then fails: before the alert was looked for 185 of 300 were lost."""
    asking = server_context(issued("127.0.0.1"))
    asking.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(asking)

    def refuse(sock: socket.socket) -> None:
        asking.wrap_socket(sock, server_side=True)

    context = make_context(authorities=str(authority_file(tmp_path)))
    with Peers(refuse) as server:
        for _ in range(20):
            conn = connman.Connection(server.url("wss"), ssl_context=context, proxy=None, reconnect=False)
            with pytest.raises(CertificateError, match="peer refused our certificate"):
                conn.get_connected().result(PATIENCE)
            conn.disconnect()
