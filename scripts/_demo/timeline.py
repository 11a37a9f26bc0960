"""The live timeline: plain lines with the time, every connection's state, the message rate, and what has happened."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TextIO

from leaks import LeakGuard
from promises import Promise

from connman import State

PERIOD = 0.5  # seconds between two lines when nothing happens
GATHER = 0.06  # seconds in which events of the same kind become one line

LETTERS = {State.IDLE: ".", State.CONNECTING: "C", State.OPEN: "O", State.WAITING: "W", State.CLOSED: "x"}
LEGEND = "  ".join(f"{letter} {state.value}" for state, letter in LETTERS.items())

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"
_STATE_COLOURS = {State.CONNECTING: YELLOW, State.OPEN: GREEN, State.WAITING: RED}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that one connection has reported; ``retry_in`` in seconds, None when no attempt follows."""

    kind: str
    cause: str = ""
    attempt: int = 0
    retry_in: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """How things stand: states in groups, messages so far, and what to say when nothing else happens."""

    states: list[list[State]]
    messages: int
    news: str


class Paint:
    """Colours for a terminal; nothing anywhere else, and nothing where NO_COLOR is set."""

    def __init__(self, out: TextIO) -> None:
        self._is_on = out.isatty() and not os.environ.get("NO_COLOR")

    def __call__(self, text: str, colour: str) -> str:
        """Return ``text`` in that colour."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self._is_on else text


class Timeline:
    """Writes what happens, as it happens; a with-block, in which a thread adds a line every half second.

    Threads: every method from any thread.
    """

    def __init__(self, out: TextIO, guard: LeakGuard, look: Callable[[], Look]) -> None:
        self._out = out
        self._guard = guard
        self._look = look
        self._paint = Paint(out)
        self._began = self._rated_at = time.monotonic()
        self._lock = threading.Lock()
        # Guarded by _lock: _events and when the first of them came, _rated_at, _rated_messages, _rate, the output.
        self._events: list[Event] = []
        self._events_at = 0.0
        self._rated_messages = 0
        self._rate = 0.0
        self._has_events = threading.Event()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="demo-timeline", daemon=True)

    # What is written.

    def write(self, text: str = "") -> None:
        """Write one line as it is."""
        with self._lock:
            self._write_locked(text)

    def act(self, title: str) -> None:
        """Write a heading."""
        self.flush()
        self.write(self._paint(f"\n== {title}", BOLD))

    def say(self, text: str) -> None:
        """Write what the demo does, with the time and the states."""
        self.flush()
        with self._lock:
            self._line_locked(time.monotonic(), self._paint(text, BOLD))

    def note(self, event: Event) -> None:
        """Take an event; alike ones of the same moment become one line."""
        with self._lock:
            if not self._events:
                self._events_at = time.monotonic()
            self._events.append(event)
        self._has_events.set()

    def summary(self, promises: list[Promise]) -> None:
        """Write every promise with what was seen of it."""
        widths = [max(len(getattr(p, name)) for p in promises) for name in ("what", "seen", "promised")]
        self.write()
        for promise in promises:
            cells = zip((promise.what, promise.seen, promise.promised), widths, strict=True)
            verdict = self._paint("OK", GREEN) if promise.is_kept else self._paint("BROKEN", RED)
            self.write("  ".join([f"{text:<{width}}" for text, width in cells] + [verdict]))

    # The thread.

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._has_events.set()
        self._thread.join(5.0)
        self.flush()

    def _loop(self) -> None:
        while not self._is_over.is_set():
            if self._has_events.wait(PERIOD):
                self._is_over.wait(GATHER)
                self.flush()
            else:
                self._tick()

    def _tick(self) -> None:
        with self._lock:
            self._line_locked(time.monotonic(), self._paint(self._look().news, DIM))

    def flush(self) -> None:
        """Write the events that wait."""
        with self._lock:
            self._has_events.clear()
            events, self._events = self._events, []
            for text in summarised(events):
                self._line_locked(self._events_at, text)

    # Lines.

    def _line_locked(self, when: float, text: str) -> None:
        look = self._look()
        rate = self._rate_locked(look.messages)
        strip = " ".join("".join(self._letter(state) for state in group) for group in look.states)
        self._write_locked(f"{when - self._began:6.2f}  {strip}  {rate:6,.0f} msg/s  {text}".rstrip())

    def _letter(self, state: State) -> str:
        return self._paint(LETTERS[state], _STATE_COLOURS.get(state, DIM))

    def _rate_locked(self, messages: int) -> float:
        now = time.monotonic()
        if now - self._rated_at >= PERIOD / 2:
            self._rate = (messages - self._rated_messages) / (now - self._rated_at)
            self._rated_at, self._rated_messages = now, messages
        return self._rate

    def _write_locked(self, text: str) -> None:
        self._guard.look(text)
        try:
            print(text, file=self._out, flush=True)
        except BrokenPipeError:
            # Whoever read us (`| head`) has gone. The demo goes on, for its exit code.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())


def summarised(events: list[Event]) -> list[str]:
    """Return a line for each kind of event: how many, why, which attempt, and when the next ones follow."""
    groups: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        # By the name of the error: a text such as "no sign of life for 1.6 s" differs from one to the next.
        groups.setdefault((event.kind, event.cause.partition(":")[0]), []).append(event)
    return [_described(group) for group in groups.values()]


def _described(group: list[Event]) -> str:
    first = group[0]
    text = f"{len(group)} x {first.kind}"
    if first.cause:
        text += f": {first.cause}"
    delays = [event.retry_in for event in group if event.retry_in is not None]
    if delays:
        attempts = [event.attempt for event in group]
        text += f"; try {_range(attempts, 'd')}, next in {_range(delays, '.2f')} s"
    return text


def _range(numbers: list[int] | list[float], form: str) -> str:
    low, high = f"{min(numbers):{form}}", f"{max(numbers):{form}}"
    return low if low == high else f"{low}-{high}"
