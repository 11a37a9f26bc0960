"""What becomes of a connection: the greeting, the codes, losses, pings, frames of all kinds."""

import json
import ssl
from typing import Any

import pytest
import trustme

from connman.errors import ConnectionLost, HandshakeFailed, PingTimeout, ProtocolError
from connman.integrations.pusher import Event, Pusher, PusherError, PusherRefused, SecretAuth
from connman.integrations.pusher.link import pause
from connman.testing import ScriptedDialer
from tests.integrations.pusher.rig import USER, Rig, Told
from tests.pusher_server import KEY, SECRET, First, PusherServer, closing, error, saying
from tests.waiting import eventually

AT_ONCE, LATER, NEVER = "at once", "after a second", "never"


def check_return(rig: Rig, when: str) -> None:
    """See the second dial come when it should."""
    if when == NEVER:
        rig.told.wait("disconnected")
        assert rig.pusher.state == "disconnected"
        # Told while the transport may still say goodbye, which has a deadline.
        eventually(lambda: rig.clock.pending == 0)
        assert len(rig.dialer.dials) == 1
        return
    # Behind this nobody waits for a greeting any more, who would count as waiting until he runs.
    rig.told.wait("connecting_in" if when == LATER else "error")
    rig.wait_pause()
    if when == LATER:
        [seconds] = rig.told.of("connecting_in")
        assert 1.0 <= seconds <= 1.1
        rig.clock.advance(0.99)
        assert len(rig.dialer.dials) == 1
        rig.clock.advance(0.12)
    else:
        assert rig.told.of("connecting_in") == []
        rig.clock.advance(0.011)
    rig.dialer.wait_until_dialled(2)


AFTER_GREETING = [
    (1000, LATER, 0), (1001, LATER, 0), (1002, LATER, 1), (1011, LATER, 1), (4000, NEVER, 1), (4001, NEVER, 1),
    (4099, NEVER, 1), (4100, LATER, 1), (4199, LATER, 1), (4200, AT_ONCE, 1), (4299, AT_ONCE, 1), (4300, NEVER, 1),
]  # fmt: skip


@pytest.mark.parametrize(("code", "when", "errors"), AFTER_GREETING)
def test_a_close_when_connected(code: int, when: str, errors: int) -> None:
    with Rig() as rig:
        rig.open().line.close(code)
        check_return(rig, when)
        assert len(rig.told.of("error")) == errors
        assert rig.told.states[2] == ("disconnected" if when == NEVER else "connecting")


def test_a_loss_when_connected() -> None:
    with Rig() as rig:
        rig.open().line.drop()
        check_return(rig, LATER)
        [lost] = rig.told.of("error")
        assert isinstance(lost, ConnectionLost)


BEFORE_GREETING = [
    (1000, LATER), (1001, LATER), (1002, LATER), (4000, NEVER), (4001, NEVER), (4099, NEVER), (4100, LATER),
    (4199, LATER), (4200, AT_ONCE), (4299, AT_ONCE), (4300, NEVER),
]  # fmt: skip


@pytest.mark.parametrize(("code", "when"), BEFORE_GREETING)
@pytest.mark.parametrize("how", [closing, error])
def test_a_code_instead_of_a_greeting(how: Any, code: int, when: str) -> None:
    with Rig(PusherServer(how(code), None)) as rig:
        rig.pusher.connect()
        check_return(rig, when)
        if when != NEVER:
            rig.told.wait("connected")
        assert "unavailable" not in rig.told.states


def test_a_loss_instead_of_a_greeting() -> None:
    with Rig(PusherServer(lambda guest: guest.line.drop(), None)) as rig:
        rig.pusher.connect()
        check_return(rig, LATER)
        rig.told.wait("connected")


def test_an_error_without_a_code_is_a_refusal() -> None:
    with Rig(PusherServer(error(None, "s3cret"))) as rig:
        rig.pusher.connect()
        check_return(rig, NEVER)
        [refused] = rig.told.of("error")
        assert isinstance(refused, PusherRefused)
        assert refused.message == "s3cret"
        with pytest.raises(PusherRefused):
            rig.pusher.wait_connected(0)


