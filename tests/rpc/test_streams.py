"""Streams between two peers: both ways, many at once, and however they end."""

import contextlib
import io
import itertools
import queue
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connman.errors import Forked, PeerGone, RemoteError, WouldDeadlock
from connman.rpc import Peer, Stream, StreamFailed, StreamTooFast
from connman.rpc.receiving import WINDOW
from tests.connection.test_fork import in_child
from tests.loopback import in_thread
from tests.rpc.wired import PATIENCE, Rewired, Wire, wired
from tests.waiting import eventually

Pair = tuple[Peer, Peer, Wire]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with wired() as pair:
        yield pair


class Endless:
    """A service that streams until it is stopped, and counts those that were closed."""

    def __init__(self, chunk: bytes = b"x" * 1000) -> None:
        self.chunk = chunk
        self.made = self.closed = 0

    def __call__(self) -> Iterator[bytes]:
        try:
            while True:
                self.made += 1
                yield self.chunk
        finally:
            self.closed += 1


# Both ways


def test_a_generator_is_read_as_it_is_made(pair: Pair) -> None:
    a, b, _ = pair
    made: list[int] = []
    turns: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def count() -> Iterator[str]:
        for number in itertools.count():
            if not turns.get():
                return
            made.append(number)
            yield str(number)

    b.add_service("count", count)
    with a.stream("count") as stream:
        for number in range(3):
            turns.put(True)
            assert next(stream) == str(number)
            assert made[-1] == number
    turns.put(False)


def test_files_travel_both_ways(pair: Pair) -> None:
    a, b, _ = pair
    data = random.Random(1).randbytes(300_000)
    b.add_service("get", lambda: io.BytesIO(data))
    b.add_service("put", lambda upload: b"".join(upload) == data)
    b.add_service("text", lambda: io.StringIO("zürich\n" * 10_000))
    assert b"".join(a.stream("get")) == data
    assert a.call("get") == data
    assert a.call("text") == "zürich\n" * 10_000
    assert a.call("put", io.BytesIO(data)) is True
    assert a.call("put", (data[i : i + 7000] for i in range(0, len(data), 7000))) is True


def test_a_stream_is_passed_on(pair: Pair) -> None:
    """What comes in as a stream goes out as one: back, and to a third service."""
    a, b, _ = pair
    b.add_service("echo", lambda upload: upload)
    b.add_service("shout", lambda upload: (chunk.upper() for chunk in upload))
    a.add_service("sum", lambda upload: sum(map(len, upload)))
    b.add_service("forward", lambda upload: b.call("sum", upload))
    assert list(a.stream("echo", iter(["a", "b"]))) == ["a", "b"]
    assert "".join(a.stream("shout", iter(["a", "b"]))) == "AB"
    assert a.call("forward", (b"12345" for _ in range(1000))) == 5000


def test_several_uploads_are_read_in_turn(pair: Pair) -> None:
    a, b, _ = pair
    b.add_service("zip", lambda one, two: "".join(x + y for x, y in zip(one, two, strict=True)))
    assert a.call("zip", iter("abc"), iter("123")) == "a1b2c3"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chunks=st.lists(st.binary(max_size=200), max_size=20) | st.lists(st.text(max_size=80), max_size=20),
    repeat=st.sampled_from([1, 1, 1, 5000]),
)
def test_chunks_of_any_size_arrive(pair: Pair, chunks: list[Any], repeat: int) -> None:
    a, b, _ = pair
    chunks = [chunk * repeat for chunk in chunks]
    kind: Any = str if chunks and isinstance(chunks[0], str) else bytes
    whole = kind().join(chunks)
    b.add_service("echo", lambda upload: upload)
    streamed = kind().join(a.stream("echo", iter(chunks)))
    called = a.call("echo", iter(chunks))
    # A surrogate pair in two halves becomes one character on its way.
    assert streamed == called == whole or not whole


# Many, and slow ones


def test_a_hundred_streams_at_once(pair: Pair) -> None:
    a, b, _ = pair
    barrier = threading.Barrier(100)

    def send(number: int) -> Iterator[bytes]:
        barrier.wait(PATIENCE)  # none ends before all have begun
        for _ in range(20):
            yield bytes([number]) * 1000

    def read(number: int) -> int:
        chunks = list(a.stream("send", number))
        assert {byte for chunk in chunks for byte in chunk} == {number}
        return sum(map(len, chunks))

    b.add_service("send", send)
    with ThreadPoolExecutor(100) as threads:
        assert list(threads.map(read, range(100))) == [20_000] * 100
    eventually(lambda: a.stats.calls_in_flight == 0)


