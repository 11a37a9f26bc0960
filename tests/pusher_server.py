"""A Pusher server for tests: the protocol as it was recorded from pusher-js 8.6.0 and soketi 1.6.1, over any carrier."""

import contextlib
import hashlib
import hmac
import itertools
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from connman.errors import ConnmanError
from tests.servers import CLOSE, TEXT, Frames, RawServer, close_frame, raw_server, server_frame, ws_accept
from tests.waiting import eventually

KEY, SECRET = "app-key", "app-secret"


class Line(Protocol):
    """One accepted connection: a `connman.testing.Peer`, or a `WireLine`."""

    def send(self, data: str) -> None: ...

    def recv(self, timeout: float = ...) -> Any: ...

    def close(self, code: int = ..., reason: str = ...) -> None: ...


class WireLine:
    """A websocket by hand as a `Line`."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._incoming = iter(frames)
        self.path = ""

    def send(self, data: str) -> None:
        self._frames.send(server_frame(TEXT, data.encode()))

    def recv(self, timeout: float = 0.0) -> str:
        for frame in self._incoming:
            if frame.opcode == TEXT:
                return frame.payload.decode()
            if frame.opcode == CLOSE:
                self._frames.send(server_frame(CLOSE, frame.payload))
                break
        raise ConnectionAbortedError("the client has left")

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._frames.send(close_frame(code, reason))

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self._frames.sock.shutdown(socket.SHUT_RDWR)


@dataclass
class Guest:
    """One client, as the server sees it: what it has sent as (event, data, channel), in order."""

    line: Any
    socket_id: str
    heard: list[tuple[str, Any, str | None]] = field(default_factory=list)
    channels: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Those it is on, with its channel_data."""
    is_gone: bool = False

    def send(self, event: str, data: Any = None, channel: str | None = None) -> None:
        """Send an event with its data as a text of JSON, as servers do."""
        frame: dict[str, Any] = {"event": event}
        if data is not None:
            frame["data"] = json.dumps(data)
        self.say(json.dumps(frame | ({} if channel is None else {"channel": channel})))

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError, ConnmanError):
            self.line.send(text)

    def events(self, name: str) -> list[Any]:
        """Return the data of the events of that name that it has sent."""
        return [data for event, data, _ in list(self.heard) if event == name]

    def wait_event(self, name: str, count: int = 1) -> Any:
        """Wait for the `count`-th event of that name, and return its data."""
        eventually(lambda: len(self.events(name)) >= count, message=lambda: f"{name} in {self.heard}")
        return self.events(name)[count - 1]


First = Callable[[Guest], None]
"""What a server says first."""


