"""rpyc: a netref's method, whose name was looked up before, and its asynchronous form."""

from __future__ import annotations

from urllib.parse import urlsplit

import rpyc

from bench.clients import calling
from bench.clients.calling import Begin
from bench.clients.meter import PATIENCE, Result

VERSION_OF = "rpyc"


def dial(url: str) -> rpyc.Connection:
    """Connect without a thread more: the caller reads, which is rpyc's own and fastest way."""
    parts = urlsplit(url)
    return rpyc.connect(parts.hostname or "", parts.port or 0, config={"sync_request_timeout": PATIENCE})


def calls(url: str, count: int) -> Result:
    """Measure calls a second, one at a time, written as its tutorial writes them: the method is looked up on the other side."""
    root = dial(url).root

    def add(one: int, other: int) -> int:
        return root.add(one, other)

    return calling.one_by_one(add, count)


def calls_kept(url: str, count: int) -> Result:
    """Measure calls a second, one at a time, of a method that was looked up once and is kept."""
    return calling.one_by_one(dial(url).root.add, count)


def calls_from_threads(url: str, count: int, threads: int) -> Result:
    """Measure calls a second of so many threads."""
    return calling.from_threads(dial(url).root.add, count, threads)


def calls_in_flight(url: str, count: int, window: int) -> Result:
    """Measure calls a second with so many under way."""
    connection = dial(url)
    add = connection.root.add
    later = rpyc.async_(add)

    def begin(one: int, other: int) -> Begin:
        result = later(one, other)
        return lambda: result.value

    return calling.in_flight(add, begin, count, window)
