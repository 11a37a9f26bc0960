"""Frames of calls into a session that has calls, streams and uploads of its own under way, without a thread or a socket."""

import json
import math
import struct
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from connman.clock import Timer
from connman.errors import ConnmanError, PeerGone
from connman.rpc.calls import FutureCall
from connman.rpc.codec import encode
from connman.rpc.reading import Stream
from connman.rpc.routing import Routing
from connman.rpc.services import Services
from connman.rpc.session import Parts, Session
from connman.rpc.table import Table
from tests.rigs.fuzz.target import Target, expect

_END = b"\x1e"  # of a frame in a case
_SECRET = "S3CR3T-7f1e"
_PLAIN = 3  # calls that wait for one answer, with the ids from 0; behind them two streams, and a call with an upload
_LIMIT = 100_000
_TERMINAL = {"data", "error", "stream-end", "stream-error"}
_ANSWERS = {"data", "error", "stream", "stream-start", "stream-end", "stream-error"}


class _Threads:
    """Runs what it is given later, on the thread that says so: stands for every pool of threads."""

    def __init__(self) -> None:
        self._jobs: list[Callable[[], object]] = []

    def submit(self, job: Callable[[], object], *, is_new: bool = True) -> bool:
        self._jobs.append(job)
        return True

    def run_last(self, end: Callable[[], object]) -> None:
        self._jobs.append(end)

    def rest(self) -> None:
        pass

    resume = rest

    def run_all(self) -> None:
        while self._jobs:
            self._jobs.pop(0)()


class _Clock:
    """Stands still; to wait on it would be to wait for ever."""

    def now(self) -> float:
        return 0.0

    def wait(self, condition: Any, timeout: float | None) -> None:
        expect(timeout is not None and timeout <= 0, "it waits")

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return self  # type: ignore[return-value]

    def cancel(self) -> None:
        pass


class _Transport:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.error: object = None

    def send_now(self, batch: list[str | bytes]) -> None:
        self.sent += batch

    def may_take(self) -> bool:
        return False

    def call_reader(self) -> None:
        pass

    def abort(self, error: object) -> None:
        self.error = error


class _Chunks:
    """What a service streams."""

    made = closed = 0  # set for each case

    def __init__(self, *sizes: Any) -> None:
        type(self).made += 1
        self._chunks = iter([_chunk(size) for size in sizes[:20]])

    def __iter__(self) -> "_Chunks":
        return self

    def __next__(self) -> Any:
        return next(self._chunks)

    def close(self) -> None:
        type(self).closed += 1


def _chunk(size: Any) -> Any:
    if isinstance(size, str):
        return size
    return b"x" * (abs(size) % _LIMIT) if isinstance(size, int) else size


class _Conversation:
    """A session in the middle of things."""

    def __init__(self) -> None:
        _Chunks.made = _Chunks.closed = 0
        self.kept: list[Stream] = []
        self.threads, self.transport = _Threads(), _Transport()
        clock = _Clock()
        self.table = Table(clock, self.threads.submit)
        functions = {"add": lambda a, b: a + b, "stream": _Chunks, "keep": self._keep, 5: lambda *args: args}
        services = Services(functions, clock=clock)
        services.workers = services.senders = self.threads  # type: ignore[assignment]
        parts = Parts(
            self, "fuzz", clock, self.table, services, self.threads, lambda: False, 1.0, 0.0, _LIMIT  # type: ignore[arg-type]
        )  # fmt: skip
        self.session = Session(parts, self.transport)  # type: ignore[arg-type]
        self.streams = self.session.streams
        self.routing = Routing(self.session, self.table)
        self.futures = [self._call("plain", "[1]") for _ in range(_PLAIN)]
        self.readers = [self.streams.open("stream", (), 0) for _ in range(2)]
        args, upload = self.streams.upload([iter([_SECRET])])
        self.futures.append(self._call("upload", args, upload))
        self.threads.run_all()
        self.transport.sent.clear()

    def _keep(self, *args: Any) -> None:
        for arg in args:
            if isinstance(arg, Stream):
                arg.begin()
                self.kept.append(arg)

    def _call(self, service: str, args: str, upload: Any = None) -> Any:
        text = f'"type":"request","serviceId":"{service}","args":{args}}}'
        call = FutureCall(self.table, service, text, lambda: False)
        call.upload = upload
        self.session.send(call)
        return call.future

    @property
    def is_upload_sent(self) -> bool:
        return not self.streams.uploads

    def feed(self, frame: str | bytes) -> None:
        self.routing.received([frame])
        self.threads.run_all()

    def end(self) -> None:
        with self.table.lock:
            self.session.is_over = True
            failed = self.table.path_broke_locked((), for_good=True)
        for call in failed:
            call.failed(PeerGone("the end"))
        self.session.end(PeerGone("the end"))
        self.threads.run_all()


