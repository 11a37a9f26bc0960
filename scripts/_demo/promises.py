"""What the demo measured, what connman promises, and whether the one keeps the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pace
from pace import CALLERS, DEAF_DIALS, POOL_SIZE, SLACK

NOTICE_KILL = SLACK
NOTICE_FREEZE = pace.PING_INTERVAL + pace.PING_TIMEOUT + SLACK
COME_BACK = pace.LONGEST_DELAY + pace.JITTER + SLACK
ATTEMPT = pace.OPEN_TIMEOUT + SLACK
DISCONNECT_ALL = SLACK

UNKNOWN = -1  # equal to no count; what was not measured keeps no promise


@dataclass(slots=True)
class Numbers:
    """What was measured; the acts fill it in. Counts are ints, times float seconds, NaN until measured."""

    callers_served: int = UNKNOWN
    shared_futures: int = UNKNOWN
    shared_sockets: int = UNKNOWN
    refused_code: int | None = None
    refused_attempts: int = UNKNOWN
    sockets: int = UNKNOWN
    attempts: int = UNKNOWN
    passes: int = UNKNOWN
    opens: int = UNKNOWN
    resets_of_open: int = UNKNOWN
    unpaired: int = UNKNOWN
    out_of_order: int = UNKNOWN
    losses: int = UNKNOWN
    losses_caused: int = UNKNOWN
    messages: int = UNKNOWN
    gaps: int = UNKNOWN
    repeats: int = UNKNOWN
    noticed_kill: float = math.nan
    noticed_freeze: float = math.nan
    came_back: float = math.nan
    longest_outage: float = math.nan
    deaf_attempts: int = UNKNOWN
    longest_attempt: float = math.nan
    delays: int = UNKNOWN
    wrong_delays: int = UNKNOWN
    calls_answered: int = UNKNOWN
    calls_back: int = UNKNOWN
    calls_wrong: int = UNKNOWN
    calls_lost: int = UNKNOWN
    calls_twice: int = UNKNOWN
    calls_cut: int = UNKNOWN
    calls_ended: float = math.nan
    calls_resumed: float = math.nan
    ended_open: int = UNKNOWN
    ended_mid_open: int = UNKNOWN
    disconnect_all: float = math.nan
    late_callbacks: int = UNKNOWN
    late_sockets: int = UNKNOWN
    threads_left: int = UNKNOWN
    sockets_left: int = UNKNOWN
    callback_errors: int = UNKNOWN
    leaks: int = UNKNOWN


@dataclass(frozen=True, slots=True)
class Promise:
    """One line of the summary."""

    what: str
    seen: str
    promised: str
    is_kept: bool


def judge(numbers: Numbers) -> list[Promise]:
    """Hold ``numbers`` against every promise."""
    return [*_opening(numbers), *_data(numbers), *_trouble(numbers), *_calls(numbers), *_ending(numbers)]


def _opening(n: Numbers) -> Iterator[Promise]:
    yield Promise(
        f"{CALLERS} threads ask for one connection",
        f"{n.shared_sockets} socket, {n.shared_futures} Future, {n.callers_served} served",
        f"1 socket, 1 Future, {CALLERS} served",
        (n.shared_sockets, n.shared_futures, n.callers_served) == (1, 1, CALLERS),
    )
    yield Promise(
        "a wrong pass",
        f"closed with {n.refused_code}, dialled {n.refused_attempts} x",
        "closed with 4001, dialled 1 x",
        (n.refused_code, n.refused_attempts) == (4001, 1),
    )
    yield Promise(
        "sockets the server saw",
        f"{n.sockets} for {n.attempts} attempts",
        "at most 1 an attempt",
        POOL_SIZE <= n.sockets <= n.attempts,
    )
    yield Promise("opens and passes shown", f"{n.opens} and {n.passes}", "equal", 0 < n.opens == n.passes)


def _data(n: Numbers) -> Iterator[Promise]:
    yield Promise("messages received", f"{n.messages:,}", "more than 0", n.messages > 0)
    yield Promise("sequence gaps and repeats", f"{n.gaps} and {n.repeats}", "none", n.gaps == n.repeats == 0)
    yield Promise(
        "opens and resets(opened=True)",
        f"{n.opens} and {n.resets_of_open}, {n.unpaired} unpaired",
        "equal, for each",
        n.opens == n.resets_of_open and n.unpaired == 0,
    )
    yield Promise("callbacks out of order", f"{n.out_of_order}", "none", n.out_of_order == 0)
    yield Promise(
        "losses and losses we caused",
        f"{n.losses} and {n.losses_caused}",
        "equal: no false alarm",
        0 < n.losses == n.losses_caused,
    )


def _trouble(n: Numbers) -> Iterator[Promise]:
    yield _within("SIGKILL noticed after", n.noticed_kill, NOTICE_KILL)
    yield _within("half-open peer (SIGSTOP) noticed after", n.noticed_freeze, NOTICE_FREEZE)
    yield _within("all open again after the server is back", n.came_back, COME_BACK)
    yield Promise("longest outage", f"{n.longest_outage:.2f} s", "measured", 0 < n.longest_outage < math.inf)
    yield Promise(
        "attempts at a silent upgrade",
        f"{n.deaf_attempts}, longest {n.longest_attempt:.2f} s",
        f"within {ATTEMPT:.1f} s",
        n.deaf_attempts >= POOL_SIZE and n.longest_attempt <= ATTEMPT,
    )
    yield Promise(
        "delays doubling to the cap, reset by success",
        f"{n.delays}, {n.wrong_delays} wrong",
        "none wrong",
        n.delays > 0 and n.wrong_delays == 0,
    )


def _calls(n: Numbers) -> Iterator[Promise]:
    yield Promise(
        "calls through a relay, both ways",
        f"{n.calls_answered:,} and {n.calls_back:,} back, {n.calls_wrong} wrong",
        "none wrong",
        n.calls_answered > n.calls_back > 0 and n.calls_wrong == 0,
    )
    yield Promise(
        "calls that the dead relay ended or refused",
        f"{n.calls_cut}, after {n.calls_ended:.3f} s",
        f"within {SLACK:.1f} s",
        n.calls_cut > 0 and 0 <= n.calls_ended <= SLACK,
    )
    yield Promise(
        "retry_safe calls lost, run twice",
        f"{n.calls_lost} and {n.calls_twice}",
        "none",
        n.calls_lost == n.calls_twice == 0,
    )
    yield _within("calls go on after the relay is back", n.calls_resumed, COME_BACK)


def _ending(n: Numbers) -> Iterator[Promise]:
    yield Promise(
        "connections at disconnect_all",
        f"{n.ended_open} open, {n.ended_mid_open} mid-open",
        f"{POOL_SIZE} open, {DEAF_DIALS} mid-open",
        (n.ended_open, n.ended_mid_open) == (POOL_SIZE, DEAF_DIALS),
    )
    yield _within("disconnect_all took", n.disconnect_all, DISCONNECT_ALL)
    yield Promise(
        "after it: callbacks, sockets at the server",
        f"{n.late_callbacks}, {n.late_sockets}",
        "none",
        n.late_callbacks == n.late_sockets == 0,
    )
    yield Promise(
        "threads and sockets left",
        f"{n.threads_left} and {n.sockets_left}",
        "none",
        n.threads_left == n.sockets_left == 0,
    )
    yield Promise("exceptions in callbacks", f"{n.callback_errors}", "none", n.callback_errors == 0)
    yield Promise("times the pass was seen in output, logs, errors", f"{n.leaks}", "none", n.leaks == 0)


def _within(what: str, seconds: float, bound: float) -> Promise:
    return Promise(what, f"{seconds:.3f} s", f"within {bound:.1f} s", 0 <= seconds <= bound)
