"""Which ways are derived from what the user names, and what they mean together."""

import pytest

from connman.cli.advice import Diagnosis
from connman.cli.probe import Finding, Way
from connman.cli.ways import judge, ways_to
from connman.endpoint import Endpoint
from connman.errors import ConnectError
from connman.transport.openers import EndpointDialer


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


def test_ways_over_http() -> None:
    ways = ways_to(Endpoint.parse("wss://h/a"), http="https://g/base?k=1")
    assert [(way.name, way.address) for way in ways] == [
        ("wss", "wss://h/a"),
        ("xhr_streaming", "xhr-streaming+https://g/base?…"),
        ("xhr_polling", "xhr-polling+https://g/base?…"),
    ]


@pytest.mark.parametrize(
    ("kinds", "advice"),
    [
        ("ws:forbidden wss:dropped xhr_streaming:open xhr_polling:open", "no websocket gets through"),
        ("ws:forbidden wss:open xhr_streaming:open", "use wss://"),
        ("ws:open xhr_streaming:no-sockjs xhr_polling:no-sockjs", "only websockets open"),
        ("ws:open xhr_streaming:open-timeout xhr_polling:open", "only xhr_polling works"),
        ("ws:open wss:refused xhr_streaming:open xhr_polling:open", ""),
    ],
)
def test_what_opens_beside_what_does_not(kinds: str, advice: str) -> None:
    verdict = judge([finding(*word.split(":")) for word in kinds.split()])
    assert verdict.is_good
    assert advice in verdict.advice
    assert bool(advice) == bool(verdict.advice)


def finding(name: str, kind: str) -> tuple[Finding, Diagnosis]:
    way = Way(name, Endpoint("tcp", "h", 1), EndpointDialer())
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
