"""Fork while connections are open, dialling and backing off, and say what became of them; run by test_fork.py.

    forking.py METHOD SCENARIO URL REFUSING_PORT SERVER [CAFILE]

Prints one JSON object. METHOD: "os" is os.fork(); "unhooked" the same without connman's hook; "bare" is libc's fork(),
of which no part of Python hears, as under uWSGI. SERVER: the process id of the server behind URL.
"""

import contextlib
import ctypes
import faulthandler
import json
import multiprocessing
import os
import select
import signal
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

METHOD, SCENARIO, URL, REFUSING_PORT, SERVER = sys.argv[1:6]
PATIENCE = 10.0

if METHOD != "os":
    os.register_at_fork = lambda **_: None  # type: ignore[assignment]

import connman  # noqa: E402
from connman.errors import Forked  # noqa: E402

BARE_FORK = ctypes.PyDLL(None).fork
TLS = ssl.create_default_context(cafile=sys.argv[6]) if len(sys.argv) > 6 else None
PLAIN: dict[str, Any] = {"proxy": None, "ssl_context": TLS, "close_timeout": 1.0}


def fork() -> int:
    if METHOD != "bare":
        return os.fork()
    # CPython's own lock does not survive a bare fork() while another thread waits for it (the child then hangs within
    # glibc's condition variable, seen with 3.13): so the server is frozen, which wakes the readers with its messages,
    # and the fork is made while all other threads sleep.
    os.kill(int(SERVER), signal.SIGSTOP)
    try:
        eventually(nobody_runs, "the other threads to sleep")
        return BARE_FORK()
    finally:
        os.kill(int(SERVER), signal.SIGCONT)


def nobody_runs() -> bool:
    """Tell whether all other threads sleep, and slept all the while that this looked twice."""
    before = turns()
    threading.Event().wait(0.02)
    return before == turns() and all(state == "S" for state, _ in before.values())