GARBAGE = [
    "garbage",
    "[]",
    '{"event":"pusher:pong"}',
    '{"event":"pusher:connection_established","data":"{\\"socket_id\\":\\"1.1\\"}"}',
    '{"event":"pusher:connection_established","data":{"socket_id":"1.1","activity_timeout":0}}',
]


@pytest.mark.parametrize("frame", GARBAGE)
def test_garbage_instead_of_a_greeting_is_no_stall(frame: str) -> None:
    """The model stays connecting for ever."""
    with Rig(PusherServer(saying(frame), None)) as rig:
        rig.pusher.connect()
        check_return(rig, LATER)
        rig.told.wait("connected")
        [failed] = rig.told.of("error")
        assert isinstance(failed, HandshakeFailed)
        assert isinstance(failed.__cause__, ProtocolError)


def test_no_greeting_at_all() -> None:
    with Rig(None, ScriptedDialer.DEAF, handshake_timeout=5.0) as rig:
        rig.pusher.connect()
        rig.clock.wait_until_waiting()
        rig.clock.advance(5.0)
        rig.told.wait("error")
        check_return(rig, LATER)


@pytest.mark.parametrize("how", [closing(4000), pytest.param(error(4000), marks=pytest.mark.slow)])
def test_a_server_that_wants_tls_gets_it_at_once(how: First) -> None:
    authority, plain, secure = trustme.CA(), PusherServer(how), PusherServer(None, closing(4000))
    served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(served)
    authority.configure_trust(trusted)
    with plain.listening() as raw, secure.listening(served) as tls:
        pusher = Pusher(
            KEY,
            host="localhost",
            port=raw.port,
            tls=False,
            tls_port=tls.port,
            ssl_context=trusted,
            proxy=None,
        )
        told = Told()
        pusher.connection.bind_all(told)
        with pusher:
            assert pusher.transport_name == "wss"
            assert (len(plain.guests), len(secure.guests)) == (1, 1)
            assert told.of("connecting_in") == []
            # It does not go back; and one that wants TLS though it has it makes no sense.
            secure.guests[0].line.drop()
            told.wait("disconnected")
            assert (len(plain.guests), len(secure.guests)) == (1, 2)


def test_attempts_that_fail_again_and_again_wait_longer() -> None:
    class Failed:
        def __init__(self, number: int, cause: Exception) -> None:
            self.attempt_number = number
            self.outcome = self
            self.cause = cause

        def exception(self) -> Exception:
            return self.cause

    for low, high, number in (
        (1.0, 1.1, 1),
        (1.0, 2.0, 2),
        (2.0, 4.0, 3),
        (16.0, 32.0, 6),
        (16.0, 32.0, 10_000),
    ):
        assert all(low <= pause(Failed(number, ConnectionLost())) <= high for _ in range(50))
    assert pause(Failed(1, PusherError(4200))) == pause(Failed(1, PingTimeout())) == 0.0
    assert pause(Failed(2, PusherError(4200))) >= 1.0


# Frames


def test_bad_json_is_told_and_harms_nothing() -> None:
    with Rig() as rig:
        told: list[Any] = []
        rig.pusher.bind("e", told.append)
        guest = rig.open()
        guest.say("{bad")
        guest.say(json.dumps({"event": "pusher:error", "data": {"code": 4301, "message": "too fast"}}))
        guest.send("e", 1)
        eventually(lambda: told == [1])
        bad, said = rig.told.of("error")
        assert isinstance(bad, ProtocolError)
        assert isinstance(said, PusherError)
        assert said.code == 4301
        assert [event.name for event in rig.told.of("message")] == ["pusher:error", "e"]
        assert rig.pusher.state == "connected"


def test_a_ping_of_the_servers_is_answered() -> None:
    with Rig() as rig:
        guest = rig.open()
        guest.send("pusher:ping", {})
        assert guest.wait_event("pusher:pong") == {}


