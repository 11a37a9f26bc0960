"""Provide and reach a name on a relay, and fork or end meanwhile: SCENARIO URL; run by test_providing.py."""

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from connman.errors import Forked
from connman.rpc import Provider, provide, reach

PATIENCE = 20.0
NEVER = threading.Event()

scenario, url = sys.argv[1:]


def ready() -> None:
    print("ready", flush=True)


def in_child(work: Callable[[], Any]) -> Any:
    """Run `work` in a forked child and return what it returned."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            told = json.dumps(work())
        except BaseException as error:
            told = json.dumps(f"{type(error).__name__}: {error}")
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        told = stream.read().decode()
    os.waitpid(pid, 0)
    return json.loads(told)


def providing() -> Provider:
    services = {"pid": os.getpid, "hang": lambda: NEVER.wait(PATIENCE)}
    return provide(url, "parent", services).wait_ready(PATIENCE)


def kind_of(wait: Callable[[], object]) -> str:
    try:
        wait()
    except Forked as error:
        return type(error).__name__
    return "nothing was raised"


def end_while_it_waits() -> None:
    providing()
    ready()
    sys.exit(3)


def end_while_a_service_runs() -> None:
    provider = providing()
    caller = reach(url, "parent")
    caller.send("hang")
    caller.call("pid")  # it is behind the other, on the same way
    assert provider.peers
    ready()
    sys.exit(3)


def end_while_it_dials() -> None:
    provide("ws://10.255.255.1:9/", "parent", {1: os.getpid})
    reach("ws://10.255.255.1:9/", "parent")
    ready()
    sys.exit(3)


def fork_a_provider() -> None:
    provider = providing()
    caller = reach(url, "parent")
    caller.call("pid")

    def child() -> Any:
        before = [kind_of(provider.wait_ready), kind_of(provider.wait_closed), len(provider.peers)]
        stats = provider.stats
        provider.close()
        # The parent's, called from here, and one of the child's own.
        with provide(url, "child", {"pid": os.getpid}):
            called = reach(url, "child").call("pid") == os.getpid()
            parents = reach(url, "parent").call("pid") == os.getppid()
        return [*before, stats.spares, called, parents]

    told = in_child(child)
    print(json.dumps({"child": told, "parent": caller.call("pid") == os.getpid()}))
    provider.close()
    caller.close()


def fork_a_caller() -> None:
    provider = providing()
    caller = reach(url, "parent")
    caller.call("pid")
    running = caller.send("hang")

    def child() -> Any:
        # The same object, on a connection of the child's own.
        kind = type(running.exception(PATIENCE)).__name__
        return [kind, caller.call("pid") == os.getppid()]

    told = in_child(child)
    print(json.dumps({"child": told, "parent": caller.call("pid") == os.getpid(), "running": running.done()}))
    NEVER.set()
    running.result(PATIENCE)
    provider.close()
    caller.close()


globals()[scenario]()
