"""The transports over HTTP with the real servers of SockJS that there are."""

import itertools
import threading
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

import connman
from connman.errors import ConnectionClosed, ConnectionLost, RequestRefused, SessionLost
from connman.transport.sockjs import ask_info
from tests.loopback import in_thread, make_dial
from tests.transport.sockjs_servers import NAMES, PATIENCE, SockjsProcess
from tests.waiting import eventually

pytestmark = pytest.mark.slow
KINDS = pytest.mark.parametrize("kind", ["streaming", "polling"])
COUNT = 10_000


@pytest.fixture(scope="module", params=NAMES)
def server(request: pytest.FixtureRequest) -> Iterator[SockjsProcess]:
    # aiohttp's forgets a session only when told to, or when a second receiver has broken it: that is not to last.
    with SockjsProcess(
        request.param, disconnect_delay=300 if request.param == "aiohttp" else 5000
    ) as process:
        yield process


def connected(url: str, **options: object) -> connman.Connection:
    return connman.connect(url, proxy=None, **options)  # type: ignore[arg-type]


@KINDS
def test_many_messages_each_way_in_order(server: SockjsProcess, kind: str) -> None:
    messages = [f'{number} ü "quoted" {"x" * 40}' for number in range(COUNT)]
    got: list[object] = []
    conn = connected(server.url(kind), on_data=lambda _, message: got.append(message))
    conn.wait_open(PATIENCE)
    for message in messages[: COUNT // 2]:
        conn.send(message)
    conn.send_many(messages[COUNT // 2 :])
    eventually(lambda: len(got) == COUNT, 60.0, lambda: f"all messages, not {len(got)}")
    assert got == messages
    assert conn.generation == 1
    conn.disconnect(timeout=PATIENCE)


@KINDS
def test_a_burst_in_one_poll(server: SockjsProcess, kind: str) -> None:
    with connected(server.url(kind)) as conn:
        before = len(server.paths("xhr"))
        for _ in range(3):
            conn.send("burst 1000")
            assert [conn.recv(PATIENCE) for _ in range(1000)] == [str(number) for number in range(1000)]
        # node answers the poll that waits with the first, and the next one with all others.
        assert len(server.paths("xhr")) - before <= 2 * 3 + 1


@KINDS
def test_a_huge_message(server: SockjsProcess, kind: str) -> None:
    message = "é" * 4_000_000
    with connected(server.url(kind)) as conn:
        conn.send(message)
        assert conn.recv(60.0) == message
        conn.send("and on")
        assert conn.recv(PATIENCE) == "and on"


@KINDS
def test_pings_are_answered(server: SockjsProcess, kind: str) -> None:
    with connected(server.url(kind), ping_interval=0.1) as conn:
        eventually(lambda: conn.stats.ping_rtt is not None)
        conn.send("x")
        assert conn.recv(PATIENCE) == "x"


@KINDS
def test_the_close_frame_says_why(server: SockjsProcess, kind: str) -> None:
    resets: list[connman.Reset] = []
    conn = connected(server.url(kind), on_reset=lambda _, reset: resets.append(reset))
    conn.wait_open(PATIENCE)
    conn.send("close 4001")
    eventually(lambda: resets)
    assert isinstance(resets[0].error, ConnectionClosed)
    assert (resets[0].code, resets[0].reason, resets[0].retry_in) == (4001, "as you wish", None)
    conn.disconnect()


@KINDS
def test_a_second_receiver_is_refused(server: SockjsProcess, kind: str) -> None:
    with connected(server.url(kind)) as conn:
        what, count = ("xhr", 3) if kind == "polling" else ("xhr_streaming", 1)
        conn.send("x")
        assert conn.recv(PATIENCE) == "x"
        path = server.paths(what)[-1].partition("?")[0]
        eventually(lambda: len([p for p in server.paths(what) if p.startswith(path)]) == count)
        status, body = server.ask("POST", path)
        assert (status, body.strip(b"h\n")) == (200, b'c[2010,"Another connection still open"]')
        if server.name == "aiohttp":
            eventually(
                lambda: conn.generation == 2
            )  # it lets the session expire because of that, and is deaf until then
        conn.send("y")
        assert conn.recv(PATIENCE) == "y"
        assert conn.generation == (2 if server.name == "aiohttp" else 1)


@KINDS
@pytest.mark.parametrize("server", ["aiohttp"], indirect=True)
def test_a_session_that_the_server_ends_without_a_word(server: SockjsProcess, kind: str) -> None:
    with connected(server.url(kind)) as conn:
        conn.send("forget")
        eventually(lambda: conn.generation == 2)
        assert isinstance(conn.last_error, SessionLost)
        conn.send("x", wait=PATIENCE)
        assert conn.recv(PATIENCE) == "x"


@KINDS
def test_a_wrong_base_is_a_refusal(server: SockjsProcess, kind: str) -> None:
    conn = connected(server.url(kind, "/nowhere"))
    error = conn.get_connected().exception(PATIENCE)
    assert isinstance(error, RequestRefused)
    assert error.status == 404
    conn.disconnect()


def test_a_session_that_nobody_knows_cannot_be_sent_to(server: SockjsProcess) -> None:
    assert server.ask("POST", "/echo/000/nobody/xhr_send")[0] in (404, 500)


def test_the_server_says_what_it_has(server: SockjsProcess) -> None:
    assert ask_info(make_dial(server.url("polling")))["websocket"] is True


def test_a_raw_websocket(server: SockjsProcess) -> None:
    with connected(f"ws://127.0.0.1:{server.port}/echo/websocket") as conn:
        conn.send_many(map(str, range(1000)))
        assert [conn.recv(PATIENCE) for _ in range(1000)] == list(map(str, range(1000)))


@KINDS
def test_many_connections_on_one_reader(server: SockjsProcess, kind: str) -> None:
    with connman.Pool(url=server.url(kind), size=8, readers=1, proxy=None) as pool:
        pool.wait_open(PATIENCE)
        for _ in range(20):
            with pool.connection(timeout=PATIENCE) as conn:
                conn.send("x")
                assert conn.recv(PATIENCE) == "x"


@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_comes_back(name: str) -> None:
    resets: list[connman.Reset] = []
    with SockjsProcess(name) as server:
        conns = [
            connected(server.url(kind), wait=lambda _: 0.05, on_reset=lambda _, reset: resets.append(reset))
            for kind in ("streaming", "polling")
        ]
        for generation in (1, 2):
            for conn in conns:
                eventually(lambda conn=conn, wanted=generation: conn.generation == wanted, PATIENCE)  # type: ignore[misc]
                conn.send("x", wait=PATIENCE)
                assert conn.recv(PATIENCE) == "x"
            server.kill()
            eventually(lambda: not any(conn.is_open for conn in conns))
            server.start()
        assert all(isinstance(reset.error, ConnectionLost) for reset in resets if reset.opened)
        for conn in conns:
            conn.disconnect()


@KINDS
def test_a_session_that_has_expired_is_lost_and_begun_anew(kind: str) -> None:
    """A server forgets a session for which it is not asked: here because nobody takes what has arrived."""
    with SockjsProcess("node", disconnect_delay=200) as server:
        what = "xhr" if kind == "polling" else "xhr_streaming"
        may_go_on, resets, opens = threading.Event(), [], []

        def slowly(conn: connman.Connection, message: object) -> None:
            may_go_on.wait(PATIENCE)

        conn = connected(
            server.url(kind),
            on_data=slowly,
            on_open=lambda conn: opens.append(conn.generation),
            on_reset=lambda _, reset: resets.append(reset),
        )
        conn.wait_open(PATIENCE)
        # More than fits into all buffers on the way, so that the server waits for the next request.
        sending = in_thread(conn.send_many, ["x" * 100_000] * 200)
        counts: list[int] = []

        def is_held_back() -> bool:
            """Whether nobody has asked the server for longer than its sessions live."""
            counts.append(len(server.paths(what)))
            return counts[-1] > 1 and counts[-100:] == [counts[-1]] * 100

        eventually(is_held_back, PATIENCE)
        may_go_on.set()
        eventually(lambda: len(opens) == 2)
        assert isinstance(resets[0].error, SessionLost)
        sending.exception(PATIENCE)
        conn.disconnect()


HOLD = 0.4  # seconds


def cpu_of_ours() -> float:
    """Return the seconds that connman's threads have run; none of them ends meanwhile."""
    ids = [thread.ident for thread in threading.enumerate() if thread.name.startswith("connman-")]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in ids if ident is not None)


def asked_at(paths: list[str]) -> list[float]:
    """Return when requests were made, by the times in their queries."""
    return [int(parse_qs(urlsplit(path).query)["t"][0]) / 1000 for path in paths]


@pytest.mark.parametrize("name", NAMES)
def test_idle_they_ask_once_for_each_hold_and_do_not_spin(name: str) -> None:
    with (
        SockjsProcess(name, heartbeat_delay=int(1000 * HOLD)) as server,
        connected(server.url("streaming"), on_data=print, ping_interval=None),
        connected(server.url("polling"), on_data=print, ping_interval=None),
    ):

        def have_asked(count: int) -> bool:
            # The heartbeats of a stream are answered, each with a request of its own.
            return min(len(server.paths("xhr")), len(server.paths("xhr_send"))) >= count

        eventually(lambda: have_asked(2))
        began, used = time.monotonic(), cpu_of_ours()
        eventually(lambda: have_asked(5))
        share = (cpu_of_ours() - used) / (time.monotonic() - began)
        # Of polls each waits for the answer to the one before; only the first has one at once, the opening frame.
        gaps = [after - before for before, after in itertools.pairwise(asked_at(server.paths("xhr"))[1:])]
        assert min(gaps) > 0.9 * HOLD
        [began] = asked_at(server.paths("xhr_streaming"))
        for number, answered in enumerate(asked_at(server.paths("xhr_send")), start=1):
            assert answered - began > 0.9 * HOLD * number
        assert share < 0.02