def test_a_slow_reader_holds_up_its_sender_and_nobody_else(pair: Pair) -> None:
    a, b, _ = pair
    endless = Endless()
    b.add_service("endless", endless)
    b.add_service("add", lambda x, y: x + y)
    b.add_service("quick", lambda: iter([b"x"] * 100))
    with a.stream("endless") as stream:
        next(stream)
        most = WINDOW // 1000 + 2
        eventually(lambda: endless.made >= WINDOW // 1000)
        for number in range(200):
            assert a.call("add", number, 1) == number + 1
        assert b"".join(a.stream("quick")) == b"x" * 100
        assert endless.made <= most
        for _ in range(2 * most):
            next(stream)
        assert endless.made > most
    eventually(lambda: endless.closed == 1)


def test_a_slow_service_holds_up_its_upload_and_nobody_else(pair: Pair) -> None:
    a, b, _ = pair
    endless = Endless()
    may_go_on = threading.Event()

    def put(upload: Stream) -> int:
        next(upload)
        may_go_on.wait(PATIENCE)
        return sum(len(next(upload)) for _ in range(1000))

    b.add_service("put", put)
    b.add_service("add", lambda x, y: x + y)
    future = a.send("put", endless())
    eventually(lambda: endless.made >= WINDOW // 1000)
    for number in range(200):
        assert a.call("add", number, 1) == number + 1
    assert endless.made <= WINDOW // 1000 + 2
    may_go_on.set()
    assert future.result(PATIENCE) == 1_000_000
    eventually(lambda: endless.closed == 1)  # the call is over, and its upload with it


def test_streams_that_nobody_reads_take_their_windows_and_no_more(pair: Pair) -> None:
    a, b, _ = pair
    endless = Endless()
    b.add_service("endless", endless)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(a.stream("endless"))
        eventually(lambda: endless.made >= 20 * (WINDOW // 1000))
        b.add_service("add", lambda x, y: x + y)
        assert a.call("add", 1, 2) == 3
        assert endless.made <= 20 * (WINDOW // 1000 + 2)
        threads = [thread.name for thread in threading.enumerate() if "streams" in thread.name]
        assert len(threads) <= 20
    eventually(lambda: endless.closed == 20)


# Ends


def test_a_service_that_breaks_off_tells_what_it_raised(pair: Pair) -> None:
    class Odd(Exception):
        code = "ODD"

    def broken() -> Iterator[str]:
        yield "a"
        raise Odd("what went wrong")

    a, b, _ = pair
    b.add_service("broken", broken)
    stream = a.stream("broken")
    assert next(stream) == "a"
    for _ in range(2):
        with pytest.raises(StreamFailed) as caught:
            next(stream)
    assert (caught.value.name, caught.value.message, caught.value.code) == ("Odd", "what went wrong", "ODD")
    with pytest.raises(StreamFailed) as caught:
        a.call("broken")
    assert caught.value.code == "WSRQ-SEH1"


def test_an_upload_that_breaks_off_fails_the_service_that_reads_it(pair: Pair) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise ValueError("what went wrong")

    a, b, _ = pair
    b.add_service("put", "".join)
    with pytest.raises(RemoteError) as caught:
        a.call("put", broken())
    assert caught.value.name == "StreamFailed"


@pytest.mark.parametrize("when", ["before", "first", "middle", "full"])
def test_a_reader_may_leave_in_every_phase(pair: Pair, when: str) -> None:
    a, b, _ = pair
    endless = Endless()
    b.add_service("endless", endless)
    stream = a.stream("endless")
    if when != "before":
        next(stream)
    if when == "middle":
        for _ in range(WINDOW // 500):
            next(stream)
    if when == "full":
        eventually(lambda: endless.made >= WINDOW // 1000)
    stream.close()
    b.add_service("add", lambda x, y: x + y)
    assert a.call("add", 1, 2) == 3
    # Cancelled before it ran, a generator has nothing to close.
    eventually(lambda: endless.closed == 1 or endless.made == 0)
    assert a.stats.calls_in_flight == 0


def test_a_reader_may_leave_before_the_service_has_returned_its_stream(pair: Pair) -> None:
    """It would wait for its window to be read until the path ends, and a thousand of them leave no room for others."""
    a, b, _ = pair
    endless, is_called, may_return = Endless(), threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        is_called.set()
        may_return.wait(PATIENCE)
        return endless()

    b.add_service("slow", slow)
    with a.stream("slow"):
        assert is_called.wait(PATIENCE)
    b.add_service("add", lambda x, y: x + y)
    assert a.call("add", 1, 2) == 3  # behind the word that nobody reads it
    may_return.set()
    eventually(lambda: endless.closed == 1)


def test_a_service_that_leaves_its_upload_stops_the_caller_s_generator(pair: Pair) -> None:
    a, b, _ = pair
    endless = Endless()

    def put(upload: Stream) -> str:
        with upload:
            return f"{next(upload)[:1]!r}"

    b.add_service("put", put)
    assert a.call("put", endless()) == "b'x'"
    eventually(lambda: endless.closed == 1)


def test_a_loss_ends_streams_on_both_sides() -> None:
    endless = Endless()
    with wired() as (a, b, wire):
        b.add_service("endless", endless)
        errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

        def put(upload: Stream) -> None:
            try:
                for _ in upload:
                    pass
            except BaseException as error:
                errors.put(error)
                raise

        b.add_service("put", put)
        upload = Endless()
        future = a.send("put", upload())
        stream = a.stream("endless")
        next(stream)
        eventually(lambda: upload.made > 100)
        wire.cut()
        with pytest.raises(PeerGone):
            for _ in stream:
                pass
        with pytest.raises(PeerGone):
            future.result(PATIENCE)
        assert isinstance(errors.get(timeout=PATIENCE), PeerGone)
        eventually(lambda: (endless.closed, upload.closed) == (1, 1))
        assert a.stats.calls_in_flight == b.stats.calls_in_flight == 0


def test_both_ends_may_close_at_once() -> None:
    for _ in range(20):
        endless = Endless()
        with wired() as (a, b, _wire):
            b.add_service("endless", endless)
            stream = a.stream("endless")
            next(stream)
            barrier = threading.Barrier(3)

            def meet(act: Any, barrier: threading.Barrier = barrier) -> None:
                barrier.wait(PATIENCE)
                act()

            ends = [in_thread(meet, act) for act in (stream.close, a.close, b.close)]
            for end in ends:
                end.result(PATIENCE)
            assert list(stream) == []
        eventually(lambda endless=endless: endless.closed == 1)  # type: ignore[misc]


def test_a_stream_after_the_end_fails_at_once(pair: Pair) -> None:
    a, _b, _ = pair
    a.close()
    with pytest.raises(PeerGone):
        a.stream("tail")


def test_a_chunk_cannot_be_waited_for_on_the_reader(pair: Pair) -> None:
    a, b, _ = pair
    b.add_service("one", lambda: iter([b"x"]))
    stream = a.stream("one")
    caught: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def callback(_future: Any) -> None:
        try:
            next(stream)
        except WouldDeadlock as error:
            caught.put(error)
        else:
            caught.put(None)

    may_answer = threading.Event()
    b.add_service("later", lambda: may_answer.wait(PATIENCE))
    a.send("later").add_done_callback(callback)
    may_answer.set()  # behind that: the callback of a Future that is done runs here
    assert isinstance(caught.get(timeout=PATIENCE), WouldDeadlock)
    assert list(stream) == [b"x"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_stream_is_the_parent_s_after_a_fork(pair: Pair) -> None:
    a, b, _ = pair
    b.add_service("endless", Endless())

    def read_on() -> str:
        try:
            next(stream)
        except Forked:
            return "forked"
        return "went on"

    with a.stream("endless") as stream:
        next(stream)
        assert in_child(read_on) == "forked"
        for _ in range(2000):
            next(stream)


# A stress


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_streams_of_all_kinds_at_once(pair: Pair, seed: int, rounds: int) -> None:
    """Downloads, uploads and plain calls; some are left half-way, some break off; none gets what is another's."""
    a, b, _ = pair

    def make(number: int, count: int, fails: bool) -> Iterator[bytes]:
        for _ in range(count):
            yield bytes([number % 256]) * (number % 3000 + 1)
        if fails:
            raise ValueError(number)

    for one, other in ((a, b), (b, a)):
        other.add_service("get", make)
        other.add_service("echo", lambda number, upload: (bytes([number % 256]) + chunk for chunk in upload))
        other.add_service("add", lambda x, y: x + y)
        assert one.call("add", 1, 1) == 2

    def work(number: int) -> None:
        rng = random.Random(seed + number)
        peer = rng.choice((a, b))
        count, fails, kind = rng.randint(0, 300), rng.random() < 0.1, rng.randint(0, 3)
        own = bytes([number % 256])
        if kind == 0:
            assert peer.call("add", number, 1) == number + 1
        elif kind == 1:
            assert peer.call("get", number, min(count, 50), False) == own * (number % 3000 + 1) * min(
                count, 50
            )
        elif kind == 2:
            stop = rng.randint(0, 400)
            with contextlib.suppress(StreamFailed), peer.stream("get", number, count, fails) as stream:
                for chunk in itertools.islice(stream, stop):
                    assert chunk == own * (number % 3000 + 1)
        else:
            for chunk in peer.stream("echo", number, make(number, count, False)):
                assert set(chunk) == set(own)

    with ThreadPoolExecutor(16) as threads:
        for _ in threads.map(work, range(100 * rounds)):
            pass
    eventually(lambda: (a.stats.calls_in_flight, b.stats.calls_in_flight) == (0, 0))


@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_streams_while_the_path_breaks(seed: int, rounds: int) -> None:
    """Each stream is whole or ends in PeerGone with a beginning of what was sent; every generator is closed."""
    made: list[Source] = []

    def give(number: int, count: int) -> Iterator[bytes]:
        source = Source(number, count)
        made.append(source)
        return source

    with Rewired() as pair:
        for peer in (pair.a, pair.b):
            peer.add_service("get", give)
            peer.add_service("put", lambda upload: sum(map(len, upload)))
        outcomes: Counter[str] = Counter()

        def work(number: int) -> None:
            rng = random.Random(seed + number)
            peer, count = rng.choice((pair.a, pair.b)), rng.randint(0, 400)
            whole = bytes([number % 256]) * 1000 * count
            got = b""
            for each in (pair.a, pair.b):
                each.conn.wait_open(PATIENCE)
            try:
                if rng.random() < 0.5:
                    with peer.stream("get", number, count) as stream:
                        for chunk in stream:
                            got += chunk
                    assert got == whole
                elif rng.random() < 0.5:
                    assert peer.call("get", number, count) == whole
                else:
                    assert peer.call("put", Source(number, count)) == len(whole)
                outcomes["whole"] += 1
            except PeerGone:
                assert whole.startswith(got)
                outcomes["gone"] += 1

        def cut() -> None:
            rng = random.Random(seed)
            while not is_over.wait(0.2 + rng.random() / 2):
                pair.cut()

        is_over = threading.Event()
        cutting = in_thread(cut)
        with ThreadPoolExecutor(12) as threads:
            for _ in threads.map(work, range(80 * rounds)):
                pass
        is_over.set()
        cutting.result(PATIENCE)
        print(outcomes, pair.cuts)
        eventually(lambda: (pair.a.stats.calls_in_flight, pair.b.stats.calls_in_flight) == (0, 0))
        eventually(lambda: all(source.is_done for source in made if source.is_begun))


class Source:
    """A generator that knows whether it was begun, and whether it was closed or has ended."""

    def __init__(self, number: int, count: int) -> None:
        self.is_begun = self.is_done = False
        self._chunks = iter([bytes([number % 256]) * 1000] * count)

    def __iter__(self) -> "Source":
        return self

    def __next__(self) -> bytes:
        self.is_begun = True
        try:
            return next(self._chunks)
        except StopIteration:
            self.is_done = True
            raise

    def close(self) -> None:
        self.is_done = True


def test_a_sender_that_cannot_be_held_back_is_cut_off_and_others_go_on() -> None:
    with wired(max_message_size=200_000) as (a, b, wire):
        endless = Endless()
        b.add_service("endless", endless)
        b.add_service("add", lambda x, y: x + y)
        wire.alter = lambda side, frame: (
            frame.replace(',"window":524288', "") if side == "a" and isinstance(frame, str) else frame
        )
        stream = a.stream("endless")
        eventually(lambda: endless.closed == 1)
        assert a.call("add", 1, 2) == 3
        with pytest.raises(StreamTooFast):
            for _ in stream:
                pass