def turns() -> dict[str, tuple[str, str]]:
    """Return the state of each other thread of this process, and how often it has gone to sleep."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != threading.get_native_id():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                lines = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
                found[task.name] = (lines["State"][0], lines["voluntary_ctxt_switches"])
    return found


def eventually(predicate: Callable[[], Any], message: str = "the condition") -> None:
    deadline = time.monotonic() + PATIENCE
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited too long for {message}")
        threading.Event().wait(0.005)


def in_child(work: Callable[[], Any]) -> Any:
    """Fork, run `work` in the child, and return its result; a child that hangs is killed, and says where it hung."""
    readable, writable = os.pipe()
    pid = fork()
    if pid == 0:
        signal.alarm(int(PATIENCE))
        try:
            answer = {"result": work()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(writable, json.dumps(answer).encode())
        os._exit(0)
    os.close(writable)
    try:
        if not select.select([readable], [], [], PATIENCE + 5)[0]:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("the child hung and could not even say where")
        text = b"".join(iter(lambda: os.read(readable, 65536), b""))
    finally:
        os.close(readable)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not text:
        raise AssertionError(f"the child hung or died (exit status {status}): see stderr")
    answer = json.loads(text)
    if "error" in answer:
        raise AssertionError(f"in the child: {answer['error']}")
    return answer["result"]


def sockets() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(link))
    return {name for name in found if name.startswith("socket:")}


class Feed:
    """A connection that something keeps arriving on."""

    def __init__(self, connect: Callable[..., connman.Connection] = connman.connect) -> None:
        self.heard = 0
        self.resets: list[str] = []
        self.conn = connect(
            f"{URL}/feed?interval=0.05",
            on_data=self._hear,
            on_reset=lambda _, r: self.resets.append(str(r.error)),
            **PLAIN,
        )

    def _hear(self, *_: object) -> None:
        self.heard += 1

    def hear_more(self) -> bool:
        self.conn.connect()
        before = self.heard
        eventually(lambda: self.heard >= before + 3, "the feed to go on")
        return True


def echo(conn: connman.Connection, text: str) -> bool:
    conn.wait_open(PATIENCE)
    conn.send(text)
    return conn.recv(PATIENCE) == text


def states() -> dict[str, Any]:
    """One connection in every state, a pool, a manager: used in the child, and meanwhile and afterwards in the parent."""
    feed = Feed()
    dialling = connman.connect(f"{URL}/hang", **PLAIN)
    waiting = connman.connect(f"ws://127.0.0.1:{REFUSING_PORT}", wait=lambda _: 600.0, **PLAIN)
    idle = connman.Connection(f"{URL}/echo", **PLAIN)
    ended = connman.connect(f"{URL}/echo", **PLAIN)
    echoing = connman.connect(f"{URL}/echo", **PLAIN)
    pool = connman.create_pool("devices", url=f"{URL}/echo", size=2, **PLAIN)
    pool.wait_open(PATIENCE)
    ended.disconnect()
    pending = dialling.get_connected()
    resolved = feed.conn.get_connected()
    eventually(lambda: waiting.state is connman.State.WAITING)
    everyone = {"feed": feed.conn, "dialling": dialling, "waiting": waiting, "idle": idle, "ended": ended}
    echo(echoing, "parent")
    feed.hear_more()
    inherited = sockets()

    def child() -> dict[str, Any]:
        first = {name: conn.state.value for name, conn in everyone.items()}
        kept = sorted(inherited & sockets())
        told = {
            "pending": type(pending.exception(0)).__name__,
            "resolved": resolved.done(),
            "states": first,
            "kept": kept,
            "echo": echo(echoing, "child"),
            "feed": feed.hear_more(),
            "idle": echo(idle, "child"),
            "generation": [echoing.generation, feed.conn.generation],
            "same pool": connman.get_pool("devices") is pool,
            "same connection": connman.get_connection(f"{URL}/hang") is dialling,
        }
        waiting.connect()
        eventually(lambda: waiting.state is connman.State.WAITING, "backoff in the child")
        with pool.connection(PATIENCE) as leased:
            told["lease"] = echo(leased, "leased")
        told["new"] = echo(connman.connect(f"{URL}/echo", **PLAIN), "new")
        with connman.create_pool("of the child", url=f"{URL}/echo", size=1, **PLAIN) as another:
            another.wait_open(PATIENCE)
        connman.disconnect_all()
        idle.disconnect()  # the manager does not know it
        eventually(lambda: threading.active_count() == 1 or METHOD == "bare", "the child's threads to end")
        told["left"] = [
            t.name for t in threading.enumerate() if t.name.startswith("connman") and METHOD != "bare"
        ]
        told["open"] = [name for name, conn in everyone.items() if conn.state is not connman.State.CLOSED]
        return told

    told = in_child(child)
    told["parent"] = {
        "states": {name: conn.state.value for name, conn in everyone.items()},
        "feed": feed.hear_more(),
        "resets": list(feed.resets),
        "echo": echo(echoing, "parent again"),
        "generation": [echoing.generation, feed.conn.generation],
        "pool": all(conn.is_open and conn.generation == 1 for conn in pool.get_connections()),
        "pending": pending.done(),
    }
    connman.disconnect_all()
    return told


def ended_threads() -> dict[str, Any]:
    """Threads that have ended, which nobody joined, and which are forgotten while the child's own run."""
    ended = [threading.Thread(target=lambda: None, daemon=True) for _ in range(32)]
    for thread in ended:
        thread.start()
    conn = connman.connect(f"{URL}/echo", **PLAIN)
    echo(conn, "parent")
    idents = {thread.ident for thread in ended}
    del thread

    def child() -> dict[str, Any]:
        conns = [connman.Connection(f"{URL}/echo", **PLAIN).connect() for _ in range(8)]
        answers = [echo(conn, "child") for conn in conns]
        if METHOD == "bare":
            assert idents & {thread.ident for thread in threading.enumerate()}, "no stack was used again"
        ended.clear()
        for conn in conns:
            conn.disconnect()
        return {"echo": answers}

    told: dict[str, Any] = in_child(child)
    conn.disconnect()
    return told


