"""connman, `Pool(readers=1)`: one thread reads all connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import connman
from bench.clients.crowd import Gathering
from bench.clients.meter import NotThereError

VERSION_OF = "connman"


def open_many(url: str, count: int, on_message: Callable[[Any, Any], object] | None) -> object:
    """Open so many connections."""
    try:
        pool = connman.Pool(readers=1)
    except connman.errors.InvalidOption as error:
        raise NotThereError("Pool(readers=1)") from error
    everyone = Gathering(count)
    options: Any = {"on_data": on_message} if on_message else {}
    for _ in range(count):
        pool.add_connection(url, on_open=everyone.one_more, **options)
    everyone.wait()
    return pool
