"""Which ways are derived from what the user names, and what they mean together."""

import itertools

import pytest

from connman.cli.advice import Diagnosis
from connman.cli.probe import Finding, Way
from connman.cli.ways import judge, ways_to
from connman.endpoint import Endpoint
from connman.errors import ConnectError
from connman.strategy import Cached
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
    singles = [way for way in ways if way.kind == "way"]
    assert [way.address for way in singles] == addresses
    assert [way.name for way in singles] == [address.partition(":")[0] for address in addresses]
    assert [way.kind for way in ways[len(singles) :]] == ["tree"] * (len(singles) > 1)


def test_ways_over_http() -> None:
    ways = ways_to(Endpoint.parse("wss://h/a"), http="https://g/base?k=1")
    assert [(way.name, way.address) for way in ways] == [
        ("wss", "wss://h/a"),
        ("xhr_streaming", "xhr-streaming+https://g/base?…"),
        ("xhr_polling", "xhr-polling+https://g/base?…"),
        ("info", "https://g/base/info?…"),
        ("default", ""),
    ]


def test_the_tree_is_made_of_the_same_ways_and_remembers_nothing_of_others() -> None:
    tree = ways_to(Endpoint.parse("ws://h/a?k=1"), http="https://g/base")[-1].dialer
    assert isinstance(tree, Cached)
    assert "without a store" not in tree.describe()
    assert [leaf.label for leaf in tree.leaves()] == [
        "ws ws://h/a?… (priority 3)",
        "wss wss://h/a?… (priority 3)",
        "xhr_streaming xhr-streaming+https://g/base (priority 1)",
        "xhr_polling xhr-polling+https://g/base (priority 1)",
    ]


@pytest.mark.parametrize(
    ("kinds", "advice"),
    [
        ("ws:forbidden wss:dropped xhr_streaming:open xhr_polling:open", "no websocket gets through"),
        ("ws:frames-swallowed xhr_streaming:open xhr_polling:open", "a handshake= that hears the server"),
        ("ws:not-found wss:unauthorized xhr_streaming:open xhr_polling:open", ""),
        ("ws:not-found wss:dropped xhr_streaming:open xhr_polling:open", "no websocket gets through"),
        ("xhr_streaming:open xhr_polling:open", ""),
        # A target of its own, without its sibling.
        ("xhr_polling:open", ""),
        ("xhr_streaming:open", ""),
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


def test_whatever_is_found_there_is_a_verdict_and_it_is_good_when_any_way_opens() -> None:
    names = ("ws", "wss", "xhr_streaming", "xhr_polling")
    for kinds in itertools.product((None, "open", "dropped", "frames-swallowed", "not-found"), repeat=4):
        told = [finding(name, kind) for name, kind in zip(names, kinds, strict=True) if kind is not None]
        verdict = judge(told)
        assert verdict.ways == tuple(name for name, kind in zip(names, kinds, strict=True) if kind == "open")
        assert ("no websocket" in verdict.advice) <= (not {"ws", "wss"} & set(verdict.ways))


def finding(name: str, kind: str) -> tuple[Finding, Diagnosis]:
    way = Way(name, Endpoint("tcp", "h", 1), EndpointDialer())
    error = None if kind == "open" else ConnectError("")
    return Finding(way, None, (), 0.1, error=error), Diagnosis(kind, f"about {kind}")


def test_a_question_that_is_answered_is_no_way_through() -> None:
    way = Way("info", Endpoint.parse("xhr-polling+http://h/b"), EndpointDialer(), "info")
    answered = Finding(way, None, (), 0.1, info={"websocket": True}), Diagnosis("open", "")
    assert not judge([finding("ws", "dropped"), answered]).is_good


def test_one_way_through_is_enough() -> None:
    verdict = judge([finding("ws", "dropped"), finding("wss", "open")])
    assert (verdict.is_good, verdict.ways) == (True, ("wss",))


def test_a_common_cause_is_said_once_more_and_different_ones_are_not() -> None:
    assert judge([finding("ws", "dns"), finding("wss", "dns")]).advice == "about dns"
    assert judge([finding("ws", "dns")]).advice == ""
    verdict = judge([finding("ws", "refused"), finding("wss", "dropped")])
    assert (verdict.is_good, verdict.advice) == (False, "")