def check_calls(case: bytes) -> None:
    """Feed the frames of a case, and look at what comes of the calls, the answers and the counters."""
    talk = _Conversation()
    frames = [frame for part in case.split(_END)[:200] for frame in _frame(part)]
    for frame in frames:
        talk.feed(frame)
    stats = talk.table.snapshot()
    reading = _Reading(frames)
    counted = (stats.requests_received_total, stats.requests_received_invalid)
    expect(counted[0] == reading.received, "requests are counted wrongly", counted, reading.received)
    most = reading.invalid + reading.odd_chunks
    expect(
        reading.invalid <= counted[1] <= most, "invalid ones are counted wrongly", counted, reading.invalid
    )
    expect(stats.late_answers + stats.unknown_answers <= reading.answers, "more strays than answers", stats)
    expect(talk.transport.error is None, "the path was ended", talk.transport.error)
    _check_sent(talk, reading)
    talk.end()
    _check_ends(talk, reading)


def _frame(part: bytes) -> list[str | bytes]:
    """Return the frame that a part of a case stands for: what begins with B is binary."""
    return [part[1:]] if part[:1] == b"B" else [part.decode(errors="replace")]


class _Reading:
    """What frames say, read in the plainest way."""

    def __init__(self, frames: list[str | bytes]) -> None:
        self.received = self.invalid = self.odd_chunks = self.answers = 0
        self.requests: Counter[int] = Counter()
        self.first: dict[int, dict[str, Any] | bytes] = {}  # that concerns a call of ours
        for frame in frames:
            if isinstance(frame, bytes):
                self._read_binary(frame)
            else:
                self._read_text(_plain_json(frame))

    def _read_binary(self, frame: bytes) -> None:
        number = struct.unpack_from("<d", frame)[0] if len(frame) >= 8 else math.nan
        if not (0 <= number < 2**53 and number.is_integer()):
            self.invalid += 1
            return
        self.answers += 1
        self.first.setdefault(int(number), frame)

    def _read_text(self, message: Any) -> None:
        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "request":
            self._read_request(message)
        elif kind == "write-stream-error":
            self.received += 1
        elif kind == "stream-credit":
            number, size = _whole(message.get("requestId")), _whole(message.get("bytes"))
            self.invalid += number is None or size is None or not 0 < size < 2**53
        elif isinstance(kind, str) and kind in _ANSWERS:
            self.answers += 1
            self.odd_chunks += kind == "stream" and not isinstance(message.get("chunk"), str)
            number = message.get("responseId")
            if type(number) in (int, float):
                self.first.setdefault(number, message)  # 1.0 is 1 here as well
        else:
            self.invalid += 1

    def _read_request(self, message: dict[str, Any]) -> None:
        number, service = _whole(message.get("requestId")), message.get("serviceId")
        if number is None or not (service if isinstance(service, str) else _whole(service) is not None):
            self.invalid += 1
            return
        self.received += 1
        if message.get("notice") is not True:
            self.requests[number] += 1


