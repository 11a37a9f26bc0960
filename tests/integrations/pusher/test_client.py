"""The client as its user sees it: connecting, ending, states, threads, and what must never happen."""

import contextlib
import copy
import itertools
import os
import random
import sys
import threading
from typing import Any, ClassVar

import pytest

import connman
from connman.errors import ConnectError, ConnmanError, InvalidOption, NotConnected, WaitTimeout, WouldDeadlock
from connman.integrations.pusher import Pusher, SecretAuth
from connman.testing import ScriptedDialer
from tests.integrations.pusher.rig import Rig
from tests.interrupts import CtrlC, Interrupter, within
from tests.loopback import PATIENCE, in_thread
from tests.pusher_server import KEY, SECRET, Guest, PusherServer, error
from tests.waiting import eventually

TOO_FAST = '{"event":"pusher:error","data":{"code":4301,"message":"too fast"}}'


def test_a_conversation_over_a_real_websocket() -> None:
    server = PusherServer()
    with server.listening() as raw:
        pusher = Pusher(
            KEY, host="127.0.0.1", port=raw.port, tls=False, secret_auth=SecretAuth(KEY, SECRET), proxy=None
        )
        told: list[Any] = []
        pusher.subscribe("prices").bind("tick", told.append)
        private = pusher.subscribe("private-x")
        with pusher:
            assert pusher.transport_name == "ws"
            steps = [(step.leaf, step.phase, step.cause) for step in pusher.attempts]
            assert steps == [("ws", "tcp", None), ("ws", "upgrade", None), ("ws", "handshake", None)]
            assert pusher.connection.socket_id == server.guests[0].socket_id
            eventually(lambda: private.is_subscribed and "prices" in server.guests[0].channels)
            server.trigger("prices", "tick", {"price": 1})
            eventually(lambda: told == [{"price": 1}])
            private.trigger("client-last", "word")
        assert pusher.state == "disconnected"
        assert pusher.transport_name is None
        # What was sent before the end has arrived.
        assert server.guests[0].wait_event("client-last") == "word"


def test_inert_until_connected() -> None:
    before = set(threading.enumerate())
    pusher = Pusher(KEY, cluster="eu", secret_auth=SecretAuth(KEY, SECRET))
    pusher.subscribe("private-x")
    assert set(threading.enumerate()) <= before
    assert pusher.state == "initialized"
    assert pusher.transport_name is None
    assert pusher.attempts == ()
    assert repr(pusher) == "<Pusher pusher initialized>"
    pusher.reconnect_now()
    pusher.check_now()


@pytest.mark.parametrize(
    "options",
    [
        {"dispatch": "thread"}, {"framing": connman.lines()}, {"activity_timeout": 0}, {"pong_timeout": -1},
        {"unavailable_timeout": "x"}, {"secret_auth": "secret"}, {"open_timeout": 0}, {"http": "ftp://h/"},
        {"cluster": "eu"}, {"handshake_timeout": -1}, {"retry_if": 1},
    ],
)  # fmt: skip
def test_options_that_cannot_work(options: Any) -> None:
    with pytest.raises(InvalidOption):
        Pusher(KEY, **({"host": "h"} | options))


def test_an_unknown_option() -> None:
    with pytest.raises(TypeError):
        Pusher(KEY, host="h", colour="red")  # type: ignore[call-arg]


# Connecting and ending


def test_there_is_no_twin() -> None:
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.copy(Pusher(KEY, cluster="eu"))


def test_many_connects_are_one_connection() -> None:
    with Rig() as rig:
        for _ in range(3):
            rig.pusher.connect()
        rig.told.wait("connected")
        rig.pusher.connect()
        assert len(rig.dialer.dials) == 1
        assert rig.told.states == ["connecting", "connected"]


def test_connect_in_the_pause_connects_at_once_and_only_once() -> None:
    with Rig() as rig:
        rig.open().line.drop()
        rig.wait_pause()
        rig.pusher.connect()
        guest = rig.opened(2)
        rig.clock.advance(5.0)
        assert not guest.is_gone
        assert len(rig.dialer.dials) == 2


