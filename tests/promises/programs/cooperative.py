"""Use connman where gevent has made greenlets of threads, and say how that went; run by test_gevent.py.

    cooperative.py WHEN SCENARIO URL

Prints one JSON object. WHEN gevent patches: "first", before connman is imported, as a worker of gunicorn does; "late", when
connman is imported and the scenario's connections and pools are made, as in a worker of a gunicorn that preloads.
"""

import contextlib
import gc
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent import monkey

WHEN, SCENARIO, URL = sys.argv[1:4]
PATIENCE = 10.0
SOON = 8.0  # seconds for what has nothing to wait for

if WHEN == "first":
    monkey.patch_all()

import threading  # noqa: E402

import connman  # noqa: E402

PLAIN: dict[str, Any] = {"proxy": None, "close_timeout": 1.0}
BIG = bytes(12 * 2**20)

# What a scenario does once gevent has patched.
Work = Callable[[], dict[str, Any]]


def eventually(predicate: Callable[[], Any], message: str = "the condition") -> None:
    deadline = time.monotonic() + PATIENCE
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited too long for {message}")
        gevent.sleep(0.005)


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """Fail when the block blocks."""
    with gevent.Timeout(SOON):
        yield


def echo(conn: connman.Connection, text: str) -> bool:
    conn.wait_open(PATIENCE)
    conn.send(text)
    return conn.recv(PATIENCE) == text


class Ticker:
    """A greenlet that counts as long as nothing blocks the others."""

    def __enter__(self) -> "Ticker":
        self.ticks = 0
        self._greenlet = gevent.spawn(self._tick)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._greenlet.kill()

    def _tick(self) -> None:
        while True:
            gevent.sleep(0.01)
            self.ticks += 1


def talks() -> Work:
    """Everything at once: a thread each, shared readers, callbacks on a thread, leases."""
    heard: dict[str, list[Any]] = {"reader": [], "thread": [], "shared": []}
    natives = set()

    def hear(where: str) -> Callable[..., None]:
        def on_data(_: object, message: object) -> None:
            heard[where].append(message)
            natives.add(threading.get_native_id())

        return on_data

    def feed(where: str, **options: Any) -> connman.Connection:
        return connman.Connection(f"{URL}/feed?interval=0.01", on_data=hear(where), **options, **PLAIN)

    echoing = connman.Connection(f"{URL}/echo", **PLAIN)
    feeds = [feed("reader"), feed("thread", dispatch="thread")]
    leased = connman.Pool(url=f"{URL}/echo", size=2, **PLAIN)
    shared = connman.Pool(readers=1, **PLAIN)

    def work() -> dict[str, Any]:
        feeds.append(shared.add_connection(f"{URL}/feed?interval=0.01", on_data=hear("shared")))
        for conn in feeds:
            conn.connect()
        told: dict[str, Any] = {"echo": echo(echoing, "alone"), "shared": []}
        silent = shared.add_connection(f"{URL}/silent")
        told["shared"] = [echo(shared.add_connection(f"{URL}/echo"), str(number)) for number in range(3)]
        with leased.connection(PATIENCE) as first, leased.connection(PATIENCE) as second:
            told["leased"] = [echo(first, "first"), echo(second, "second")]
        with Ticker() as ticker:
            with contextlib.suppress(connman.errors.WaitTimeout):
                silent.recv(0.3)
            told["others run"] = ticker.ticks > 5
        eventually(lambda: all(len(messages) > 5 for messages in heard.values()), "the feeds")
        told["in order"] = all(
            messages == [str(number + 1) for number in range(len(messages))] for messages in heard.values()
        )
        told["greenlets"] = natives == {threading.get_native_id()}
        with soon():
            leased.disconnect()
            shared.disconnect()
            for conn in (echoing, *feeds):
                conn.disconnect()
        told["left"] = [t.name for t in threading.enumerate() if t.name.startswith("connman-reader")]
        return told

    return work


