"""How messages and the life of a connection look: as text for people, or as JSON, one object a line."""

from __future__ import annotations

import base64
import json
import logging
import time
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from connman.errors import ConnectError, ConnectionClosed, printable
from connman.records import Message, Reset, State, Step

Binary = Literal["hex", "base64", "raw"]
NoteKind = Literal["info", "warning", "error"]

_COLOURS = {"connecting": 36, "open": 32, "waiting": 33, "closed": 35, "warning": 31, "error": 31}
# What a terminal would obey, but for tab and newline: a peer must not drive the user's terminal.
_CONTROLS = {i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160)) if i not in (9, 10)}


@dataclass(frozen=True, slots=True)
class Change:
    """Tell one change of state. Fields that do not apply are None.

    ``text``: the whole change for people. ``attempt``: failures in a row. ``retry_in``: seconds until the next try.
    """

    state: State
    text: str
    attempt: int | None = None
    retry_in: float | None = None
    cause: str | None = None
    code: int | None = None
    reason: str | None = None
    transport: str | None = None
    subprotocol: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Tell something that is no change of state."""

    kind: NoteKind
    text: str


def cause_of(error: BaseException, *, in_full: bool) -> str:
    """Return what an error says, with a close's reason: whoever looks at this screen may read it.

    ``in_full``: with the log of the attempt's steps.

    Threads: any; pure.
    """
    if isinstance(error, ConnectionClosed) and error.reason:
        return f"{ConnectionClosed(error.code)}: {error.reason}"
    if in_full or not isinstance(error, ConnectError):
        return str(error) or type(error).__name__
    last = error.attempts[-1].cause if error.attempts else None
    # Of a strategy the newest failure of each leaf: that no way opened in time says nothing of why.
    failures = {
        step.leaf: f"{step.phase}: {step.cause}" for step in error.attempts if step.leaf and step.cause
    }
    leaves = "; ".join(f"{leaf} {failure}" for leaf, failure in failures.items())
    return (error.message or last or "connecting failed") + (f" ({leaves})" if leaves else "")


def change_of(reset: Reset, *, in_full: bool) -> Change:
    """Return the change that a reset with a retry stands for. ``in_full``: with the log of the attempt's steps.

    Threads: any; pure.
    """
    cause = cause_of(reset.error, in_full=in_full)
    what = "lost" if reset.opened else "attempt failed"
    return Change(
        State.WAITING,
        f"{what}: {cause}; retry {reset.attempt} in {reset.retry_in or 0.0:.2f} s",
        attempt=reset.attempt,
        retry_in=reset.retry_in,
        cause=cause,
        code=reset.code,
        reason=reset.reason or None,
    )


class Renderer(Protocol):
    """Turn what happened into the bytes of whole lines."""

    def message(self, message: Message) -> bytes:
        """Return what goes to standard output for ``message``.

        Threads: any; pure.
        """

    def change(self, change: Change) -> bytes:
        """Return what goes to standard error for a change of state.

        Threads: any; pure.
        """

    def step(self, step: Step) -> bytes:
        """Return what goes to standard error for one step of an attempt.

        Threads: any; pure.
        """

    def note(self, note: Note) -> bytes:
        """Return what goes to standard error for ``note``.

        Threads: any; pure.
        """


class TextRenderer:
    """Lines for people. ``is_terminal``: control characters in text are shown, not obeyed. A `Renderer`."""

    def __init__(self, *, binary: Binary, is_terminal: bool, has_colour: bool) -> None:
        self._binary = binary
        self._is_terminal = is_terminal
        self._has_colour = has_colour

    def message(self, message: Message) -> bytes:
        """Return a text with a newline behind it, or bytes in the form that was asked for; see `Renderer`.

        Threads: any; pure.
        """
        if isinstance(message, str):
            return (message.translate(_CONTROLS) if self._is_terminal else message).encode() + b"\n"
        if self._binary == "raw":
            return message
        return (base64.b64encode(message) if self._binary == "base64" else message.hex().encode()) + b"\n"

    def change(self, change: Change) -> bytes:
        """Return time, state and what it is about; see `Renderer`.

        Threads: any.
        """
        return self._line(change.state.value, change.text)

    def step(self, step: Step) -> bytes:
        """Return time, leaf, phase and how it ended; see `Renderer`.

        Threads: any.
        """
        return self._line("step", str(step))

    def note(self, note: Note) -> bytes:
        """Return time, kind and text; see `Renderer`.

        Threads: any.
        """
        return self._line(note.kind, note.text)

    def _line(self, word: str, text: str) -> bytes:
        shown = f"{word:<10}"
        if self._has_colour and word in _COLOURS:
            shown = f"\x1b[{_COLOURS[word]}m{shown}\x1b[0m"
        one_line = printable(text, limit=2000)
        return f"{time.strftime('%H:%M:%S')} {shown} {one_line}\n".encode(errors="backslashreplace")


class JsonRenderer:
    """One JSON object a line, each with ``type`` and ``time`` (seconds since 1970). A `Renderer`.

    ``message``: ``format`` is "text" or "base64", ``data`` the message in it. ``state``: ``state`` and the fields of
    `Change` that apply. ``step``: see `step_fields`. ``note``: ``kind`` and ``text``.
    """

    def message(self, message: Message) -> bytes:
        """Return the object of a message; see `Renderer`.

        Threads: any.
        """
        if isinstance(message, str):
            return json_line("message", {"format": "text", "data": message})
        return json_line("message", {"format": "base64", "data": base64.b64encode(message).decode()})

    def change(self, change: Change) -> bytes:
        """Return the object of a change of state; see `Renderer`.

        Threads: any.
        """
        names = (name for name in Change.__slots__ if getattr(change, name) is not None)
        return json_line("state", {name: getattr(change, name) for name in names})

    def step(self, step: Step) -> bytes:
        """Return the object of a step; see `Renderer`.

        Threads: any.
        """
        return json_line("step", step_fields(step))

    def note(self, note: Note) -> bytes:
        """Return the object of a note; see `Renderer`.

        Threads: any.
        """
        return json_line("note", {"kind": note.kind, "text": note.text})


def json_line(kind: str, fields: dict[str, Any]) -> bytes:
    """Return one JSON object as a line, with its ``type`` and the time.

    Threads: any.
    """
    line = {"type": kind, "time": round(time.time(), 3), **fields}
    return (
        json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"
    )


def step_fields(step: Step) -> dict[str, Any]:
    """Return what JSON tells of a step; None for what does not apply.

    Threads: any; pure.
    """
    return {
        "leaf": step.leaf or None,
        "start": round(step.start, 6),
        "phase": step.phase,
        "address": step.address or None,
        "seconds": round(step.seconds, 6),
        "cause": step.cause,
    }


class LogFormatter(logging.Formatter):
    """Let connman's own log records look like the other lines of standard error."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__("%(name)s: %(message)s")
        self._renderer = renderer

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of ``record``, without its newline.

        Threads: any.
        """
        kind: NoteKind = "info"
        if record.levelno >= logging.WARNING:
            kind = "warning" if record.levelno < logging.ERROR else "error"
        return self._renderer.note(Note(kind, super().format(record))).decode().rstrip("\n")
