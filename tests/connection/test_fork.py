"""Forks and the interpreter's end, in real processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connman import Connection, State
from connman.errors import ConnectionClosed, Forked, NotConnected
from connman.threads import is_own
from tests.connection.rig import HANG, OPEN, PATIENCE, REFUSED, Rig
from tests.loopback import Server, echo, hanging_port, in_thread, refusing_port, silent
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
# Seconds: the promise is 2.5 for all connections together; a machine that does many things at once gets as much again.
LIMIT = 5.0

# Python 3.12 and later warn of what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def in_child(function: Callable[[], Any]) -> str:
    """Run `function` in a forked child that a hang does not survive; return what it returned, as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        outcome = "nothing"
        try:
            signal.alarm(int(PATIENCE))
            os.close(reading)
            outcome = f"{function()}"
        except BaseException as error:  # noqa: BLE001  # told by the parent
            outcome = f"raised {error!r}"
        finally:
            os.write(writing, outcome.encode())
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        outcome = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}: {outcome}"
    return outcome


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(echo) as server:
        yield server


def talk(conn: Connection, text: bytes) -> bool:
    """Say something to an echo and hear it."""
    conn.send(text, wait=PATIENCE)
    heard = b""
    while len(heard) < len(text):
        message = conn.recv(PATIENCE)
        assert isinstance(message, bytes)
        heard += message
    return heard == text


# Forks


def test_in_a_child_it_is_idle_and_dials_anew_while_the_parents_goes_on(server: Server) -> None:
    with Connection(("127.0.0.1", server.port)) as conn:
        assert talk(conn, b"before")

        def child() -> tuple[Any, ...]:
            first = (conn.state, conn.generation, conn.transport_name)
            return *map(str, first), talk(conn, b"child"), conn.generation, conn.state.value

        assert in_child(child) == "('idle', '0', 'None', True, 1, 'open')"
        assert server.accepted == 2
        assert talk(conn, b"after")
        assert (conn.generation, conn.state) == (1, "open")


def test_a_child_does_not_close_the_parents_connection_when_it_ends_in_order(server: Server) -> None:
    with Connection(("127.0.0.1", server.port)) as conn:
        assert talk(conn, b"before")
        assert in_child(lambda: (talk(conn, b"child"), conn.disconnect(), conn.state.value)[2]) == "closed"
        assert talk(conn, b"after")


@pytest.mark.parametrize("phase", ["idle", "dialling", "waiting", "open"])
def test_a_child_finds_it_idle_in_every_phase(phase: str) -> None:
    script = {"dialling": [HANG, OPEN], "waiting": [REFUSED, OPEN], "open": [OPEN, OPEN]}.get(phase, [OPEN])
    with Rig(script) as rig:
        future = None if phase == "idle" else rig.conn.get_connected()
        if phase == "dialling":
            rig.dialer.wait_until_dialled()
        elif phase == "waiting":
            rig.wait_delay(1)
        elif phase == "open":
            rig.open()
        state = rig.conn.state

        def child() -> tuple[str, bool, str]:
            assert future is None or future.done()  # also for those who only look, or left a callback
            before = rig.conn.state.value
            fresh = rig.conn.get_connected()
            fresh.result(PATIENCE)
            inherited = None if future is None else type(future.exception(PATIENCE)).__name__
            return before, fresh is not future, str(inherited)

        inherited = Forked.__name__ if phase in ("dialling", "waiting") else type(None).__name__
        assert in_child(child) == f"('idle', True, '{'None' if phase == 'idle' else inherited}')"
        assert rig.conn.state == state
        assert future is None or future is rig.conn.get_connected()


def test_in_a_child_one_that_was_ended_stays_ended() -> None:
    with Rig([OPEN], on_data=None) as rig:
        seen: list[State] = []
        rig.conn.watch(lambda _, state: seen.append(state))
        rig.open()
        rig.conn.disconnect(4321)
        seen.clear()

        def child() -> tuple[str, str, str, int]:
            asked = rig.conn.get_connected().exception(0)
            try:
                rig.conn.recv(0)
            except ConnectionClosed as error:
                return rig.conn.state.value, str(asked), str(error), len(seen)
            return ("received", "", "", 0)

        error = str(ConnectionClosed(4321))
        assert in_child(child) == repr(("closed", error, error, 0))


