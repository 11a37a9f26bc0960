"""One run of ``connman doctor``: every way dialled once, side by side, then the tree of all; each told when it is known."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connman.cli.advice import Diagnosis, diagnose
from connman.cli.interrupt import Interrupted
from connman.cli.output import OutputFailed, Writer, has_colour
from connman.cli.probe import Finding, InfoProbe, Probe, Way
from connman.cli.report import JsonReport, Report, TextReport
from connman.cli.ways import TREE_TIMEOUT, judge
from connman.clock import Deadline, SystemClock
from connman.connection.queue import BoundedQueue
from connman.errors import NotConnected
from connman.options import make_options
from connman.threads import join, spawn

_STDOUT = 1
# What a probe may take to end behind an abort.
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What the command line asks to be looked at. ``options``: of `connman.options.Options`.

    A tree among the ``ways`` gets more time than a single way, unless ``open_timeout`` is given.
    """

    ways: tuple[Way, ...]
    options: Mapping[str, Any] = field(repr=False)
    expects_message: bool = False
    is_json: bool = False
    warnings: tuple[str, ...] = ()


def make_report(checkup: Checkup) -> Report:
    """Return what the output will look like.

    Threads: any.
    """
    if checkup.is_json:
        return JsonReport()
    return TextReport(has_colour=has_colour(_STDOUT))


class Doctor:
    """Dial every way once and say what was found. Everything is printed by the thread that calls `run`.

    Raises: InvalidOption.
    Threads: the main one, whose waits an `Interrupted` cuts short.
    """

    def __init__(self, checkup: Checkup, report: Report) -> None:
        self._checkup = checkup
        self._report = report
        self._clock = SystemClock()
        self._output = Writer(_STDOUT)
        self._is_output_gone = False
        self._options = make_options(checkup.options)
        self._found: BoundedQueue[tuple[int, Finding]] = BoundedQueue(self._clock, 1, lambda _: 0)
        self._probes: list[Probe] = []
        self._threads: list[threading.Thread] = []

    def run(self) -> int:
        """Dial, print, and return the exit code: 0 when there is a way through, 1 when there is none.

        Threads: the main one.
        """
        try:
            return self._examine()
        except Interrupted as interrupt:
            self._output.discard()
            return 128 + interrupt.signum
        except OutputFailed:
            return 1  # the disk is full, say: who asked for a report must not believe that this is all of it
        finally:
            self._stop()

    def _examine(self) -> int:
        ways = self._checkup.ways
        told = list(self._told([way for way in ways if way.kind != "tree"]))
        verdict = judge(told)
        # Where nothing opens by itself nothing opens in a tree; and it disturbs nobody's times when it comes afterwards.
        if verdict.is_good:
            list(self._told([way for way in ways if way.kind == "tree"]))
        self._print(self._report.verdict(verdict))
        return 0 if verdict.is_good else 1

    def _told(self, ways: Sequence[Way]) -> Iterator[tuple[Finding, Diagnosis]]:
        """Dial them side by side, and print and yield in order what was found."""
        for number, way in enumerate(ways):
            self._start(number, way)
        found: dict[int, Finding] = {}
        for number in range(len(ways)):
            while number not in found:
                found.update([self._found.get(Deadline.after(self._clock, None), lambda: None)])
            diagnosis = diagnose(found[number])
            self._print(self._report.way(found[number], diagnosis))
            yield found[number], diagnosis

    def _start(self, number: int, way: Way) -> None:
        kind = InfoProbe if way.kind == "info" else Probe
        options = self._options
        if way.kind == "tree" and "open_timeout" not in self._checkup.options:
            options = dataclasses.replace(options, open_timeout=TREE_TIMEOUT)
        probe = kind(way, options, self._clock, expects_message=self._checkup.expects_message)
        self._probes.append(probe)
        thread = spawn(f"doctor-{way.name}", lambda: self._found.extend([(number, probe.run())]))
        self._threads.append(thread)

    def _print(self, text: bytes) -> None:
        try:
            self._output.write(text)
            self._output.flush()
        except OutputFailed as failed:
            # Under `| head -1` the exit code is still wanted.
            if not failed.is_gone:
                raise

    def _stop(self) -> None:
        for probe in self._probes:
            probe.abort(NotConnected("the diagnosis was ended"))
        for thread in self._threads:
            join(thread, _PATIENCE)
