"""What `provide` takes, and what it refuses before anything is dialled."""

from typing import Any

import pytest

from connman.errors import InvalidOption, InvalidTarget
from connman.rpc import Services, provide
from tests.rpc.relay_side import RelaySide, answer, ask, hand_over

URL = "ws://127.0.0.1:1/"


@pytest.mark.parametrize(
    "options",
    [
        {"spares": 0},
        {"spares": True},
        {"max_peers": 0},
        {"max_peers": 1.5},
        {"on_peer": 7},
        {"token": ""},
        {"close_timeout": 0},
        {"headers": {"a b": "c"}},
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        provide(URL, "device", {}, **options)


@pytest.mark.parametrize("option", ["reconnect", "on_data", "framing", "dispatch", "handshake", "nonsense"])
def test_an_option_that_is_not_the_users_is_refused(option: str) -> None:
    with pytest.raises(TypeError, match=option):
        provide(URL, "device", {}, **{option: None})  # type: ignore[misc]


def test_an_address_that_is_no_relays_is_refused() -> None:
    with pytest.raises(InvalidTarget):
        provide("tcp://relay:1", "device", {})


def test_services_may_be_shared() -> None:
    relay, other = RelaySide(), RelaySide()
    services = Services({1: lambda: "shared"})
    with_one = provide(relay.dialer, "device", services, spares=1)
    with_two = provide(other.dialer, "twin", services, spares=1)
    try:
        for side in (relay.spare(), other.spare("twin")):
            ask(hand_over(side), 0, 1)
            assert answer(side)["data"] == "shared"
        # The one that is closed leaves them to the other.
        with_one.close()
        ask(side, 1, 1)
        assert answer(side)["data"] == "shared"
    finally:
        with_one.close(0)
        with_two.close(0)
