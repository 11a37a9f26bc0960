"""Single dials of the doctor against servers that behave by script."""

import json
import queue
import socket
import threading

import pytest

from connman.cli.advice import diagnose
from connman.cli.probe import Finding, InfoProbe, Probe, Way
from connman.clock import SystemClock
from connman.endpoint import Endpoint
from connman.errors import ConnectError, ConnectionClosed, NotConnected, WaitTimeout
from connman.options import Options
from connman.strategy import BestConnected, Delayed, Sequential, Transport
from connman.testing import FakeClock
from connman.transport import base
from connman.transport.base import Dial
from connman.transport.openers import EndpointDialer
from tests.cli.program import say_goodbye
from tests.loopback import PATIENCE, Server, echo, in_thread, refusing_port
from tests.proxies import ConnectProxy
from tests.servers import (
    CLOSE,
    PING,
    PONG,
    Frames,
    close_frame,
    raw_server,
    read_until,
    read_upgrade,
    server_frame,
    silent,
    upgraded,
)
from tests.waiting import eventually


def probe(
    url: str, *, expects_message: bool = False, open_timeout: float = PATIENCE, proxy: str | None = None
) -> Probe:
    endpoint = Endpoint.parse(url)
    options = Options(proxy=proxy, open_timeout=open_timeout)
    way = Way(endpoint.scheme, endpoint, EndpointDialer())
    return Probe(way, options, SystemClock(), expects_message=expects_message)


def phases(finding: Finding) -> list[tuple[str, bool]]:
    return [(step.phase, step.cause is None) for step in finding.steps]


def answer_pings(frames: Frames) -> None:
    for frame in frames:
        if frame.opcode == PING:
            frames.send(server_frame(PONG, frame.payload))
        elif frame.opcode == CLOSE:
            frames.send(close_frame())


def greet(frames: Frames) -> None:
    frames.send(server_frame(1, "grüß".encode()))
    answer_pings(frames)


def swallow(frames: Frames) -> None:
    for _ in frames:
        pass


def greet_and_swallow(frames: Frames) -> None:
    frames.send(server_frame(2, b"\0\1"))
    swallow(frames)


def test_an_open_way_tells_its_phases_and_says_goodbye() -> None:
    codes: list[int] = []

    def script(frames: Frames) -> None:
        ping = next(iter(frames))
        frames.send(server_frame(PONG, ping.payload))
        codes.extend(int.from_bytes(frame.payload[:2], "big") for frame in say_goodbye(frames))

    with raw_server(upgraded(script)) as server:
        finding = probe(server.url()).run()
    assert finding.error is None
    assert phases(finding) == [("tcp", True), ("upgrade", True), ("ping", True)]
    assert (finding.transport, finding.message, codes) == ("ws", None, [1000])
    assert 0 < finding.seconds < PATIENCE


def test_a_first_message_is_described_and_not_shown() -> None:
    with raw_server(upgraded(greet)) as server:
        finding = probe(server.url(), expects_message=True).run()
    assert finding.error is None
    assert finding.message == "text, 6 bytes"
    assert "grüß" not in repr(finding)


def test_no_message_is_a_failure_only_when_one_is_expected() -> None:
    with raw_server(upgraded(answer_pings)) as server:
        assert probe(server.url()).run().error is None
        finding = probe(server.url(), open_timeout=1.0, expects_message=True).run()
    assert isinstance(finding.error, WaitTimeout)
    assert phases(finding)[-2:] == [("ping", True), ("message", False)]


def test_swallowed_frames_are_found_out() -> None:
    with raw_server(upgraded(swallow)) as server:
        finding = probe(server.url(), open_timeout=1.0).run()
    assert isinstance(finding.error, WaitTimeout)
    assert phases(finding)[-1] == ("ping", False)


@pytest.mark.slow
def test_a_server_that_knows_no_pings_but_speaks_is_a_way_through() -> None:
    with raw_server(upgraded(greet_and_swallow)) as server:
        finding = probe(server.url(), open_timeout=1.0).run()
    assert finding.error is None
    assert finding.message == "binary, 2 bytes"
    assert phases(finding)[-1] == ("ping", False)


def test_a_close_behind_the_upgrade_is_told_with_its_code() -> None:
    with raw_server(upgraded(lambda frames: frames.send(close_frame(4001, "s3cret")))) as server:
        finding = probe(server.url()).run()
    assert isinstance(finding.error, ConnectionClosed)
    assert finding.error.code == 4001
    assert finding.transport == "ws"


def test_a_byte_stream_is_open_when_it_is_connected() -> None:
    with Server(echo) as server:
        finding = probe(f"tcp://127.0.0.1:{server.port}").run()
    assert (finding.error, phases(finding)) == (None, [("tcp", True)])