def test_internal_events_are_nobodys_and_those_of_unknown_channels_too() -> None:
    with Rig() as rig:
        everything: list[Event] = []
        rig.pusher.bind_all(everything.append)
        rig.pusher.subscribe("a")
        guest = rig.open()
        eventually(lambda: len(everything) == 1)
        guest.send("pusher_internal:something", {}, "a")
        guest.send("pusher_internal:something", {})
        guest.send("e", 1, "unknown")
        guest.send("e", 2, "a")
        guest.send("e", 3)
        eventually(lambda: everything[1:] == [Event("e", 2, "a"), Event("e", 3)])


def test_presence() -> None:
    server = PusherServer()
    with Rig(server) as rig, Rig(server, secret_auth=SecretAuth(KEY, SECRET, user={"user_id": "8"})) as other:
        told: list[Any] = []
        channel = rig.pusher.subscribe("presence-x").bind_all(
            lambda event: told.append((event.name, event.data))
        )
        rig.open()
        eventually(lambda: len(told) == 1)
        assert channel.members.me.info == USER["user_info"]  # type: ignore[attr-defined]
        theirs = other.pusher.subscribe("presence-x")
        other.open()
        eventually(lambda: theirs.is_subscribed and len(told) == 2)
        assert told[1][0] == "pusher:member_added"
        assert told[1][1].id == "8"
        theirs.trigger("client-hello", {"a": 1})
        eventually(lambda: told[2:] == [("client-hello", {"a": 1})])
        other.pusher.disconnect()
        eventually(lambda: told[3:] and told[3][0] == "pusher:member_removed")
        assert len(channel.members) == 1  # type: ignore[attr-defined]
        assert len(theirs.members) == 0  # type: ignore[attr-defined]


def test_who_sent_a_client_event_is_in_the_whole_event() -> None:
    with Rig() as rig:
        told: list[Event] = []
        rig.pusher.subscribe("presence-x").bind_all(told.append)
        guest = rig.open()
        eventually(lambda: len(told) == 1)
        guest.say(json.dumps({"event": "client-a", "channel": "presence-x", "data": 1, "user_id": "9"}))
        eventually(lambda: told[1:] == [Event("client-a", 1, "presence-x", "9")])


# Activity


@pytest.mark.parametrize(
    ("options", "server_says"),
    [({"activity_timeout": 20.0}, 120), ({}, 20), ({"activity_timeout": 20.0}, 20)],
)
def test_a_silent_server_is_asked_and_left_at_once(options: Any, server_says: int) -> None:
    with Rig(PusherServer(activity_timeout=server_says), pong_timeout=10.0, **options) as rig:
        guest = rig.open()
        rig.clock.advance(19.9)
        assert not guest.events("pusher:ping")
        rig.clock.advance(0.1)
        assert guest.wait_event("pusher:ping") == {}
        rig.told.wait("message")  # the answer
        eventually(lambda: rig.clock.pending == 1)  # it is noted, too
        rig.server.is_deaf = True
        rig.clock.advance(20)
        guest.wait_event("pusher:ping", 2)
        eventually(lambda: rig.clock.pending == 1)
        # Patience and a second look, and no further: the pause behind it is as short as a hundredth of a second.
        rig.clock.advance(10.101)
        assert isinstance(rig.told.wait("error"), PingTimeout)
        check_return(rig, AT_ONCE)


@pytest.mark.parametrize(("age", "quiet"), [(50, 25), (12, 10)])
def test_after_a_cut_the_server_is_asked_at_half_the_age_of_what_was_cut(age: int, quiet: int) -> None:
    """Since the least of three counts: the client's activity timeout (120), the server's (60), what the cut has taught."""
    with Rig(PusherServer(activity_timeout=60), is_watched=True) as rig:
        guest = rig.open()
        rig.clock.advance(age)
        assert not guest.events("pusher:ping")
        guest.line.drop()
        rig.wait_pause()
        rig.clock.advance(1.1)
        guest = rig.opened(2)
        eventually(lambda: rig.clock.pending == 1)
        rig.clock.advance(quiet - 0.2)
        assert not guest.events("pusher:ping")
        rig.clock.advance(0.2)
        guest.wait_event("pusher:ping")