def test_three_times_the_network_is_back_is_one_attempt() -> None:
    with Rig() as rig:
        rig.open().line.drop()
        rig.wait_pause()
        for _ in range(3):
            rig.pusher.reconnect_now()
        rig.opened(2)
        for _ in range(3):
            rig.pusher.reconnect_now()
        assert len(rig.dialer.dials) == 2
        assert rig.pusher.state == "connected"


def test_disconnect_in_the_pause_is_the_end() -> None:
    with Rig() as rig:
        rig.open().line.drop()
        rig.wait_pause()
        rig.pusher.disconnect()
        rig.clock.advance(60)
        rig.pusher.reconnect_now()
        assert len(rig.dialer.dials) == 1
        assert rig.clock.pending == 0
        assert rig.told.states[-2:] == ["connecting", "disconnected"]


def test_disconnect_is_told_once_and_from_every_state() -> None:
    with Rig() as rig:
        rig.pusher.disconnect()
        rig.pusher.disconnect()
        assert rig.told.states == ["disconnected"]
        rig.open()
        rig.pusher.disconnect()
        rig.pusher.disconnect()
        assert rig.told.states == ["disconnected", "connecting", "connected", "disconnected"]


def test_waiting_for_the_end() -> None:
    with Rig(None, ConnectionRefusedError, reconnect=False) as rig:
        rig.pusher.connect()
        with pytest.raises(ConnectError):
            rig.pusher.wait_closed(PATIENCE)
        rig.open(1)
        with pytest.raises(WaitTimeout):
            rig.pusher.wait_closed(0)
        waiting = in_thread(rig.pusher.wait_closed)
        rig.pusher.disconnect()
        waiting.result(PATIENCE)


def test_disconnect_while_it_dials() -> None:
    with Rig(None, ScriptedDialer.HANG) as rig:
        rig.pusher.connect()
        rig.dialer.wait_until_dialled()
        rig.pusher.disconnect()
        assert rig.told.states == ["connecting", "disconnected"]
        assert rig.server.guests == []


def test_connect_and_disconnect_in_one_go_and_again() -> None:
    with Rig() as rig:
        channel = rig.pusher.subscribe("a")
        for _ in range(20):
            rig.pusher.connect()
            rig.pusher.disconnect()
        rig.pusher.connect().wait_connected(PATIENCE)
        eventually(lambda: channel.is_subscribed)
        # The server's side of those that were given up ends in its own time.
        eventually(lambda: sum(not guest.is_gone for guest in rig.server.guests) == 1)


def test_connecting_again_while_another_thread_is_still_disconnecting() -> None:
    """The end of the old connection took the subscriptions of the new one with it."""
    go = threading.Event()

    def greet_and_sit(guest: Guest) -> None:
        server.greet(guest)
        assert go.wait(PATIENCE)

    server = PusherServer(greet_and_sit, None)
    with server.listening() as raw:
        pusher = Pusher(KEY, host="127.0.0.1", port=raw.port, tls=False, proxy=None)
        channel = pusher.subscribe("a")
        with pusher:
            ending = in_thread(lambda: pusher.disconnect(timeout=PATIENCE))
            eventually(lambda: pusher.state == "disconnected")
            pusher.connect().wait_connected(PATIENCE)
            eventually(lambda: channel.is_subscribed)
            assert not ending.done()
            go.set()
            ending.result(PATIENCE)
            assert channel.is_subscribed
            assert pusher.state == "connected"


class OwnPoints(Interrupter):
    """Only the client's own code is interrupted; that of connections has tests like this of its own."""

    def _reach(self, frame: Any, what: str) -> None:
        if "integrations/pusher" in frame.f_code.co_filename:
            super()._reach(frame, what)


