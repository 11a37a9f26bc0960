"""A pytest plugin: the tests in an order that a seed tells, on an interpreter that switches threads all the time.

`-p tests.rigs.stress.plugin --stress-seed N`; with `--stress-report FILE` what came of it is left there as JSON.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

SWITCH_INTERVAL = 1e-6  # seconds, of 5 ms: a thread is interrupted as soon as another one wants to run


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stress")
    group.addoption("--stress-seed", type=int, default=0, help="seed of the order, and of what tests draw")
    group.addoption("--stress-report", help="file for the outcome, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL)
    if config.getoption("stress_report") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Report(Path(config.getoption("stress_report"))))


def pytest_report_header(config: pytest.Config) -> str:
    return f"stress: seed {config.getoption('stress_seed')}, switch interval {sys.getswitchinterval():g} s"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:] = shuffled(items, config.getoption("stress_seed"))


def shuffled(items: list[pytest.Item], seed: int) -> list[pytest.Item]:
    """Return the tests in another order; those of a class, and of a file, stay together, since they may share servers."""
    mixed = list(items)
    random.Random(seed).shuffle(mixed)
    by_class = grouped(mixed, lambda item: item.nodeid.partition("[")[0].rpartition("::")[0])
    return grouped(by_class, lambda item: item.nodeid.partition("::")[0])


def grouped(items: list[pytest.Item], key: Callable[[pytest.Item], str]) -> list[pytest.Item]:
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(itertools.chain.from_iterable(groups.values()))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # What a test draws does not depend on those that ran before it.
    random.seed(f"{item.config.getoption('stress_seed')} {item.nodeid}")


class Report:
    """What came of a run, for who started it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._failed: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed[report.nodeid] = str(report.longreprtext).strip().splitlines()[-1][:300]
        elif report.when == "call" or report.skipped:
            self._counts[report.outcome] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._failed[report.nodeid] = "not collected"

    def pytest_sessionfinish(self) -> None:
        outcome = {
            "seconds": round(time.monotonic() - self._begin, 1),
            "failed": self._failed,
            "counts": dict(self._counts),
        }
        self._path.write_text(json.dumps(outcome), encoding="utf-8")
