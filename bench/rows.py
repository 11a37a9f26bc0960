"""What is measured, what is to be reached, and the curves around it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from bench.judge import Row, Target, Task
from bench.rows_calls import call_rows
from bench.scale import Scale

CONNMAN = "connman"
POOL = "connman Pool(readers=1)"
APP = "WebSocketApp"
APP_UNCHECKED = "WebSocketApp, no UTF-8 check"
APP_PINGING = "WebSocketApp, with pings"
CLIENT = "websocket-client"
CLIENT_UNCHECKED = "websocket-client, no UTF-8 check"
WEBSOCKETS = "websockets, threads"
SIMPLE = "simple-websocket"
PICOWS, PICOWS_UVLOOP = "picows", "picows, uvloop"
PICOWS_TYPED = "picows, asks for msg_type"
RAW, EMPTY = "floor: recv() alone", "floor: callback alone"
CUTTING = "floor: recv(), cut out, decode, call"
RAW_SOCKET = "floor: socket alone"
RAW_SELECTOR = "floor: selector and recv()"
SEND_MANY = "connman send_many"
IN_CALLBACK = "connman in on_data"

MODULES = {
    CONNMAN: "connman_threads",
    POOL: "connman_pool",
    APP: "websocket_app",
    APP_UNCHECKED: "websocket_app",
    APP_PINGING: "websocket_app_pings",
    CLIENT: "websocket_client",
    CLIENT_UNCHECKED: "websocket_client",
    WEBSOCKETS: "websockets_threads",
    SIMPLE: "simple",
    PICOWS: "picows_loop",
    PICOWS_UVLOOP: "picows_loop",
    PICOWS_TYPED: "picows_loop",
    RAW: "floor",
    EMPTY: "floor",
    CUTTING: "floor",
    RAW_SOCKET: "floor",
    RAW_SELECTOR: "floor",
    SEND_MANY: "connman_threads",
    IN_CALLBACK: "connman_threads",
}
JOBS = {EMPTY: "callbacks", CUTTING: "cut", SEND_MANY: "send_many", IN_CALLBACK: "echo_callback"}
"""Where a label means another job than its row."""
OPTIONS = {
    PICOWS_UVLOOP: {"uvloop": 1},
    PICOWS_TYPED: {"typed": 1},
    APP_UNCHECKED: {"unchecked": 1},
    CLIENT_UNCHECKED: {"unchecked": 1},
}
"""What a label's job is called with beside the numbers of its row."""
PACES = {
    CONNMAN: 40,
    PICOWS: 64,
    PICOWS_UVLOOP: 64,
    PICOWS_TYPED: 40,
    RAW: 400,
    EMPTY: 160,
    CUTTING: 40,
    WEBSOCKETS: 2,
    SEND_MANY: 8,
}
"""How many times the messages of the slowest a fast client gets, so that all measure for about as long."""

STEP = 128
"""Counts are multiples of it, so that 64 threads and whole batches share them out evenly."""
RECEIVERS = (
    *(CONNMAN, PICOWS, PICOWS_UVLOOP, PICOWS_TYPED, CLIENT, CLIENT_UNCHECKED),
    *(APP, APP_UNCHECKED, SIMPLE, WEBSOCKETS, RAW, EMPTY, CUTTING),
)
ECHOERS = (
    *(CONNMAN, IN_CALLBACK, CLIENT, CLIENT_UNCHECKED, WEBSOCKETS, SIMPLE),
    *(PICOWS, PICOWS_UVLOOP, RAW_SOCKET),
)
CURVE_RECEIVERS = tuple(label for label in RECEIVERS if label not in (PICOWS_TYPED, CUTTING))
QUICK_RECEIVERS = tuple(label for label in RECEIVERS if label not in (CLIENT, APP, EMPTY))
SIZES = (0, 32, 256, 1024, 8192, 65536, 1 << 20)
CROWDS = (1, 10, 100, 1000, 5000)
THREADS = (1, 2, 8, 64)
MOST_BYTES = 400 << 20
TICK_RATE = 10_000
"""Messages a second over all connections: 1,000 connections get 10 each."""


def task(label: str, job: str, path: str, numbers: Mapping[str, int]) -> Task:
    """Make the task of a label in a row whose job this is."""
    return Task(label, MODULES[label], JOBS.get(label, job), path, {**numbers, **OPTIONS.get(label, {})})


def messages(scale: Scale, label: str, base: int, size: int) -> int:
    """Return how many messages a client is given, by what it can take."""
    wanted = base * scale.amount * PACES.get(label, 1)
    affordable = min(wanted, MOST_BYTES * scale.amount / max(size, 1))
    return STEP * max(1, round(affordable / STEP))


