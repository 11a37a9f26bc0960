"""The relay as an object: its start, its ends, and what it refuses to be."""

import gc
import socket
import threading
from pathlib import Path

import pytest

from connman.errors import ConnmanError, InvalidOption
from connman.relay import NoTokens, Relay, RelayFailed
from tests.authorities import AUTHORITY, authority_file
from tests.relay.rig import make, pair, provider
from tests.waiting import eventually


def test_it_is_inert_until_it_is_started() -> None:
    threads = set(threading.enumerate())
    relay = Relay(port=0)
    assert set(threading.enumerate()) <= threads
    assert repr(relay) == "<Relay 127.0.0.1:0>"
    assert relay.snapshot().connections == 0
    assert relay.names() == []
    assert relay.stop()
    assert relay.wait(0)


def test_a_with_block() -> None:
    with Relay(port=0) as relay:
        assert relay.url == f"ws://127.0.0.1:{relay.port}/"
        assert relay.admin_url is None
        assert [thread.name for thread in threading.enumerate()].count("connman-relay") == 1
        with provider(relay):
            pass
    assert relay.wait(0)
    assert relay.stop()


def test_it_is_started_once() -> None:
    with make() as relay, pytest.raises(RelayFailed):
        relay.start()


def test_a_port_that_is_taken() -> None:
    with make() as relay, pytest.raises(RelayFailed, match=f"cannot listen on 127.0.0.1 port {relay.port}"):
        Relay(port=relay.port).start()


def test_a_host_that_is_none() -> None:
    with pytest.raises(RelayFailed, match=r"cannot listen on nowhere\.invalid"):
        Relay("nowhere.invalid", 0, tokens=NoTokens()).start()


def test_one_text_is_no_list() -> None:
    for name in ("origins", "hosts", "trusted_proxies"):
        with pytest.raises(InvalidOption, match=f"{name}: a list"):
            Relay(port=0, **{name: "127.0.0.1"})  # type: ignore[arg-type]


def test_both_families_of_localhost_have_one_port() -> None:
    families = {entry[0] for entry in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    with Relay("localhost", 0) as relay:
        assert relay.url == f"ws://localhost:{relay.port}/"
        for family in families:
            with socket.socket(family) as sock:
                sock.connect(("localhost", relay.port))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_without_tokens_it_is_on_loopback(host: str) -> None:
    with pytest.raises(InvalidOption, match="without tokens"):
        Relay(host)


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    file = authority_file(tmp_path, AUTHORITY)
    with pytest.raises(InvalidOption, match="certificate"):
        Relay(port=0, tls=(file, file))
    with pytest.raises(InvalidOption, match="certificate"):
        Relay(port=0, tls=(tmp_path / "missing", file))


def test_certificate_and_key_by_path(tmp_path: Path) -> None:
    leaf = AUTHORITY.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain", tmp_path / "key"
    leaf.private_key_pem.write_to_path(key)
    for number, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(chain, append=number > 0)
    with Relay(port=0, tls=(chain, key)) as relay:
        assert relay.url.startswith("wss://")


def test_an_admin_port() -> None:
    pytest.importorskip("prometheus_client")
    with Relay(port=0, admin=("127.0.0.1", 0), admin_names=True) as relay, provider(relay, "shown"):
        assert relay.admin_url is not None
        host, port = relay.admin_url[7:-1].split(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            page = b"".join(iter(lambda: sock.recv(65536), b""))
        assert b"200 OK" in page
        assert b"shown" in page


def test_an_admin_port_that_is_taken_ends_it_all() -> None:
    pytest.importorskip("prometheus_client")
    with make() as other, pytest.raises(ConnmanError, match="cannot listen"):
        Relay(port=0, admin=("127.0.0.1", other.port)).start()


def test_run_returns_when_somebody_stops_it() -> None:
    relay = make()
    thread = threading.Thread(target=relay.run)
    thread.start()
    eventually(lambda: relay.port)
    near, far = pair(relay)
    near.sock.close()
    far.sock.close()
    assert relay.stop()
    thread.join()


def test_many_starts_leave_nothing() -> None:
    for _ in range(5):
        with make() as relay:
            near, far = pair(relay)
            near.sock.close()
            far.sock.close()
    del relay
    gc.collect()
