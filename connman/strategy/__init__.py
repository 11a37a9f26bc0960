"""Ways to get one transport out of several: trees of small strategies, each of which is a target for a connection."""

from connman.strategy.base import Opened, Report, Result, Run, Runner, Strategy, Watcher
from connman.strategy.best import BestConnected
from connman.strategy.branch import If
from connman.strategy.cached import Cached
from connman.strategy.default import pusher_default, pusher_tree
from connman.strategy.delayed import Delayed
from connman.strategy.first import FirstConnected
from connman.strategy.health import Health, TransportManager
from connman.strategy.leaf import Transport
from connman.strategy.sequential import Sequential

__all__ = [
    "BestConnected",
    "Cached",
    "Delayed",
    "FirstConnected",
    "Health",
    "If",
    "Opened",
    "Report",
    "Result",
    "Run",
    "Runner",
    "Sequential",
    "Strategy",
    "Transport",
    "TransportManager",
    "Watcher",
    "pusher_default",
    "pusher_tree",
]
