"""disconnect() ends a connection in any phase, soon, for good, and leaves nothing behind.

Seen failing on planted bugs: every phase of opening without the abort of the dial, the long wait between attempts without its
wake-up, those with a peer that does not answer when nothing cuts it off at the end of the time, all that wait for another
attempt (and that nothing comes back) with a wait that goes on to it, and a callback that blocks with a longer bound. The
random orders look for what these do not know of; that nothing opens late, nor is delivered, is staged in tests/connection.
websocket-client 1.9.2: `close()` from another thread neither ends a dial nor wakes a blocked reader.
"""

import contextlib
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import trustme

import connman
from connman.errors import ConnectionClosed
from connman.testing import FaultProxy
from tests.loopback import dialling_sockets, hanging_port, in_thread, read_to_the_end, shut, silent
from tests.promises.peers import PATIENCE, Peers, accept, by_dispatch, deaf_ws, frame, serve_ws, within
from tests.waiting import eventually

PROMPTLY = 1.0
CLOSE_TIMEOUT = 0.3
NO_MORE = 3.0  # seconds without a further connection

DISPATCHES = ["reader", "thread", "shared"]
EACH_DISPATCH = ["reader", "thread", pytest.param("shared", marks=pytest.mark.slow)]


@dataclass
class Case:
    """A connection in the phase that is wanted, or on the way there."""

    conn: connman.Connection
    calls: list[str]
    is_there: Callable[[], Any]
    dials: Callable[[], int]
    bound: float = PROMPTLY
    end: Callable[[], None] | None = None
    afterwards: Callable[[], object] = lambda: None
    seen: tuple[list[str], int] = ([], 0)

    def disconnect(self) -> None:
        (self.end or self.conn.disconnect)()


Make = Callable[..., tuple[connman.Connection, list[str]]]


def maker(dispatch: str) -> Make:
    """Make connections whose callbacks note that they ran, and then do what the case wants."""

    def make(target: object, **options: Any) -> tuple[connman.Connection, list[str]]:
        calls: list[str] = []

        def noting(name: str) -> Callable[..., object]:
            inner = options.pop(name, None)

            def callback(*args: Any) -> object:
                calls.append(name)
                return inner(*args) if inner is not None else None

            return callback

        on = {name: noting(name) for name in ("on_open", "on_data", "on_reset")}
        plain = {"proxy": None, "close_timeout": CLOSE_TIMEOUT, "wait": lambda _: 0.5}
        conn = by_dispatch(dispatch, target, **on, **{**plain, **options})
        return conn, calls

    return make


# The phases. Each yields a connection that is on the way into its phase.


@contextlib.contextmanager
def dns_hangs(make: Make) -> Iterator[Case]:
    asked, answers = threading.Event(), threading.Event()
    lookup = socket.getaddrinfo
    with Peers(read_to_the_end) as server, pytest.MonkeyPatch.context() as patch:
        host = f"hangs-{server.port}.invalid"

        def hang(name: Any, *args: Any, **kwargs: Any) -> Any:
            if name != host:
                return lookup(name, *args, **kwargs)
            asked.set()
            answers.wait(60)
            return lookup("127.0.0.1", server.port, type=socket.SOCK_STREAM)

        patch.setattr(socket, "getaddrinfo", hang)
        conn, calls = make(f"tcp://{host}:{server.port}")
        try:
            yield Case(conn, calls, asked.is_set, server.dials, afterwards=answers.set)
        finally:
            answers.set()


@contextlib.contextmanager
def syn_unanswered(make: Make) -> Iterator[Case]:
    with hanging_port() as port:
        before = dialling_sockets(port)
        conn, calls = make(f"ws://127.0.0.1:{port}/")
        ours = lambda: dialling_sockets(port) - before  # noqa: E731
        yield Case(conn, calls, ours, ours)


def silent_after_the_first_word(scheme: str, **options: Any) -> Callable[[Make], Any]:
    @contextlib.contextmanager
    def phase(make: Make) -> Iterator[Case]:
        heard = threading.Event()

        def serve(sock: socket.socket) -> None:
            if sock.recv(65536):
                heard.set()
            silent(sock)

        with Peers(serve) as server:
            target = server.url(scheme)
            if "proxy" in options:
                target = f"{scheme}://192.0.2.1:80"
            told = {
                name: value.format(server.port) if name == "proxy" else value
                for name, value in options.items()
            }
            conn, calls = make(target, **told)
            yield Case(conn, calls, heard.is_set, server.dials)
            eventually(lambda: server.is_deserted, message="the socket to be closed")

    return phase


