"""Which channels are wanted, and what the server is told of them."""

import random
import threading
from typing import Any

import pytest

from connman.errors import ConnmanError, NotConnected
from connman.integrations.pusher import AuthError, Pusher
from tests.integrations.pusher.rig import Rig
from tests.loopback import PATIENCE, in_thread
from tests.pusher_server import KEY, Guest
from tests.waiting import eventually


def joined(guest: Guest, *names: str) -> None:
    eventually(
        lambda: set(guest.channels) == set(names), message=lambda: f"{names}, not {list(guest.channels)}"
    )


def test_before_and_after_connecting() -> None:
    with Rig() as rig:
        rig.pusher.subscribe("a")
        guest = rig.open()
        rig.pusher.subscribe("b")
        joined(guest, "a", "b")
        assert rig.pusher.subscribe("a") is rig.pusher.channel("a")
        assert [data["channel"] for data in guest.events("pusher:subscribe")] == ["a", "b"]


def test_leaving_and_coming_back() -> None:
    with Rig() as rig:
        told: list[Any] = []
        first = rig.pusher.subscribe("a").bind("e", told.append)
        guest = rig.open()
        joined(guest, "a")
        first.unsubscribe()
        first.unsubscribe()
        joined(guest)
        assert rig.pusher.channel("a") is None
        assert guest.events("pusher:unsubscribe") == [{"channel": "a"}]
        guest.send("e", 1, "a")  # one that was under way
        eventually(lambda: "e" in [event.name for event in rig.told.of("message")])
        second = rig.pusher.subscribe("a")
        assert second is not first
        second.bind("e", lambda data: told.append(("second", data)))
        joined(guest, "a")
        rig.server.trigger("a", "e", 2)
        eventually(lambda: told == [("second", 2)])


def test_signatures_are_fresh_for_each_connection() -> None:
    asked: list[tuple[str, str]] = []

    def sign(socket_id: str, channel: str) -> dict[str, str]:
        asked.append((socket_id, channel))
        return {"auth": f"{KEY}:{socket_id}"}

    with Rig(secret_auth=sign) as rig:
        rig.pusher.subscribe("private-a")
        first = rig.open()
        assert first.wait_event("pusher:subscribe")["auth"] == f"{KEY}:{first.socket_id}"
        first.line.drop()
        rig.wait_pause()
        rig.clock.advance(1.2)
        second = rig.server.wait_guest(2)
        assert second.wait_event("pusher:subscribe")["auth"] == f"{KEY}:{second.socket_id}"
        assert asked == [(first.socket_id, "private-a"), (second.socket_id, "private-a")]


def test_a_refused_signature_is_told_and_tried_again_on_the_next_connection() -> None:
    with Rig(secret_auth=lambda *_: "wrong") as rig:
        told: list[Any] = []
        channel = rig.pusher.subscribe("private-a").bind("pusher:subscription_error", told.append)
        guest = rig.open()
        eventually(lambda: [data["status"] for data in told] == [401])
        assert not channel.is_subscribed
        with pytest.raises(NotConnected):
            channel.trigger("client-e", 1)
        guest.line.drop()
        rig.wait_pause()
        rig.clock.advance(1.2)
        eventually(lambda: len(told) == 2)


def refuse(*_: str) -> str:
    raise AuthError("not you", 403)


def crash(*_: str) -> str:
    raise ZeroDivisionError("s3cret")


@pytest.mark.parametrize(("sign", "status"), [(refuse, 403), (crash, None), (lambda *_: "", None)])
def test_a_signature_that_fails_is_that_channels_alone(sign: Any, status: int | None) -> None:
    told: list[Any] = []

    def sometimes(socket_id: str, channel: str) -> Any:
        return sign(socket_id, channel) if channel == "private-bad" else "sig"

    with Rig(secret_auth=sometimes) as rig:
        rig.pusher.subscribe("private-bad").bind("pusher:subscription_error", told.append)
        rig.pusher.subscribe("private-good")
        guest = rig.open()
        assert guest.wait_event("pusher:subscribe")["channel"] == "private-good"
        eventually(lambda: len(told) == 1)
        assert told[0]["type"] == "AuthError"
        assert told[0]["status"] == status
        assert "s3cret" not in str(told)
        rig.pusher.unsubscribe("private-bad")
        rig.pusher.subscribe("c")
        guest.wait_event("pusher:subscribe", 2)
        assert not guest.events("pusher:unsubscribe")  # the server never heard of it


