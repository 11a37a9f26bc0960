"""The rows about calls and about forwarding: what is measured, and what is to be reached."""

from __future__ import annotations

from collections.abc import Iterator

from bench.judge import Row, Target, Task
from bench.scale import Scale

CONNMAN = "connman through its relay"
CONNMAN_THREADS = "connman, 64 threads in call()"
RPYC = "rpyc direct"
RPYC_KEPT = "rpyc direct, method looked up once"
RPYC_ASYNC = "rpyc direct, async_()"
SOCKETIO = "python-socketio call() direct"
SOCKETIO_THREADS = "python-socketio call(), 16 threads"
SOCKETIO_EMIT = "python-socketio emit() direct"
FLOOR = "floor: raw sockets through picows"

THROUGH_CONNMAN = ("servers.relay_connman", "servers.calls_connman")
THROUGH_PICOWS = ("servers.relay_picows uvloop", "servers.echo_behind")
TO_RPYC = ("servers.calls_rpyc",)
TO_SOCKETIO = ("servers.calls_socketio",)

ONE_BY_ONE = (
    (CONNMAN, "calls_connman", "calls", THROUGH_CONNMAN, 6_000),
    (RPYC, "calls_rpyc", "calls", TO_RPYC, 4_000),
    (RPYC_KEPT, "calls_rpyc", "calls_kept", TO_RPYC, 8_000),
    (SOCKETIO, "calls_socketio", "calls", TO_SOCKETIO, 1_500),
    (FLOOR, "calls_floor", "calls", THROUGH_PICOWS, 8_000),
)
"""Label, client, job, servers, and how many calls take about half a second or more."""
WINDOW = 64
WINDOWS = (1, 4, 16, 64, 256)
MANY = (
    (CONNMAN, "calls_connman", "calls_in_flight", THROUGH_CONNMAN, 24_000, {"window": WINDOW}),
    (CONNMAN_THREADS, "calls_connman", "calls_from_threads", THROUGH_CONNMAN, 16_000, {"threads": WINDOW}),
    (SOCKETIO, "calls_socketio", "calls", TO_SOCKETIO, 1_500, {}),
    (SOCKETIO_THREADS, "calls_socketio", "calls_from_threads", TO_SOCKETIO, 3_200, {"threads": 16}),
    (SOCKETIO_EMIT, "calls_socketio", "calls_in_flight", TO_SOCKETIO, 3_200, {"window": WINDOW}),
    (RPYC_ASYNC, "calls_rpyc", "calls_in_flight", TO_RPYC, 10_000, {"window": WINDOW}),
    (FLOOR, "calls_floor", "calls_in_flight", THROUGH_PICOWS, 80_000, {"window": WINDOW}),
)
RELAY, RELAY_PLAIN = "connman", "connman, plain"
WEBSOCKETS, WEBSOCKETS_UVLOOP = "websockets", "websockets, uvloop"
AIOHTTP, PICOWS, PICOWS_UVLOOP = "aiohttp", "picows", "picows, uvloop"
FORWARDERS = (
    (RELAY, 2_000_000),
    (RELAY_PLAIN, 600_000),
    (WEBSOCKETS, 60_000),
    (WEBSOCKETS_UVLOOP, 60_000),
    (AIOHTTP, 100_000),
    (PICOWS, 300_000),
    (PICOWS_UVLOOP, 400_000),
)
"""Label, and how many frames take about a second."""
FRAME = 64
FULL_ONLY = {RELAY_PLAIN, SOCKETIO_EMIT, RPYC_ASYNC, CONNMAN_THREADS, WEBSOCKETS_UVLOOP, AIOHTTP, PICOWS}
"""What a quick run does without."""
MORE_PAIRS = (64, 256)


def left(scale: Scale, tasks: list[Task], targets: list[Target]) -> tuple[list[Task], list[Target]]:
    """Return what a run of this scale measures of a row, and the targets that it can judge."""
    if scale.has_curves:
        return tasks, targets
    tasks = [task for task in tasks if task.label not in FULL_ONLY]
    return tasks, [target for target in targets if target.against not in FULL_ONLY]


def calls_row(scale: Scale, name: str, placement: str, where: str) -> Row:
    """Make a row about calls one at a time."""
    tasks = [
        Task(label, client, job, "", {"count": int(count * scale.amount)}, servers)
        for label, client, job, servers, count in ONE_BY_ONE
        if scale.has_curves or label != SOCKETIO
    ]
    title, targets = f"calls one at a time, all processes {where}", [Target(CONNMAN, RPYC, at_least=1.5)]
    tasks, targets = left(scale, tasks, targets)
    return Row(name, title, "calls/s", tasks, targets, scale.rounds, placement=placement, floor=FLOOR)


def many_row(scale: Scale) -> Row:
    """Make the row about many calls at once over one connection."""
    tasks = [
        Task(label, client, job, "", {"count": int(count * scale.amount), **numbers}, servers)
        for label, client, job, servers, count, numbers in MANY
    ]
    targets = [Target(CONNMAN, SOCKETIO, at_least=5), Target(CONNMAN, SOCKETIO_THREADS, at_least=5)]
    title = f"calls, {WINDOW} in flight over one connection, but for where it says otherwise"
    return Row("calls-64", title, "calls/s", *left(scale, tasks, targets), scale.rounds, floor=FLOOR)


def curve_row(scale: Scale, window: int) -> Row:
    """Make a point of the curve about calls by how many are under way."""
    labels = {CONNMAN, SOCKETIO_EMIT, RPYC_ASYNC}
    tasks = [
        Task(label, client, job, "", {"count": int(count * scale.amount), "window": window}, servers)
        for label, client, job, servers, count, _ in MANY
        if label in labels
    ]
    title = f"calls, {window} in flight over one connection"
    return Row(f"curve-calls-{window}", title, "calls/s", tasks, (), 2, "calls", window)


def forward_row(scale: Scale, pairs: int, *, is_judged: bool = True) -> Row:
    """Make a row about one relay process that forwards between so many pairs, a point of a curve."""
    tasks = []
    for label, count in FORWARDERS:
        library, _, loop = label.partition(", ")
        numbers = {"pairs": pairs, "count": int(count * scale.amount), "size": FRAME}
        servers = (f"servers.relay_{library} {loop}".strip(),)
        tasks.append(Task(label, "forward", "forward", library, numbers, servers))
    title = f"frames of {FRAME} B through one relay process, {pairs} pair{'s' if pairs > 1 else ''}"
    targets = [Target(RELAY, WEBSOCKETS, at_least=2.5), Target(RELAY, WEBSOCKETS_UVLOOP, at_least=2.5)]
    name, rounds = (f"forward-{pairs}", scale.rounds) if is_judged else (f"curve-forward-{pairs}", 2)
    return Row(
        *(name, title, "frames/s", *left(scale, tasks, targets if is_judged else []), rounds),
        *("forward", pairs, "apart", PICOWS_UVLOOP),
    )


def call_rows(scale: Scale) -> Iterator[Row]:
    """Make all of them."""
    yield calls_row(scale, "calls-free", "free", "where the system puts them")
    yield calls_row(scale, "calls-together", "together", "on one processor")
    yield many_row(scale)
    yield forward_row(scale, 1)
    yield forward_row(scale, 16)
    if scale.has_curves:
        yield from (curve_row(scale, window) for window in WINDOWS)
        yield from (forward_row(scale, pairs, is_judged=False) for pairs in MORE_PAIRS)
