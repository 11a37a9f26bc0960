"""Keep sockets open for synchronous code: one thread-safe object stands for the connection to X."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from connman import errors
from connman.connection.connection import Connection
from connman.errors import ConnmanError, Fatal
from connman.manager import Manager, connect, create_pool, disconnect_all, get_connection, get_pool
from connman.pool import Pool
from connman.records import Message, PoolStats, Reset, State, Stats
from connman.transport.framing import length_prefixed, lines
from connman.transport.login import Channel
from connman.version import __version__

if TYPE_CHECKING:
    from connman import relay, rpc, strategy

__all__ = [
    "Channel",
    "Connection",
    "ConnmanError",
    "Fatal",
    "Manager",
    "Message",
    "Pool",
    "PoolStats",
    "Reset",
    "State",
    "Stats",
    "__version__",
    "connect",
    "create_pool",
    "disconnect_all",
    "errors",
    "get_connection",
    "get_pool",
    "length_prefixed",
    "lines",
    "relay",
    "rpc",
    "strategy",
]

# What a library owes (see Python's logging howto): silence unless the application asks for more. It makes no lock.
logging.getLogger("connman").addHandler(logging.NullHandler())


_LAZY = ("relay", "rpc", "strategy")


def __getattr__(name: str) -> Any:
    # Imported when it is used: most programs need none of them, and need not wait for them.
    if name in _LAZY:
        return importlib.import_module(f"connman.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
