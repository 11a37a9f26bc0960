"""One direction of a link: what is held back, for how long, and in which order."""

import math
import socket
from collections.abc import Iterator

import pytest

from connman.testing.links import BUFFER, CHUNK, Faults, Flow, Link
from tests.loopback import PATIENCE


class Ends:
    """A flow between two socketpairs: the test holds the outer ends."""

    def __init__(self) -> None:
        self.sender, source = socket.socketpair()
        sink, self.receiver = socket.socketpair()
        self.socks = (self.sender, source, sink, self.receiver)
        source.setblocking(False)
        sink.setblocking(False)
        self.receiver.settimeout(PATIENCE)
        self.flow = Flow("up", source, sink)

    def write(self, now: float, limit: int | None = None, **faults: object) -> bytes:
        count = self.flow.write(now, Faults(**faults), limit)  # type: ignore[arg-type]
        return self.receiver.recv(count) if count else b""


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    for sock in made.socks:
        sock.close()


def test_nothing_is_due_before_something_was_read(ends: Ends) -> None:
    assert ends.flow.due_at == math.inf
    ends.flow.read(0, 0)  # nothing there: not an end of file
    assert ends.flow.due_at == math.inf
    assert ends.flow.wants_more


def test_what_is_read_is_due_after_its_delay_and_overtakes_nothing(ends: Ends) -> None:
    ends.sender.send(b"slow")
    ends.flow.read(10, 5)
    ends.sender.send(b"quick")
    ends.flow.read(11, 0)
    assert ends.flow.due_at == 15
    assert ends.write(15) == b"slow"
    assert ends.flow.due_at == 15
    assert ends.write(15) == b"quick"


def test_a_slice_and_a_limit_bound_one_write(ends: Ends) -> None:
    ends.sender.send(b"0123456789")
    ends.flow.read(0, 0)
    assert ends.write(0, slice=4) == b"0123"
    assert ends.write(0, 2, slice=4) == b"45"
    assert ends.write(0) == b"6789"


def test_a_rate_spreads_the_writes(ends: Ends) -> None:
    ends.sender.send(bytes(100))
    ends.flow.read(0, 0)
    assert len(ends.write(1.0, rate=1000)) == 50
    assert ends.flow.due_at == pytest.approx(1.05)
    assert len(ends.write(1.05, rate=1000)) == 50


def test_a_full_flow_is_not_read_on(ends: Ends) -> None:
    held = 0
    while ends.flow.wants_more:
        held += ends.sender.send(bytes(CHUNK))
        ends.flow.read(0, 0)
    assert BUFFER <= held <= BUFFER + CHUNK


def test_the_end_of_file_stays_behind_the_bytes(ends: Ends) -> None:
    ends.sender.send(b"last")
    ends.flow.read(0, 3)
    ends.sender.close()
    ends.flow.read(1, 0)
    assert not ends.flow.wants_more
    assert ends.flow.due_at == 3
    assert ends.write(3) == b"last"
    assert not ends.flow.is_over
    assert ends.write(3) == b""
    assert ends.flow.is_over
    assert ends.receiver.recv(1) == b""


def test_a_broken_end_is_an_error(ends: Ends) -> None:
    ends.sender.send(b"x")
    ends.flow.read(0, 0)
    ends.receiver.close()
    with pytest.raises(OSError):
        ends.write(0)


def test_a_link_tells_that_the_upstream_refused() -> None:
    with socket.socket() as nobody, socket.socket() as client, socket.socket() as upstream:
        nobody.bind(("127.0.0.1", 0))
        link = Link(client, upstream, None)
        upstream.setblocking(True)  # so that the failure is there when connect() returns
        with pytest.raises(ConnectionRefusedError):
            link.begin(nobody.getsockname())
        assert not link.is_connected
        assert not link.is_over


UPGRADE = b"GET / HTTP/1.1\r\nupgrade: WebSocket\r\n\r\n"


def test_an_upgrade_is_known_however_it_is_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for cut in range(1, len(UPGRADE)):
            with (
                socket.create_connection(listener.getsockname()) as sender,
                listener.accept()[0] as client,
                socket.socket() as upstream,
            ):
                sender.settimeout(PATIENCE)
                link = Link(client, upstream, None)
                client.setblocking(True)  # so that what was sent is there when it is read
                for part in (UPGRADE[:cut], UPGRADE[cut:]):
                    assert link.up.due_at == math.inf
                    sender.sendall(part)
                    link.up.read(0, 0)
                    link.judge("refuse")
                assert (link.up.due_at, link.up.is_over) == (math.inf, True)
                assert link.down.write(0, Faults(), None)
                assert sender.recv(65536).startswith(b"HTTP/1.1 403 ")