def shared() -> dict[str, Any]:
    """A pool on one reader thread, its connections in every state."""
    pool = connman.create_pool("shared", readers=1, **PLAIN)
    feed = Feed(pool.add_connection)
    dialling = pool.add_connection(f"{URL}/hang")
    waiting = pool.add_connection(f"ws://127.0.0.1:{REFUSING_PORT}", wait=lambda _: 600.0)
    echoing = pool.add_connection(f"{URL}/echo")
    eventually(lambda: waiting.state is connman.State.WAITING)
    echo(echoing, "parent")
    feed.hear_more()
    inherited = sockets()

    def child() -> dict[str, Any]:
        told = {
            "states": [conn.state.value for conn in pool.get_connections()],
            "kept": sorted(inherited & sockets()),
            "echo": echo(echoing, "child"),
            "feed": feed.hear_more(),
            "generation": [echoing.generation, feed.conn.generation],
        }
        waiting.connect()
        eventually(lambda: waiting.state is connman.State.WAITING, "backoff in the child")
        dialling.connect()
        pool.disconnect()
        told["left"] = [thread.name for thread in threading.enumerate() if "connman-readers" in thread.name]
        return told

    # A bare fork leaves the parent's threads in the child's list.
    told = in_child(child)
    told["left"] = told["left"] if METHOD != "bare" else []
    told["parent"] = {
        "states": [conn.state.value for conn in pool.get_connections()],
        "feed": feed.hear_more(),
        "echo": echo(echoing, "parent again"),
        "generation": [echoing.generation, feed.conn.generation],
        "resets": list(feed.resets),
    }
    waiting.reconnect_now()
    eventually(lambda: waiting.stats.failed_attempts > 1, "the parent to go on")
    pool.disconnect()
    return told


def forked_by_a_reader(*, is_used: bool) -> dict[str, Any]:
    """The thread that reads all forks, in a callback, and returns from it on both sides: in the child first."""
    pool = connman.create_pool("shared", readers=1, **PLAIN)
    parent, codes, resets = os.getpid(), [], []
    done, tell = os.pipe()
    heard: list[object] = []

    def hear_in_the_child(*_: object) -> None:
        heard.append(threading.current_thread())
        if len(heard) == 20:
            # All by the child's own thread: the one that forked is none of its readers.
            os._exit(7 if len(set(heard)) == 1 else 8)

    def on_open(_: connman.Connection) -> None:
        pid = fork()
        if pid:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os.write(tell, b"x")
            return
        signal.alarm(int(PATIENCE))
        if is_used:
            pool.add_connection(f"{URL}/feed?interval=0.01", on_data=hear_in_the_child)

    beside = pool.add_connection(f"{URL}/echo")
    echo(beside, "before")
    conn = pool.add_connection(
        f"{URL}/echo",
        on_open=lambda conn: on_open(conn) if os.getpid() == parent else None,
        on_reset=lambda _, reset: resets.append(str(reset.error)) if os.getpid() == parent else None,
    )
    os.read(done, 1)
    told = {
        "code": codes[0],
        "echo": [echo(conn, "one"), echo(beside, "two"), echo(conn, "three")],
        "generation": [conn.generation, beside.generation],
        "resets": list(resets),
    }
    pool.disconnect()
    return told


def forked_by_its_own_reader() -> dict[str, Any]:
    """The thread that reads one connection forks, in a callback, and returns from it on both sides."""
    codes: list[int] = []
    resets: list[str] = []
    parent, is_over = os.getpid(), threading.Event()

    def on_open(_: connman.Connection) -> None:
        pid = fork()
        if pid == 0:
            signal.alarm(int(PATIENCE))
            return
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        is_over.set()

    def on_reset(_: object, reset: connman.Reset) -> None:
        if os.getpid() != parent:
            os._exit(9)
        resets.append(str(reset.error))

    conn = connman.connect(f"{URL}/echo", on_open=on_open, on_reset=on_reset, **PLAIN)
    assert is_over.wait(3 * PATIENCE)  # asleep, see fork()
    told = {
        "codes": codes,
        "echo": echo(conn, "still"),
        "generation": conn.generation,
        "resets": list(resets),
    }
    conn.disconnect()
    return told


def forked_by_a_reader_and_used() -> dict[str, Any]:
    return forked_by_a_reader(is_used=True)


def forked_by_a_reader_and_unused() -> dict[str, Any]:
    return forked_by_a_reader(is_used=False)


