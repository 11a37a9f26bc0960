"""Open ws and wss: dial, TLS, then websocket-client's upgrade on our socket, and from there on our own frames."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import websocket

from connman.clock import Deadline
from connman.errors import BadUpgrade, UpgradeRefused
from connman.transport.base import Dial
from connman.transport.deflate import DeflateCodec
from connman.transport.dial import discard_on_error, open_socket
from connman.transport.extensions import OFFER, Deflate, agreed_deflate
from connman.transport.frames import FrameCodec
from connman.transport.pipe import Pipe
from connman.transport.sockets import DialSocket, SocketGuard
from connman.transport.tcp import TcpStream
from connman.transport.tls import TlsStream, start_tls
from connman.transport.upgrade import (
    Answer,
    BadAnswer,
    ChunkedBody,
    HeadReader,
    Request,
    check_accepted,
    make_request,
)

# What websocket-client looks at in an answer.
_CHECKED = ("upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol")
# Of the answer. More than what Python keeps small objects together for (512 bytes) would leave a hole of the system's in
# each thread's memory: with 4096 it took 0.23 KiB of each connection.
_CHUNK = 448
_MOST_BODY = 65536
_BODY_PATIENCE = 1.0  # seconds for the body of a refusal, which nobody waits for


def open_websocket(dial: Dial) -> Pipe:
    """Dial ``dial.endpoint``, whose scheme is ws or wss, and return the open transport.

    Nothing is left open when it raises. Redirects are not followed: they are an `UpgradeRefused`.

    Raises: ConnectError, or what the dial was aborted with; InvalidTarget or InvalidOption, before any I/O, for
    something that must not enter the request.
    Threads: the dialling thread.
    """
    endpoint = dial.endpoint
    assert endpoint is not None
    request = make_request(endpoint, dial.headers, dial.options.subprotocols)
    guard = open_socket(dial)
    with discard_on_error(dial, guard):
        if endpoint.is_secure:
            start_tls(dial, guard, endpoint.host)
        upgrade = Upgrade(dial, guard, request)
        with dial.step("upgrade"):
            upgrade.run()
        stream = TlsStream(guard) if endpoint.is_secure else TcpStream(guard)
        limit = dial.options.max_message_size
        codec = DeflateCodec(limit, upgrade.deflate) if upgrade.deflate else FrameCodec(limit)
        pipe = Pipe(endpoint.scheme, stream, codec, dial.clock, upgrade.leftover)
        pipe.subprotocol = upgrade.subprotocol
        dial.remove_abortable(guard.shutdown)
        # An abort until now has shut the socket down and is raised here; a later one is for the pipe's new owner.
        dial.check()
    return pipe


class _Hidden(Exception):
    """Carries an OSError through websocket-client, which would make something else of it."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error


