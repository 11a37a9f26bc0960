"""Every event of a connection's life in every state, and what follows: the one table that tests and rigs compare with."""

from __future__ import annotations

from collections.abc import Sequence

from connman import State

IDLE, CONNECTING, OPEN, WAITING, CLOSED = State

# What may happen at any time, by any thread.
FROM_OUTSIDE = (
    "ask",
    "disconnect",
    "hurry",
    "abort",
    "abandon_after_fork",
)
# What only the reader does, one step after the other; and the failure of a reader, or of its start.
OF_THE_READER = (
    "take_dial",
    "opened",
    "resolve",
    "ended, retried",
    "ended, not retried",
    "retry",
    "reader_failed",
    "start_interrupted",
)
EVENTS = FROM_OUTSIDE + OF_THE_READER

NEVER = None
"""The reader's own order excludes it: it ends only what it has begun, waits only after an end, dials only after a wait."""

# State before, then the state after each event, in the order of EVENTS.
_ROWS = {
    IDLE: (CONNECTING, CLOSED, IDLE, IDLE, CLOSED,
           IDLE, NEVER, IDLE, NEVER, NEVER, NEVER, IDLE, IDLE),
    CONNECTING: (CONNECTING, CLOSED, CONNECTING, CONNECTING, CLOSED,
                 CONNECTING, OPEN, CONNECTING, WAITING, IDLE, NEVER, IDLE, IDLE),
    OPEN: (OPEN, CLOSED, OPEN, OPEN, CLOSED,
           NEVER, NEVER, OPEN, WAITING, IDLE, NEVER, IDLE, OPEN),
    WAITING: (WAITING, CLOSED, WAITING, WAITING, CLOSED,
              NEVER, NEVER, WAITING, NEVER, NEVER, CONNECTING, IDLE, WAITING),
    CLOSED: (CLOSED,) * len(EVENTS),
}  # fmt: skip

TABLE: dict[tuple[State, str], State | None] = {
    (state, event): after for state, row in _ROWS.items() for event, after in zip(EVENTS, row, strict=True)
}

# A child of a fork has another life, which nobody watches: so much may be seen of one life.
CHANGES = frozenset(
    (before, after)
    for (before, event), after in TABLE.items()
    if after is not None and after is not before and event != "abandon_after_fork"
)


def is_legal(states: Sequence[State]) -> bool:
    """Whether a connection may go through these states, from IDLE on, as those who watch it are told.

    Two threads that change the state at once may be told the other way round: CLOSED, or a new start, before the step
    of the reader that came first. Such neighbours may be exchanged.
    """
    ways = {(IDLE, tuple(states))}
    while ways:
        before, left = ways.pop()
        if not left:
            return True
        if (before, left[0]) in CHANGES:
            ways.add((left[0], left[1:]))
        if left[0] is not CLOSED and left[:2] != (CONNECTING, IDLE):
            continue
        if len(left) > 1 and (before, left[1]) in CHANGES and (left[1], left[0]) in CHANGES:
            ways.add((left[0], left[2:]))
    return False
