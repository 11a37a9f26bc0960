"""Which channels are wanted, and what the server is told of them."""

import json
import random
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from connman.errors import ConnmanError, NotConnected, SendTimeout
from connman.integrations.pusher import AuthError, Event, Pusher, PusherChannel, SecretAuth
from connman.integrations.pusher.subscriptions import Session, Subscriptions
from connman.transport.base import Transport
from tests.integrations.pusher.rig import Rig
from tests.loopback import PATIENCE, in_thread
from tests.pusher_server import KEY, SECRET, Guest
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
        assert [channel.name for channel in rig.pusher.channels] == ["a", "b"]
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
        eventually(lambda: second.is_subscribed)
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


def test_a_listener_of_a_refusal_holds_up_no_other_channel() -> None:
    is_told, go = threading.Event(), threading.Event()

    def keep(_: Any) -> None:
        is_told.set()
        assert go.wait(2 * PATIENCE)

    with Rig(secret_auth=lambda _id, name: "sig" if name == "private-b" else "") as rig:
        rig.pusher.subscribe("private-a").bind("pusher:subscription_error", keep)
        guest = rig.open()
        assert is_told.wait(PATIENCE)
        rig.pusher.subscribe("private-b")
        assert guest.wait_event("pusher:subscribe")["channel"] == "private-b"
        go.set()


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


SUCCEEDED = "pusher_internal:subscription_succeeded"