class Upgrade:
    """The socket that websocket-client gets for one upgrade.

    websocket-client writes the request, and reads the answer byte by byte with neither limit nor deadline; it follows
    redirects, reads bodies to whatever end, is content with an accept key in the wrong case, keeps cookies in one jar
    for the process, and logs both sides when its trace is on. So this puts the user's headers into the request behind
    its back, reads the answer itself, checks all of it, and shows websocket-client only what it has to see.

    Threads: the dialling thread only.
    """

    def __init__(self, dial: Dial, guard: SocketGuard, request: Request) -> None:
        self.leftover = b""
        self.subprotocol: str | None = None
        self.deflate: Deflate | None = None
        self._offers_deflate = dial.options.compression == "deflate"
        self._dial = dial
        self._guard = guard
        self._wire = DialSocket(guard, dial.deadline)
        self._request = request
        self._key = ""
        self._shown: Iterator[bytes] = iter(())

    def run(self) -> None:
        """Do the upgrade; afterwards `leftover`, `subprotocol` and `deflate` are set.

        Raises: UpgradeRefused, BadUpgrade, OSError.
        """
        # A host name that no cookie can be for. The real resource is put in by send().
        url = f"ws://{os.urandom(16).hex()}/"
        client = websocket.WebSocket(skip_utf8_validation=True)
        try:
            client.connect(
                url,
                socket=self,
                host=self._request.host,
                subprotocols=list(self._request.subprotocols),
                suppress_origin=True,
                redirect_limit=0,
            )
        except _Hidden as hidden:
            raise hidden.error from None
        except BadAnswer as error:
            raise BadUpgrade(self._dial.name, self._dial.log, str(error)) from None
        except websocket.WebSocketException as error:
            raise BadUpgrade(
                self._dial.name, self._dial.log, "websocket-client refused the answer"
            ) from error

    # What websocket-client calls.

    def send(self, data: bytes) -> int:
        """Send the request that websocket-client has made, and read the answer, all of which has to be in order.

        Its first line is made anew, because its URL parser drops what follows a ";" in a path, and the user's headers
        are added here, as latin-1 like everywhere in HTTP, not as UTF-8. The key is read off it, being the one that counts.

        The answer is read here because `recv` is called five calls deeper, which for every thread that has dialled kept
        one more page of memory.

        Raises: BadAnswer, UpgradeRefused; _Hidden for an OSError.
        """
        _, _, head = data.decode().partition("\r\n")
        found = re.search(r"^Sec-WebSocket-Key: (\S+)\r$", head, re.MULTILINE)
        self._key = found[1] if found else ""
        lines = [*self._request.headers, *([OFFER] if self._offers_deflate else []), "", ""]
        request = f"GET {self._request.resource} HTTP/1.1\r\n{head[:-2]}" + "\r\n".join(lines)
        with _hiding():
            self._wire.sendall(request.encode("latin-1"))
        answer = self._read_answer()
        self.subprotocol = check_accepted(answer, self._key, self._request.subprotocols)
        extensions = answer.values("sec-websocket-extensions")
        self.deflate = agreed_deflate(extensions, is_offered=self._offers_deflate)
        self._shown = iter(re.findall(rb"[^\n]+|\n", _shown(answer)))
        return len(data)

    def recv(self, size: int) -> bytes:
        """Return the next piece of the answer.

        websocket-client asks for one byte until that is a line feed, a third of a whole dial's time: it gets what comes
        before the line feed as one.
        """
        return next(self._shown, b"")

    def gettimeout(self) -> None:
        """Say that reading blocks; for how long is the deadline's business."""

    def close(self) -> None:
        """Ignore it: the dial owns the socket."""

    # Reading the answer.

    def _read_answer(self) -> Answer:
        reader = HeadReader()
        answer = None
        while answer is None:
            with _hiding():
                chunk = self._wire.recv(_CHUNK)
            answer = reader.feed(chunk)
        if answer.status != 101:
            body = self._read_body(answer, reader.leftover)
            raise UpgradeRefused(
                answer.status, answer.joined(), body, endpoint=self._dial.name, attempts=self._dial.log
            )
        with _hiding():
            self.leftover = reader.leftover + self._wire.recv_unpacked()
        return answer

    def _read_body(self, answer: Answer, begin: bytes) -> bytes:
        """Return what comes of a refusal's body within its limits, however that ends."""
        is_chunked = "chunked" in answer.joined().get("transfer-encoding", "").lower()
        size = _MOST_BODY if is_chunked else min(_MOST_BODY, _content_length(answer))
        wire = DialSocket(self._guard, self._sooner(_BODY_PATIENCE))
        body, chunks = bytearray(begin), ChunkedBody()
        chunks.feed(begin if is_chunked else b"")
        with contextlib.suppress(OSError):
            while len(body) < size and not chunks.is_complete:
                piece = wire.recv(_CHUNK)
                if not piece:
                    break
                body += piece
                if is_chunked:
                    chunks.feed(piece)
        return (chunks.content() if is_chunked else bytes(body))[:size]

    def _sooner(self, seconds: float) -> Deadline:
        deadline = self._dial.deadline
        soon = self._dial.clock.now() + seconds
        return Deadline(self._dial.clock, soon if deadline.at is None else min(soon, deadline.at))


@contextlib.contextmanager
def _hiding() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Hidden(error) from error


def _content_length(answer: Answer) -> int:
    if answer.status < 200 or answer.status in (204, 304):
        return 0
    values = answer.values("content-length")
    # As text, since int() of endless digits takes quadratic time.
    is_plain = len(values) == 1 and re.fullmatch("[0-9]{1,18}", values[0], re.ASCII)
    return int(values[0]) if is_plain else _MOST_BODY


def _shown(answer: Answer) -> bytes:
    headers = (f"{name}: {value}\r\n" for name, value in answer.joined().items() if name in _CHECKED)
    return f"HTTP/1.1 {answer.status} \r\n{''.join(headers)}\r\n".encode()
