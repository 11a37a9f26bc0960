"""``module:services`` of the command line, turned into the services that it names."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from connman.cli.commands import UsageError
from connman.rpc import Services

logger = logging.getLogger("connman.cli")

_PLACE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*(?::[^\W\d]\w*(?:\.[^\W\d]\w*)*)?")


def load_services(place: str, *, max_workers: int = 32) -> Services:
    """Import ``module`` or ``module:name`` and return what it offers, run on at most ``max_workers`` threads.

    A `Services` is taken as it is, and a mapping of ids to functions. Of a module its public functions, or those in ``__all__``; of an object its public
    methods; a single function goes by its name. The working folder is looked through first, as ``python -m`` does.

    Raises: UsageError.
    Threads: the main one.
    """
    if not _PLACE.fullmatch(place):
        raise UsageError("services are named as module or module:name, with dots within")
    module_name, _, path = place.partition(":")
    found: object = _imported(module_name)
    for name in filter(None, path.split(".")):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise UsageError(f"{place}: there is no {name} in {_kind(found)}") from None
    if isinstance(found, Services):
        return found
    functions = _functions_of(found, place)
    if not functions:
        raise UsageError(f"{place}: {_kind(found)} has no public functions")
    try:
        return Services(functions, max_workers=max_workers)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{place}: {error}") from None


def _imported(name: str) -> types.ModuleType:
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"{name} imports {error.name}, which is not installed") from None
        raise UsageError(f"there is no module {error.name}, here or installed") from None
    except Exception as error:  # user code: whatever a module does when it is imported
        logger.info("importing %s failed", name, exc_info=error)
        raise UsageError(
            f"importing {name} raised {type(error).__name__}: {error} (-v shows where)"
        ) from None


def _functions_of(found: object, place: str) -> Mapping[int | str, Callable[..., object]]:
    if isinstance(found, Mapping):
        return found
    if isinstance(found, type):
        raise UsageError(f"{place} is a class: name an instance of it")
    if inspect.isroutine(found):
        return {found.__name__: found}
    if isinstance(found, types.ModuleType):
        return _own_functions(found)
    # Looked at without being called: a property may do anything, and is nothing to call.
    members = {name: inspect.getattr_static(found, name) for name in dir(found) if not name.startswith("_")}
    is_method = (classmethod, staticmethod)
    return {
        name: getattr(found, name)
        for name, member in members.items()
        if callable(member) or isinstance(member, is_method)
    }


def _own_functions(module: types.ModuleType) -> dict[int | str, Callable[..., object]]:
    named: list[str] | None = getattr(module, "__all__", None)
    if named is not None:
        members = {name: getattr(module, name, None) for name in named}
        return {name: value for name, value in members.items() if inspect.isroutine(value)}
    members = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    # What it has imported from elsewhere is not its own to offer.
    return {
        name: value
        for name, value in members.items()
        if inspect.isroutine(value) and getattr(value, "__module__", None) == module.__name__
    }


def _kind(found: Any) -> str:
    return f"the module {found.__name__}" if isinstance(found, types.ModuleType) else type(found).__name__