def test_a_proxy_is_named_without_its_password() -> None:
    with Server(echo) as server, ConnectProxy() as proxy:
        url = f"tcp://127.0.0.1:{server.port}"
        finding = probe(url, proxy=f"http://u:s3cret@127.0.0.1:{proxy.port}").run()
    assert finding.proxy == f"http://127.0.0.1:{proxy.port}"
    assert phases(finding) == [("tcp", True), ("proxy", True)]


def test_a_refusal_is_a_finding() -> None:
    with refusing_port() as port:
        finding = probe(f"ws://127.0.0.1:{port}/").run()
    assert isinstance(finding.error, ConnectError)
    assert phases(finding) == [("tcp", False)]


def test_a_target_that_breaks_is_a_finding() -> None:
    class Broken:
        def dial(self, dial: Dial) -> base.Transport:
            raise KeyError("s3cret")

    finding = Probe(Way("broken", None, Broken()), Options(), SystemClock()).run()
    assert str(finding.error) == "broken: the dial raised KeyError"


def test_a_ping_takes_as_long_as_it_took_though_its_answer_is_seen_later() -> None:
    clock = FakeClock()
    opened: queue.SimpleQueue[base.Transport] = queue.SimpleQueue()

    class Dialer:
        def dial(self, dial: Dial) -> base.Transport:
            transport = EndpointDialer().dial(dial)
            opened.put(transport)
            return transport

    def script(frames: Frames) -> None:
        ping = next(iter(frames))
        clock.advance(0.03)
        frames.send(server_frame(PONG, ping.payload))
        say_goodbye(frames)

    with raw_server(upgraded(script)) as server:
        way = Way("ws", Endpoint.parse(server.url()), Dialer())
        future = in_thread(Probe(way, Options(proxy=None), clock).run)
        transport = opened.get(timeout=PATIENCE)
        eventually(lambda: transport.ping_rtt is not None)
        clock.advance(1.0)  # the answer wakes nobody: only now is it looked for
        finding = future.result(PATIENCE)
    assert finding.steps[-1].phase == "ping"
    assert finding.steps[-1].seconds == pytest.approx(0.03)


def test_what_a_sockjs_server_says_of_itself_is_asked_for() -> None:
    body = json.dumps({"websocket": False, "cookie_needed": True})
    heads: list[bytes] = []

    def answer(sock: socket.socket, number: int) -> None:
        heads.append(read_until(sock, b"\r\n\r\n"))
        fixed = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        sock.sendall(fixed.encode())

    with raw_server(answer) as server:
        endpoint = Endpoint.parse(server.url("/base", scheme="xhr-polling+http"))
        way = Way("info", endpoint, EndpointDialer(), "info")
        finding = InfoProbe(way, Options(proxy=None, open_timeout=PATIENCE), SystemClock()).run()
    assert heads[0].startswith(b"GET /base/info HTTP/1.1\r\n")
    assert finding.info == {"websocket": False, "cookie_needed": True}
    assert (finding.error, finding.transport) == (None, None)
    assert phases(finding) == [("tcp", True), ("info", True)]
    assert diagnose(finding).kind == "no-websocket"


def test_a_tree_that_expects_a_message_leaves_what_swallows_it() -> None:
    with raw_server(upgraded(swallow)) as mute, raw_server(upgraded(greet)) as server:
        tree = BestConnected(
            Transport(mute.url(), name="mute"), Delayed(Transport(server.url(), name="b"), 0.05)
        )
        options = Options(proxy=None, open_timeout=PATIENCE)
        way = Way("default", None, tree, "tree")
        finding = Probe(way, options, SystemClock(), expects_message=True).run()
    assert (finding.error, finding.transport, finding.message) == (None, "b", "text, 6 bytes")
    assert {step.leaf for step in finding.steps} == {"mute", "b", ""}


def test_a_tree_that_opens_nothing_in_its_time_is_told_apart() -> None:
    with refusing_port() as port:
        tree = Sequential(Transport(f"ws://127.0.0.1:{port}/"), loop=True, timeout=PATIENCE)
        way = Way("default", None, tree, "tree")
        finding = Probe(way, Options(proxy=None, open_timeout=0.1), SystemClock()).run()
    assert diagnose(finding).kind == "tree-timeout"


def test_an_abort_ends_it_while_it_dials_and_while_it_waits_for_an_answer() -> None:
    reached = [threading.Event(), threading.Event()]

    def hold_upgrade(sock: socket.socket, number: int) -> None:
        read_upgrade(sock)
        reached[0].set()
        silent(sock, number)

    def hold_pong(frames: Frames) -> None:
        next(iter(frames))
        reached[1].set()
        swallow(frames)

    for handler, is_there in zip((hold_upgrade, upgraded(hold_pong)), reached, strict=True):
        with raw_server(handler) as server:
            running = probe(server.url())
            future = in_thread(running.run)
            assert is_there.wait(PATIENCE)
            running.abort(NotConnected("over"))
            assert isinstance(future.result(PATIENCE).error, (NotConnected, WaitTimeout))
