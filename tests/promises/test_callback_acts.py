"""Whatever a callback does, nothing waits for ever, pings go on, the order is kept, and the connection lives or ends.

One table: four callbacks, what each may do the first time it is called, and three kinds of threads on which they run.

First seen failing: `run_forever` of websocket-client 1.9.2 ends when `on_open` or `on_message` raises SystemExit or
KeyboardInterrupt, and when one of them has blocked for longer than `ping_timeout`. Of bugs planted in connman, `except
Exception` around the callbacks fails the cells of `exit` and `interrupt`, a `disconnect` that waits on connman's own threads
those of `disconnect` and `end_all`, and pings only while the reader reads those of `block`.
"""

import contextlib
import itertools
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import connman
from connman import Connection, Reset, State
from connman.clock import SystemClock
from connman.connection.sharing import SharedReaders
from connman.errors import ConnectionClosed, HandshakeFailed, WouldDeadlock
from tests.promises.peers import CLOSE, PING, PONG, TEXT, Peers, accept, frame, frames, within
from tests.waiting import eventually

PATIENCE = 10.0  # seconds that only a failing test reaches
GREETINGS = [str(number) for number in range(5)]
PINGS = {"ping_interval": 0.03, "ping_timeout": 5.0}


class Server(Peers):
    """Greet with five messages, echo the rest, count pings, and break off at "drop"."""

    def __init__(self) -> None:
        super().__init__(self._greet_and_echo)
        self.pings: Counter[int] = Counter()  # by socket

    def _greet_and_echo(self, sock: socket.socket) -> None:
        accept(sock)
        sock.sendall(b"".join(map(frame, GREETINGS)))
        for opcode, payload in frames(sock):
            if opcode == PING:
                self.pings[sock.getpeername()[1]] += 1
                sock.sendall(frame(payload, PONG))
            elif opcode == CLOSE:
                sock.sendall(frame(payload, CLOSE))
                return
            elif opcode == TEXT and payload == b"drop":
                return
            else:
                sock.sendall(frame(payload, opcode))


class Scene:
    """A connection whose callback `where` acts the first time, and another one beside it, on the same kind of thread."""

    def __init__(
        self, server: Server, where: str, dispatch: str, act: Callable[["Scene", Any], object]
    ) -> None:
        self.server = server
        self.where = where
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.told: list[tuple[str, Any]] = []
        self.most_inside = self._inside = 0
        self.outcome: object = None
        self._act: Callable[[Scene, Any], object] | None = act
        self._readers = SharedReaders(1, "scene", SystemClock()) if dispatch == "shared" else None
        self._common: dict[str, Any] = {
            "dispatch": "thread" if dispatch == "thread" else "reader", "proxy": None, "wait": lambda _: 0.01,
            "stable_after": 0, "close_timeout": 30.0, **PINGS,
        }  # fmt: skip
        self.conn = self.connection(
            on_open=lambda conn: self._tell("open", conn, conn.generation),
            on_data=lambda conn, data: self._tell("data", conn, data),
            on_reset=lambda conn, reset: self._tell("reset" if reset.opened else "failed", conn, reset),
            handshake=self._log_in,
        )
        self.beside = self.connection()

    def connection(self, **more: Any) -> Connection:
        """Make another connection, read as the one of this scene is."""
        conn = Connection(self.server.url(), **self._common, **more)
        if self._readers is not None:
            conn.read_by(self._readers)
        return conn

    def _log_in(self, channel: Any) -> None:
        if self.where == "handshake":
            self._maybe_act(channel)

    def _tell(self, what: str, conn: Connection, value: Any) -> None:
        self._inside += 1
        self.most_inside = max(self.most_inside, self._inside)
        self.told.append((what, value))
        try:
            if what == self.where:
                self._maybe_act(conn)
        finally:
            self._inside -= 1

    def _maybe_act(self, subject: Any) -> None:
        act, self._act = self._act, None
        if act is not None:
            try:
                self.outcome = act(self, subject)
            finally:
                self.entered.set()

    def __enter__(self) -> "Scene":
        self.beside.wait_open(PATIENCE)
        self.conn.connect()
        if self.where == "reset":
            eventually(lambda: len(self.data()) >= len(GREETINGS), PATIENCE)
            self.conn.send("drop")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.go_on.set()
        self.conn.disconnect(timeout=1.0)
        self.beside.disconnect(timeout=1.0)

    def data(self) -> list[Any]:
        return [value for what, value in self.told if what == "data"]

    def check(self) -> None:
        """One callback at a time; each generation is told as open, then its data in order, then its reset."""
        assert self.most_inside == 1
        # A login that has received took what it received.
        is_open, taken = False, self.outcome == GREETINGS[0]
        expected = iter(GREETINGS)
        for what, value in self.told:
            assert is_open == (what in ("data", "reset")), self.told
            if what == "open":
                is_open, expected = True, itertools.chain(GREETINGS[taken:], itertools.repeat(None))
                taken = False
            elif what == "data" and (due := next(expected)) is not None:
                assert value == due, self.told
            elif what == "reset":
                is_open = False

    def check_alive(self) -> None:
        """It carries messages, or does so again; the one beside it has never been lost."""

        def is_answered() -> bool:
            with contextlib.suppress(connman.ConnmanError):
                self.conn.send("there?", wait=PATIENCE)
            return "there?" in self.data()

        eventually(is_answered, PATIENCE, lambda: f"an answer: {self.told}")
        assert self.beside.generation == 1
        assert self.beside.is_open

    def check_pinged(self, connections: int) -> None:
        """The timers' thread is not held up: that many connections are pinged as often as they should be."""
        before = self.server.pings.copy()

        def pinged() -> bool:
            return (
                sum(count >= before[port] + 3 for port, count in self.server.pings.copy().items())
                >= connections
            )

        eventually(pinged, 2.0, "three pings of 0.03 s")


