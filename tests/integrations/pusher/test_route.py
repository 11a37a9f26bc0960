"""Where a Pusher server is."""

from typing import Any

import pytest

from connman.errors import ConnectionLost, InvalidOption, InvalidTarget
from connman.integrations.pusher.route import Addresses, Route, addresses, make_route
from connman.strategy import Cached, Strategy, Transport, TransportManager
from connman.testing import FakeClock, ScriptedDialer
from connman.transport.memory import memory_pair
from connman.version import __version__

QUERY = f"protocol=7&client=connman&version={__version__}"
NOWHERE: dict[str, Any] = {
    "host": None,
    "cluster": None,
    "port": None,
    "tls": True,
    "tls_port": None,
    "http": ...,
}


def found(key: str = "k", **changes: Any) -> Addresses:
    return addresses(key, **(NOWHERE | changes))


def test_of_a_cluster() -> None:
    own = found(cluster="eu", tls=False)
    assert own.ws == f"ws://ws-eu.pusher.com:80/app/k?{QUERY}&flash=false"
    assert own.wss == f"wss://ws-eu.pusher.com:443/app/k?{QUERY}&flash=false"
    assert own.http == f"http://sockjs-eu.pusher.com/pusher/app/k?{QUERY}"
    assert own.https == f"https://sockjs-eu.pusher.com/pusher/app/k?{QUERY}"
    assert own.is_beside
    secure = found(cluster="eu")
    assert (secure.ws, secure.wss, secure.https) == (None, own.wss, own.https)
    assert found(cluster="eu", http=None).https is None


def test_a_server_below_a_path() -> None:
    own = found(host="h", path="/push/", tls=False, http="https://s.example/x")
    assert own.ws == f"ws://h:80/push/app/k?{QUERY}&flash=false"
    assert own.wss == f"wss://h:443/push/app/k?{QUERY}&flash=false"
    assert own.http == f"https://s.example/x/app/k?{QUERY}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "h/x"}, {"host": "wss://h"}, {"host": "u@h"}, {"host": "u:p@h"}, {"host": "h?x"}, {"host": "h:80"},
        {"host": "h\\x"}, {"cluster": ""}, {"cluster": "evil.example/"}, {"cluster": "é"}, {"cluster": "eu\n"},
        {"host": "h", "path": "x"}, {"host": "h", "path": "/x?y"}, {"cluster": "eu", "path": "/x"},
        {"host": "h", "key": "\ud800"}, {"host": "h", "key": b"k"}, {"host": "h", "key": ""},
    ],
)  # fmt: skip
def test_what_is_no_part_of_an_address(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        found(**wrong)


def test_without_urllib3_a_cluster_has_no_http(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("connman.integrations.pusher.route.find_spec", lambda _: None)
    with caplog.at_level("INFO", "connman"):
        own = found(cluster="eu")
        assert (own.https, own.http) == (None, None)
        assert "that takes connman[http]" in caplog.text
        caplog.clear()
        # It was not asked for, so nothing is missing.
        assert found(host="h").https is found(cluster="eu", http=None).https is None
        assert caplog.text == ""


def test_of_a_host_of_ones_own_no_other_host_or_port_is_ever_asked() -> None:
    own = found(host="h.example", port=6001, tls=False)
    assert own.ws == f"ws://h.example:6001/app/k?{QUERY}&flash=false"
    assert (own.is_beside, own.http, own.https) == (False, None, None)
    beside = found(host="h.example", port=6001, tls=False, tls_port=6002)
    assert beside.wss == f"wss://h.example:6002/app/k?{QUERY}&flash=false"
    assert beside.is_beside
    assert found(host="h.example", port=8443).wss == f"wss://h.example:8443/app/k?{QUERY}&flash=false"
    assert found(host="::1").wss == f"wss://[::1]:443/app/k?{QUERY}&flash=false"
    http = found(host="h.example", tls=False, http="http://h.example:6004/pusher/")
    assert http.http == f"http://h.example:6004/pusher/app/k?{QUERY}"
    assert http.https is None  # who has turned to TLS does not turn back
    https = found(host="h.example", http="https://h.example/pusher")
    assert https.https == f"https://h.example/pusher/app/k?{QUERY}"


def test_several_ways_are_a_tree_and_one_is_none() -> None:
    def target(**changes: Any) -> Strategy:
        made = make_route(found(**changes), {}, activity_timeout=120.0, clock=FakeClock()).target
        assert isinstance(made, Strategy)
        return made

    assert isinstance(target(host="h"), Transport)
    assert isinstance(target(host="h", tls=False), Transport)
    assert [leaf.name for leaf in target(host="h", tls=False, tls_port=1).leaves()] == ["ws", "wss"]
    assert [leaf.name for leaf in target(cluster="eu").leaves()] == ["wss", "xhr_streaming", "xhr_polling"]
    plain = target(cluster="eu", tls=False)
    assert [leaf.name for leaf in plain.leaves()] == ["ws", "wss", "xhr_streaming", "xhr_polling"]
    assert isinstance(plain, Cached)
    assert "sockjs-eu" not in target(host="h", http="https://other/pusher").describe()


@pytest.mark.parametrize(
    "changes", [{"host": "h"}, {"host": "h", "tls": False, "tls_port": 1}, {"cluster": "eu"}]
)
def test_each_way_is_watched(changes: dict[str, Any]) -> None:
    clock = FakeClock()
    target = make_route(found(**changes), {}, activity_timeout=120.0, clock=clock).target
    assert isinstance(target, Strategy)
    for leaf in target.leaves():
        if leaf.name != "xhr_polling":  # there is nothing to keep alive: each answer ends
            assert isinstance(leaf.manager, TransportManager)
            transport, _ = memory_pair(clock, 1)
            leaf.manager.watch(transport)
            clock.advance(200)
            transport.abort(ConnectionLost())
            transport.dispose()
            assert (leaf.manager.is_alive, leaf.manager.ping_delay) == (True, 100)


def test_a_key_is_quoted() -> None:
    assert f"/app/a%2Fb%3Fc?{QUERY}" in found("a/b?c", cluster="eu").wss


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"host": "h", "cluster": "eu"},
        {"cluster": "eu", "key": ""},
        *({"host": "h", "http": bad} for bad in ("", "h/pusher", "ws://h/", "http://", "http://h/?a=b")),
    ],
)
def test_what_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises((InvalidOption, InvalidTarget)):
        found(**changes) if "key" not in changes else found(changes.pop("key"), **changes)


def test_tls_from_when_it_is_asked_for() -> None:
    route = Route(ScriptedDialer([]), ScriptedDialer([]))
    assert route.turn_to_tls()
    assert not route.turn_to_tls()
    assert not Route(ScriptedDialer([])).turn_to_tls()
