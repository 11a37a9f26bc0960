import base64
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import python_socks.sync  # noqa: F401  # else the first dial through SOCKS imports it, within its deadline

from connman import Connection
from connman.endpoint import Endpoint
from connman.errors import ConnectError, ConnectTimeout, InvalidOption, ProxyRefused
from connman.transport import dial as opening
from connman.transport.base import Dial
from connman.transport.dial import open_socket
from connman.transport.proxy import Proxy, choose_proxy, open_tunnel, parse_proxy
from tests.loopback import PATIENCE, Aborted, Server, drip, echo, in_thread, make_dial, refusing_port, silent
from tests.proxies import ConnectProxy, SocksProxy
from tests.waiting import eventually

USER, PASSWORD = "planted-user", "planted:pass word"
IN_URL = "planted-user:planted%3Apass%20word"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode())


@pytest.fixture(autouse=True)
def no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(echo) as running:
        yield running


def dial_through(proxy: str, port: int, host: str = "127.0.0.1", **options: Any) -> Dial:
    return make_dial((host, port), proxy=proxy, **options)


def check_echo(dial: Dial) -> None:
    guard = open_socket(dial)
    guard.sock.setblocking(True)
    guard.sock.sendall(b"hello")
    assert guard.sock.recv(5) == b"hello"
    guard.close()


def answering(answer: bytes) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)

    return serve


# Which proxy


@pytest.mark.parametrize(
    ("target", "environment", "expected"),
    [
        ("ws://host", {"http_proxy": "http://p:1", "all_proxy": "http://q:1"}, "http://p:1"),
        ("ws://host", {"https_proxy": "http://p:1", "all_proxy": "socks5://q"}, "socks5://q:1080"),
        ("ws://host", {"https_proxy": "http://p:1"}, None),
        ("wss://host", {"HTTPS_PROXY": "http://p:1", "http_proxy": "http://q:1"}, "http://p:1"),
        ("tls://host:1", {"https_proxy": "p:1"}, "http://p:1"),
        ("tls://host:1", {"all_proxy": "http://p"}, "http://p:80"),
        ("tcp://host:1", {"all_proxy": "http://[::1]:3"}, "http://[::1]:3"),
        ("tcp://host:1", {"http_proxy": "http://p:1", "https_proxy": "http://p:1"}, None),
        ("unix:///socket", {"all_proxy": "http://p:1"}, None),
        ("memory://name", {"all_proxy": "http://p:1"}, None),
        ("ws://host", {}, None),
        ("ws://host", {"http_proxy": ""}, None),
        ("ws://host", {"http_proxy": "http://p:1", "no_proxy": "*"}, None),
        ("ws://a.example.com", {"http_proxy": "http://p:1", "no_proxy": "other,.example.com"}, None),
        ("ws://example.com:81", {"http_proxy": "http://p:1", "NO_PROXY": "example.com:81"}, None),
        ("ws://example.com:82", {"http_proxy": "http://p:1", "no_proxy": "example.com:81"}, "http://p:1"),
        ("ws://[::1]:81", {"http_proxy": "http://p:1", "no_proxy": "::1"}, None),
        ("ws://[::1]:81", {"http_proxy": "http://p:1", "no_proxy": "[::1]"}, None),
        ("ws://notexample.com", {"http_proxy": "http://p:1", "no_proxy": "example.com"}, "http://p:1"),
    ],
)
def test_the_environment_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, target: str, environment: dict[str, str], expected: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    chosen = choose_proxy(make_dial(target, proxy=...))
    assert (None if chosen is None else str(chosen)) == expected


def test_the_option_overrules_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://p:1")
    monkeypatch.setenv("no_proxy", "*")
    assert choose_proxy(make_dial("ws://host", proxy=None)) is None
    assert choose_proxy(make_dial("ws://host", proxy="http://q:2")) == Proxy("http", "q", 2)


@pytest.mark.parametrize("scheme", ["https", "ftp", "socks"])
def test_a_scheme_we_do_not_speak_is_an_error_that_names_those_we_do(scheme: str) -> None:
    with pytest.raises(InvalidOption, match=f"no {scheme}:// proxies.*socks5h"):
        open_socket(make_dial("tcp://127.0.0.1:1", proxy=f"{scheme}://u:secret@p:1"))


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://:80",
        "http://secret@",
        "http://u:secret@%2f:1080",
        "http://secret%2fpath:80",
        "http://u:secret@p_%:80",
        "http://u:secret@a..b",
        "http://secret" + "x" * 60,
        "http://u:secret@1:2:3",
        "http://u:secret@[::1]secret:80",
        "http://u:secret@[:::secret]:80",
        "http://[::1%secret/]:80",
        "http://p\\secret@evil",
        "http://p:0",
        "http://p:port",
        "http://p:99999",
        "http://[::1",
        "http://p\r\nX: y",
        "http://p\0",
        "http://a secret@p",
        "http://u:secret%0d%0aX-Y:z@p",
        "socks4://u%00secret@p",
    ],
)
def test_a_malformed_url_is_an_invalid_option_that_quotes_nothing(url: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_proxy(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://P_1.Example.:3128/", "http://p_1.example.:3128"),
        ("http://bücher.example", "http://xn--bcher-kva.example:80"),
        ("http://[fe80::1%25eth0]:1", "http://[fe80::1%eth0]:1"),
        ("http://[0:0::1]:1", "http://[::1]:1"),
    ],
)
def test_a_host_is_taken_as_that_of_a_target(url: str, shown: str) -> None:
    assert str(parse_proxy(url)) == shown