def base_count(label: str, size: int) -> int:
    """Return how many messages of a size the slowest takes in about half a second."""
    per_byte = 120 if label in (CLIENT, APP) else 5  # nanoseconds: those check UTF-8 byte by byte
    return int(5e8 / (10_000 + per_byte * size))


def receiving(scale: Scale, labels: tuple[str, ...], size: int) -> list[Task]:
    """Tasks that receive messages of a size."""
    tasks = []
    for label in labels:
        count = messages(scale, label, base_count(label, size), size)
        tasks.append(task(label, "receive", f"blast/{size}/{count}", {"size": size, "count": count}))
    return tasks


def sending(scale: Scale, labels: tuple[str, ...], threads: int) -> list[Task]:
    """Tasks that send 32 bytes from so many threads."""
    tasks = []
    for label in labels:
        count = messages(scale, label if label == SEND_MANY else "", 80_000, 32)
        numbers = {"size": 32, "count": count} | ({"threads": threads} if threads > 1 else {})
        tasks.append(task(label, "send", f"sink/32/{count}", numbers))
    return tasks


def crowd(labels: tuple[str, ...], job: str, path: str, **numbers: int) -> list[Task]:
    """Tasks over many connections."""
    return [task(label, job, path, numbers) for label in labels]


def ticking(scale: Scale, labels: tuple[str, ...], count: int) -> list[Task]:
    """Tasks that receive the same stream, spread over so many connections."""
    path = f"ticks/32/{count}/{TICK_RATE}"
    return crowd(labels, "ticks", path, count=count, seconds=scale.seconds)


def receive_row(scale: Scale, name: str, size: int, times: float) -> Row:
    """Make the row about receiving messages of a size."""
    labels = RECEIVERS if scale.has_curves else QUICK_RECEIVERS
    targets = (
        # The harder of the two: in its own default the peer spends nearly all its time on UTF-8.
        Target(CONNMAN, APP_UNCHECKED, at_least=times),
        Target(CONNMAN, PICOWS, at_least=1.0),
        Target(CONNMAN, PICOWS_UVLOOP, at_least=1.0),
        # One that hands on messages, as connman does, has to know them from pings and closes.
        Target(CONNMAN, PICOWS_TYPED, at_least=1.0),
    )
    title = f"receive text of {size} B through connect(on_data=…)"
    tasks, rounds = receiving(scale, labels, size), scale.rounds
    return Row(name, title, "messages/s", tasks, targets, rounds, placement="apart", floor=CUTTING)


def send_row(scale: Scale) -> Row:
    """Make the row about sending from one thread."""
    targets = (Target(CONNMAN, CLIENT, at_least=2.2), Target(SEND_MANY, CLIENT, at_least=8))
    labels = (CONNMAN, SEND_MANY, CLIENT, SIMPLE, WEBSOCKETS, PICOWS, RAW_SOCKET)
    tasks, title = sending(scale, labels, 1), "send text of 32 B one by one"
    return Row("send", title, "messages/s", tasks, targets, scale.rounds, placement="apart", floor=RAW_SOCKET)


def threads_rows(scale: Scale) -> Iterator[Row]:
    """Make the curve about many threads that send on one connection."""
    labels = (CONNMAN, CLIENT, WEBSOCKETS, RAW_SOCKET)
    for threads in THREADS if scale.has_curves else (1, 8, 64):
        title = f"{threads} threads send 32 B on one connection"
        tasks = sending(scale, labels, threads)
        rounds = scale.rounds_of_crowds
        yield Row(f"threads-{threads}", title, "messages/s", tasks, (), rounds, "threads", threads)


def echo_row(scale: Scale, name: str, placement: str, where: str) -> Row:
    """Make a row about round trips."""
    count = max(500, int(6_000 * scale.amount))
    tasks = [task(label, "echo", "echo/32", {"size": 32, "count": count}) for label in ECHOERS]
    targets = [
        Target(one, other, at_most=limit)
        for one in (IN_CALLBACK, CONNMAN)
        for other, limit in ((CLIENT_UNCHECKED, 0.65), (WEBSOCKETS, 0.4))
    ]
    title = f"echo round trip of 32 B, send() and recv(), client and server {where}"
    return Row(name, title, "µs", tasks, targets, scale.rounds, placement=placement, floor=RAW_SOCKET)