@pytest.mark.slow
@pytest.mark.plain_locks
@pytest.mark.parametrize("cut", ["disconnect", "connect", "subscribe", "unsubscribe"])
def test_after_a_ctrl_c_anywhere_it_can_be_ended_and_used_again(cut: str) -> None:
    """A disconnect() that was cut left the connection open for ever, and a subscribe() left all later ones unsent."""
    for point in itertools.count(1):
        with Rig(close_timeout=0.02) as rig:
            pusher, guests = rig.pusher, rig.server.guests
            pusher.subscribe("b")
            if cut != "connect":
                rig.open()
            interrupter = OwnPoints(point)
            with contextlib.suppress(CtrlC), interrupter:
                getattr(pusher, cut)(*{"subscribe": ["a"], "unsubscribe": ["b"]}.get(cut, []))
            where = str(interrupter.where)
            within(pusher.disconnect, f"disconnect() after {where}")
            eventually(lambda guests=guests: all(guest.is_gone for guest in guests), message=where)
            assert pusher.state == "disconnected", where
            within(
                lambda pusher=pusher: pusher.connect().wait_connected(PATIENCE), f"connect() after {where}"
            )
            channel = pusher.subscribe("c")
            eventually(lambda channel=channel: channel.is_subscribed, message=where)
        if interrupter.where is None:
            break
    assert point > 5


def test_connect_after_it_failed() -> None:
    with Rig(PusherServer(error(4001), None)) as rig:
        rig.pusher.connect()
        rig.told.wait("disconnected")
        rig.pusher.connect().wait_connected(PATIENCE)
        # Who waits is woken first, the listeners are told then.
        eventually(lambda: rig.told.states == ["connecting", "disconnected", "connecting", "connected"])


def test_what_no_attempt_can_help_is_failed() -> None:
    with Rig(None, connman.Fatal("no way")) as rig:
        with pytest.raises(connman.Fatal):
            rig.pusher.wait_connected(PATIENCE)
        rig.told.wait("failed")
        assert rig.pusher.state == "failed"
        rig.pusher.connect().wait_connected(PATIENCE)


def test_without_reconnecting_a_failure_is_the_end() -> None:
    with Rig(None, ConnectionRefusedError, reconnect=False) as rig:
        with pytest.raises(ConnectError):
            rig.pusher.wait_connected(PATIENCE)
        rig.told.wait("failed")
        rig.open(1).line.drop()
        rig.told.wait("disconnected")


def test_unavailable_and_back() -> None:
    with Rig(None, ScriptedDialer.HANG) as rig:
        rig.pusher.connect()
        rig.dialer.wait_until_dialled()
        rig.clock.advance(10.1)
        rig.told.wait("unavailable")
        with pytest.raises(WaitTimeout):
            rig.pusher.wait_connected(0)
        rig.clock.wait_until_waiting()
        rig.clock.advance(20.0)  # of the 30 s that an attempt may take
        rig.told.wait("connecting_in")
        rig.wait_pause()
        rig.clock.advance(1.2)
        rig.told.wait("connected")
        assert rig.told.states == ["connecting", "unavailable", "connected"]


def test_ended_by_disconnect_all() -> None:
    with Rig() as rig:
        rig.open()
        rig.manager.disconnect_all()
        rig.told.wait("disconnected")
        assert rig.pusher.state == "disconnected"
        rig.pusher.connect().wait_connected(PATIENCE)
        rig.server.guests[-1].line.drop()
        rig.wait_pause()
        rig.manager.disconnect_all()
        rig.told.wait("disconnected", 2)


# Sending


def test_client_events_want_a_subscription() -> None:
    with Rig() as rig:
        channel = rig.pusher.subscribe("private-x")
        with pytest.raises(NotConnected):
            channel.trigger("client-a")
        guest = rig.open()
        eventually(lambda: channel.is_subscribed)
        channel.trigger("client-a", 1)
        guest.wait_event("client-a")
        guest.line.drop()
        rig.wait_pause()
        with pytest.raises(NotConnected):
            channel.trigger("client-a", 2)
        rig.pusher.disconnect()
        with pytest.raises(NotConnected):
            channel.trigger("client-a", 3)
        assert guest.events("client-a") == [1]


def test_a_check_that_is_not_answered() -> None:
    with Rig() as rig:
        guest = rig.open()
        rig.server.is_deaf = True
        rig.pusher.check_now()
        guest.wait_event("pusher:ping")
        assert rig.pusher.state == "connected"
        eventually(lambda: rig.clock.pending == 1)
        rig.clock.advance(30.0)
        # It looks again until it is sure, and comes back after a pause, which may begin within a step of the clock.
        eventually(lambda: rig.clock.advance(0.1) or rig.told.of("error"))
        eventually(lambda: rig.clock.advance(0.1) or len(rig.told.of("connected")) == 2)


