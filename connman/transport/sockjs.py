"""SockJS over HTTP: `xhr_streaming` and `xhr_polling`, for networks that let no WebSocket through."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from connman.clock import Deadline
from connman.errors import BadUpgrade, ConnectError, RequestRefused
from connman.transport.base import Dial
from connman.transport.dial import discard_on_error
from connman.transport.http import HttpAnswer
from connman.transport.pipe import Pipe
from connman.transport.sockjs_frames import SockjsCodec
from connman.transport.sockjs_session import Session
from connman.transport.sockjs_stream import SockjsStream, check_coding
from connman.transport.upgrade import BadAnswer

# The name of each transport, and of what is asked for.
_KINDS = {"xhr-streaming": ("xhr_streaming", "xhr_streaming"), "xhr-polling": ("xhr_polling", "xhr")}
_MOST_OPENING = 65536
_BODY_PATIENCE = 1.0  # seconds for the body of a refusal, which nobody waits for


class SockjsPipe(Pipe):
    """A `Pipe` whose end has threads to wait for."""

    __slots__ = ()

    @property
    def is_slow_to_dispose(self) -> bool:
        """Whether `dispose` may block; see ``base.Transport``."""
        return True


def open_sockjs(dial: Dial) -> Pipe:
    """Begin a SockJS session at ``dial.endpoint``, whose scheme is one of xhr-…+http(s), and return it open.

    It is open when the server has said so (`o`), to the request that it goes on to answer. Nothing is left when it
    raises. Redirects are not followed: they are a `RequestRefused`.

    Raises: ConnectError, or what the dial was aborted with; InvalidTarget or InvalidOption, before any I/O, for
    something that must not enter a request.
    Threads: the dialling thread.
    """
    assert dial.endpoint is not None
    name, what = _KINDS[dial.endpoint.scheme.partition("+")[0]]
    session = Session(dial)
    wire = session.connect(dial)
    with discard_on_error(dial, wire.guard):
        with dial.step("request"), _told(dial):
            answer = session.post(wire, what, by=dial.deadline)
            if answer.status != 200:
                raise _refusal(dial, answer)
            check_coding(answer)
        with dial.step("open"), _told(dial):
            leftover = _read_opening(session, answer)
        stream = SockjsStream(session, what, wire, answer, leftover)
        codec = SockjsCodec(dial.options.max_message_size, answers=what != "xhr")
        pipe = SockjsPipe(name, stream, codec, dial.clock, leftover)
        dial.remove_abortable(wire.guard.shutdown)
        # An abort until now has shut the socket down and is raised here; a later one is for the pipe's new owner.
        dial.check()
        wire.deadline = Deadline(dial.clock, None)
        try:
            stream.start()
        except RuntimeError as error:
            raise ConnectError(dial.name, dial.log, f"no thread to receive with: {error}") from error
    return pipe


def ask_info(dial: Dial) -> dict[str, object]:
    """Return what a SockJS server says of itself at ``/info``: "websocket", "cookie_needed" and so on.

    Opening a transport does not ask for it: not every server has it, and it costs a request.

    Raises: ConnectError and its kinds, what the dial was aborted with among them; InvalidTarget or InvalidOption.
    Threads: the dialling thread.
    """
    session = Session(dial)
    wire = session.connect(dial)
    try:
        with dial.step("info"), _told(dial):
            answer = session.get(wire, "info", dial.deadline)
            if answer.status != 200:
                raise _refusal(dial, answer)
            return _read_info(answer.read_all(dial.deadline))
    finally:
        dial.remove_abortable(wire.guard.shutdown)
        session.drop(wire)


def _read_info(body: bytes) -> dict[str, object]:
    try:
        info = json.loads(body)
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        raise BadAnswer("the answer is no JSON object")
    return info


@contextlib.contextmanager
def _told(dial: Dial) -> Iterator[None]:
    try:
        yield
    except BadAnswer as error:
        raise BadUpgrade(dial.name, dial.log, str(error)) from None


def _refusal(dial: Dial, answer: HttpAnswer) -> RequestRefused:
    body = answer.read_all(dial.deadline.sooner(_BODY_PATIENCE))
    return RequestRefused(answer.status, answer.headers, body, endpoint=dial.name, attempts=dial.log)


def _read_opening(session: Session, answer: HttpAnswer) -> bytes:
    """Read up to the opening frame, do as it says, and return what came behind it.

    Raises: OSError; BadAnswer when something else comes, such as the page of a network that wants a login.
    """
    data = b""
    while True:
        line, found, rest = data.partition(b"\n")
        if line[:1] == b"c" and found:
            return data  # it opens and is closed at once, as a WebSocket would be
        if line[:1] == b"o" and found:
            _move(session, line[1:].rstrip(b"\r"))
            return rest
        if line.strip(b"h\r") and line[:1] not in (b"o", b"c"):
            raise BadAnswer("the answer begins with no SockJS frame")
        if found:
            data = rest
            continue
        chunk = answer.read()
        if not chunk:
            raise BadAnswer("the answer ended before the session was open")
        data += chunk
        if len(data) > _MOST_OPENING:
            raise BadAnswer(f"more than {_MOST_OPENING} bytes before the session was open")


def _move(session: Session, told: bytes) -> None:
    """Take the host that the opening frame of pusher's servers may name."""
    if not told:
        return
    try:
        asked = json.loads(told)
        host = asked.get("hostname") if isinstance(asked, dict) else None
        if host is not None:
            session.move(host)
    except (ValueError, RecursionError):  # InvalidTarget is a ValueError
        raise BadAnswer("the server's opening frame cannot be read") from None