def untouched() -> dict[str, Any]:
    """A child that lives and ends without a use of connman, by way of Python's own end."""
    feed = Feed()
    feed.hear_more()
    inherited = sockets()
    readable, writable = os.pipe()
    pid = fork()
    if pid == 0:
        os.write(writable, json.dumps(sorted(inherited & sockets())).encode())
        os.close(writable)
        sys.exit(7)  # runs the exit hooks
    os.close(writable)
    kept = json.loads(b"".join(iter(lambda: os.read(readable, 65536), b"")))
    os.close(readable)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    told = {"code": code, "kept": kept, "feed": feed.hear_more(), "resets": list(feed.resets)}
    feed.conn.disconnect()
    return told


def outlived() -> dict[str, Any]:
    """A child that has used its connection does not keep the parent's alive: the server sees the parent leave."""
    feed = Feed()
    feed.hear_more()
    from_parent, to_child = os.pipe()
    from_child, to_parent = os.pipe()
    pid = fork()
    if pid == 0:
        signal.alarm(int(3 * PATIENCE))
        with contextlib.suppress(BaseException):
            feed.conn.wait_open(PATIENCE)
            feed.hear_more()
            os.write(to_parent, b"open")
            os.read(from_parent, 1)  # until the parent, and the test, have looked
            os.write(to_parent, b"still" if feed.hear_more() and not feed.resets else b"lost")
        os._exit(0)
    assert os.read(from_child, 10) == b"open"
    feed.conn.disconnect()
    print(json.dumps({"parent": "has left"}), flush=True)
    sys.stdin.readline()  # the test has asked the server
    os.write(to_child, b"x")
    told = {"child": os.read(from_child, 10).decode()}
    os.waitpid(pid, 0)
    return told


def called_back() -> dict[str, Any]:
    """Who watches a Future is told in the child, and may use connman there."""
    told: list[Any] = []
    conn = connman.connect(f"{URL}/hang", **PLAIN)
    other = connman.connect(f"{URL}/echo", **PLAIN)
    other.wait_open(PATIENCE)

    def done(future: Any) -> None:
        told.append(
            [type(future.exception(0)).__name__, conn.state.value, other.state.value, echo(other, "back")]
        )

    conn.get_connected().add_done_callback(done)

    def child() -> Any:
        conn.state  # noqa: B018  the first use
        return told

    result = in_child(child)
    told.clear()
    connman.disconnect_all()
    return {"told": result}


def generations() -> dict[str, Any]:
    """A child of a child."""
    conn = connman.connect(f"{URL}/echo", **PLAIN)
    echo(conn, "one")

    def grandchild() -> bool:
        return echo(conn, "three")

    def child() -> list[bool]:
        return [echo(conn, "two"), in_child(grandchild), echo(conn, "two again")]

    told = in_child(child)
    told.append(echo(conn, "one again") and conn.generation == 1)
    conn.disconnect()
    return {"told": told}


def looked_up() -> dict[str, Any]:
    """Forks while names are looked up, with a lock that a child inherits as it is: `getaddrinfo` takes such ones."""
    library, ask = threading.Lock(), socket.getaddrinfo

    def getaddrinfo(*args: Any, **options: Any) -> Any:
        with library:
            threading.Event().wait(0.005)
            return ask(*args, **options)

    return forks_beside(getaddrinfo)


def leaving() -> dict[str, Any]:
    """The same, and the lock is taken as a thread leaves that has looked up a name."""
    library, ask = threading.Lock(), socket.getaddrinfo
    of_thread = threading.local()

    class Leaving:
        def __del__(self) -> None:
            with library:
                threading.Event().wait(0.005)

    def getaddrinfo(*args: Any, **options: Any) -> Any:
        of_thread.leaving = Leaving()
        with library:
            return ask(*args, **options)

    return forks_beside(getaddrinfo)


def forks_beside(getaddrinfo: Callable[..., Any]) -> dict[str, Any]:
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            child()

    def child() -> bool:
        with connman.connect(f"{URL}/echo", **PLAIN) as conn:
            return echo(conn, "hello")

    socket.getaddrinfo = getaddrinfo
    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        return {"told": [in_child(child) for _ in range(20)]}
    finally:
        stop.set()
        thread.join(PATIENCE)