@contextlib.contextmanager
def handshake_silent(make: Make) -> Iterator[Case]:
    waiting = threading.Event()

    def handshake(channel: Any) -> None:
        channel.send("pass?")
        waiting.set()
        channel.recv()

    with Peers(deaf_ws) as server:
        conn, calls = make(server.url(), handshake=handshake)
        yield Case(conn, calls, waiting.is_set, server.dials)
        eventually(lambda: server.is_deserted)


def backoff(seconds: float) -> Callable[[Make], Any]:
    """Long, so that only a wake-up ends it; short, so that a further attempt would be seen."""

    @contextlib.contextmanager
    def phase(make: Make) -> Iterator[Case]:
        with Peers(shut) as server:
            conn, calls = make(server.url(), wait=lambda _: seconds)
            yield Case(conn, calls, lambda: conn.state is connman.State.WAITING and calls, server.dials)

    return phase


@contextlib.contextmanager
def backoff_after_a_loss(make: Make) -> Iterator[Case]:
    def serve(sock: socket.socket) -> None:
        accept(sock)
        shut(sock)

    with Peers(serve) as server:
        conn, calls = make(server.url())
        # It comes again with each loss.
        yield Case(
            conn,
            calls,
            lambda: conn.state is connman.State.WAITING and calls[-1:] == ["on_reset"],
            server.dials,
        )


def opened(
    serve: Callable[[socket.socket], None], scheme: str = "ws", bound: float = PROMPTLY
) -> Callable[[Make], Any]:
    @contextlib.contextmanager
    def phase(make: Make) -> Iterator[Case]:
        with Peers(serve) as server:
            conn, calls = make(server.url(scheme))
            yield Case(conn, calls, lambda: "on_open" in calls, server.dials, bound)
            eventually(lambda: server.is_deserted)

    return phase


def never_answers_tcp(sock: socket.socket) -> None:
    """Take our FIN and keep the other direction open."""
    read_to_the_end(sock)
    with contextlib.suppress(OSError):
        while sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            sock.send(b"still here")
            threading.Event().wait(0.02)


@contextlib.contextmanager
def wss_never_answers(make: Make) -> Iterator[Case]:
    authority = trustme.CA()
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    authority.configure_trust(client_side)

    def serve(sock: socket.socket) -> None:
        with server_side.wrap_socket(sock, server_side=True) as secure:
            deaf_ws(secure)

    with Peers(serve) as server:
        conn, calls = make(server.url("wss"), ssl_context=client_side)
        yield Case(conn, calls, lambda: "on_open" in calls, server.dials, CLOSE_TIMEOUT + PROMPTLY)


@contextlib.contextmanager
def while_the_peer_sends(make: Make) -> Iterator[Case]:
    """The reader never runs dry, and the peer never looks at our close."""

    def serve(sock: socket.socket) -> None:
        accept(sock)
        while True:
            sock.sendall(frame("tick") * 100)

    with Peers(serve) as server:
        conn, calls = make(server.url())
        yield Case(conn, calls, lambda: len(calls) > 1000, server.dials, CLOSE_TIMEOUT + PROMPTLY)


def inside(callback: str, serve: Callable[[socket.socket], None]) -> Callable[[Make], Any]:
    """Disconnect inside a callback; what `disconnect` of the case then does is wait for the end of that."""

    @contextlib.contextmanager
    def phase(make: Make) -> Iterator[Case]:
        returned = threading.Event()

        def end(*_: Any) -> Any:
            conn.disconnect()
            returned.set()

        with Peers(serve) as server:
            conn, calls = make(server.url(), **{callback: end})
            yield Case(conn, calls, returned.is_set, server.dials)

    return phase


def inside_failing(callback: str) -> Callable[[Make], Any]:
    """The same inside what is asked when an attempt fails."""
    return inside(callback, shut)


def greet(sock: socket.socket) -> None:
    accept(sock)
    sock.sendall(frame("hello"))
    read_to_the_end(sock)


def greet_and_go(sock: socket.socket) -> None:
    accept(sock)
    shut(sock)


def answering(sock: socket.socket) -> None:
    serve_ws(sock)


def hello_answering(sock: socket.socket) -> None:
    guest = accept(sock)
    guest.send(frame("hello"))
    from_client = sock.recv(65536)  # our close
    if from_client:
        guest.send(frame((1000).to_bytes(2), 0x8))


@contextlib.contextmanager
def by_two_threads(make: Make) -> Iterator[Case]:
    with opened(answering)(make) as case:
        case.end = lambda: both(case.conn.disconnect)
        yield case


@contextlib.contextmanager
def by_two_threads_unanswered(make: Make) -> Iterator[Case]:
    with opened(deaf_ws, bound=CLOSE_TIMEOUT + PROMPTLY)(make) as case:
        case.end = lambda: both(case.conn.disconnect)
        yield case


