"""The words of the Pusher protocol, version 7: events, the greeting, and what an error's code asks for."""

from __future__ import annotations

import enum
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from connman.errors import ConnectionClosed, ConnmanError, Fatal, HandshakeFailed, PingTimeout, ProtocolError
from connman.records import Message

PROTOCOL = 7
# What a server may ask for at most: a fraction of a second would be a ping at each moment of silence.
_SHORTEST_ACTIVITY = 1.0


class PusherError(ConnmanError):
    """The server sent a ``pusher:error``; ``code`` is None when it gave none.

    ``message`` is the server's text. It is not in the error's own text: it may quote what was sent.
    """

    def __init__(self, code: int | None = None, message: str = "") -> None:
        self.code = code
        self.message = message
        what = "without a code" if code is None else f"with code {code}"
        super().__init__(f"the Pusher server sent an error {what}" + (" (see .message)" if message else ""))


class PusherRefused(Fatal, PusherError):
    """The server will not have this client: unknown key, disabled application and the like. Not retried."""


class Action(enum.Enum):
    """Name what the code of an error or a close asks for (Pusher's bands)."""

    TLS_ONLY = "come back with TLS"
    REFUSED = "do not come back"
    BACKOFF = "come back after a while"
    RETRY = "come back at once"
    NONE = "nothing said"


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it came: its name, its data (decoded from JSON where it is), its channel and sender.

    ``channel`` is None for the connection's own events; ``user_id`` is who sent a client event on a presence channel.
    """

    name: str
    data: Any = None
    channel: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the server's first frame says. The id is in no ``repr``: signatures are made for it."""

    socket_id: str = field(repr=False)
    activity_timeout: float


def encode(name: str, data: object, channel: str | None = None) -> str:
    """Return the frame of an event.

    Raises: TypeError or ValueError for data that JSON cannot hold.
    Threads: any; pure.
    """
    frame = {"event": name, "data": data} | ({} if channel is None else {"channel": channel})
    try:
        text = json.dumps(frame, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("the data of the event is nested too deeply") from None
    if not is_text(text):
        raise ValueError("the event holds half a character: a surrogate, which no frame can carry")
    return text


def is_text(text: object) -> bool:
    """Return whether ``text`` is one that can be sent: half of a surrogate pair, as JSON may hold one, cannot.

    Threads: any; pure.
    """
    try:
        return isinstance(text, str) and text.encode() is not None
    except UnicodeEncodeError:
        return False


def decode(frame: Message) -> Event:
    """Return the event that a frame holds.

    Raises: ProtocolError for what is none; the frame is not quoted.
    Threads: any; pure.
    """
    try:
        parsed = json.loads(frame)
    except (ValueError, RecursionError) as error:
        # `from None`: the error of the parser holds the whole text.
        raise ProtocolError(f"the frame is no JSON: {type(error).__name__}") from None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("event"), str):
        raise ProtocolError("the frame is no event")
    channel, user_id = parsed.get("channel"), parsed.get("user_id")
    return Event(
        parsed["event"],
        decode_data(parsed.get("data")),
        channel if isinstance(channel, str) else None,
        # Applications number their users.
        None if user_id is None or not isinstance(user_id, str | int) else str(user_id),
    )


def decode_data(data: Any) -> Any:
    """Return what a text holds as JSON, and anything else, texts that are no JSON included, as it is.

    Threads: any; pure.
    """
    # Servers encode the data of an event once more, so that they need not look into it.
    if not isinstance(data, str):
        return data
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data


def error_of(event: Event) -> PusherError:
    """Return the error that a ``pusher:error`` tells of.

    Threads: any; pure.
    """
    data = event.data if isinstance(event.data, dict) else {}
    code, message = _code(data.get("code")), data.get("message")
    error = PusherError(code, message if isinstance(message, str) else "")
    return PusherRefused(error.code, error.message) if action_of(error) is Action.REFUSED else error


def _code(said: Any) -> int | None:
    # A text or 4001.0 is a number to Pusher's own clients, whose language makes no difference.
    if isinstance(said, str) and re.fullmatch("[0-9]{1,5}", said):
        return int(said)
    if isinstance(said, float) and said.is_integer():
        return int(said)
    return said if isinstance(said, int) and not isinstance(said, bool) else None


def read_greeting(frame: Message) -> Greeting:
    """Return what the first frame of a connection says.

    Raises: PusherError, PusherRefused for a ``pusher:error``; ProtocolError for anything but a whole greeting.
    Threads: any; pure.
    """
    event = decode(frame)
    if event.name == "pusher:error":
        raise error_of(event)
    if event.name != "pusher:connection_established" or not isinstance(event.data, dict):
        raise ProtocolError("the first frame is no greeting")
    socket_id, seconds = event.data.get("socket_id"), event.data.get("activity_timeout")
    if not isinstance(socket_id, str) or not socket_id:
        raise ProtocolError("the greeting has no socket id")
    # True is an int, NaN a float; 0 would be a ping without a pause.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ProtocolError("the greeting has no activity timeout")
    return Greeting(socket_id, max(_SHORTEST_ACTIVITY, float(seconds)))


def action_of(error: BaseException) -> Action:
    """Return what ``error`` asks for, by the code that the server sent in an event or with its close.

    A handshake that failed is judged by what failed it.

    Threads: any; pure.
    """
    if isinstance(error, HandshakeFailed) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, PingTimeout):
        # It has cost its time already.
        return Action.RETRY
    if isinstance(error, PusherError):
        return Action.REFUSED if error.code is None else _band(error.code)
    if isinstance(error, ConnectionClosed) and error.code is not None:
        return _band(error.code)
    return Action.NONE


def _band(code: int) -> Action:
    if code < 4000:
        return Action.BACKOFF if 1002 <= code <= 1004 else Action.NONE
    if code == 4000:
        return Action.TLS_ONLY
    if 4100 <= code < 4300:
        return Action.BACKOFF if code < 4200 else Action.RETRY
    return Action.REFUSED