class Line:
    """A transport of which only what is sent matters."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.before: Callable[[str], object] = lambda name: None

    def send(self, messages: tuple[str], timeout: float) -> None:
        frame = json.loads(messages[0])
        self.before(frame["data"]["channel"])
        self.sent.append((frame["event"], frame["data"]["channel"]))

    def abort(self, error: Exception) -> None:
        self.sent.append(("abort", type(error).__name__))


def session_of(line: Line, number: int = 1) -> Session:
    return Session(cast(Transport, line), 1.0, lambda: True, f"1.{number}")


def nobody(channel: PusherChannel, event: Event) -> None:
    raise AssertionError(f"{channel} was told {event}")


def test_what_an_old_session_says_late_is_not_the_new_ones() -> None:
    """The reader of a link that was given up may have a frame in its hands when the next one has begun."""
    subscriptions = Subscriptions("x", None, nobody)
    channel = subscriptions.add("a")
    old, new = session_of(Line()), session_of(line := Line(), 2)
    subscriptions.begin(old)
    assert subscriptions.wait_idle(PATIENCE)
    subscriptions.begin(new)
    assert subscriptions.wait_idle(PATIENCE)
    assert line.sent == [("pusher:subscribe", "a")]
    assert subscriptions.take(old, Event(SUCCEEDED, {}, "a")) is None
    assert not channel.is_subscribed
    assert subscriptions.take(new, Event(SUCCEEDED, {}, "a")) is not None
    assert channel.is_subscribed


def test_what_was_under_way_for_a_channel_that_was_left_is_not_for_its_successor() -> None:
    subscriptions = Subscriptions("x", None, nobody)
    session = session_of(Line())
    subscriptions.begin(session)
    subscriptions.add("a")
    assert subscriptions.wait_idle(PATIENCE)
    assert subscriptions.take(session, Event("e", 1, "a")) is not None
    subscriptions.remove("a")
    assert subscriptions.take(session, Event("e", 2, "a")) is None
    assert subscriptions.wait_idle(PATIENCE)
    second = subscriptions.add("a")
    assert subscriptions.wait_idle(PATIENCE)
    assert subscriptions.take(session, Event("e", 3, "a")) is None
    assert subscriptions.take(session, Event(SUCCEEDED, {}, "a")) is not None
    assert subscriptions.take(session, Event("e", 4, "a")) == (second, Event("e", 4, "a"))


def test_what_a_server_says_of_a_channel_that_it_was_not_asked_for() -> None:
    subscriptions = Subscriptions("x", None, nobody)
    session = session_of(line := Line())
    # It comes before the subscription has gone out.
    line.before = lambda name: answers.append(subscriptions.take(session, Event("e", 1, "b")))
    answers: list[object] = []
    subscriptions.begin(session)
    subscriptions.add("a")
    assert subscriptions.wait_idle(PATIENCE)
    assert answers == [None]
    assert subscriptions.take(session, Event("e", 1)) is None


@pytest.mark.parametrize(
    ("failure", "sent"),
    [
        (NotConnected("it is ending"), []),
        (SendTimeout("others were sending"), [("abort", "ConnectionLost")]),
    ],
)
def test_a_subscription_that_comes_while_it_ends_does_not_cut_the_goodbye_short(
    failure: Exception, sent: list[tuple[str, str]]
) -> None:
    def fail(_name: str) -> None:
        raise failure

    subscriptions = Subscriptions("x", None, nobody)
    line = Line()
    line.before = fail
    subscriptions.begin(session_of(line))
    subscriptions.add("a")
    assert subscriptions.wait_idle(PATIENCE)
    assert line.sent == sent


@pytest.mark.parametrize("name", ["\ud800", "private-\udfff", 7, None, b"a", 0])
def test_names_that_no_frame_can_carry(name: Any) -> None:
    with pytest.raises(ValueError):
        Subscriptions("x", lambda *_: "sig", nobody).add(name)


def test_names_of_all_characters() -> None:
    with Rig() as rig:
        names = ["\U0001f600", "private-é\n", 'presence-"\\', "a" * 10_000]
        channels = [rig.pusher.subscribe(name) for name in names]
        joined(rig.open(), *names)
        eventually(lambda: all(channel.is_subscribed for channel in channels))


@pytest.mark.parametrize("who", ["server", "signer"])
def test_subscribing_again_asks_again_after_a_refusal(who: str) -> None:
    """Otherwise an endpoint that was down for a moment would cost the channel until the next reconnect."""
    is_up = threading.Event()
    signer = SecretAuth(KEY, SECRET)

    def sign(socket_id: str, channel: str) -> Any:
        if not is_up.is_set():
            return None if who == "signer" else "wrong"
        return signer(socket_id, channel)

    with Rig(secret_auth=sign) as rig:
        told: list[Any] = []
        channel = rig.pusher.subscribe("private-a").bind("pusher:subscription_error", told.append)
        guest = rig.open()
        eventually(lambda: len(told) == 1)
        is_up.set()
        assert rig.pusher.subscribe("private-a") is channel
        eventually(lambda: channel.is_subscribed)
        count = len(guest.events("pusher:subscribe"))
        rig.pusher.subscribe("private-a")
        channel.unsubscribe()
        guest.wait_event("pusher:unsubscribe")
        assert len(guest.events("pusher:subscribe")) == count
        assert len(told) == 1


def test_a_channel_that_is_refused_later_is_not_subscribed() -> None:
    with Rig() as rig:
        told: list[Any] = []
        channel = rig.pusher.subscribe("private-a").bind("e", told.append)
        guest = rig.open()
        eventually(lambda: channel.is_subscribed)
        guest.send("pusher:subscription_error", {"type": "AuthError", "status": 401}, "private-a")
        eventually(lambda: not channel.is_subscribed)
        # The server knows best whom it sends events; and it may have changed its mind.
        guest.send("e", 1, "private-a")
        eventually(lambda: told == [1])
        guest.send(SUCCEEDED, {}, "private-a")
        eventually(lambda: channel.is_subscribed)
        rig.pusher.subscribe("private-a")
        channel.unsubscribe()
        guest.wait_event("pusher:unsubscribe")
        assert len(guest.events("pusher:subscribe")) == 1


def test_names_without_end_are_forgotten() -> None:
    subscriptions = Subscriptions("x", None, nobody)
    subscriptions.begin(session_of(line := Line()))
    names = [f"a{number}" for number in range(1100)]
    for change in (subscriptions.add, subscriptions.remove):
        for name in names:
            change(name)
        assert subscriptions.wait_idle(PATIENCE)
    assert len(line.sent) == 2200
    # No public word counts what it keeps in mind.
    assert max(len(held) for held in vars(subscriptions).values() if isinstance(held, dict)) == 1024


@pytest.mark.plain_locks
@pytest.mark.parametrize("entry", ["subscribe", "unsubscribe", "end", "bind", "unbind"])
def test_a_signal_handler_may_come_in_anywhere(entry: str) -> None:
    """A handler runs in the middle of what the main thread does: it must not wait for a lock that this thread holds."""
    subscriptions = Subscriptions("x", None, nobody)
    subscriptions.begin(session_of(Line()))
    channel = subscriptions.add("a")
    entries: dict[str, Callable[[], object]] = {
        "subscribe": lambda: subscriptions.add("b"),
        "unsubscribe": lambda: subscriptions.remove("b"),
        "end": subscriptions.end,
        "bind": lambda: channel.bind("e", print),
        "unbind": lambda: channel.unbind("e"),
    }

    def handle(frame: Any, event: str, _arg: object) -> Any:
        if "integrations/pusher" in frame.f_code.co_filename and event in ("call", "line"):
            sys.settrace(None)
            for handled in entries.values():
                handled()
            sys.settrace(handle)
        return handle

    sys.settrace(handle)
    try:
        entries[entry]()
    finally:
        sys.settrace(None)


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
            # No further: the next dial may have begun by then, and has its own deadline.
            rig.clock.advance(rig.told.wait("connecting_in", round_))
    assert not issubclass(ConnmanError, OSError)