@contextlib.contextmanager
def twice(make: Make) -> Iterator[Case]:
    with opened(answering)(make) as case:
        case.end = lambda: (case.conn.disconnect(), case.conn.disconnect(3000, "again"))[0]
        yield case


def both(function: Callable[[], object]) -> None:
    barrier = threading.Barrier(2)

    def run() -> None:
        barrier.wait(PATIENCE)
        function()

    futures = [in_thread(run) for _ in range(2)]
    for future in futures:
        future.result()


PHASES: dict[str, Callable[[Make], Any]] = {
    "dns hangs": dns_hangs,
    "syn unanswered": syn_unanswered,
    "http proxy silent": silent_after_the_first_word("ws", proxy="http://127.0.0.1:{}"),
    "socks5 proxy silent": silent_after_the_first_word("tcp", proxy="socks5h://127.0.0.1:{}"),
    "tls silent": silent_after_the_first_word("wss"),
    "tls silent, no websocket": silent_after_the_first_word("tls"),
    "upgrade silent": silent_after_the_first_word("ws"),
    "handshake silent": handshake_silent,
    "long backoff": backoff(60.0),
    "short backoff": backoff(0.5),
    "backoff after a loss": backoff_after_a_loss,
    "open": opened(answering),
    "open, tcp": opened(read_to_the_end, "tcp"),
    "open, close unanswered": opened(deaf_ws, bound=CLOSE_TIMEOUT + PROMPTLY),
    "open, tcp, end unanswered": opened(never_answers_tcp, "tcp", bound=CLOSE_TIMEOUT + PROMPTLY),
    "open, wss, close unanswered": wss_never_answers,
    "open, peer floods": while_the_peer_sends,
    "inside on_open": inside("on_open", answering),
    "inside on_data": inside("on_data", hello_answering),
    "inside on_reset": inside("on_reset", greet_and_go),
    "inside on_reset of a failed attempt": inside_failing("on_reset"),
    "inside handshake": inside("handshake", answering),
    "inside headers": inside("headers", answering),
    "inside retry_if": inside_failing("retry_if"),
    "inside wait": inside_failing("wait"),
    "inside stop": inside_failing("stop"),
    "by two threads": by_two_threads,
    "by two threads, unanswered": by_two_threads_unanswered,
    "twice": twice,
}


def end_it(case: Case) -> None:
    """Bring the case into its phase and disconnect, within its bound; then it is closed and its threads are gone."""
    future = case.conn.get_connected()
    eventually(case.is_there, message="the phase to be reached")
    within(case.bound, case.disconnect)
    assert case.conn.state is connman.State.CLOSED
    assert threads_of(case.conn) == []
    assert future.done()
    case.seen = list(case.calls), case.dials()
    case.afterwards()


def threads_of(conn: connman.Connection) -> list[str]:
    """Name the threads that work for `conn`: not a lookup that hangs, which nobody can end."""
    own, shared = f"-{conn.name}", f"shared by {conn.name}"
    return [t.name for t in threading.enumerate() if t.name.endswith((own, shared, f"{shared}-1"))]


def what_came_after(case: Case) -> str | None:
    calls, dials = case.seen
    if case.calls != calls:
        return f"callbacks after the end: {case.calls[len(calls) :][:5]}"
    if case.dials() > dials:
        return f"{case.dials() - dials} further dials"
    return None


@pytest.mark.parametrize("dispatch", EACH_DISPATCH)
@pytest.mark.parametrize("phase", PHASES)
def test_disconnect_returns_soon_in_any_phase(phase: str, dispatch: str) -> None:
    with PHASES[phase](maker(dispatch)) as case:
        end_it(case)
        with pytest.raises(ConnectionClosed):
            case.conn.get_connected().result(0)
        assert what_came_after(case) is None


@pytest.mark.slow
def test_nothing_comes_back_after_any_phase() -> None:
    """All phases at once, so that three seconds of watching the servers do for all of them."""
    cases: dict[str, Case] = {}
    with contextlib.ExitStack() as stack:
        for dispatch in DISPATCHES:
            for name, phase in PHASES.items():
                case = cases[f"{name} ({dispatch})"] = stack.enter_context(phase(maker(dispatch)))
                end_it(case)
        threading.Event().wait(NO_MORE)
        later = {name: trouble for name, case in cases.items() if (trouble := what_came_after(case))}
    assert later == {}


