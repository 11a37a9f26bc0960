"""Making a connection, telling it to end, and what others may watch of it."""

import threading
from typing import Any

import pytest

import connman
from connman import Connection, State
from connman.errors import InvalidOption, InvalidTarget
from connman.testing import FakeClock, ScriptedDialer
from tests.connection.rig import DEAF, HANG, OPEN, PATIENCE, REFUSED, Rig
from tests.waiting import eventually


def test_making_one_starts_nothing() -> None:
    threads = set(threading.enumerate())
    conn = Connection("ws://localhost:9")
    assert conn.state == State.IDLE
    assert set(threading.enumerate()) <= threads
    assert (conn.generation, conn.last_error, conn.transport_name, conn.subprotocol) == (0, None, None, None)
    assert not conn.is_open


def test_ids_and_names() -> None:
    first, second = Connection("ws://localhost/a?token=secret"), Connection(("localhost", 7))
    assert first.id < second.id
    assert first.name == f"ws://localhost/a?…#{first.id}"
    assert second.name == f"tcp://localhost:7#{second.id}"
    assert Connection(ScriptedDialer([])).name.startswith("ScriptedDialer#")
    assert Connection("ws://localhost", name="mine").name == "mine"


@pytest.mark.parametrize(
    ("target", "options", "error"),
    [
        ("http://localhost", {}, InvalidTarget),
        (None, {}, InvalidTarget),
        ("ws://localhost", {"open_timeout": 0}, InvalidOption),
        ("ws://localhost", {"wait": 3}, InvalidOption),
        ("ws://localhost", {"dispatch": "process"}, InvalidOption),
        ("ws://localhost", {"framing": connman.lines()}, InvalidOption),
        ("tcp://localhost:1", {"compression": "deflate"}, InvalidOption),
        ("tls://localhost:1", {"compression": "deflate"}, InvalidOption),
        ("unix:///tmp/x", {"compression": "deflate"}, InvalidOption),
        ("ws://localhost", {"colour": "red"}, TypeError),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    target: object, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Connection(target, **options)


def test_repr_tells_the_state_and_no_secret() -> None:
    conn = Connection(
        "wss://user:password@localhost/?token=secret", headers={"Authorization": "Bearer secret"}
    )
    assert "idle generation=0" in repr(conn)
    assert not {"secret", "password", "user"} & set(repr(conn).replace(":", " ").replace("?", " ").split())
    assert "secret" not in repr(conn)
    assert "password" not in repr(conn)


# Watching


def watch(rig: Rig) -> list[State]:
    seen: list[State] = []
    rig.conn.watch(lambda _, state: seen.append(state))
    return seen


def test_a_watcher_is_told_of_every_change_once() -> None:
    with Rig([REFUSED, OPEN]) as rig:
        seen = watch(rig)
        rig.fail_through(1)
        peer = rig.open()
        peer.drop()
        rig.wait_delay(2)
        rig.conn.disconnect()
        rig.conn.disconnect()
    assert seen == ["connecting", "waiting", "connecting", "open", "waiting", "closed"]


def test_a_watcher_is_told_of_an_end_while_open_once() -> None:
    with Rig([OPEN]) as rig:
        seen = watch(rig)
        rig.open()
        rig.conn.disconnect()
    assert seen == ["connecting", "open", "closed"]


def test_a_watcher_is_told_that_it_is_idle_again() -> None:
    with Rig([REFUSED, OPEN], reconnect=False) as rig:
        seen = watch(rig)
        rig.conn.get_connected().exception(PATIENCE)
        eventually(lambda: seen == ["connecting", "idle"])
        rig.open()
        # The reader that has just become idle may take the new request, and open, before who asked tells of it.
        eventually(lambda: len(seen) == 4)
        assert seen[:2] == ["connecting", "idle"]
        assert set(seen[2:]) == {"connecting", "open"}


def test_each_watcher_is_told() -> None:
    with Rig([OPEN]) as rig:
        one, two = watch(rig), watch(rig)
        rig.open()
        assert one == two == ["connecting", "open"]


# Ending


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000])
def test_a_code_that_may_not_be_sent_is_refused_before_anything_happens(code: int) -> None:
    with Rig([OPEN]) as rig:
        rig.open()
        for end in (rig.conn.disconnect, rig.conn.end_soon):
            with pytest.raises(ValueError, match=str(code)):
                end(code)
        assert rig.conn.is_open


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 3000, 4999])
def test_code_and_reason_reach_the_peer(code: int) -> None:
    with Rig([OPEN]) as rig:
        peer = rig.open()
        rig.conn.disconnect(code, "because")
        error: Any = peer.wait_closed()
        assert (error.code, error.reason) == (code, "because")


def test_end_soon_does_not_wait_and_the_first_call_counts() -> None:
    with Rig([DEAF]) as rig:
        peer = rig.open()
        rig.conn.end_soon(4001, "first", 99)
        rig.conn.end_soon(4002, "second", 99)
        assert rig.conn.state == State.CLOSED
        assert not rig.conn.wait_gone(0)
        peer.listen()
        assert rig.conn.wait_gone(PATIENCE)
        error: Any = peer.wait_closed()
        assert (error.code, error.reason) == (4001, "first")


def test_has_ended_breaks_what_does_not_end() -> None:
    with Rig([DEAF]) as rig:
        rig.open()
        rig.conn.end_soon(1000, "", 99)
        assert rig.conn.has_ended(0)
        assert rig.told.kinds == ["open", "lost"]


def test_abort_breaks_nothing_that_was_not_told_to_end() -> None:
    with Rig([OPEN]) as rig:
        peer = rig.open()
        rig.conn.abort()
        peer.send("x")
        assert rig.told.wait(2).kinds == ["open", "x"]


def test_without_a_reader_thread_it_is_idle_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    dialer = ScriptedDialer([HANG])
    conn = Connection(dialer, clock=clock)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        error = conn.get_connected().exception(0)
    assert isinstance(error, connman.errors.ConnectError)
    assert "thread" in str(error)
    assert conn.state == State.IDLE
    assert conn.last_error is error
    conn.connect()
    dialer.wait_until_dialled()
    conn.disconnect()
