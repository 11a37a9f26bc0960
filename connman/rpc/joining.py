"""The first words on a relay, for those who dial it: how a provider's spare and a caller are joined to a name.

The relay's side is ``connman/relay/wire.py``; the two share nothing but these words. ::

    provider -> {"command":"provide","name":NAME}    relay -> {"command":"provided"}, later {"command":"handover"}
    provider -> {"command":"ready"}                  and from then on the frames are the pair's own
    caller   -> {"command":"reach","name":NAME}      relay -> {"command":"reached"}, once the provider is ready
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from connman.endpoint import Endpoint
from connman.errors import ConnectionClosed, InvalidOption, InvalidTarget, ProtocolError
from connman.options import Headers, checked_headers
from connman.records import Message
from connman.transport.base import Dial, Dialer, Transport
from connman.transport.login import Channel
from connman.transport.openers import EndpointDialer, prepare

Token = str | Callable[[], str] | None
"""What a relay lets one in for: a text, or a callable that is asked for each attempt; None where none is wanted."""

READY = '{"command":"ready"}'
"""What a provider answers to the handover; the frames behind it are the pair's own."""
NO_PROVIDER = 4104
"""The close code with which a relay says that nobody provides the name just now."""
_NOT_READY, _LOST = 4110, 4102
# The relay lives and has said so: it is the provider that is away.
_PROVIDER_AWAY = (NO_PROVIDER, _NOT_READY, _LOST)

_MEANINGS = {
    1001: "it is stopping",
    1009: "a message was too big",
    3000: "the token is refused, or has expired",
    3003: "the token does not allow this name",
    4000: "it did not understand the first frame",
    4001: "it did not understand the first frame",
    _LOST: "the other side was lost",
    NO_PROVIDER: "no provider of that name",
    4108: "the first frame came too late",
    _NOT_READY: "the provider was not ready in time",
    4113: "the way between two relays was lost",
    4129: "there are too many already",
}
_LONGEST_NAME = 128
# A relay's words are short; what is longer is somebody else's frame and need not be parsed to know that.
_LONGEST_WORD = 1024
_ANSWERS = {"provide": "provided", "reach": "reached"}
# A user's own would break what the two sides have agreed on.
_NOT_YOURS = ("dispatch", "framing", "handshake", "name", "on_data", "subprotocols")
_FIRST_PAUSE = 0.1
# From the system: the state of a generator of ours would be the same in every worker forked from one master.
_random = random.SystemRandom()


class RelayRefused(ConnectionClosed):
    """The relay closed instead of granting what was asked for; the text says what its code means."""

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        super().__init__(code, reason)
        if meaning := meaning_of(code):
            self.args = (f"the relay closed with code {code}: {meaning}",)


class Joining:
    """One name on one relay, and how each attempt asks for it: the target of a connection, and its ``handshake``.

    ``command``: "provide" or "reach". The token goes out as ``Authorization: Bearer`` with the upgrade; in the first
    frame where that header is taken: by the URL's user and password, or by the user's own headers.

    Raises: InvalidTarget for what is no relay's address; InvalidOption for a name or a token that no relay takes.
    Threads: a dialling thread each; several may dial at once.
    """

    __slots__ = ("_dialer", "_headers", "_is_in_first_frame", "_token", "command", "endpoint", "name")

    def __init__(
        self,
        command: Literal["provide", "reach"],
        target: object,
        name: str,
        token: Token = None,
        headers: Headers | Callable[[], Headers] | None = None,
    ) -> None:
        self.command = command
        self.name = checked_name(name)
        is_dialer = hasattr(target, "dial")
        self.endpoint = None if is_dialer else _relay_endpoint(target)
        self._dialer = cast(Dialer, target) if is_dialer else EndpointDialer()
        self._headers = headers if callable(headers) else tuple(checked_headers(headers or ()))
        self._token = token if token is None or callable(token) else _checked_token(token)
        has_user = self.endpoint is not None and self.endpoint.user is not None
        self._is_in_first_frame = has_user or (not callable(self._headers) and _has_login(self._headers))

    def dial(self, dial: Dial) -> Transport:
        """Open one transport to the relay.

        Raises: as the target's own dial.
        Threads: the dialling thread.
        """
        if self.endpoint is not None:
            dial.endpoint = self.endpoint
        return self._dialer.dial(dial)

    def headers(self) -> Sequence[tuple[str, str]]:
        """Return the headers of one attempt: the user's, and the token.

        Raises: InvalidOption for a token or a header that cannot be sent; what the user's callables raise.
        Threads: the dialling thread.
        """
        given = checked_headers(self._headers() if callable(self._headers) else self._headers)
        if self._token is None or self._is_in_first_frame:
            return given
        if _has_login(given):
            raise InvalidOption("headers= returns an Authorization header beside token=: give one of the two")
        return [*given, ("Authorization", f"Bearer {self._fresh_token()}")]

    def greet(self, channel: Channel) -> None:
        """Ask for the name and wait until it is granted.

        Raises: RelayRefused; ProtocolError when what answers is no relay; what the channel and the user's token raise.
        Threads: the dialling thread.
        """
        words = {"command": self.command, "name": self.name}
        if self._token is not None and self._is_in_first_frame:
            words["token"] = self._fresh_token()
        wanted = _ANSWERS[self.command]
        try:
            channel.send(json.dumps(words, ensure_ascii=False, separators=(",", ":")))
            answer = channel.recv()
        except ConnectionClosed as closed:
            raise RelayRefused(closed.code, closed.reason) from closed
        if command_of(answer) != wanted:
            raise ProtocolError(f"what answers is no relay: it does not say {wanted!r}")

    def options(
        self, given: Mapping[str, Any], *, longest_pause: float, number: int | None = None
    ) -> dict[str, Any]:
        """Return the arguments of a connection that joins like this, the user's among them.

        ``longest_pause``: seconds between two attempts at most, unless the user gives ``wait``. ``number``: tells one of
        several connections from the others.

        Raises: TypeError for an argument that is not the user's to give.
        Threads: any; pure.
        """
        if foreign := next((name for name in _NOT_YOURS if name in given), None):
            raise TypeError(f"unknown option {foreign!r}: on a relay it is not the user's")
        where = "the relay" if self.endpoint is None else str(self.endpoint)
        label = f"{self.command} {self.name} at {where}" + ("" if number is None else f" #{number}")
        pause: dict[str, Any] = {"wait": Pause(longest_pause)}
        return pause | dict(given) | {"name": label, "headers": self.headers, "handshake": self.greet}

    def _fresh_token(self) -> str:
        return _checked_token(self._token() if callable(self._token) else self._token)