def pool_row(scale: Scale) -> Row:
    """Make the row about a thousand connections with little to do each."""
    title = "1,000 connections × 10 messages/s: CPU a message"
    tasks = ticking(scale, (POOL, CONNMAN, APP, PICOWS, RAW_SELECTOR), 1000)
    return Row(
        "pool", title, "µs", tasks, [Target(POOL, at_most=6)], scale.rounds_of_crowds, floor=RAW_SELECTOR
    )


def memory_row(scale: Scale) -> Row:
    """Make the row about what an idle connection weighs."""
    tasks = crowd((CONNMAN, POOL, APP, APP_PINGING, WEBSOCKETS, SIMPLE, PICOWS), "idle", "idle", count=1000)
    title = "memory of an idle connection, of 1,000: growth of RSS"
    return Row("memory", title, "KiB", tasks, [Target(CONNMAN, at_most=26)], scale.rounds_of_crowds)


def open_row(scale: Scale, name: str, placement: str, where: str) -> Row:
    """Make a row about opening many."""
    tasks = crowd((CONNMAN, APP, WEBSOCKETS), "opening", "idle", count=1000)
    targets = [Target(CONNMAN, APP, at_most=0.8)]
    title = f"open 1,000 connections, a thread each, client and server {where}"
    return Row(name, title, "s", tasks, targets, scale.rounds, placement=placement)


def disconnect_row(scale: Scale) -> Row:
    """Make the row about ending everything."""
    tasks = crowd((CONNMAN,), "disconnect_all", "idle", count=1000, stuck=200)
    targets = [Target(CONNMAN, at_most=1.5)]
    title = "disconnect_all: 1,000 open and 200 in the middle of opening; nothing left"
    return Row("disconnect", title, "s", tasks, targets, scale.rounds)


def curve_rows(scale: Scale) -> Iterator[Row]:
    """Make the curves of a full run: by size, CPU and memory by number of connections."""
    for size in SIZES:
        title, tasks = f"receive text of {size:,} B", receiving(scale, CURVE_RECEIVERS, size)
        yield Row(f"curve-sizes-{size}", title, "messages/s", tasks, (), 3, "sizes", size, "apart")
    labels = (CONNMAN, POOL, APP, WEBSOCKETS, PICOWS)
    for count in CROWDS:
        title = f"{TICK_RATE:,} messages/s over {count:,} connections: CPU a message"
        tasks = ticking(scale, labels, count)
        yield Row(f"curve-cpu-{count}", title, "µs", tasks, (), 2, "cpu", count)
        title, tasks = (
            f"memory of an idle connection, of {count:,}",
            crowd(labels, "idle", "idle", count=count),
        )
        yield Row(f"curve-memory-{count}", title, "KiB", tasks, (), 2, "memory", count)


APART, TOGETHER, FREE = "on processors of their own", "on one processor", "where the system puts them"


def all_rows(scale: Scale) -> list[Row]:
    """Return everything that is measured, in the order in which it is shown."""
    rows = [receive_row(scale, "receive-32", 32, 10), receive_row(scale, "receive-1k", 1024, 8)]
    rows += [
        send_row(scale),
        echo_row(scale, "echo-apart", "apart", APART),
        echo_row(scale, "echo-together", "together", TOGETHER),
        pool_row(scale),
        memory_row(scale),
        open_row(scale, "open-free", "free", FREE),
        open_row(scale, "open-apart", "apart", APART),
        disconnect_row(scale),
    ]
    rows += threads_rows(scale)
    rows += call_rows(scale)
    return rows + (list(curve_rows(scale)) if scale.has_curves else [])


def chosen(rows: list[Row], names: list[str]) -> list[Row]:
    """Return the rows whose names begin with one of these; all of them when none is given.

    Raises: ValueError for a name that fits no row.
    """
    for name in names:
        if not any(row.name.startswith(name) for row in rows):
            raise ValueError(f"no row {name!r}; there are {', '.join(row.name for row in rows)}")
    return [row for row in rows if not names or row.name.startswith(tuple(names))]


def connections_of(task: Task) -> int:
    """Return how many connections a task opens."""
    return task.numbers.get("count", 0) if task.path.startswith(("idle", "ticks")) else 1


def unfit(task: Task, descriptors: int) -> str | None:
    """Say why this machine cannot run the task, or None."""
    wanted = connections_of(task) + task.numbers.get("stuck", 0) + 64
    return f"{wanted} open files wanted, {descriptors} allowed" if wanted > descriptors else None


def machine() -> dict[str, object]:
    """Say what the machine is like, as far as it bears on figures; not which it is."""
    uname = os.uname()
    return {"cpus": os.cpu_count(), "system": uname.sysname, "architecture": uname.machine}