@pytest.mark.parametrize("host", ["%2f", "p%41", "a..b"])
def test_a_proxy_whose_host_no_name_can_be_is_refused_before_any_dial(host: str) -> None:
    """It was looked up at each attempt, and failed as if the name were merely unknown."""
    with pytest.raises(InvalidOption, match="proxy: ") as caught:
        Connection("ws://host", proxy=f"http://planted:planted@{host}:8080")
    assert "planted" not in str(caught.value)


def test_no_credentials_in_text() -> None:
    proxy = parse_proxy(f"http://{IN_URL}@p:1")
    assert (proxy.user, proxy.password) == (USER, PASSWORD)
    assert "planted" not in str(proxy) + repr(proxy)


# HTTP CONNECT


def test_connect_asks_for_the_endpoint(server: Server) -> None:
    with ConnectProxy() as proxy:
        dial = dial_through(f"http://127.0.0.1:{proxy.port}", server.port, "localhost")
        check_echo(dial)
        authority = b"localhost:%d" % server.port
        assert proxy.heads == [b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)]
    assert [(step.phase, step.address) for step in dial.log] == [
        ("tcp", f"127.0.0.1:{proxy.port}"),
        ("proxy", f"http://127.0.0.1:{proxy.port}"),
    ]


def test_connect_brackets_an_ipv6_host() -> None:
    with ConnectProxy() as proxy, refusing_port(socket.AF_INET6) as port:
        with pytest.raises(ConnectError):
            open_socket(dial_through(f"http://127.0.0.1:{proxy.port}", port, "::1"))
        assert proxy.heads[0].startswith(b"CONNECT [::1]:%d HTTP/1.1\r\n" % port)


def test_connect_with_credentials(server: Server) -> None:
    with ConnectProxy(BASIC) as proxy:
        check_echo(dial_through(f"http://{IN_URL}@127.0.0.1:{proxy.port}", server.port))


def test_refused_credentials_are_shown_nowhere(server: Server) -> None:
    with ConnectProxy(b"others") as proxy:
        dial = dial_through(f"http://{IN_URL}@127.0.0.1:{proxy.port}", server.port)
        with pytest.raises(ProxyRefused, match="HTTP 407") as caught:
            open_socket(dial)
    assert caught.value.status == 407
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(dial.log)
    assert "planted" not in shown
    assert BASIC.decode() not in shown


@pytest.mark.parametrize("status", [100, 301, 403, 502])
def test_any_other_status_is_a_refusal(status: int) -> None:
    with Server(answering(b"HTTP/1.1 %d No\r\nA: b\r\n\r\nbody" % status)) as proxy:
        with pytest.raises(ProxyRefused) as caught:
            open_socket(dial_through(f"http://127.0.0.1:{proxy.port}", 1))
        assert caught.value.status == status


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", "closed the connection"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
        (b"HTTP/1.1 20x OK\r\n\r\n", "not HTTP"),
        (b"HTTP/2 200\r\n\r\n", "not HTTP"),
        (b"\r\n\r\n", "not HTTP"),
        (b"x" * 20000, "a line of more than 8192 bytes"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 20000, "a line of more than 8192 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000, "more than 128 headers"),
        (b"HTTP/1.1 200 OK\r\n" + (b"A: " + b"x" * 8000 + b"\r\n") * 130, "more than 128 headers"),
    ],
)
def test_an_answer_that_makes_no_sense(answer: bytes, cause: str) -> None:
    with Server(answering(answer)) as proxy, pytest.raises(ConnectError, match=cause) as caught:
        open_socket(dial_through(f"http://127.0.0.1:{proxy.port}", 1))
    assert caught.value.attempts[-1].phase == "proxy"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 299\n\n"])