# Listeners


@pytest.mark.parametrize(
    "event", ["state_change", "connecting", "connected", "disconnected", "error", "connecting_in", "message"]
)
def test_a_listener_that_raises_stops_nothing(event: str) -> None:
    def crash(_: Any) -> None:
        raise ZeroDivisionError

    with Rig() as rig:
        rig.told.hooks[event] = crash
        seen: list[Any] = []
        rig.pusher.connection.bind(event, seen.append)
        rig.pusher.bind("e", lambda _: crash(None))
        rig.pusher.bind("e", seen.append)
        guest = rig.open()
        guest.send("e", 1)
        eventually(lambda: 1 in seen)
        guest.line.drop()
        rig.wait_pause()
        rig.clock.advance(1.2)
        rig.opened(2)
        rig.pusher.disconnect()
        assert rig.told.states == ["connecting", "connected", "connecting", "connected", "disconnected"]
        assert rig.told.of(event)


def test_listeners_run_on_the_reader_and_waiting_there_would_never_end() -> None:
    with Rig() as rig:
        caught: list[BaseException | None] = []

        def wait(_: Any) -> None:
            with pytest.raises(WouldDeadlock) as error:
                rig.pusher.wait_connected()
            caught.append(error.value)

        rig.told.hooks["error"] = wait
        guest = rig.open()
        guest.send("e")
        rig.told.wait("message")
        assert rig.told.threads[rig.told.events.index(rig.told.events[-1])] == "connman-reader-rig"
        guest.line.drop()
        rig.told.wait("error")
        eventually(lambda: len(caught) == 1)


def test_disconnecting_inside_a_listener() -> None:
    with Rig() as rig:
        seen: list[Any] = []
        channel = rig.pusher.subscribe("a")
        channel.bind("e", lambda _: rig.pusher.disconnect())
        channel.bind("e", seen.append)
        guest = rig.open()
        eventually(lambda: "a" in guest.channels)
        guest.send("e", 1, "a")
        guest.send("e", 2, "a")
        rig.told.wait("disconnected")
        eventually(lambda: guest.is_gone)
        assert seen == []  # nothing after the end, not even the next listener
        assert rig.told.overlaps == 0


def test_a_listener_that_leaves_its_channel_is_the_last() -> None:
    with Rig() as rig:
        seen: list[Any] = []
        channel = rig.pusher.subscribe("a")
        channel.bind("e", lambda _: channel.unsubscribe())
        channel.bind("e", seen.append)
        guest = rig.open()
        eventually(lambda: "a" in guest.channels)
        guest.send("e", 1, "a")
        guest.wait_event("pusher:unsubscribe")
        assert seen == []


def test_after_disconnect_no_listener_runs() -> None:
    with Rig() as rig:
        inside, go = threading.Event(), threading.Event()

        def keep(_: Any) -> None:
            inside.set()
            assert go.wait(PATIENCE)

        rig.pusher.bind("e", keep)
        guest = rig.open()
        guest.send("e", 1)
        guest.send("e", 2)
        assert inside.wait(PATIENCE)
        ending = in_thread(rig.pusher.disconnect)
        eventually(lambda: rig.pusher.state == "disconnected")
        assert not ending.done()
        go.set()
        ending.result(PATIENCE)
        inside.clear()
        count = len(rig.told.events)
        assert rig.told.events[-1][0] == "disconnected"
        assert not inside.is_set()
        assert len(rig.told.events) == count


