"""One run of ``connman doctor``: every way dialled once, side by side, and told in order as soon as it is known."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from connman.cli.advice import Diagnosis, diagnose
from connman.cli.interrupt import Interrupted
from connman.cli.output import OutputFailed, Writer, has_colour
from connman.cli.probe import Finding, Probe, Way
from connman.cli.report import JsonReport, Report, TextReport
from connman.cli.ways import judge
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
    """What the command line asks to be looked at. ``options``: of `connman.options.Options`."""

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
        for number, way in enumerate(ways):
            self._start(number, way)
        found: dict[int, Finding] = {}
        told: list[tuple[Finding, Diagnosis]] = []
        for number in range(len(ways)):
            while number not in found:
                found.update([self._found.get(Deadline.after(self._clock, None), lambda: None)])
            told.append((found[number], diagnose(found[number])))
            self._print(self._report.way(*told[-1]))
        verdict = judge(told)
        self._print(self._report.verdict(verdict))
        return 0 if verdict.is_good else 1

    def _start(self, number: int, way: Way) -> None:
        probe = Probe(way, self._options, self._clock, expects_message=self._checkup.expects_message)
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