def test_what_comes_behind_the_answer_stays_in_the_socket(answer: bytes) -> None:
    with Server(answering(answer + b"greeting")) as proxy:
        guard = open_socket(dial_through(f"http://127.0.0.1:{proxy.port}", 1))
        guard.sock.setblocking(True)
        assert guard.sock.recv(100) == b"greeting"
        guard.close()


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4"])
def test_a_proxy_that_drips_does_not_outlast_the_deadline(scheme: str) -> None:
    with Server(lambda sock: drip(sock, b"HTTP/1.1 200 OK\r\n" if scheme == "http" else b"\5")) as proxy:
        dial = dial_through(f"{scheme}://127.0.0.1:{proxy.port}", 1, open_timeout=0.1)
        with pytest.raises((ConnectTimeout, ProxyRefused)):
            in_thread(open_socket, dial).result(PATIENCE)


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks5", "socks4", "socks4a"])
def test_a_silent_proxy_ends_at_the_deadline(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_late(dial: Dial, *args: Any) -> None:
        dial.begin(dial.headers)  # else the time could be up before the proxy is reached
        open_tunnel(dial, *args)

    monkeypatch.setattr(opening, "open_tunnel", open_late)
    with Server(silent) as proxy:
        dial = dial_through(f"{scheme}://127.0.0.1:{proxy.port}", 1, open_timeout=0.05)
        with pytest.raises(ConnectTimeout, match="proxy"):
            in_thread(open_socket, dial).result(PATIENCE)


@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks4"])
def test_an_abort_ends_a_silent_proxy(scheme: str) -> None:
    with Server(silent) as proxy:
        dial = dial_through(f"{scheme}://127.0.0.1:{proxy.port}", 1)
        dialling = in_thread(open_socket, dial)
        eventually(lambda: proxy.accepted)
        dial.abort(Aborted("enough"))
        with pytest.raises(Aborted):
            dialling.result(PATIENCE)


def test_a_proxy_that_is_not_there() -> None:
    with refusing_port() as port, pytest.raises(ConnectError, match="Connection refused"):
        open_socket(dial_through(f"http://127.0.0.1:{port}", 1))


@pytest.mark.parametrize("host", ["a\r\nX: y", "a\0b", "a b"])
def test_a_host_that_would_inject_is_refused(host: str) -> None:
    with Server(silent) as proxy:
        endpoint = Endpoint("tcp", host, 1)
        with pytest.raises(ConnectError, match="characters that no host name has"):
            open_socket(make_dial(endpoint, proxy=f"http://127.0.0.1:{proxy.port}"))


# SOCKS


@pytest.mark.parametrize(
    ("scheme", "asked"),
    [("socks5h", "localhost"), ("socks4a", "localhost"), ("socks5", "127.0.0.1"), ("socks4", "127.0.0.1")],
)
def test_socks_looks_the_name_up_where_its_scheme_says(
    monkeypatch: pytest.MonkeyPatch, server: Server, scheme: str, asked: str
) -> None:
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    with SocksProxy() as proxy:
        check_echo(dial_through(f"{scheme}://127.0.0.1:{proxy.port}", server.port, "localhost"))
        assert proxy.asked == [asked]


def test_socks4_needs_an_ipv4_address() -> None:
    with SocksProxy() as proxy, pytest.raises(ConnectError, match="no IPv4 address"):
        open_socket(dial_through(f"socks4://127.0.0.1:{proxy.port}", 1, "::1"))


def test_socks5_with_credentials(server: Server) -> None:
    with SocksProxy((USER.encode(), PASSWORD.encode())) as proxy:
        check_echo(dial_through(f"socks5h://{IN_URL}@127.0.0.1:{proxy.port}", server.port))


@pytest.mark.parametrize("credentials", ["", f"{IN_URL}@"])
def test_socks5_refused_credentials_are_shown_nowhere(credentials: str) -> None:
    with SocksProxy((b"others", b"others")) as proxy, pytest.raises(ProxyRefused) as caught:
        open_socket(dial_through(f"socks5h://{credentials}127.0.0.1:{proxy.port}", 1))
    assert caught.value.status is None
    assert "planted" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("credentials", ["planted-ü:x@", f"u:{'planted' * 40}@"])
def test_credentials_that_socks_cannot_carry(credentials: str) -> None:
    with SocksProxy() as proxy, pytest.raises(InvalidOption, match="ASCII credentials") as caught:
        open_socket(dial_through(f"socks5h://{credentials}127.0.0.1:{proxy.port}", 1))
    assert "planted" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a"])
def test_socks_passes_a_refusal_on(scheme: str) -> None:
    refused = pytest.raises(ProxyRefused, match=r"refused|rejected")
    with SocksProxy() as proxy, refusing_port() as port, refused:
        open_socket(dial_through(f"{scheme}://127.0.0.1:{proxy.port}", port))


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a"])
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\5\0\5\0\0\1", b"\xff" * 64, b"\0" * 64]
)
def test_socks_answers_that_make_no_sense(scheme: str, answer: bytes) -> None:
    with Server(answering(answer)) as proxy, pytest.raises(ConnectError, match="proxy"):
        open_socket(dial_through(f"{scheme}://127.0.0.1:{proxy.port}", 1))


def test_socks_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with SocksProxy() as proxy, pytest.raises(InvalidOption, match=r"pip install connman\[proxy\]"):
        open_socket(dial_through(f"socks5h://127.0.0.1:{proxy.port}", 1))


IMPORTS = """
import sys, threading, connman
closed = threading.Event()
conn = connman.Connection("ws://localhost:1/", reconnect=False, on_reset=lambda *_: closed.set())
before = set(sys.modules)
conn.connect()
assert closed.wait(10)
print(sorted(set(sys.modules) - before))
"""


def test_a_dial_imports_nothing() -> None:
    # A child that was forked while a reader thread imported waited for the module's lock in every dial, for ever.
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "[]\n"
