"""Login conversations: a ``handshake`` that does anything, with a peer that does anything, over the real pipe."""

from collections.abc import Callable
from random import Random

import connman
from connman.connection.attempt import open_once
from connman.errors import (
    ConnectError,
    ConnectionClosed,
    ConnmanError,
    Fatal,
    HandshakeFailed,
    HandshakeTimeout,
    NotConnected,
    WouldDeadlock,
)
from connman.options import Options
from connman.records import Message
from connman.transport.base import Dial, Transport
from connman.transport.deflate import DeflateCodec
from connman.transport.extensions import Deflate
from connman.transport.frames import FrameCodec
from connman.transport.framing import RawCodec
from connman.transport.login import Channel
from connman.transport.memory import MemoryStream, memory_streams
from connman.transport.pipe import Pipe
from connman.transport.stream import Codec
from tests.rigs.fuzz.script import Script, piece
from tests.rigs.fuzz.target import Target, expect
from tests.rigs.fuzz.targets.frames import check_error, frame
from tests.rigs.fuzz.wire import NEVER, StepClock

_LIMIT = 1000
_OPTIONS = Options(handshake_timeout=5.0, max_message_size=_LIMIT)
_CODECS: tuple[Callable[[], Codec], ...] = (
    lambda: FrameCodec(_LIMIT, mask=False),
    lambda: FrameCodec(_LIMIT),
    lambda: DeflateCodec(_LIMIT, Deflate(), mask=False),
    lambda: connman.lines().codec(_LIMIT),
    lambda: connman.length_prefixed(2).codec(_LIMIT),
    lambda: RawCodec(_LIMIT),
)
_RAISED: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("a bug"), KeyError, lambda: Fatal("go away"), lambda: ConnectionClosed(4000, "no\nway"),
    lambda: SystemExit(3), lambda: OSError(5, "not ours"), TimeoutError, lambda: HandshakeFailed("x"),
    KeyboardInterrupt, lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), lambda: WouldDeadlock("x"),
)  # fmt: skip
_TIMEOUTS = (None, 0.0, -1.0, 0.1, 4.0, 100.0, float("nan"), float("inf"))
_ODD_DATA: tuple[object, ...] = (
    7,
    None,
    [1],
    "\ud800",
    object(),
    bytearray(b"x"),
    memoryview(b"xyz"),
    "a\nb",
    b"z" * 70_000,
)


class Conversation:
    """One login, both sides of it, on one thread: the peer acts whenever the login waits."""

    def __init__(self, case: bytes) -> None:
        script = Script(case)
        self._make_codec = script.choose(_CODECS)
        self._login = Script(script.piece())
        self._peer = Script(script.rest())
        self.clock = StepClock()
        self.clock.on_wait = self._step
        self.near, self.far = memory_streams(self.clock)
        self._sent = b""  # by the peer
        self._is_ended = False
        self._swallows = False
        self.got: list[Message] = []
        self.raised: BaseException | None = None
        self.dial_error = NotConnected("ended by the user")
        self.is_aborted = False  # while the login was held
        self._is_over = False
        self.slept = 0.0
        self.over_at = 0.0
        self._dial = Dial(None, _OPTIONS, self.clock, name="fuzz")

    def dial(self, dial: Dial) -> Transport:
        return Pipe("memory", self.near, self._make_codec(), self.clock)

    def open(self) -> tuple[Transport, list[Message]]:
        return open_once(self._dial, self, _OPTIONS, self.handshake)

    # Our side

    def handshake(self, channel: Channel) -> None:
        try:
            self._talk(channel)
        finally:
            self._is_over = True
            self.over_at = self.clock.now()

    def _talk(self, channel: Channel) -> None:
        while self._login:
            try:
                if self._act(channel):
                    return
            except (ConnmanError, ValueError, TypeError) as error:
                if not self._swallows:
                    self.raised = error
                    raise
            except BaseException as error:
                self.raised = error
                raise

    def _act(self, channel: Channel) -> bool:
        login, what = self._login, self._login.below(12)
        if what == 0:
            channel.send(login.text())
        elif what == 1:
            channel.send(login.piece())
        elif what in (2, 3, 4):
            self.got.append(channel.recv())
        elif what in (5, 6):
            self.got.append(channel.recv(login.choose(_TIMEOUTS)))
        elif what == 7:
            error = login.choose(_RAISED)()
            raise error
        elif what == 8:
            self._swallows = not self._swallows
        elif what == 9:
            seconds = login.byte() / 32
            self.slept += seconds
            self.clock.advance(seconds)
        elif what == 10:
            channel.send(login.choose(_ODD_DATA))  # type: ignore[arg-type]
        else:
            return True
        return False

    # Theirs

    def _step(self, timeout: float | None) -> None:
        """Do what the peer does next; time passes when it has nothing left to do."""
        if self._peer:
            self._do(timeout)
        else:
            self.clock.advance(NEVER if timeout is None else timeout)

    def _do(self, timeout: float | None) -> None:
        peer, what = self._peer, self._peer.below(16)
        if what < 5:
            self._put(peer.piece())
        elif what < 8:
            self._put(frame(peer.choose((0x81, 0x82, 0x01, 0x80, 0xC1)), peer.piece()))
        elif what == 8:
            self._put(frame(0x89, peer.piece(125)))
        elif what == 9:
            self._put(frame(0x88, bytes((peer.choose((3, 3, 15, 0)), peer.byte())) + peer.piece(123)))
        elif what == 10 and not self._is_ended:
            self._is_ended = True
            self.far.end_writing()
        elif what == 11 and not peer.below(4):
            self.far.shutdown()
            self._is_ended = True
        elif what == 12 and not peer.below(4):
            self.is_aborted = self.is_aborted or not self._is_over
            self._dial.abort(self.dial_error)
        elif what == 13:
            _take_all(self.far)
        else:
            seconds = peer.byte() / 64
            self.clock.advance(seconds if timeout is None else min(seconds, timeout))

    def _put(self, data: bytes) -> None:
        if data and not self._is_ended:
            try:
                self._sent += data[: self.far.send_some(data)]
            except BrokenPipeError:
                self._is_ended = True

    def finish(self) -> None:
        """Let the peer do the rest of what it does."""
        while self._peer:
            self._do(None)

    def expected(self) -> tuple[list[Message], Codec]:
        """Return the messages in all that the peer has sent, as a codec by itself finds them."""
        codec = self._make_codec()
        messages = codec.feed(self._sent)
        while codec.rest:
            messages += codec.feed(codec.rest)
        return messages, codec


