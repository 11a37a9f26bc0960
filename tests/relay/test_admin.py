"""The admin port: what it answers, to whom, and that slow clients take it from nobody."""

import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("prometheus_client", reason="needs connman[relay]")

from connman.errors import ConnectError
from connman.relay.admin import MOST_CLIENTS, Admin
from connman.relay.counts import Counts, Snapshot
from connman.relay.page import POLICY, NameLine
from tests.waiting import eventually


class Shown:
    """What the relay would say; a test changes it."""

    def __init__(self) -> None:
        self.taken = Snapshot(pairs=3)

    def __call__(self) -> Snapshot:
        return self.taken


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def admin(shown: Shown) -> Iterator[Admin]:
    admin = Admin(shown)
    admin.start()
    yield admin
    admin.stop()


def ask(
    admin: Admin, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, str]:
    asked = http.client.HTTPConnection("127.0.0.1", admin.port, timeout=5)
    try:
        asked.request(method, path, headers=headers or {})
        answer = asked.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        asked.close()


def requests_under_way() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "connman-relay-admin-request"]


def raw(admin: Admin, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", admin.port), 5) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_metrics(admin: Admin) -> None:
    status, headers, body = ask(admin, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert "connman_relay_pairs 3.0\n" in body
    status, headers, _ = ask(
        admin, "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert (status, headers.get_content_type()) == (200, "application/openmetrics-text")


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain;version=x",
        "application/openmetrics-text;version=1.x.0",
        "application/openmetrics-text;version=1.0.0\r\n X-Mine: 1",
        "application/openmetrics-text;escaping",
    ],
)
def test_metrics_for_a_scraper_that_asks_for_nonsense(admin: Admin, accept: str) -> None:
    answer = raw(admin, f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"connman_relay_pairs 3.0\n" in answer
    assert b"X-Mine" not in answer


def test_refusals_are_as_locked_up_as_the_page(admin: Admin) -> None:
    for request in (b"<script> / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"):
        answer = raw(admin, request)
        assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer
        assert b"\r\nContent-Security-Policy: default-src 'none'; " in answer


def test_health(admin: Admin, shown: Shown) -> None:
    def health() -> tuple[int, str]:
        status, headers, body = ask(admin, "/healthz")
        assert headers["Content-Type"] == "application/json"
        return status, json.loads(body)["status"]

    assert health() == (200, "ok")
    shown.taken = Snapshot(broker="lost")
    assert health() == (503, "broker lost")
    shown.taken = Snapshot(is_stopping=True)
    assert health() == (503, "stopping")


def test_the_page_and_its_headers(admin: Admin, shown: Shown) -> None:
    status, headers, body = ask(admin, "/?whatever")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert '<p class="number" id="pairs">3</p>' in body
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Server"] == "connman"
    shown.taken = Snapshot(pairs=4)
    assert '<p class="number" id="pairs">4</p>' in ask(admin, "/")[2]


def test_names_are_shown_only_when_asked_for(shown: Shown) -> None:
    for names, expected in ((None, False), (lambda: [NameLine("gerät \ud800", 1, 2)], True)):
        admin = Admin(shown, names=names)
        admin.start()
        try:
            assert ("gerät" in ask(admin, "/")[2]) is expected
            assert "gerät" not in ask(admin, "/metrics")[2] + ask(admin, "/healthz")[2]
        finally:
            admin.stop()


def test_head_has_no_body(admin: Admin) -> None:
    status, headers, body = ask(admin, "/metrics", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 100


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET //evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 501),
        (b"DELETE / HTTP/1.1\r\n\r\n", 501),
        (b"garbage\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_what_is_not_there_is_refused(admin: Admin, request_line: bytes, status: int) -> None:
    answer = raw(admin, request_line)
    assert str(status).encode() in answer.splitlines()[0] or answer.startswith(str(status).encode())
    assert ask(admin, "/healthz")[0] == 200


def test_a_head_without_end_is_not_read_to_it(admin: Admin) -> None:
    answer = raw(admin, b"GET / HTTP/1.1\r\nX: " + b"x" * 16384)
    assert b" 421 " in answer.splitlines()[0], "what fitted named no host"


def test_a_web_page_may_not_ask_through_a_browser(admin: Admin) -> None:
    """DNS rebinding: the page's own name is made to point at 127.0.0.1, and its script is of the same origin then."""
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[2001:db8::1]:80"):
        assert ask(admin, "/metrics", headers={"Host": host})[0] == 421
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.2:99", "[::1]:99"):
        assert ask(admin, "/metrics", headers={"Host": host})[0] == 200


def test_on_other_hosts_any_name_will_do(shown: Shown) -> None:
    admin = Admin(shown, "0.0.0.0")
    admin.start()
    try:
        assert ask(admin, "/metrics", headers={"Host": "relay-1.internal"})[0] == 200
    finally:
        admin.stop()


def test_on_ipv6(shown: Shown) -> None:
    admin = Admin(shown, "::1")
    try:
        admin.start()
    except ConnectError as error:
        pytest.skip(f"no IPv6 here: {error}")
    try:
        assert admin.url == f"http://[::1]:{admin.port}/"
        with socket.create_connection(("::1", admin.port), 5) as client:
            client.sendall(f"GET /healthz HTTP/1.1\r\nHost: [::1]:{admin.port}\r\n\r\n".encode())
            assert b" 200 " in client.recv(100)
    finally:
        admin.stop()


def test_slow_clients_take_it_from_nobody(admin: Admin) -> None:
    with ExitStack() as slow:
        for _ in range(3 * MOST_CLIENTS):
            client = slow.enter_context(socket.create_connection(("127.0.0.1", admin.port), 5))
            client.sendall(b"GET / HT")
        assert ask(admin, "/healthz")[0] == 200


def test_a_client_that_drips_is_cut_off(shown: Shown) -> None:
    admin = Admin(shown, request_timeout=0.3)
    admin.start()
    try:
        with socket.create_connection(("127.0.0.1", admin.port), 5) as client:
            client.sendall(b"G")
            client.settimeout(0.02)

            def cut_off() -> bool:
                try:
                    client.sendall(b"E")
                    return client.recv(1) == b""
                except TimeoutError:
                    return False
                except OSError:
                    return True

            eventually(cut_off, 5.0)
    finally:
        admin.stop()


def test_a_client_that_does_not_read_is_cut_off(shown: Shown) -> None:
    names = [NameLine("x" * 50_000, 1, 1)] * 200
    admin = Admin(shown, request_timeout=0.5, names=lambda: names)
    admin.start()
    try:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", admin.port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(requests_under_way, 5.0)
            eventually(lambda: not requests_under_way(), 5.0)
    finally:
        admin.stop()


def test_stopping_cuts_off_and_may_be_repeated(shown: Shown) -> None:
    admin = Admin(shown)
    admin.start()
    port = admin.port
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        assert ask(admin, "/healthz")[0] == 200
        admin.stop()
        assert client.recv(1) == b""
    admin.stop()
    assert admin.port == port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_port_that_is_taken(admin: Admin, shown: Shown) -> None:
    with pytest.raises(ConnectError, match=f"127.0.0.1:{admin.port}: cannot listen"):
        Admin(shown, port=admin.port).start()


def test_a_snapshot_that_fails_is_logged_and_ends_nothing(
    admin: Admin, shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    shown.taken = None  # type: ignore[assignment]
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(admin, "/healthz")
    eventually(lambda: [record.levelno for record in caplog.records] == [logging.ERROR])
    shown.taken = Snapshot()
    assert ask(admin, "/healthz")[0] == 200


def test_it_shows_the_numbers_of_a_relay_that_counts() -> None:
    counts = Counts(0.0)
    admin = Admin(lambda: counts.snapshot(1.0))
    admin.start()
    try:
        counts.count_refused("token")
        assert 'connman_relay_refused_total{reason="token"} 1.0' in ask(admin, "/metrics")[2]
    finally:
        admin.stop()
