"""Whose attempt it is: what is believed of X-Forwarded-For, and what is not."""

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connman.errors import InvalidOption
from connman.relay import Limits, Relay
from connman.relay.addresses import client_address, is_loopback, networks, parse, rate_key
from tests.relay.rig import Raw, upgrade

PROXIES = networks(["10.0.0.0/8", "::1", "fd00::/8"])


def behind(peer: str, *forwarded: str) -> str:
    return client_address(peer, [("Host", "relay"), *(("X-Forwarded-For", f) for f in forwarded)], PROXIES)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7\t", "192.0.2.7"),
        ("192.0.2.7:8080", "192.0.2.7"),
        ("2001:DB8:0:0::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ('"[2001:db8::7]:443"', "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:1", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_an_address_is_understood_in_all_its_shapes(text: str, address: str) -> None:
    assert str(parse(text)) == address


@pytest.mark.parametrize(
    "text",
    ["", "unknown", "_hidden", "192.0.2", "192.0.2.256", "192.0.2.07", "1.2.3.4:x", "1.2.3.4:", "[::1", "[::1]x",
     "[::1]:123456", "::1::", "1" * 5000, "192.0.2.7 192.0.2.8", "1.2.3.4:٣"],
)  # fmt: skip
def test_garbage_is_no_address(text: str) -> None:
    assert parse(text) is None


def test_without_trusted_proxies_nothing_is_believed() -> None:
    assert client_address("192.0.2.7", [("X-Forwarded-For", "1.2.3.4")], ()) == "192.0.2.7"


def test_the_client_behind_one_proxy() -> None:
    assert behind("10.0.0.1", "192.0.2.7") == "192.0.2.7"
    assert behind("::ffff:10.0.0.1", "192.0.2.7:5555") == "192.0.2.7"


def test_a_header_from_an_untrusted_peer_is_not_believed() -> None:
    assert behind("192.0.2.66", "1.2.3.4") == "192.0.2.66"


def test_what_the_client_wrote_itself_is_not_reached() -> None:
    assert behind("10.0.0.1", "127.0.0.1, 10.9.9.9, 192.0.2.66") == "192.0.2.66"
    assert behind("10.0.0.1", "127.0.0.1", "10.9.9.9, 192.0.2.66") == "192.0.2.66"


def test_several_trusted_proxies_are_looked_through() -> None:
    assert behind("10.0.0.1", "6.6.6.6, 192.0.2.7, fd00::5, 10.0.0.2") == "192.0.2.7"


def test_when_all_are_trusted_the_furthest_counts() -> None:
    assert behind("10.0.0.1", "10.0.0.3, 10.0.0.2") == "10.0.0.3"


@pytest.mark.parametrize("hop", ["unknown", "", "_x", "999.1.1.1"])
def test_a_hop_that_is_no_address_ends_the_walk(hop: str) -> None:
    assert behind("10.0.0.1", f"1.2.3.4, {hop}, 10.0.0.2") == "10.0.0.2"
    assert behind("10.0.0.1", hop) == "10.0.0.1"


def test_a_long_list_is_walked_a_bounded_way() -> None:
    assert behind("10.0.0.1", ",".join(["10.0.0.2"] * 100_000)) == "10.0.0.2"
    assert behind("10.0.0.1", "1.2.3.4," + ",".join(["10.0.0.2"] * 31)) == "1.2.3.4"
    assert behind("10.0.0.1", "1.2.3.4," + ",".join(["10.0.0.2"] * 32)) == "10.0.0.2"


def test_a_peer_without_an_address_is_left_as_it_is() -> None:
    assert behind("", "1.2.3.4") == ""


@given(st.lists(st.text(alphabet='0123456789abcdef.:,[]%" x', max_size=60), max_size=4))
def test_no_header_moves_a_peer_that_is_not_trusted(forwarded: list[str]) -> None:
    assert behind("192.0.2.66", *forwarded) == "192.0.2.66"


@given(st.lists(st.text(max_size=40), max_size=4))
def test_behind_a_proxy_the_last_hop_is_the_proxys_own_word(forged: list[str]) -> None:
    assert behind("10.0.0.1", *forged, "192.0.2.7") == "192.0.2.7"


def test_networks_that_are_slips_are_refused() -> None:
    for text in ("10.0.0.1/8", "proxy.example.com", "", "10.0.0.0/33"):
        with pytest.raises(InvalidOption, match="not an address or a network"):
            networks([text])


def test_a_mapped_network_is_its_ipv4_network() -> None:
    assert (
        client_address("10.1.1.1", [("x-forwarded-for", "192.0.2.7")], networks(["::ffff:10.0.0.0/104"]))
        == "192.0.2.7"
    )


def test_one_host_has_a_whole_64_of_ipv6() -> None:
    assert rate_key("2001:db8::1") == rate_key("2001:db8::ffff:1") == "2001:db8::/64"
    assert rate_key("2001:db8:0:1::1") != rate_key("2001:db8::1")
    assert rate_key("::1") == "::/64"
    assert rate_key("192.0.2.7") == rate_key("::ffff:192.0.2.7") == "192.0.2.7"
    assert rate_key("") == ""


def test_loopback() -> None:
    assert all(
        is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LocalHost")
    )
    assert not any(is_loopback(host) for host in ("", "0.0.0.0", "::", "192.0.2.7", "example.com"))


# Through a relay


def statuses(relay: Relay, source: str, forwarded: Iterable[str]) -> list[int]:
    found = []
    for claimed in forwarded:
        with Raw(relay, source=source) as client:
            client.write(upgrade(x_forwarded_for=claimed))
            found.append(int(client.head().split(b" ")[1]))
    return found


@pytest.fixture
def behind_a_proxy() -> Iterator[Relay]:
    limits = Limits(burst=2, attempts_per_second=0.001)
    with Relay(port=0, limits=limits, trusted_proxies=["127.0.0.9"]) as relay:
        yield relay


def test_clients_behind_a_trusted_proxy_are_counted_one_by_one(behind_a_proxy: Relay) -> None:
    clients = ["192.0.2.1", "192.0.2.2", "6.6.6.6, 192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"]
    assert statuses(behind_a_proxy, "127.0.0.9", clients) == [101, 101, 101, 429, 101, 429]


def test_whoever_says_to_be_others_is_counted_as_one(behind_a_proxy: Relay) -> None:
    clients = ["192.0.2.1", "192.0.2.2", "127.0.0.9", ""]
    assert statuses(behind_a_proxy, "127.0.0.8", clients) == [101, 101, 429, 429]
    assert statuses(behind_a_proxy, "127.0.0.9", ["192.0.2.1"]) == [101], "nobody was blamed for it"
