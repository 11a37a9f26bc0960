"""The kinds of channels, and what of the server's words their listeners see."""

from typing import Any

import pytest

from connman.integrations.pusher.channels import (
    PresenceChannel,
    PrivateChannel,
    PusherChannel,
    make_channel,
)
from connman.integrations.pusher.members import Member
from connman.integrations.pusher.wire import Event


class Owner:
    """What a channel asks is written down."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def trigger(self, channel: PusherChannel, event: str, data: object) -> None:
        self.asked.append((channel.name, event, data))

    def remove(self, name: str) -> None:
        self.asked.append((name,))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("prices", PusherChannel),
        ("private-x", PrivateChannel),
        ("presence-x", PresenceChannel),
        ("private-cache-x", PrivateChannel),
        ("cache-x", PusherChannel),
    ],
)
def test_the_name_says_the_kind(name: str, kind: type[PusherChannel]) -> None:
    assert type(make_channel(name, Owner())) is kind


@pytest.mark.parametrize("name", ["", "private-encrypted-x"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        make_channel(name, Owner())


def test_client_events_go_out_on_private_channels_only() -> None:
    owner = Owner()
    make_channel("private-x", owner).trigger("client-a", 1)
    assert owner.asked == [("private-x", "client-a", 1)]
    for name, event in (("x", "client-a"), ("private-x", "a"), ("private-x", "pusher:ping")):
        with pytest.raises(ValueError):
            make_channel(name, owner).trigger(event)
    assert len(owner.asked) == 1


def test_leaving_asks_the_owner() -> None:
    owner = Owner()
    make_channel("x", owner).unsubscribe()
    assert owner.asked == [("x",)]


def test_what_listeners_see() -> None:
    channel = make_channel("x", Owner())
    assert channel.take(Event("tick", 1, "x")) == Event("tick", 1, "x")
    assert not channel.is_subscribed
    assert channel.take(Event("pusher_internal:subscription_succeeded", {}, "x")) == Event(
        "pusher:subscription_succeeded", {}, "x"
    )
    assert channel.is_subscribed
    assert "subscribed" in repr(channel)
    assert channel.take(Event("pusher_internal:subscription_count", {"subscription_count": 3}, "x")) == Event(
        "pusher:subscription_count", {"subscription_count": 3}, "x"
    )
    assert channel.subscription_count == 3
    assert channel.take(Event("pusher_internal:something", {}, "x")) is None
    channel.left()
    assert not channel.is_subscribed


def test_a_presence_channel_knows_its_members() -> None:
    channel = make_channel("presence-x", Owner())
    assert isinstance(channel, PresenceChannel)
    channel.joining('{"user_id": "1"}')
    told = channel.take(Event("pusher_internal:subscription_succeeded", {"presence": {"hash": {"1": 1}}}))
    assert told is not None
    assert told.data is channel.members
    assert channel.members.me == Member("1", 1)
    assert channel.take(Event("pusher_internal:member_added", {"user_id": "2"})) == Event(
        "pusher:member_added", Member("2"), "presence-x"
    )
    assert channel.take(Event("pusher_internal:member_removed", {"user_id": "1"})) == Event(
        "pusher:member_removed", Member("1", 1), "presence-x"
    )
    assert channel.take(Event("pusher_internal:member_removed", {"user_id": "9"})) is None
    assert [member.id for member in channel.members] == ["2"]
    channel.left()
    assert len(channel.members) == 0


def test_whoever_sees_it_subscribed_finds_the_members() -> None:
    class Data(dict[str, Any]):
        """Says whether the channel counts as subscribed while its members are still being read."""

        def get(self, *arguments: Any) -> Any:
            seen.append(channel.is_subscribed)
            return super().get(*arguments)

    seen: list[bool] = []
    channel = make_channel("presence-x", Owner())
    channel.take(Event("pusher_internal:subscription_succeeded", Data(presence={"hash": {"1": 1}})))
    assert set(seen) == {False}
    assert channel.is_subscribed