def _take_all(stream: MemoryStream) -> None:
    while stream.recv_some():
        pass


def check(case: bytes) -> None:
    """Hold a conversation; it ends in an open transport that has lost nothing, or in an error that is documented."""
    talk = Conversation(case)
    try:
        transport, behind = talk.open()
    except ConnmanError as error:
        _check_failure(talk, error)
    else:
        try:
            _check_open(talk, transport, behind)
        finally:
            transport.dispose()
    try:
        # Each send may take a millisecond more.
        expect(
            talk.over_at <= 5.1 + talk.slept, "the login had more time than it has", talk.over_at, talk.slept
        )
        talk.far.send_some(b"x")
    except BrokenPipeError:
        return
    expect(False, "the transport was left open")


def _check_failure(talk: Conversation, error: ConnmanError) -> None:
    check_error(error)
    if talk.is_aborted:
        expect(error is talk.dial_error or error is talk.raised, "not what it was aborted with", error)
    elif isinstance(talk.raised, Fatal):
        expect(error is talk.raised, "not the fatal error", error)
    elif talk.clock.now() >= 5.0 and isinstance(error, HandshakeTimeout):
        pass
    else:
        expect(type(error) is HandshakeFailed, "not a failed handshake", error)
        expect(error.__cause__ is talk.raised is not None, "another cause", error.__cause__, talk.raised)
    expect(isinstance(error, Fatal | ConnectError) or error is talk.dial_error, "not documented", error)
    _check_order(talk, talk.got, is_all=False)


def _check_open(talk: Conversation, transport: Transport, behind: list[Message]) -> None:
    expect(talk.raised is None and not talk.is_aborted, "open in spite of everything", talk.raised)
    expect(talk.clock.now() < 5.0, "open after its deadline", talk.clock.now())
    was_whole = transport.error is None
    talk.finish()
    got, end = talk.got + behind, None
    while end is None and transport.is_readable():
        messages, end = transport.receive_ready()
        got += messages
    _check_order(talk, got, is_all=was_whole and not talk.is_aborted)
    if end is not None:
        check_error(end)


def _check_order(talk: Conversation, got: list[Message], *, is_all: bool) -> None:
    expected, codec = talk.expected()
    if isinstance(codec, RawCodec):
        whole, found = b"".join(expected), b"".join(got)  # type: ignore[arg-type]
        expect(whole.startswith(found) and (not is_all or whole == found), "other bytes", whole, found)
        return
    expect(expected[: len(got)] == got, "messages in another order, or others", got, expected)
    expect(not is_all or len(got) == len(expected), "messages were lost", got, expected)


def make(random: Random) -> bytes:
    login = b"".join(
        bytes((what,))
        + (piece(random.choice(_WORDS)) if what < 2 else bytes((random.randrange(64),)) if what > 4 else b"")
        for what in random.choices(range(12), (4, 2, 6, 6, 6, 3, 3, 1, 2, 1, 1, 1), k=random.randrange(9))
    )
    peer = b"".join(_peer_step(random) for _ in range(random.randrange(9)))
    return random.randbytes(1) + piece(login) + peer


def _peer_step(random: Random) -> bytes:
    what = random.choices(range(16), (1, 1, 1, 1, 2, 4, 4, 4, 2, 1, 0.5, 1, 0.7, 1, 2, 2))[0]
    if what < 5:
        word = random.choice(_WORDS)
        return bytes((what,)) + piece(
            random.choice((frame(0x81, word), word + b"\n", len(word).to_bytes(2) + word, word))
        )
    if what < 8:
        return bytes((what, random.choice((0, 0, 1, 2, 3, 4)))) + piece(random.choice(_WORDS))
    if what == 8:
        return bytes((what,)) + piece(random.choice(_WORDS))
    return bytes((what, random.randrange(256), random.randrange(256))) + (piece(b"bye") if what == 9 else b"")


_WORDS = (
    b"",
    b"hello",
    b"token",
    b"{}",
    b"\xff\xfe",
    b"x" * 200,
    b"a\nb",
    "ok\N{SNOWMAN}".encode(),
    b"\x81\x02hi\x89\x00",
)

LOGIN = Target(
    "login", "login conversations: handshake= over the pipe", 200_000, check, make,
    (*(piece(word) for word in _WORDS[:6]), b"\x81\x02ok", b"\x88\x02\x03\xe8", b"\x89\0", b"ok\n", b"\0\2ok"),
)  # fmt: skip