def _whole(value: Any) -> int | None:
    if type(value) is int:
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _plain_json(text: str) -> Any:
    def refuse(_: str) -> None:
        raise ValueError

    try:
        return _without_undefined(json.loads(text, parse_constant=refuse))
    except (ValueError, RecursionError):
        return None


def _without_undefined(value: Any) -> Any:
    mark = "$__undefined$"
    if isinstance(value, dict):
        return {key: _without_undefined(inner) for key, inner in value.items() if inner != mark}
    if isinstance(value, list):
        return [_without_undefined(inner) for inner in value]
    return None if value == mark else value


def _check_sent(talk: _Conversation, reading: _Reading) -> None:
    """Look at what went out: each is a message, and each request has its one answer."""
    answered: Counter[int] = Counter()
    for frame in talk.transport.sent:
        if isinstance(frame, bytes):
            number = struct.unpack_from("<d", frame)[0]
            expect(number in reading.requests, "a chunk for nobody", number)
            continue
        message = json.loads(frame)
        kind = message["type"]
        if kind in _TERMINAL:
            answered[message["responseId"]] += 1
        else:
            expect(
                kind in ("stream", "stream-start", "request", "stream-credit", "write-stream-error"),
                "odd",
                frame,
            )
    # Those that stream may wait for credit, and so may the upload.
    waiting = _Chunks.made - _Chunks.closed + talk.is_upload_sent
    asked = sum(reading.requests.values())
    expect(sum(answered.values()) + waiting >= asked >= sum(answered.values()), "answers", asked, answered)
    expect(not answered - reading.requests, "an answer to nothing", answered, reading.requests)


def _check_ends(talk: _Conversation, reading: _Reading) -> None:
    expect(talk.table.snapshot().calls_in_flight == 0, "calls that do not end")
    expect(_Chunks.made == _Chunks.closed, "a stream is left open", _Chunks.made, _Chunks.closed)
    for number, future in enumerate(talk.futures[:_PLAIN]):
        expect(future.done(), "a call without an end", number)
        error = future.exception(0)
        expect(error is None or isinstance(error, ConnmanError), "not an error for this", error)
        first = reading.first.get(number)
        if isinstance(first, dict) and first["type"] == "data":
            expect(
                error is None and _same(future.result(0), first.get("data")), "another result", first, future
            )
        elif isinstance(first, dict) and first["type"] == "error":
            expect(error is not None and not isinstance(error, PeerGone), "no error", first, future)
    for stream in (*talk.readers, *talk.kept):
        try:
            for item in stream:
                encode(item) if not isinstance(item, bytes) else None
        except ConnmanError as error:
            expect(_SECRET not in f"{error!r}", "an error that shows a secret", error)


def _same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


# Making frames

_VALUES = (
    "1", "0", "-1", "1.0", "1.5", "1e400", "null", "true", '""', '"a"', '"$__undefined$"', '"\\u0024__undefined$"', "[]", "{}",
    "[1,[2]]", '["$__undefined$",1]', '{"a":{"b":"$__undefined$"}}', "12345678901234567890123", "1e16", '"\\ud800"', '"ü"', "NaN", "-Infinity",
    '{"$__stream$":"$__stream$1"}', '{"$__stream$":"x"}', '{"$__stream$":5}', '"' + "x" * 300 + '"', "[" * 40 + "]" * 40,
)  # fmt: skip
_IDS = (
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "99",
    "1.0",
    "-1",
    "null",
    '"1"',
    "true",
    "9007199254740993",
)
_SERVICES = (
    '"add"',
    '"stream"',
    '"keep"',
    "5",
    '"$__stream$1"',
    '"nothing"',
    "0",
    "-5",
    '""',
    "1.5",
    "null",
    "5.0",
)
_ENCODINGS = ('"utf8"', '"base64"', "null", '"latin1"', "1")


