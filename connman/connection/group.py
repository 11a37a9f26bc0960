"""Several connections taken as one: waited for together, counted together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from connman.clock import Deadline
from connman.connection.core import Core
from connman.records import Stats

_SUMS = (
    "messages_in", "messages_out", "bytes_in", "bytes_out", "opens", "losses", "failed_attempts", "callback_errors",
)  # fmt: skip


def all_gone(connections: Iterable[Core], deadline: Deadline) -> bool:
    """Wait until the threads of all are gone; False as soon as one is there still at the deadline.

    Threads: any but connman's own.
    """
    return all(conn.wait_gone(deadline.remaining() or 0.0) for conn in connections)


def end_all(connections: Iterable[Core], deadline: Deadline) -> bool:
    """Wait for connections that were told to end, all under one deadline; what has not ended by then is broken.

    Threads: any but connman's own.
    """
    late = [conn for conn in connections if not conn.wait_gone(deadline.remaining() or 0.0)]
    for conn in late:
        conn.abort()
    return all_gone(late, Deadline.after(deadline.clock, 1.0))


def total(every: Sequence[Stats]) -> Stats:
    """Return the sums; the longest of ``ping_rtt`` and ``uptime``, and one ``last_error``.

    Threads: any; pure.
    """
    errors = [stats.last_error for stats in every if stats.last_error is not None]
    return Stats(
        **{name: sum(getattr(stats, name) for stats in every) for name in _SUMS},
        last_error=errors[-1] if errors else None,
        ping_rtt=max((stats.ping_rtt for stats in every if stats.ping_rtt is not None), default=None),
        uptime=max((stats.uptime for stats in every), default=0.0),
    )
