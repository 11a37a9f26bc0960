"""One measurement in a process of its own: python -m bench.client CLIENT JOB URL [NAME=NUMBER...] prints one JSON line."""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable

from bench.clients import crowd
from bench.clients.meter import NotThereError, Result
from bench.server import raise_descriptor_limit


def job_of(client: str, name: str) -> Callable[..., Result]:
    """Return the job: the client's own, or one of those that are the same for all."""
    module = importlib.import_module(f"bench.clients.{client}")
    if hasattr(module, name):
        return getattr(module, name)
    return functools.partial(crowd.JOBS[name], module.open_many)


def version_of(client: str) -> str | None:
    """Return the version of the library that the client uses, None for a client that uses none."""
    name = getattr(sys.modules[f"bench.clients.{client}"], "VERSION_OF", None)
    return name and f"{name} {importlib.metadata.version(name)}"


def measure(client: str, name: str, url: str, numbers: dict[str, int]) -> Result:
    """Return what the job measures, or what is missing for it."""
    try:
        job = job_of(client, name)
        gc.collect()
        result = job(url, **numbers)
    except (NotThereError, ModuleNotFoundError) as error:
        return {"missing": str(error)}
    return {"version": version_of(client), **result}


def main(client: str, name: str, url: str, *settings: str) -> None:
    """Print what was measured, and leave without taking down a thousand threads one by one."""
    raise_descriptor_limit()
    numbers = {key: int(value) for key, _, value in (setting.partition("=") for setting in settings)}
    print(json.dumps(measure(client, name, url, numbers)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