def test_a_child_keeps_what_on_reset_returned_and_its_watchers() -> None:
    opened: list[str] = []
    rig = Rig([REFUSED, OPEN, OPEN])
    rig.told.hooks["reset"] = lambda *_: lambda _: opened.append("new")
    seen: list[str] = []
    rig.conn.watch(lambda _, state: seen.append(state.value))
    with rig:
        rig.fail_through(1)
        rig.open()
        eventually(lambda: opened == ["new"])
        seen.clear()

        def child() -> list[str]:
            rig.conn.wait_open(PATIENCE)
            eventually(lambda: opened == ["new", "new"])
            return seen

        assert in_child(child) == "['connecting', 'open']"


def test_recv_and_iteration_in_a_child() -> None:
    with Rig([OPEN], on_data=None) as rig:
        rig.open().send("the parent's")
        eventually(lambda: rig.conn.stats.messages_in == 1)

        def child() -> str:
            with contextlib.suppress(NotConnected):
                rig.conn.recv(0)
                return "got the parent's message"
            return "nothing there"

        assert in_child(child) == "nothing there"
        assert rig.conn.recv(0) == "the parent's"


def test_a_child_of_a_callback_is_no_thread_of_connmans() -> None:
    outcomes: list[str] = []
    rig = Rig([OPEN])

    def child() -> str:
        rig.conn.disconnect()
        return f"{is_own()} {rig.conn.state.value}"

    rig.told.hooks["data"] = lambda *_: outcomes.append(in_child(child))
    with rig:
        rig.open().send("fork")
        eventually(lambda: len(outcomes) == 1)
        assert outcomes == ["False closed"]
        assert rig.conn.is_open


def test_a_child_that_returns_from_the_callback_leaves_the_connection_alone(server: Server) -> None:
    """The forking thread was the reader: in the child it must neither read on nor dial by itself, nor tell of an end.

    It hung there now and then, at the lock of the parent's timers.
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    told: list[object] = []

    def on_open(_: Connection) -> None:
        if os.fork() == 0:
            signal.alarm(int(PATIENCE))
        else:  # behind the fork: the test closes what the child needs
            told.append(b"opened")

    def on_reset(*_: object) -> None:
        if os.getpid() != parent:
            os.write(writing, b"told")
            os._exit(9)

    conn = Connection(
        ("127.0.0.1", server.port),
        on_open=on_open,
        on_data=lambda _, data: told.append(data),
        on_reset=on_reset,
    )
    with conn:
        # Nobody else is inside the connection when it forks: a lock of its transport would stay held in the child.
        eventually(lambda: told == [b"opened"])
        os.close(writing)
        with open(reading, "rb") as pipe:
            assert pipe.read() == b""
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        conn.send(b"on")
        eventually(lambda: told == [b"opened", b"on"])
        assert server.accepted == 1


def hammer(conn: Connection, stop: threading.Event) -> None:
    """Use every lock of a connection as often as possible."""
    while not stop.is_set():
        conn.get_connected()
        with contextlib.suppress(NotConnected):
            conn.send(b"x")
        conn.reconnect_now()
        assert conn.stats.opens >= 0
        with contextlib.suppress(TimeoutError):
            conn.recv(0)


@pytest.mark.parametrize("children", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_a_child_has_fresh_locks_although_others_hold_the_parents(server: Server, children: int) -> None:
    with Connection(("127.0.0.1", server.port)) as conn:
        stop = threading.Event()
        hammers = [in_thread(hammer, conn, stop) for _ in range(8)]
        try:
            for _ in range(children):
                assert in_child(lambda: (conn.state.value, talk(conn, b"child"))) == "('idle', True)"
        finally:
            stop.set()
            for thread in hammers:
                thread.result(PATIENCE)
        assert (conn.generation, conn.state) == (1, State.OPEN)
        assert server.accepted == 1 + children


def test_the_inherited_descriptor_is_closed_without_a_word(server: Server) -> None:
    def sockets() -> int:
        links = (os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists())
        return sum(link.startswith("socket:") for link in links)

    with Connection(("127.0.0.1", server.port)) as conn:
        assert talk(conn, b"before")
        before = sockets()
        assert in_child(sockets) == str(before - 1)
        assert talk(conn, b"after")


# The end of the interpreter

PROGRAM = """
import sys, threading
import connman