class Pause:
    """The delays between attempts: 0.1 s doubling up to ``longest``, half of each at random.

    While a relay answers that nobody provides the name, that the provider was not ready or that it was lost, they stay
    below a second, or a tenth of the time this has lasted: who waits for a provider that restarts wants it back soon, and
    whoever asks for one that has gone for good does not ask too often. A ``wait=``.

    Threads: any.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest

    def __call__(self, state: Any) -> float:
        """Return the seconds to wait, for tenacity's state of the retrying."""
        full = min(_FIRST_PAUSE * 2.0 ** min(int(state.attempt_number) - 1, 32), self._longest)
        closed = _close_behind(state.outcome.exception())
        if closed is not None and closed.code in _PROVIDER_AWAY:
            full = min(full, max(1.0, state.seconds_since_start / 10))
        return full / 2 + _random.uniform(0, full / 2)


def checked_name(name: object) -> str:
    """Return a name that relays take: 1 to 128 printable characters, of any script.

    Raises: InvalidOption.
    Threads: any; pure.
    """
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise InvalidOption(f"a name on a relay is a text of 1 to {_LONGEST_NAME} printable characters")
    return name


def command_of(message: Message) -> str | None:
    """Return the command that a control message of a relay carries; None for any other message.

    Threads: any; pure.
    """
    if not isinstance(message, str) or len(message) > _LONGEST_WORD:
        return None
    try:
        words = json.loads(message)
    except (ValueError, RecursionError):
        return None
    command = words.get("command") if isinstance(words, dict) else None
    return command if isinstance(command, str) else None


def meaning_of(code: int | None) -> str:
    """Return what a relay means by a close code, "" for one that is not its own.

    Threads: any; pure.
    """
    return "" if code is None else _MEANINGS.get(code, "")


def is_no_such_peer(error: BaseException | None) -> bool:
    """Return whether an attempt failed because the relay knows no provider of the name just now.

    Threads: any; pure.
    """
    closed = _close_behind(error)
    return closed is not None and closed.code == NO_PROVIDER


def _close_behind(error: BaseException | None) -> ConnectionClosed | None:
    """Return the close that an attempt failed with, if it was one."""
    # GaveUp, of HandshakeFailed, of RelayRefused: no chain of ours is longer.
    for _ in range(4):
        if error is None or isinstance(error, ConnectionClosed):
            return error
        error = error.__cause__
    return None


def _relay_endpoint(target: object) -> Endpoint:
    endpoint = Endpoint.parse(target)
    if endpoint.scheme not in ("ws", "wss", "memory"):
        raise InvalidTarget("a relay's address is ws:// or wss://")
    prepare(endpoint)
    return endpoint


def _has_login(headers: Sequence[tuple[str, str]]) -> bool:
    return any(name.lower() == "authorization" for name, _ in headers)


def _checked_token(token: object) -> str:
    # The same that a header may hold, wherever it is sent. It is in no text.
    if (
        not isinstance(token, str)
        or not token
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise InvalidOption("a token is a text of visible ASCII characters")
    return token
