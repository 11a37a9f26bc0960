"""Where a Pusher server is."""

from typing import Any

import pytest

from connman.errors import InvalidOption, InvalidTarget
from connman.integrations.pusher.route import Addresses, Route, addresses
from connman.testing import ScriptedDialer
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
    assert found(cluster="eu") == Addresses(
        None,
        f"wss://ws-eu.pusher.com:443/app/k?{QUERY}&flash=false",
        f"https://sockjs-eu.pusher.com/pusher/app/k?{QUERY}",
    )
    plain = found(cluster="eu", tls=False)
    assert plain.ws == f"ws://ws-eu.pusher.com:80/app/k?{QUERY}&flash=false"
    assert plain.wss == f"wss://ws-eu.pusher.com:443/app/k?{QUERY}&flash=false"
    assert plain.http == f"http://sockjs-eu.pusher.com/pusher/app/k?{QUERY}"
    assert found(cluster="eu", http=None).http is None


def test_of_a_host_of_ones_own_no_other_host_is_ever_asked() -> None:
    own = found(host="h.example", port=6001, tls=False, tls_port=6002)
    assert own.ws == f"ws://h.example:6001/app/k?{QUERY}&flash=false"
    assert own.wss == f"wss://h.example:6002/app/k?{QUERY}&flash=false"
    assert own.http is None
    assert found(host="h.example", port=8443).wss == f"wss://h.example:8443/app/k?{QUERY}&flash=false"
    assert found(host="::1").wss == f"wss://[::1]:443/app/k?{QUERY}&flash=false"
    http = found(host="h.example", http="http://h.example:6004/pusher/")
    assert http.http == f"http://h.example:6004/pusher/app/k?{QUERY}"


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