def make(**options):
    return connman.connect(("127.0.0.1", int(sys.argv[1])), **options)

{body}
print("ending", flush=True)
sys.exit(7)
"""

HOLD = """
inside = threading.Event()
def block(*_):
    inside.set()
    threading.Event().wait()
"""

BODIES = {
    "open": "make().wait_open(10)",
    "open, callback thread": "make(dispatch='thread', on_open=print).wait_open(10)",
    "reading": "make(on_data=lambda conn, data: None).wait_open(10).send(b'x')",
    "many": "conns = [make() for _ in range(50)]\nfor conn in conns: conn.wait_open(10)",
    "pool": "connman.Pool(url='tcp://127.0.0.1:' + sys.argv[1], size=3).wait_open(10)",
    "callback blocked": HOLD + "make(on_open=block)\nassert inside.wait(10)",
    "callbacks of several blocked": HOLD
    + "pool = connman.Pool(url='tcp://127.0.0.1:' + sys.argv[1], size=10, on_open=block).connect()\n"
    + "pool.wait_open(10)\nassert inside.wait(10)",
    "callback thread blocked": HOLD + "make(on_open=block, dispatch='thread')\nassert inside.wait(10)",
    "handshake blocked": HOLD + "make(handshake=block)\nassert inside.wait(10)",
}


def ends(body: str, port: int) -> None:
    """Run a program and check that it ends in time, with its exit code, and without a word."""
    program = PROGRAM.replace("{body}", textwrap.dedent(body))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            while (line := process.stdout.readline()) and line != "ending\n":
                pass
            _, errors = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
        assert (errors, process.returncode) == ("", 7)


# Those with "blocked" take their two seconds.
EVERY_DAY = [body for body in BODIES if "blocked" not in body]


@pytest.mark.parametrize(
    "body", [pytest.param(body, marks=() if body in EVERY_DAY else pytest.mark.slow) for body in BODIES]
)
def test_the_interpreter_ends_in_time_and_silently(body: str) -> None:
    with Server(silent) as server:
        ends(BODIES[body], server.port)


def test_the_interpreter_ends_while_dialling() -> None:
    with hanging_port() as port:
        ends("make()", port)


def test_the_interpreter_ends_while_a_lookup_hangs() -> None:
    with refusing_port() as port:
        body = """
            import socket
            asked = threading.Event()
            def never(*args, **kwargs):
                asked.set()
                threading.Event().wait()
            socket.getaddrinfo = never
            connman.connect("ws://nowhere.invalid")
            assert asked.wait(10)
        """
        ends(body, port)


@pytest.mark.parametrize("dispatch", ["reader", "thread"])
def test_the_interpreter_ends_while_backing_off(dispatch: str) -> None:
    body = f"""
        failed = threading.Event()
        make(wait=lambda _: 60, dispatch={dispatch!r}, on_reset=lambda *_: failed.set())
        assert failed.wait(10)
    """
    with refusing_port() as port:
        ends(body, port)


def test_the_interpreter_ends_while_the_server_never_answers_the_close() -> None:
    def deaf(sock: socket.socket) -> None:
        sock.recv(1)
        gone.wait(PATIENCE)

    gone = threading.Event()
    with Server(deaf) as server:
        try:
            ends("make().wait_open(10)", server.port)
        finally:
            gone.set()


def test_a_child_of_a_program_with_connections_ends_too() -> None:
    body = """
        import os, warnings
        warnings.simplefilter("ignore")  # Python 3.12 and later warn of a fork beside threads
        conn = make().wait_open(10)
        if os.fork() == 0:
            conn.wait_open(10)
            sys.exit(3)
        _, status = os.wait()
        assert os.waitstatus_to_exitcode(status) == 3
        assert conn.is_open
    """
    with Server(silent) as server:
        ends(body, server.port)