def test_slow_signing_holds_up_neither_events_nor_open_channels() -> None:
    is_asked, go = threading.Event(), threading.Event()

    def slow(_id: str, _channel: str) -> str:
        is_asked.set()
        assert go.wait(PATIENCE)
        return "sig"

    with Rig(secret_auth=slow) as rig:
        told: list[Any] = []
        rig.pusher.subscribe("private-a")
        rig.pusher.subscribe("b").bind("e", told.append)
        guest = rig.open()
        assert is_asked.wait(PATIENCE)
        joined(guest, "b")
        rig.server.trigger("b", "e", 1)
        eventually(lambda: told == [1])
        rig.pusher.unsubscribe("private-a")
        go.set()
        rig.pusher.disconnect()
        assert [data["channel"] for data in guest.events("pusher:subscribe")] == ["b"]


def test_a_signature_for_a_connection_that_is_gone_goes_nowhere() -> None:
    is_asked, go = threading.Semaphore(0), threading.Event()

    def slow(socket_id: str, _channel: str) -> str:
        is_asked.release()
        assert go.wait(PATIENCE)
        return socket_id

    with Rig(secret_auth=slow) as rig:
        rig.pusher.subscribe("private-a")
        first = rig.open()
        assert is_asked.acquire(timeout=PATIENCE)
        first.line.drop()
        rig.wait_pause()
        rig.clock.advance(1.2)
        second = rig.opened(2)
        go.set()
        assert second.wait_event("pusher:subscribe")["auth"] == second.socket_id
        assert len(second.events("pusher:subscribe")) == 1
        assert not first.events("pusher:subscribe")


def test_private_channels_take_somebody_who_signs() -> None:
    pusher = Pusher(KEY, host="localhost")
    for name in ("private-a", "presence-a", "private-encrypted-a", ""):
        with pytest.raises(ValueError):
            pusher.subscribe(name)
    assert not pusher.subscribe("a").is_subscribed


def test_a_subscription_that_cannot_be_sent_ends_the_connection() -> None:
    """The next one begins anew; otherwise the channel would never be subscribed."""
    with Rig() as rig:
        guest = rig.open()
        guest.line.drop()
        rig.wait_pause()
        rig.pusher.subscribe("a")
        rig.clock.advance(1.2)
        joined(rig.opened(2), "a")


@pytest.mark.slow
def test_stress_what_is_wanted_in_the_end_is_what_the_server_has(seed: int) -> None:
    names = ["a", "b", "private-c", "presence-d"]

    def toss(pusher: Pusher, chance: random.Random) -> None:
        for _ in range(200):
            name = chance.choice(names)
            if chance.random() < 0.5:
                pusher.subscribe(name)
            else:
                pusher.unsubscribe(name)

    chance = random.Random(seed)
    with Rig() as rig:
        for round_ in range(1, 16):
            guest = rig.open(round_)
            tossing = [in_thread(toss, rig.pusher, random.Random(chance.random())) for _ in range(4)]
            for future in tossing:
                future.result(PATIENCE)
            wanted = {name for name in names if rig.pusher.channel(name) is not None}
            joined(guest, *wanted)
            eventually(
                lambda wanted=wanted: all(
                    (channel := rig.pusher.channel(name)) is not None and channel.is_subscribed
                    for name in wanted
                )
            )
            guest.line.drop()
            rig.wait_pause()
            rig.clock.advance(40.0)
    assert not issubclass(ConnmanError, OSError)
