"""The client with a real server of the protocol."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connman.integrations.pusher import Event, Pusher, PusherError, PusherRefused, SecretAuth
from connman.strategy import Transport
from tests.integrations.pusher.rig import USER, Told
from tests.integrations.pusher.soketi import KEY, PATIENCE, SECRET, Soketi, folder, sockjs_bridge
from tests.loopback import hanging_port
from tests.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(name="where", scope="module")
def fixture_where() -> Path:
    return folder()


@pytest.fixture(name="soketi", scope="module")
def fixture_soketi(where: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soketi]:
    with Soketi(where, tmp_path_factory.mktemp("soketi")) as server:
        yield server


@pytest.fixture(name="client")
def fixture_client(soketi: Soketi) -> Iterator[Callable[..., Pusher]]:
    with contextlib.ExitStack() as stack:

        def make(key: str = KEY, **options: Any) -> Pusher:
            defaults = {
                "host": "127.0.0.1", "port": soketi.port, "tls": False, "proxy": None,
                "secret_auth": SecretAuth(KEY, SECRET, user=USER),
            }  # fmt: skip
            pusher = Pusher(key, **{**defaults, **options})
            stack.callback(pusher.disconnect)
            return pusher

        yield make


def test_events_on_all_kinds_of_channels(soketi: Soketi, client: Callable[..., Pusher]) -> None:
    pusher, told = client(), Told()
    channels = [pusher.subscribe(name) for name in ("open", "private-x", "presence-y")]
    pusher.bind_all(told)
    pusher.connect().wait_connected(PATIENCE)
    eventually(lambda: all(channel.is_subscribed for channel in channels))
    for channel in channels:
        soketi.trigger(channel.name, "tick", {"on": channel.name})
    told.wait("tick", 3)
    assert told.of("tick") == [{"on": channel.name} for channel in channels]
    channels[0].unsubscribe()
    soketi.trigger("private-x", "done", 1)
    told.wait("done")
    soketi.trigger("open", "tick", "nobody's")
    soketi.trigger("private-x", "done", 2)
    told.wait("done", 2)
    assert len(told.of("tick")) == 3


def test_members_and_client_events(client: Callable[..., Pusher]) -> None:
    one, two, told = client(), client(secret_auth=SecretAuth(KEY, SECRET, user={"user_id": "8"})), Told()
    here = one.subscribe("presence-room").bind_all(told)
    one.connect()
    eventually(lambda: here.is_subscribed)
    assert here.members.me.info == USER["user_info"]  # type: ignore[attr-defined]
    events: list[Event] = []
    here.bind_all(events.append)
    there = two.subscribe("presence-room")
    two.connect()
    assert told.wait("pusher:member_added").id == "8"
    eventually(lambda: there.is_subscribed and len(there.members) == 2)  # type: ignore[attr-defined]
    there.trigger("client-hello", {"a": [1, "ä"]})
    assert told.wait("client-hello") == {"a": [1, "ä"]}
    eventually(lambda: ("client-hello", "8") in [(event.name, event.user_id) for event in events])
    two.disconnect()
    assert told.wait("pusher:member_removed").id == "8"


def test_a_wrong_signature_is_refused(client: Callable[..., Pusher]) -> None:
    pusher, told = client(secret_auth=SecretAuth(KEY, "wrong")), Told()
    pusher.subscribe("private-x").bind_all(told)
    pusher.connect()
    assert told.wait("pusher:subscription_error")["status"] == 401
    assert pusher.state == "connected"


def test_an_unknown_key_ends_it(client: Callable[..., Pusher]) -> None:
    pusher = client("unknown")
    with pytest.raises(PusherRefused) as caught:
        pusher.wait_connected(PATIENCE)
    assert caught.value.code == 4001
    eventually(lambda: pusher.state == "disconnected")


def test_it_answers_our_pings(client: Callable[..., Pusher]) -> None:
    pusher, told = client(), Told()
    pusher.connection.bind_all(told)
    pusher.connect().wait_connected(PATIENCE)
    pusher.check_now()
    assert told.wait("message").name == "pusher:pong"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_back_after_a_restart(
    how: signal.Signals, where: Path, tmp_path: Path, client: Callable[..., Pusher]
) -> None:
    with Soketi(where, tmp_path) as server:
        pusher, told = client(port=server.port), Told()
        pusher.connection.bind_all(told)
        channels = [pusher.subscribe(name) for name in ("open", "private-x")]
        pusher.connect()
        eventually(lambda: all(channel.is_subscribed for channel in channels))
        (server.end if how is signal.SIGINT else server.kill)()
        told.wait("connecting", 2)
        assert not any(channel.is_subscribed for channel in channels)
        if how is signal.SIGINT:
            assert any(isinstance(error, PusherError) and error.code == 4200 for error in told.of("error"))
        server.start()
        pusher.reconnect_now()
        told.wait("connected", 2)
        eventually(lambda: all(channel.is_subscribed for channel in channels))
        pusher.disconnect()


# Over HTTP


@pytest.fixture(name="bridge", scope="module")
def fixture_bridge(where: Path, soketi: Soketi) -> Iterator[int]:
    with sockjs_bridge(where, soketi.port) as port:
        yield port


def converse(soketi: Soketi, pusher: Pusher) -> None:
    """Have events both ways, and answer a ping."""
    told = Told()
    pusher.connection.bind_all(told)
    channel = pusher.subscribe("private-http").bind_all(told)
    eventually(lambda: channel.is_subscribed)
    for number in range(100):
        soketi.trigger("private-http", "tick", number)
    told.wait("tick", 100)
    assert told.of("tick") == list(range(100))
    other = Pusher(
        KEY, host="127.0.0.1", port=soketi.port, tls=False, proxy=None, secret_auth=SecretAuth(KEY, SECRET)
    )
    theirs = other.subscribe("private-http").bind_all(told)
    with other:
        eventually(lambda: theirs.is_subscribed)
        channel.trigger("client-from-http", 1)
        assert told.wait("client-from-http") == 1
    pusher.check_now()
    eventually(lambda: any(event.name == "pusher:pong" for event in told.of("message")))


def test_http_where_websockets_do_not_get_through(
    soketi: Soketi, bridge: int, client: Callable[..., Pusher]
) -> None:
    with hanging_port() as nowhere:
        pusher = client(port=nowhere, http=f"http://127.0.0.1:{bridge}/pusher")
        pusher.connect().wait_connected(PATIENCE)
        assert pusher.transport_name == "xhr_streaming"
        converse(soketi, pusher)
        pusher.disconnect()


def test_websockets_first_where_they_do(bridge: int, client: Callable[..., Pusher]) -> None:
    pusher = client(http=f"http://127.0.0.1:{bridge}/pusher")
    pusher.connect().wait_connected(PATIENCE)
    assert pusher.transport_name == "ws"


def test_polling(soketi: Soketi, bridge: int, client: Callable[..., Pusher]) -> None:
    way = Transport(f"xhr-polling+http://127.0.0.1:{bridge}/pusher/app/{KEY}?protocol=7")
    pusher = client(strategy=way)
    pusher.connect().wait_connected(PATIENCE)
    assert pusher.transport_name == "xhr_polling"
    converse(soketi, pusher)


def test_a_refusal_over_http(bridge: int, client: Callable[..., Pusher]) -> None:
    way = Transport(f"xhr-streaming+http://127.0.0.1:{bridge}/pusher/app/unknown?protocol=7")
    with pytest.raises(PusherRefused):
        client(strategy=way).wait_connected(PATIENCE)