def flooded() -> Work:
    """A server that sends as fast as it can leaves time for the others."""
    pools = {"each": connman.Pool(**PLAIN), "shared": connman.Pool(readers=1, **PLAIN)}

    def work() -> dict[str, Any]:
        told = {}
        for name, pool in pools.items():
            heard = []
            pool.add_connection(f"{URL}/", on_data=lambda _, m, heard=heard: heard.append(len(m)))
            eventually(lambda heard=heard: len(heard) > 1000)
            with Ticker() as ticker:
                gevent.sleep(0.5)
            told[name] = ticker.ticks > 5
            with soon():
                pool.disconnect(timeout=0.1)
        return told

    return work


def stuck() -> Work:
    """A peer that reads nothing: a send is over in its time, and nobody else waits for it."""
    alone, slowly = (
        connman.Connection(f"{URL}/deaf", send_timeout=0.5, reconnect=False, **PLAIN) for _ in range(2)
    )
    endless = connman.Connection(f"{URL}/deaf", send_timeout=600.0, reconnect=False, **PLAIN)
    shared = connman.Pool(readers=1, **PLAIN)

    def work() -> dict[str, Any]:
        told: dict[str, Any] = {}
        alone.wait_open(PATIENCE)
        with Ticker() as ticker, soon():
            try:
                alone.send(BIG)
            except connman.errors.SendTimeout:
                told["timed out"] = True
        told["others run"] = ticker.ticks > 5
        slowly.wait_open(PATIENCE)
        with soon():
            # Until the network takes nothing at all of one.
            while (error := send_error(slowly, b"x" * 500)) == "nothing":
                pass
        told["filled"] = error
        sending = gevent.spawn(send_error, endless.wait_open(PATIENCE))
        gevent.sleep(0.1)
        with soon():
            endless.disconnect(timeout=0.2)
        told["cut"] = sending.get(timeout=SOON)
        blocked = shared.add_connection(f"{URL}/deaf", send_timeout=600.0)
        beside = shared.add_connection(f"{URL}/echo")
        sending = gevent.spawn(send_error, blocked.wait_open(PATIENCE))
        gevent.sleep(0.1)
        told["beside"] = echo(beside, "beside")
        with soon():
            shared.disconnect(timeout=0.2)
        told["cut too"] = sending.get(timeout=SOON)
        return told

    return work


def send_error(conn: connman.Connection, data: bytes = BIG) -> str:
    try:
        conn.send(data)
    except connman.ConnmanError as error:
        return type(error).__name__
    return "nothing"


def ended() -> Work:
    """`disconnect` in every phase, and the loss of a peer that says nothing any more."""
    hanging = connman.Connection(f"{URL}/hang", **PLAIN)
    waiting = connman.Connection(f"{URL}/http?status=503", wait=lambda _: 600.0, **PLAIN)
    deaf = connman.Connection(f"{URL}/deaf", **{**PLAIN, "close_timeout": 0.2})
    resets: list[str] = []
    silent = connman.Connection(
        f"{URL}/deaf", ping_interval=0.2, ping_timeout=0.2, on_reset=lambda _, r: resets.append(type(r.error).__name__),
        wait=lambda _: 600.0, **PLAIN,
    )  # fmt: skip
    back = connman.Connection(f"{URL}/burst-then-close?count=3&code=1012", **PLAIN)

    def work() -> dict[str, Any]:
        told: dict[str, Any] = {}
        hanging.connect()
        waiting.connect()
        eventually(lambda: waiting.state is connman.State.WAITING)
        deaf.wait_open(PATIENCE)
        for name, conn in {"hanging": hanging, "waiting": waiting, "deaf": deaf}.items():
            with soon():
                conn.disconnect()
            told[name] = conn.state.value
        silent.connect()
        eventually(lambda: resets, "the silent peer to be noticed")
        told["silent"] = resets
        back.connect()
        told["back"] = [back.recv(PATIENCE) for _ in range(6)]
        for conn in (silent, back):
            with soon():
                conn.disconnect()
        return told

    return work