def test_a_child_has_a_client_as_if_just_made() -> None:
    with Rig() as rig:
        rig.pusher.subscribe("a")
        rig.open()
        pid = os.fork()
        if pid == 0:
            is_right = rig.pusher.state == "initialized" and rig.pusher.channel("a") is not None
            os._exit(0 if is_right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert rig.pusher.state == "connected"


@pytest.mark.slow
def test_stress_everything_from_everywhere(seed: int) -> None:
    """Threads, listeners and whoever signs all do what they like, over real sockets; afterwards it works as ever."""
    names = ["a", "b", "private-c", "private-d", "presence-e"]
    chance, signer, overlaps = random.Random(seed), SecretAuth(KEY, SECRET, user={"user_id": 7}), []
    inside, is_over, under_way = threading.Lock(), threading.Event(), list[str]()

    def meddle(*_: Any) -> None:
        name = chance.choice(names)
        deed = chance.choices(
            [pusher.disconnect, pusher.connect, lambda: pusher.subscribe(name), lambda: pusher.unsubscribe(name), lambda: 1 / 0, str],
            [1, 2, 4, 4, 2, 300],
        )  # fmt: skip
        under_way.append(name)
        try:
            if not is_over.is_set():
                deed[0]()
        finally:
            under_way.remove(name)

    def sign(socket_id: str, channel: str) -> Any:
        meddle()
        return signer(socket_id, channel) if chance.random() < 0.95 else chance.choice([None, "", {}, 1])

    def listen(_: Any) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(threading.current_thread().name)
            return
        try:
            meddle()
        finally:
            inside.release()

    def toss(own: random.Random) -> None:
        for _ in range(3000):
            name = own.choice(names)
            with contextlib.suppress(ConnmanError):
                own.choice(
                    [
                        lambda: pusher.subscribe(name).bind("client-x", listen),  # noqa: B023  # called at once
                        lambda: pusher.unsubscribe(name),  # noqa: B023  # called at once
                        lambda: pusher.bind("e", listen).unbind("e", listen),
                        lambda: [
                            channel.trigger("client-x", 1)
                            for channel in pusher.channels
                            if channel.is_private
                        ],
                        lambda: (
                            own.random() < 0.05 and pusher.disconnect(timeout=own.choice([0, 0.05, None]))
                        ),
                        # The network, and whoever signs, have their turn.
                        lambda: threading.Event().wait(0.002),
                        lambda: pusher.connect().wait_connected(0.5),
                        lambda: pusher.connect().wait_connected(0.5),
                        lambda: (
                            server.guests[-1].line.drop() if server.guests and own.random() < 0.1 else None
                        ),
                        lambda: (
                            server.guests[-1].say(own.choice(["{", "[]", TOO_FAST]))
                            if server.guests
                            else None
                        ),
                        lambda: (pusher.reconnect_now(), pusher.check_now(), repr(pusher)),
                    ]
                )()

    class Strict(PusherServer):
        """One that takes each word for itself: nothing twice, nothing without need, no signature of another session."""

        wrong: ClassVar[list[Any]] = []

        def _join(self, guest: Guest, data: dict[str, Any]) -> None:
            if data["channel"] in guest.channels or (
                "auth" in data and data["auth"] != self._signed(guest, data)
            ):
                self.wrong.append(data)
            super()._join(guest, data)

        def _leave(self, guest: Guest, channel: str) -> None:
            if channel not in guest.channels:
                self.wrong.append(channel)
            super()._leave(guest, channel)

    server, before = Strict(), sys.getswitchinterval()
    with server.listening() as raw:
        pusher = Pusher(
            KEY, host="127.0.0.1", port=raw.port, tls=False, proxy=None, secret_auth=sign,
            wait=lambda _: 0.01, close_timeout=0.2, stable_after=0, manager=connman.Manager(),
        )  # fmt: skip
        pusher.connection.bind_all(listen)
        pusher.bind_all(listen)
        sys.setswitchinterval(1e-6)
        try:
            for future in [in_thread(toss, random.Random(chance.random())) for _ in range(4)]:
                future.result(PATIENCE * 5)
        finally:
            sys.setswitchinterval(before)
        pusher.connection.unbind_all()
        pusher.unbind_all()
        # Who was called before that may still be about to end it, or to sign for a channel that he subscribed to.
        is_over.set()
        eventually(lambda: not under_way)
        pusher.disconnect()
        for channel in pusher.channels:
            channel.unsubscribe()
        assert not overlaps
        assert not server.wrong
        after = pusher.subscribe("after")
        with pusher:
            eventually(lambda: after.is_subscribed)
            assert sum("after" in guest.channels and not guest.is_gone for guest in server.guests) == 1