@pytest.mark.slow
def test_a_callback_that_blocks_holds_disconnect_up_for_its_bound_only() -> None:
    go_on = threading.Event()
    entered = threading.Event()
    after: list[str] = []

    def block(conn: connman.Connection, message: object) -> None:
        entered.set()
        go_on.wait(60)

    def serve(sock: socket.socket) -> None:
        accept(sock)
        sock.sendall(frame("hello") * 3)
        read_to_the_end(sock)

    for dispatch in DISPATCHES:
        entered.clear()
        go_on.clear()
        with Peers(serve) as server:
            conn = by_dispatch(
                dispatch, server.url(), proxy=None, on_data=block, on_reset=lambda *_: after.append("reset")
            ).connect()
            assert entered.wait(PATIENCE)
            within(0.3 + 1 + PROMPTLY, lambda: conn.disconnect(timeout=0.3))  # noqa: B023
            assert conn.state is connman.State.CLOSED
            go_on.set()
            eventually(lambda: not threads_of(conn))  # noqa: B023
            assert conn.stats.messages_in >= 1


# Open, close and drop, in any order, from several threads.


def close_at_once(sock: socket.socket) -> None:
    shut(sock)


def burst_and_go(sock: socket.socket) -> None:
    accept(sock)
    sock.sendall(frame("tick") * 20)
    shut(sock)


class Round:
    """One connection, and what three threads do to it at the same time."""

    CLOSE_TIMEOUT = 0.05

    def __init__(self, dice: random.Random, ports: list[FaultProxy]) -> None:
        self.proxy = dice.choice(ports)
        self.events: list[str] = []
        self.is_over = False
        self.late: list[str] = []
        self.conn = by_dispatch(
            dice.choice(DISPATCHES),
            self.proxy.url("ws", "/"),
            on_open=lambda _: self._note("open"),
            on_data=lambda *_: self._note("data"),
            on_reset=lambda _, reset: self._note("reset" if reset.opened else "failed"),
            wait=lambda _: 0.0,
            stable_after=0.0,
            close_timeout=self.CLOSE_TIMEOUT,
            proxy=None,
            reconnect=dice.random() < 0.8,
            ping_interval=dice.choice([None, 0.02]),
            handshake=dice.choice([None, None, lambda channel: channel.send("pass")]),
        )
        acts = [
            self._ask,
            self._ask,
            self._send,
            self._send,
            self.conn.disconnect,
            self._cut,
            self._reset,
            self._look,
        ]
        self.plans = [
            [(dice.choice(acts), dice.choice([0.0, 0.0, 0.001, 0.003])) for _ in range(dice.randint(1, 4))]
            for _ in range(3)
        ]

    def _note(self, event: str) -> None:
        (self.late if self.is_over else self.events).append(event)

    def _ask(self) -> None:
        self.conn.get_connected()

    def _send(self) -> None:
        with contextlib.suppress(connman.ConnmanError):
            self.conn.send("x" * 200, wait=0.002)

    def _cut(self) -> None:
        self.proxy.cut()

    def _reset(self) -> None:
        self.proxy.reset()

    def _look(self) -> None:
        self.conn.reconnect_now()
        assert self.conn.stats.losses <= self.conn.stats.opens

    def play(self) -> None:
        barrier = threading.Barrier(len(self.plans))
        for future in [in_thread(self._follow, plan, barrier) for plan in self.plans]:
            future.result(PATIENCE)
        within(self.CLOSE_TIMEOUT + PROMPTLY, self.conn.disconnect)
        self.is_over = True

    def _follow(self, plan: list[tuple[Callable[[], object], float]], barrier: threading.Barrier) -> None:
        barrier.wait(PATIENCE)
        for act, pause in plan:
            act()
            threading.Event().wait(pause)

    def trouble(self) -> str | None:
        if self.late:
            return f"after the end: {self.late}"
        if threads_of(self.conn):
            return f"threads left: {threads_of(self.conn)}"
        if self.events.count("open") != self.events.count("reset"):
            return f"opens and resets do not pair: {self.events}"
        is_open = False
        for event in self.events:
            if event == "data" and not is_open:
                return f"data outside of an open connection: {self.events}"
            is_open = {"open": True, "reset": False, "failed": False}.get(event, is_open)
        return None


@pytest.mark.parametrize(
    "rounds", [60, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(240)])]
)
def test_open_close_and_drop_in_any_order(rounds: int, seed: int) -> None:
    dice = random.Random(seed)
    played: list[Round] = []
    with contextlib.ExitStack() as stack:
        proxies = []
        for serve in (serve_ws, serve_ws, deaf_ws, close_at_once, burst_and_go):
            server = stack.enter_context(Peers(serve))
            proxies.append(stack.enter_context(FaultProxy("127.0.0.1", server.port)))
        for number in range(rounds):
            one = Round(dice, proxies)
            one.play()
            played.append(one)
            assert one.trouble() is None, f"round {number}: {one.trouble()}"
    late = {number: trouble for number, one in enumerate(played) if (trouble := one.trouble())}
    assert late == {}
    print(sum(one.conn.stats.opens for one in played), "opens in", rounds, "rounds")