class PusherServer:
    """The application `KEY` with the secret `SECRET`. Each client is greeted by the next of `first`, the last for ever.

    None greets as it should be, and is what there is without any. `is_deaf` has it answer nothing from then on.
    """

    def __init__(self, *first: First | None, activity_timeout: float = 120) -> None:
        self.activity_timeout = activity_timeout
        says = [self.greet if one is None else one for one in first or (None,)]
        self._first = itertools.chain(says, itertools.repeat(says[-1]))
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        # Held while somebody joins: who is told so is on the channel, and who is on it was told.
        self._joining = threading.RLock()
        self.guests: list[Guest] = []
        self.is_deaf = False

    # Clients.

    def serve(self, line: Any) -> None:
        """Serve one client until it leaves: the script of a `ScriptedDialer`, or called with a `WireLine`."""
        with self._lock:
            guest = Guest(line, f"{next(self._ids)}.{len(self.guests)}")
            self.guests.append(guest)
            first = next(self._first)
        try:
            first(guest)
            while True:
                self._take(guest, json.loads(line.recv(3600.0)))
        finally:
            guest.is_gone = True
            with self._joining:
                for channel in list(guest.channels):
                    self._leave(guest, channel)

    def greet(self, guest: Guest) -> None:
        """Say the greeting."""
        guest.send(
            "pusher:connection_established",
            {"socket_id": guest.socket_id, "activity_timeout": self.activity_timeout},
        )

    def wait_guest(self, number: int = 1, timeout: float = 10.0) -> Guest:
        """Wait for the client of that number, from 1, and return it."""
        eventually(lambda: len(self.guests) >= number, timeout, message=f"client {number}")
        return self.guests[number - 1]

    # What it does.

    def trigger(self, channel: str, event: str, data: Any, *, but: Guest | None = None) -> None:
        """Send an event to all on that channel."""
        with self._joining:
            for guest in list(self.guests):
                if channel in guest.channels and guest is not but:
                    guest.send(event, data, channel)

    def _take(self, guest: Guest, frame: dict[str, Any]) -> None:
        event, data, channel = frame["event"], frame.get("data"), frame.get("channel")
        guest.heard.append((event, data, channel))
        if self.is_deaf:
            return
        if event == "pusher:ping":
            guest.send("pusher:pong", {})
        elif event == "pusher:subscribe":
            with self._joining:
                self._join(guest, data)
        elif event == "pusher:unsubscribe":
            with self._joining:
                self._leave(guest, data["channel"])
        elif event.startswith("client-") and channel in guest.channels:
            user = guest.channels[channel].get("user_id")
            frame = {"event": event, "channel": channel, "data": data} | ({"user_id": user} if user else {})
            with self._joining:
                for other in list(self.guests):
                    if other is not guest and channel in other.channels:
                        other.say(json.dumps(frame))

    def _join(self, guest: Guest, data: dict[str, Any]) -> None:
        channel = data["channel"]
        if channel.startswith(("private-", "presence-")) and data.get("auth") != self._signed(guest, data):
            error = {"type": "AuthError", "error": "The connection is unauthorized.", "status": 401}
            guest.say(json.dumps({"event": "pusher:subscription_error", "channel": channel, "data": error}))
            return
        user = json.loads(data.get("channel_data", "{}"))
        known = [other.channels[channel] for other in self.guests if channel in other.channels]
        is_new = user not in known
        if channel.startswith("presence-") and is_new:
            for other in list(self.guests):
                if channel in other.channels:
                    other.send("pusher_internal:member_added", user, channel)
        users = {one["user_id"]: one.get("user_info") for one in [*known, user] if one}
        answer = {"presence": {"ids": list(users), "hash": users, "count": len(users)}} if user else {}
        guest.send("pusher_internal:subscription_succeeded", answer, channel)
        guest.channels[channel] = user

    def _leave(self, guest: Guest, channel: str) -> None:
        user = guest.channels.pop(channel, None)
        if user:
            for other in list(self.guests):
                if channel in other.channels:
                    other.send("pusher_internal:member_removed", {"user_id": user["user_id"]}, channel)

    def _signed(self, guest: Guest, data: dict[str, Any]) -> str:
        text = ":".join(
            [guest.socket_id, data["channel"], *([data["channel_data"]] if "channel_data" in data else [])]
        )
        return f"{KEY}:{hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()}"

    @contextlib.contextmanager
    def listening(self, context: ssl.SSLContext | None = None) -> Iterator[RawServer]:
        """Serve real websockets on a free port, over TLS when there is a context."""

        def plain(sock: socket.socket, _n: int) -> None:
            try:
                accepted = ws_accept(sock)
            except KeyError:  # half a request, of a client that was given up meanwhile
                return
            self.serve(WireLine(Frames(sock, accepted)))

        def secure(sock: socket.socket, n: int) -> None:
            assert context is not None
            with context.wrap_socket(sock, server_side=True) as wrapped:
                plain(wrapped, n)

        with raw_server(plain if context is None else secure) as raw:
            yield raw


# What a server may say first.


def error(code: int | None, message: str = "no") -> First:
    """Say a `pusher:error` and close with its code, as servers do."""

    def say(guest: Guest) -> None:
        data = {"message": message} | ({} if code is None else {"code": code})
        guest.say(json.dumps({"event": "pusher:error", "data": data}))
        guest.line.close(code if code is not None and code >= 1000 else 1000)

    return say


def closing(code: int) -> First:
    """Close before anything is said."""

    def say(guest: Guest) -> None:
        guest.line.close(code)

    return say


def saying(text: str) -> First:
    """Say something else."""

    def say(guest: Guest) -> None:
        guest.say(text)

    return say
