"""What every stream and codec promises, and what is done with any of them."""

import inspect
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from connman.clock import Deadline, SystemClock
from connman.testing import FakeClock
from connman.transport.deflate import DeflateCodec
from connman.transport.frames import FrameCodec
from connman.transport.framing import RawCodec
from connman.transport.memory import MemoryStream, _Lane
from connman.transport.sockets import SocketGuard
from connman.transport.stream import Codec, Stream, drain, write_rest
from connman.transport.tcp import TcpStream
from connman.transport.tls import TlsStream
from tests.loopback import in_thread
from tests.transport.pipes import wait_until_full
from tests.waiting import eventually

PATIENCE = 10.0


def soon() -> Deadline:
    return Deadline.after(SystemClock(), PATIENCE)


def passed() -> Deadline:
    return Deadline.after(SystemClock(), 0)


@pytest.fixture
def pair() -> Iterator[tuple[TcpStream, socket.socket]]:
    near, far = socket.socketpair()
    far.settimeout(PATIENCE)
    stream = TcpStream(SocketGuard(near))
    yield stream, far
    stream.close()
    far.close()


def methods_of(protocol: type) -> set[str]:
    return {name for name, value in vars(protocol).items() if inspect.isfunction(value) and name[0] != "_"}


@pytest.mark.parametrize("kind", [TcpStream, TlsStream, MemoryStream])
def test_each_stream_has_what_the_protocol_names(kind: Any) -> None:
    for name in methods_of(Stream):
        promised = inspect.signature(getattr(Stream, name)).parameters
        assert list(inspect.signature(getattr(kind, name)).parameters) == list(promised), name


@pytest.mark.parametrize("kind", [FrameCodec, DeflateCodec, RawCodec])
def test_each_codec_has_what_the_protocol_names(kind: Any) -> None:
    for name in methods_of(Codec):
        promised = inspect.signature(getattr(Codec, name)).parameters
        assert len(inspect.signature(getattr(kind, name)).parameters) == len(promised), name


# drain


def test_drain_reads_to_the_end_of_file(pair: tuple[TcpStream, socket.socket]) -> None:
    stream, far = pair
    draining = in_thread(drain, stream, soon())
    far.sendall(b"x" * 1_000_000)
    far.shutdown(socket.SHUT_WR)
    draining.result(PATIENCE)
    assert stream.recv(soon()) == b""


def test_drain_ends_at_its_deadline_with_a_peer_that_never_stops(
    pair: tuple[TcpStream, socket.socket],
) -> None:
    (stream, far), clock = pair, FakeClock()
    far.sendall(b"x" * 1000)
    drain(stream, passed())
    draining = in_thread(drain, stream, Deadline.after(clock, 0.01))
    eventually(lambda: not stream.is_readable())
    clock.advance(0.01)
    draining.result(PATIENCE)
    far.sendall(b"still")
    assert stream.recv(soon()) == b"still"


def test_drain_of_a_broken_stream_is_no_error() -> None:
    lane = _Lane(SystemClock())
    stream = MemoryStream(SystemClock(), lane, lane)
    stream.shutdown()
    drain(stream, soon())

    class Broken:
        def recv(self, _: Deadline) -> bytes:
            raise ConnectionResetError

    broken: Any = Broken()
    drain(broken, soon())


# write_rest


def test_write_rest_tells_what_was_taken_until_all_is(pair: tuple[TcpStream, socket.socket]) -> None:
    stream, far = pair
    data = bytes(3_000_000)

    def read_all() -> int:
        size = 0
        while size < len(data):
            size += len(far.recv(1 << 20))
        return size

    reading = in_thread(read_all)
    counts = list(write_rest(stream, memoryview(data), soon()))
    assert sum(counts) == len(data)
    assert reading.result(PATIENCE) == len(data)


def test_write_rest_ends_at_its_deadline(pair: tuple[TcpStream, socket.socket]) -> None:
    stream, _ = pair
    assert list(write_rest(stream, memoryview(b"x"), passed())) == []
    while stream.send_some(bytes(100_000)):
        pass
    counts = list(write_rest(stream, memoryview(bytes(1_000_000)), Deadline.after(SystemClock(), 0.01)))
    assert sum(counts) < 1_000_000


def test_write_rest_of_a_stream_that_was_closed_is_an_error_of_the_network(
    pair: tuple[TcpStream, socket.socket],
) -> None:
    """A reader closes it after having waited for a sender in vain; seen as a ValueError, of a descriptor of -1."""
    stream, _ = pair
    while stream.send_some(bytes(100_000)):
        pass
    stream.close()
    stream.wait_writable(None)
    with pytest.raises(OSError, match="descriptor"):
        list(write_rest(stream, memoryview(b"x"), soon()))


def test_write_rest_wakes_when_the_stream_is_shut_down(pair: tuple[TcpStream, socket.socket]) -> None:
    stream, _ = pair
    while stream.send_some(bytes(100_000)):
        pass
    wait_until_full(stream._sock)  # noqa: SLF001
    writing = in_thread(lambda: list(write_rest(stream, memoryview(bytes(1_000_000)), soon())))
    stream.shutdown()
    assert isinstance(writing.exception(PATIENCE), OSError)


def test_nothing_to_write_is_nothing_written(pair: tuple[TcpStream, socket.socket]) -> None:
    stream, _ = pair
    assert list(write_rest(stream, memoryview(b""), soon())) == []