# What a callback does. What it returns is its outcome.


def fail(_: Scene, __: Any) -> object:
    raise RuntimeError("the user's mistake")


def exit(_: Scene, __: Any) -> object:
    sys.exit(3)


def interrupt(_: Scene, __: Any) -> object:
    raise KeyboardInterrupt


def block(scene: Scene, _: Any) -> object:
    scene.entered.set()
    return scene.go_on.wait(PATIENCE)


def send(_: Scene, subject: Any) -> object:
    return _outcome(lambda: subject.send("from inside"))


def receive(_: Scene, subject: Any) -> object:
    """Not for connections with an `on_data`; a handshake may."""
    return _outcome(lambda: subject.recv(PATIENCE))


def wait(scene: Scene, _: Any) -> object:
    """For what the waiting thread has to do itself."""
    return [
        _outcome(call)
        for call in (lambda: scene.conn.get_connected().result(PATIENCE), lambda: scene.conn.wait_closed(PATIENCE))
    ]  # fmt: skip


def reconnect(scene: Scene, _: Any) -> object:
    scene.conn.reconnect_now()
    return scene.conn.connect().get_connected()


def start_others(scene: Scene, _: Any) -> object:
    with connman.Manager() as manager:  # which waits for nobody in here
        pool = manager.create_pool("inside", url=scene.server.url(), size=2, readers=1, proxy=None)
        pool.connect()
    return scene.connection().connect()


def disconnect(scene: Scene, _: Any) -> object:
    return scene.conn.disconnect()


def end_all(scene: Scene, _: Any) -> object:
    scene.beside.disconnect()
    return scene.conn.disconnect()


def _outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except (connman.ConnmanError, TypeError) as error:
        return type(error)


LIVES = [fail, exit, interrupt, block, send, receive, wait, reconnect, start_others]
ENDS = [disconnect, end_all]
WHERE = ["open", "data", "reset", "handshake"]
QUICK = {exit, block, disconnect}  # on one kind of thread each, the other cells are slow


def cases(acts: list[Callable[[Scene, Any], object]]) -> Iterator[Any]:
    for dispatch, where, act in itertools.product(("reader", "thread", "shared"), WHERE, acts):
        is_quick = act in QUICK and (dispatch == "shared" or where == "data")
        yield pytest.param(
            where, act, dispatch,
            marks=[] if is_quick else pytest.mark.slow, id=f"{where}-{act.__name__}-{dispatch}",
        )  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.mark.parametrize(("where", "act", "dispatch"), list(cases(LIVES)))
def test_a_connection_lives_through(
    server: Server, where: str, act: Callable[[Scene, Any], object], dispatch: str
) -> None:
    with Scene(server, where, dispatch, act) as scene:
        assert scene.entered.wait(PATIENCE)
        if act is block:
            scene.check_pinged(2 if where in ("open", "data") else 1)
            scene.go_on.set()
        scene.check_alive()
        scene.check_pinged(2)
        is_over = isinstance(scene.outcome, Connection) and scene.outcome is not scene.conn
        if is_over:
            assert isinstance(scene.outcome, Connection)
            scene.outcome.wait_open(PATIENCE)
            scene.outcome.disconnect()
    scene.check()
    raises = act in (fail, exit, interrupt)
    if where == "handshake":
        failures = [value.error for what, value in scene.told if what == "failed"]
        assert [type(error) for error in failures] == [HandshakeFailed] * raises
        check_handshake_outcome(act, scene.outcome, dispatch)
    else:
        assert scene.conn.stats.callback_errors == raises
        check_outcome(act, scene.outcome, where, dispatch)


def check_outcome(act: object, outcome: object, where: str, dispatch: str) -> None:
    """What the calls inside a callback came to: refused at once where they could never end."""
    if act is receive:
        assert outcome is TypeError
    elif act is send:
        assert outcome in ((None,) if where != "reset" else (None, connman.errors.NotConnected))
    elif act is wait:
        assert isinstance(outcome, list)
        # Open: the Future is done. Behind a loss only another thread than the reader can wait for the next one.
        refused = where == "reset" and dispatch != "thread"
        assert (outcome[0] is WouldDeadlock) == refused
        assert outcome[1] is WouldDeadlock


def check_handshake_outcome(act: object, outcome: object, dispatch: str) -> None:
    if act is receive:
        assert outcome == GREETINGS[0]
    elif act is wait:
        assert outcome == [WouldDeadlock] * 2, dispatch


@pytest.mark.parametrize(("where", "act", "dispatch"), list(cases(ENDS)))
def test_a_connection_ends_by(
    server: Server, where: str, act: Callable[[Scene, Any], object], dispatch: str
) -> None:
    with Scene(server, where, dispatch, act) as scene:
        assert scene.entered.wait(PATIENCE)
        within(3.0, scene.conn.disconnect)
        count = len(scene.told)
        assert scene.conn.state is State.CLOSED
        with pytest.raises(ConnectionClosed):
            scene.conn.wait_open(0)
        assert scene.beside.is_open == (act is disconnect)
        if act is disconnect:
            scene.check_pinged(1)
        assert len(scene.told) == count, "a callback behind the end"
    last = scene.told[-1] if scene.told else None
    if last is not None and where != "handshake":
        assert last[0] in ("reset", "failed")
        assert isinstance(last[1], Reset)
    scene.check()
    eventually(lambda: server.is_deserted, PATIENCE, "the server's side to have ended as well")