def hammered() -> dict[str, Any]:
    """200 forks while eight threads go in and out of every lock there is."""
    if METHOD != "os":
        # Without hooks a fork does not wait for lookups, and the C library has locks of its own.
        found = socket.getaddrinfo("localhost", int(URL.rpartition(":")[2]), type=socket.SOCK_STREAM)
        socket.getaddrinfo = lambda *_, **__: found
    feed = Feed()
    pool = connman.create_pool("devices", url=f"{URL}/echo", size=2, **PLAIN)
    stop = threading.Event()
    failures: list[str] = []

    def come_and_go() -> None:
        with connman.connect(f"{URL}/echo", **PLAIN) as conn:
            echo(conn, "hello")

    def lease() -> None:
        with pool.connection(PATIENCE) as conn:
            echo(conn, "leased")

    def look() -> None:
        for conn in pool.get_connections():
            assert conn.stats.losses == 0
        connman.get_connection(f"{URL}/echo")
        assert pool.stats.size == 2

    def ask() -> None:
        conn = connman.Connection(f"{URL}/hang", **PLAIN)
        conn.get_connected()
        conn.disconnect()

    def again(work: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException:
            failures.append(traceback.format_exc())

    def child() -> float:
        began = time.monotonic()
        lease()
        first = time.monotonic() - began
        come_and_go()
        look()
        ask()
        assert not inherited & sockets(), "the child still has the parent's sockets"
        return first

    feed.hear_more()
    lease()
    inherited = sockets()
    sys.setswitchinterval(1e-6)  # so that threads lose their turn while they hold a lock
    threads = [threading.Thread(target=again, args=(work,)) for work in 2 * (come_and_go, lease, look, ask)]
    for thread in threads:
        thread.start()
    try:
        seconds = [in_child(child) for _ in range(200)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    told = {
        "children": len(seconds),
        "slow": [spent for spent in seconds if spent > 2],
        "failures": failures,
        "feed": feed.hear_more(),
        "resets": list(feed.resets),
    }
    connman.disconnect_all()
    return told


# Made by whoever imports this: the parent, and a process that is spawned or that a server of forks forks.
CONN = connman.Connection(f"{URL}/echo", **PLAIN)


def ask_often(number: int, answers: Any) -> None:
    words = [f"{number} {count}" for count in range(75)]
    answers.put(sum(echo(CONN, word) for word in words))
    answers.put([len(sockets_to_the_server()), CONN.generation])
    CONN.disconnect(1001)  # multiprocessing ends its processes without Python's exit hooks


def sockets_to_the_server() -> set[str]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f"0100007F:{int(URL.rpartition(':')[2]):04X}"
    return {f"socket:[{row[9]}]" for row in rows if row[2] == port} & sockets()


def processes(method: str) -> dict[str, Any]:
    """300 requests by four processes, over a connection that is open in the parent."""
    context = multiprocessing.get_context(method)
    echo(CONN, "parent")
    answers = context.Queue()
    workers = [context.Process(target=ask_often, args=(number, answers)) for number in range(4)]
    for worker in workers:
        worker.start()
    told = [answers.get(timeout=2 * PATIENCE) for _ in range(2 * len(workers))]
    for worker in workers:
        worker.join(PATIENCE)
    right = sum(answer for answer in told if isinstance(answer, int))
    result = {
        "right": right,
        "sockets and generation": [answer for answer in told if isinstance(answer, list)],
        "codes": [worker.exitcode for worker in workers],
        "parent": echo(CONN, "parent again") and CONN.generation == 1,
    }
    CONN.disconnect()
    return result


def processes_fork() -> dict[str, Any]:
    return processes("fork")


def processes_forkserver() -> dict[str, Any]:
    return processes("forkserver")


def processes_spawn() -> dict[str, Any]:
    return processes("spawn")


def is_hook_called() -> dict[str, Any]:
    """Check the method itself: "bare" is one of which Python's hooks do not hear."""
    # Under its own name: ours is replaced for every method but "os".
    import posix

    heard: list[str] = []
    posix.register_at_fork(after_in_child=lambda: heard.append("child"))
    return {"heard": in_child(lambda: heard)}


if __name__ == "__main__":
    # Not dump_traceback_later(), whose thread a child would wait for. The alarm shows the stacks, then kills.
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(110)
    assert issubclass(Forked, connman.ConnmanError)
    print(json.dumps(globals()[SCENARIO]()), flush=True)
