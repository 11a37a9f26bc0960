"""One run of ``connman connect``: a connection, standard input and the outputs, tied together on the main thread."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from connman.cli.input import InputNews, InputThread, Source, SourceKind, source_kind
from connman.cli.interrupt import HURRIED_CLOSE, Interrupted
from connman.cli.lines import ChunkSplitter, LineSplitter
from connman.cli.output import OutputFailed, Writer, has_colour
from connman.cli.render import (
    Binary,
    Change,
    JsonRenderer,
    Note,
    Renderer,
    TextRenderer,
    cause_of,
    change_of,
)
from connman.clock import Deadline, SystemClock
from connman.connection.connection import Connection
from connman.connection.queue import BoundedQueue
from connman.endpoint import Endpoint
from connman.errors import ORDERLY_CODES, ConnectionClosed, WaitTimeout
from connman.records import Message, Reset, State, Step
from connman.strategy import Strategy

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_MOST_WAITING = 16 * 1024 * 1024  # bytes received and not printed yet; then the peer is held back
_PIPE_PATIENCE = 1.0
_INPUT_PATIENCE = 1.0
# An idle connection dials no more. Why comes right behind, unless no thread could be had or the reader crashed.
_LAST_WORDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line asks for. ``eof_wait`` None: chosen by what standard input is.

    ``strategy``: several ways to what is at ``endpoint``, None for that one alone.
    """

    endpoint: Endpoint
    strategy: Strategy | None = None
    options: Mapping[str, Any] = field(repr=False)
    is_json: bool = False
    binary: Binary | None = None
    count: int | None = None
    eof_wait: float | None = None
    is_verbose: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended. ``needs_input``: it is a failure if something of the input was not sent."""

    code: int
    cause: str
    needs_input: bool = False


def make_renderer(settings: Settings) -> Renderer:
    """Return what the outputs will look like.

    Threads: any.
    """
    if settings.is_json:
        return JsonRenderer()
    binary = settings.binary or ("hex" if settings.endpoint.is_websocket else "raw")
    return TextRenderer(binary=binary, is_terminal=os.isatty(_STDOUT), has_colour=has_colour(_STDERR))


def chosen_eof_wait(settings: Settings, kind: SourceKind) -> float:
    """Return how long it must be quiet after the end of input, in seconds, inf for ever, before the session ends.

    Threads: any; pure.
    """
    if settings.eof_wait is not None:
        return settings.eof_wait
    return math.inf if kind == "none" or settings.count is not None else _PIPE_PATIENCE


_Item = Message | Change | Note | Step | InputNews | Reset


def _size(item: _Item) -> int:
    return len(item) if isinstance(item, str | bytes) else 0


class Session:
    """Run one connection until something ends it. Everything is printed by the thread that calls `run`.

    Raises: InvalidTarget, InvalidOption.
    Threads: the main one, whose waits an `Interrupted` cuts short.
    """

    def __init__(self, settings: Settings, renderer: Renderer) -> None:
        self._settings = settings
        self._renderer = renderer
        self._clock = SystemClock()
        # Everything that happens goes through here, so that it is printed in the order in which it happened.
        self._inbox: BoundedQueue[_Item] = BoundedQueue(self._clock, _MOST_WAITING, _size)
        self._messages = Writer(_STDOUT)
        self._events = Writer(_STDERR)
        self._received = 0
        self._state = State.CONNECTING
        self._is_input_ended = False
        self._source_kind = source_kind(_STDIN)
        self._eof_wait = chosen_eof_wait(settings, self._source_kind)
        self._tells_log = settings.is_verbose and settings.strategy is None
        self._retry = 0
        self._conn = self._make_connection()
        self._input = self._make_input()

    def _make_connection(self) -> Connection:
        settings = self._settings
        conn = Connection(
            settings.endpoint if settings.strategy is None else settings.strategy,
            on_open=self._on_open,
            on_data=self._on_data,
            on_reset=self._on_reset,
            name=str(settings.endpoint),
            **settings.options,
        )
        conn.watch(self._on_state)
        return conn

    def _make_input(self) -> InputThread:
        is_stream = self._settings.endpoint.scheme in ("tcp", "tls", "unix")
        return InputThread(
            Source(
                fd=_STDIN,
                output=_STDOUT,
                splitter=ChunkSplitter() if is_stream else LineSplitter(),
                is_binary=is_stream,
                send=self._conn.send,
                tell=self._tell,
            )
        )

    # On the threads of the connection and of the input: each puts what happened into the inbox.

    def _tell(self, item: _Item) -> None:
        self._inbox.put(item)

    def _tell_steps(self, conn: Connection) -> None:
        """Tell what each leaf of a strategy did: it has too many steps for the one line of an error."""
        for step in conn.attempts if self._settings.is_verbose else ():
            self._tell(step)

    def _on_open(self, conn: Connection) -> None:
        self._tell_steps(conn)
        chosen = conn.subprotocol
        text = f"{conn.transport_name}" + (f", subprotocol {chosen}" if chosen else "")
        self._tell(Change(State.OPEN, text, transport=conn.transport_name, subprotocol=chosen))
        self._input.opened(conn.generation)

    def _on_data(self, _: Connection, message: Message) -> None:
        self._tell(message)

    def _on_reset(self, conn: Connection, reset: Reset) -> None:
        self._retry = reset.attempt
        if not reset.opened:
            self._tell_steps(conn)
        self._tell(reset)

    def _on_state(self, conn: Connection, state: State) -> None:
        if state is State.CONNECTING:
            ways = "" if self._settings.strategy is None else ", strategy default"
            text = f"retry {self._retry}" if self._retry else f"{conn.name}{ways}"
            self._tell(Change(state, text, attempt=self._retry))
        elif state is State.IDLE:
            self._tell(Change(state, "no attempt follows"))

    # On the main thread.

    def run(self) -> int:
        """Connect, carry messages both ways until something ends it, say goodbye, and return the exit code."""
        closing: float | None = None
        try:
            outcome = self._live()
        except Interrupted as interrupt:
            outcome, closing = Outcome(128 + interrupt.signum, interrupt.word), HURRIED_CLOSE
            self._messages.discard()  # perhaps it was the writing that hung
        except OutputFailed as failed:
            cause = (
                "nobody reads the output" if failed.is_gone else f"writing the output failed: {failed.cause}"
            )
            outcome = Outcome(0 if failed.is_gone else 1, cause)
        try:
            return self._end(outcome, closing)
        except Interrupted as interrupt:
            # The second Ctrl-C: no more manners.
            self._conn.abort()
            return 128 + interrupt.signum

    def _live(self) -> Outcome:
        for warning in self._settings.warnings:
            self._show(Note("warning", warning))
        self._conn.connect()
        self._input.start()
        while (outcome := self._handle(self._next())) is None:
            pass
        self._messages.flush()
        return outcome

    def _next(self) -> _Item | None:
        """Return what happened next; None when it has been quiet for long enough to end the session."""
        try:
            return self._inbox.get(Deadline.after(self._clock, 0.0), lambda: None)
        except WaitTimeout:
            self._messages.flush()
        try:
            return self._inbox.get(Deadline.after(self._clock, self._patience()), lambda: None)
        except WaitTimeout:
            return None

    def _patience(self) -> float | None:
        """Return after how many seconds without anything new the session ends; None for never."""
        if self._state is State.IDLE:
            return _LAST_WORDS
        is_counting = self._is_input_ended and self._state is State.OPEN and self._eof_wait < math.inf
        return self._eof_wait if is_counting else None

    def _handle(self, item: _Item | None) -> Outcome | None:
        """Print ``item``; return how the session ends if that is what it means."""
        if isinstance(item, str | bytes):
            return self._handle_message(item)
        if isinstance(item, Reset):
            return self._handle_reset(item)
        if isinstance(item, InputNews):
            return self._handle_news(item)
        if item is None:
            is_idle = self._state is State.IDLE
            return Outcome(1, f"failed: {self._conn.last_error}") if is_idle else self._input_over()
        if isinstance(item, Change):
            self._state = item.state
            if item.state is State.IDLE:
                return None  # the reset behind it says why, and is what people see
        self._show(item)
        return None

    def _handle_message(self, message: Message) -> Outcome | None:
        self._messages.write(self._renderer.message(message))
        self._received += 1
        return Outcome(0, "as many as were asked for") if self._received == self._settings.count else None

    def _handle_reset(self, reset: Reset) -> Outcome | None:
        self._state = State.WAITING
        if reset.retry_in is not None:
            self._show(change_of(reset, in_full=self._tells_log))
            return None
        error = reset.error
        cause = cause_of(error, in_full=self._tells_log)
        is_orderly = isinstance(error, ConnectionClosed) and error.code in ORDERLY_CODES
        if reset.opened and is_orderly and not self._settings.options.get("reconnect", True):
            return Outcome(self._code_by_count(), f"the peer: {cause}", needs_input=True)
        return Outcome(1, f"{'lost' if reset.opened else 'failed'}: {cause}; no retry")

    def _handle_news(self, news: InputNews) -> Outcome | None:
        if news is InputNews.OUTPUT_GONE:
            return Outcome(0, "nobody reads the output")
        self._is_input_ended = True
        # Ctrl-D at a terminal means now, also while there is no connection.
        is_now = self._source_kind == "terminal" and self._settings.eof_wait is None
        return self._input_over() if is_now else None

    def _input_over(self) -> Outcome:
        return Outcome(self._code_by_count(), "end of input", needs_input=True)

    def _code_by_count(self) -> int:
        """Return the exit code of an end that would be clean had no number of messages been asked for."""
        return 0 if self._settings.count is None else 1

    def _show(self, item: Change | Note | Step) -> None:
        # What was received before it is shown before it, also where both go to one terminal.
        self._messages.flush()
        try:
            self._events.write(self._line(item))
            self._events.flush()
        except OutputFailed:
            pass  # messages may still be wanted when nobody reads the events

    def _line(self, item: Change | Note | Step) -> bytes:
        if isinstance(item, Change):
            return self._renderer.change(item)
        return self._renderer.step(item) if isinstance(item, Step) else self._renderer.note(item)

    def _end(self, outcome: Outcome, closing: float | None) -> int:
        # First the inbox: a reader that waits for room in it could not end.
        self._inbox.close()
        self._input.stop()
        self._conn.disconnect(timeout=closing)
        self._input.finish(_INPUT_PATIENCE)
        sent, unsent = self._input.sent, self._input.unsent
        text = f"{outcome.cause}; received {self._received}, sent {sent}" + (
            f", not sent {unsent}" if unsent else ""
        )
        self._show(Change(State.CLOSED, text, cause=outcome.cause))
        return 1 if outcome.needs_input and unsent else outcome.code
