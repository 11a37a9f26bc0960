"""Which ways are derived from what the user names, and what they mean together."""

import pytest

from connman.cli.advice import Diagnosis
from connman.cli.probe import Finding
from connman.cli.ways import judge, ways_to
from connman.endpoint import Endpoint
from connman.errors import ConnectError


@pytest.mark.parametrize(
    ("url", "wss", "addresses"),
    [
        ("ws://h/a?k=1", None, ["ws://h/a?…", "wss://h/a?…"]),
        ("ws://h:8080/a", None, ["ws://h:8080/a"]),
        ("ws://h:8080/a", "wss://g:8443/b", ["ws://h:8080/a", "wss://g:8443/b"]),
        # What is meant for TLS is never dialled without.
        ("wss://h/a?k=1", None, ["wss://h/a?…"]),
        ("tcp://h:1", None, ["tcp://h:1"]),
        ("unix:///s", None, ["unix:///s"]),
    ],
)
def test_ways(url: str, wss: str | None, addresses: list[str]) -> None:
    ways = ways_to(Endpoint.parse(url), wss=None if wss is None else Endpoint.parse(wss))
    assert [way.address for way in ways] == addresses
    assert [way.name for way in ways] == [address.partition(":")[0] for address in addresses]


def finding(name: str, kind: str) -> tuple[Finding, Diagnosis]:
    way = ways_to(Endpoint.parse(f"{name}://h:1"))[0]
    error = None if kind == "open" else ConnectError("")
    return Finding(way, None, (), 0.1, error=error), Diagnosis(kind, f"about {kind}")


def test_one_way_through_is_enough() -> None:
    verdict = judge([finding("ws", "dropped"), finding("wss", "open")])
    assert (verdict.is_good, verdict.ways) == (True, ("wss",))


def test_a_common_cause_is_said_once_more_and_different_ones_are_not() -> None:
    assert judge([finding("ws", "dns"), finding("wss", "dns")]).advice == "about dns"
    assert judge([finding("ws", "dns")]).advice == ""
    verdict = judge([finding("ws", "refused"), finding("wss", "dropped")])
    assert (verdict.is_good, verdict.advice) == (False, "")
