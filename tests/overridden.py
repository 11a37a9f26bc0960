"""Objects whose classes have slots, made to behave otherwise one by one."""

from collections.abc import Callable
from typing import Any


def override(thing: object, **functions: Callable[..., Any]) -> None:
    """Have `functions` called instead of the methods of `thing` of these names, without a `self`."""
    kind = type(thing)
    replaced = {name: staticmethod(function) for name, function in functions.items()}
    thing.__class__ = type(kind.__name__, (kind,), {"__slots__": (), **replaced})