def timed() -> Work:
    """A gevent.Timeout comes out of every wait, and what it left works; what was half sent is broken."""
    silent = connman.Connection(f"{URL}/silent", **PLAIN)
    hanging = connman.Connection(f"{URL}/hang", **PLAIN)
    pool = connman.Pool(url=f"{URL}/echo", size=1, **PLAIN)
    deaf = connman.Connection(f"{URL}/deaf", reconnect=False, **PLAIN)

    def times_out(wait: Callable[[], object]) -> bool:
        timeout = gevent.Timeout(0.1)
        try:
            with timeout:
                wait()
        except gevent.Timeout as raised:
            return raised is timeout
        return False

    def work() -> dict[str, Any]:
        silent.wait_open(PATIENCE)
        deaf.wait_open(PATIENCE)
        told: dict[str, Any] = {
            "recv": times_out(silent.recv),
            "result": times_out(hanging.get_connected().result),
            "wait_open": times_out(hanging.wait_open),
            "wait_closed": times_out(silent.wait_closed),
            "send": times_out(lambda: deaf.send(BIG)),
        }
        with pool.connection(PATIENCE) as conn:
            told["lease"] = times_out(lambda: pool.connection(None).__enter__())
            told["echo"] = echo(conn, "still")
        with pool.connection(PATIENCE) as conn:
            told["lent again"] = echo(conn, "again")
        eventually(lambda: not deaf.is_open, "the half sent one to end")
        told["states"] = [silent.state.value, hanging.state.value, deaf.state.value]
        with soon():
            pool.disconnect()
            for conn in (silent, hanging, deaf):
                conn.disconnect()
        return told

    return work


def greenlets(name: str) -> list[Any]:
    """Return the greenlets of connman's threads whose name begins like this."""
    idents = {thread.ident for thread in threading.enumerate() if thread.name.startswith(f"connman-{name}")}
    return [thing for thing in gc.get_objects() if isinstance(thing, gevent.Greenlet) and id(thing) in idents]


def kill(name: str) -> int:
    """Kill those greenlets and wait for their end, as `gevent.killall` does; return how many there were."""
    found = greenlets(name)
    with soon():
        gevent.killall(found)
    return len(found)