def _make_request(random: Random) -> str:
    args = ",".join(random.choice(_VALUES) for _ in range(random.randrange(4)))
    fields = [
        f'"requestId":{random.choice(_IDS)}',
        '"type":"request"',
        f'"serviceId":{random.choice(_SERVICES)}',
    ]
    if random.random() < 0.9:
        fields.append(f'"args":[{args}]' if random.random() < 0.9 else f'"args":{random.choice(_VALUES)}')
    for chance, field in (
        (0.3, f'"window":{random.choice(("4", "10", "1000", "1e9", *_VALUES))}'), (0.1, '"notice":true'),
        (0.1, f'"callId":"{random.choice("ab")}"'),
    ):  # fmt: skip
        if random.random() < chance:
            fields.append(field)
    return "{" + ",".join(fields) + "}"


def _make_answer(random: Random) -> str:
    number, kind = random.choice(_IDS), random.choice((*_ANSWERS, "stream", "stream"))
    fields = {
        "data": f',"data":{random.choice(_VALUES)}',
        "error": f',"error":{random.choice((*_VALUES, _error(random), _error(random)))}',
        "stream": f',"chunk":{random.choice((*_VALUES, _TEXT, _TEXT))},"encoding":{random.choice(_ENCODINGS)}',
        "stream-error": f',"error":"x","cause":{random.choice((*_VALUES, _error(random)))}',
    }
    return f'{{"responseId":{number},"type":"{kind}"{fields.get(kind, "")}}}'


_TEXT = '"YWJj"'


def _error(random: Random) -> str:
    values = [random.choice((*_VALUES, '"UNKNOWN-SERVICE"', '"KeyError"')) for _ in range(3)]
    return f'{{"name":{values[0]},"message":{values[1]},"code":{values[2]}}}'


def _make_control(random: Random) -> str:
    number = random.choice(_IDS)
    if random.random() < 0.5:
        return f'{{"requestId":{number},"type":"write-stream-error"}}'
    return f'{{"requestId":{number},"type":"stream-credit","bytes":{random.choice((*_VALUES, "5", "1000"))}}}'


def _make_binary(random: Random) -> bytes:
    numbers = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 99.0, 0.5, -1.0, math.nan, math.inf, 2.0**53, 1e300)
    chunk = random.choice((b"", b"x", b"y" * 20, b"z" * 3000))
    return b"B" + struct.pack("<d", random.choice(numbers)) + chunk


def _make_stream(random: Random) -> list[bytes]:
    """Make the frames of one stream, most of them in order."""
    number = random.randrange(_PLAIN + 2)
    chunks = [
        b"B" + struct.pack("<d", number) + b"x" * random.randrange(9),
        f'{{"responseId":{number},"type":"stream","chunk":{_TEXT},"encoding":{random.choice(_ENCODINGS)}}}'.encode(),
    ]
    kind = random.choice(chunks)
    middle = [kind if random.random() < 0.8 else random.choice(chunks) for _ in range(random.randrange(5))]
    last = random.choice(("stream-end", "stream-end", "stream-error", "stream-start", "data"))
    return [*middle, f'{{"responseId":{number},"type":"{last}"}}'.encode()]


def make_calls(random: Random) -> bytes:
    """Make a conversation of a few frames."""
    frames = []
    for _ in range(1 + int(random.random() ** 2 * 12)):
        make = random.choice((_make_request, _make_answer, _make_answer, _make_control))
        frames.append(_make_binary(random) if random.random() < 0.2 else make(random).encode())
    if random.random() < 0.3:
        place = random.randrange(len(frames) + 1)
        frames[place:place] = _make_stream(random)
    return _END.join(frames)


CALLS = Target(
    "calls", "frames of calls, both ways, in the middle of calls and streams", 200_000, check_calls, make_calls,
    (
        *(value.encode() for value in (*_VALUES[:20], *_SERVICES)), _END, b"B", b'"type":"stream"', b'"type":"stream-end"',
        b'"type":"data"', b'"type":"error"', b'"window":5', b'"notice":true', b'"callId":"a"', struct.pack("<d", 3.0), b"\x00" * 8,
        b'"$__stream$"', b'{"a":' * 300, b"[" * 3000,
    ),
)  # fmt: skip