class Telling:
    """What a connection's callbacks were told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.gate = threading.Event()

    def options(self) -> dict[str, Any]:
        return {
            "on_open": lambda _: self.events.append("open"),
            "on_data": self._hear,
            "on_reset": lambda _, r: self.events.append("lost" if r.retry_in is None else "lost for now"),
        }

    def _hear(self, _: object, message: object) -> None:
        self.events.append(str(message))
        if message == "block":
            gevent.sleep(600)


def killed() -> Work:
    """A killed greenlet ends, whatever it was in; its connection is idle, and the next use starts another."""
    told: dict[str, Any] = {}
    tellings = {name: Telling() for name in ("reading", "calling", "shared", "thread")}
    names = {"reading": "reader-reading", "calling": "reader-calling", "thread": "callbacks-thread"}
    made = {
        name: connman.Connection(
            f"{URL}/echo", name=name, dispatch="thread" if name == "thread" else "reader", **tellings[name].options(), **PLAIN
        )
        for name in names
    }  # fmt: skip
    dialling = connman.Connection(f"{URL}/hang", name="dialling", **PLAIN)
    waiting = connman.Connection(f"{URL}/http?status=503", name="waiting", wait=lambda _: 600.0, **PLAIN)
    shared = connman.Pool("shared", readers=1, **PLAIN)

    def use(name: str, conn: connman.Connection) -> list[str]:
        """Return what was told since the kill, and by a use behind it."""
        conn.wait_open(PATIENCE)
        conn.send("after")
        eventually(lambda: "after" in tellings[name].events, f"{name} to work again: {tellings[name].events}")
        return tellings[name].events

    def work() -> dict[str, Any]:
        made["shared"] = shared.add_connection(f"{URL}/echo", name="shared", **tellings["shared"].options())
        shared_names = {**names, "shared": "readers-shared"}
        for name, conn in made.items():
            conn.wait_open(PATIENCE)
            if name != "reading":
                conn.send("block")
                eventually(lambda name=name: "block" in tellings[name].events)
            killed = kill(shared_names[name])
            if name == "thread":
                eventually(lambda conn=conn: conn.generation == 2, "the lost one to come back")
            told[name] = [killed, conn.state.value, *use(name, conn)]
        dialling.connect()
        gevent.sleep(0.1)
        waiting.connect()
        eventually(lambda: waiting.state is connman.State.WAITING)
        for name, conn in {"dialling": dialling, "waiting": waiting}.items():
            future = conn.get_connected()
            told[name] = [kill(f"reader-{name}"), conn.state.value, type(future.exception(SOON)).__name__]
        told["timers"] = kill("timers")
        silent = connman.Connection(
            f"{URL}/deaf", ping_interval=0.2, ping_timeout=0.2, reconnect=False, **PLAIN
        )
        silent.wait_open(PATIENCE)
        eventually(lambda: not silent.is_open, "a timer behind the kill")
        told["noticed"] = type(silent.last_error).__name__
        with soon():
            shared.disconnect()
            for conn in (*made.values(), dialling, waiting, silent):
                conn.disconnect()
        return told

    return work


def forked() -> Work:
    """A child has copies of all greenlets: the parent's readers end there, and tell nobody."""
    resets: list[str] = []
    heard: list[int] = []
    options = {"on_reset": lambda _, r: resets.append(str(r.error)), **PLAIN}
    feeds = [
        connman.Connection(
            f"{URL}/feed?interval=0.02", on_data=lambda *_: heard.append(os.getpid()), **options
        )
    ]
    echoing = connman.Connection(f"{URL}/echo", **options)
    hanging = connman.Connection(f"{URL}/hang", **options)
    shared = connman.Pool(readers=1, **options)

    def child() -> dict[str, Any]:
        first = [conn.state.value for conn in (echoing, hanging, *feeds)]
        told = {"states": first, "echo": echo(echoing, "child"), "shared": echo(beside[0], "child")}
        gevent.sleep(0.3)  # so that the copies have every opportunity
        told["heard"] = os.getpid() in heard
        for conn in feeds:
            conn.wait_open(PATIENCE)
        eventually(lambda: os.getpid() in heard)
        told["resets"] = list(resets)
        with soon():
            shared.disconnect()
            for conn in (echoing, hanging, *feeds):
                conn.disconnect()
        return told

    beside: list[connman.Connection] = []

    def work() -> dict[str, Any]:
        beside.append(shared.add_connection(f"{URL}/echo"))
        feeds.append(
            shared.add_connection(f"{URL}/feed?interval=0.02", on_data=lambda *_: heard.append(os.getpid()))
        )
        for conn in (hanging, *feeds):
            conn.connect()
        assert echo(echoing, "parent")
        assert echo(beside[0], "parent")
        eventually(lambda: len(heard) > 3)
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(int(PATIENCE))
            os.write(writable, json.dumps(child()).encode())
            os._exit(0)
        os.close(writable)
        os.waitpid(pid, 0)  # gevent's: the parent's greenlets go on
        told = {"child": json.loads(os.read(readable, 65536))}
        before = len(heard)
        eventually(lambda: len(heard) > before + 3, "the feeds to go on")
        told |= {
            "echo": [echo(echoing, "parent again"), echo(beside[0], "parent again")],
            "generations": [conn.generation for conn in (echoing, *beside, *feeds)],
            "resets": list(resets),
        }
        with soon():
            shared.disconnect()
            for conn in (echoing, hanging, *feeds):
                conn.disconnect()
        return told

    return work


def exits() -> Work:
    """The end of the interpreter with connections in every state, which the server is told of."""
    conns = [
        connman.Connection(f"{URL}/{path}", wait=lambda _: 600.0, **PLAIN)
        for path in ("echo", "silent", "hang", "http?status=503")
    ]
    shared = connman.Pool(readers=1, **PLAIN)

    def work() -> dict[str, Any]:
        for conn in conns:
            conn.connect()
        for conn in (*conns[:2], shared.add_connection(f"{URL}/echo")):
            conn.wait_open(PATIENCE)
        eventually(lambda: conns[-1].state is connman.State.WAITING)
        print(json.dumps({"open": 3}), flush=True)
        sys.exit(7)

    return work


def contexts() -> Work:
    """An SSL context that is older than gevent's patches is of no use to anybody: connman says so."""
    conn = connman.Connection(f"{URL}/echo", ssl_context=ssl.create_default_context(), proxy=None)

    def work() -> dict[str, Any]:
        try:
            conn.wait_open(PATIENCE)
        except connman.ConnmanError as error:
            return {"error": type(error).__name__, "text": str(error)}
        return {"echo": echo(conn, "hello")}

    return work


if __name__ == "__main__":
    work = globals()[SCENARIO]()
    if WHEN == "late":
        monkey.patch_all()
    print(json.dumps(work()), flush=True)
