"""Protocol conformance: the rig's judge lets nothing wrong pass, and connman passes the quick part of it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.conformance import report, suite
from tests.rigs.conformance.__main__ import main
from tests.rigs.conformance.runs import RUNS, Result, Run, both_readers, execute, execute_all, missing, quick

RUN = Run("ws", "ws", ("1.*",))


def verdict(behavior: str = "OK", close: str = "OK", **more: Any) -> dict[str, Any]:
    return {"behavior": behavior, "behaviorClose": close, "remoteCloseCode": 1000, "seconds": 0.5, **more}


def result(*verdicts: dict[str, Any], **more: Any) -> Result:
    return Result(RUN, {f"1.{number}": verdict for number, verdict in enumerate(verdicts)}, **more)


# The judge


def test_what_is_ok_misses_nothing() -> None:
    good = result(verdict(), verdict("INFORMATIONAL", "INFORMATIONAL"), *[verdict("NON-STRICT")] * 2)
    assert list(report.missed(good)) == []
    assert [line.split(",")[0] for line in report.not_ok(good)] == [
        "ws 1.1: INFORMATIONAL",
        "ws 1.2: NON-STRICT",
        "ws 1.3: NON-STRICT",
    ]


@pytest.mark.parametrize("word", ["FAILED", "UNIMPLEMENTED", "NO_CLOSE", "MISSING"])
def test_one_case_that_fails_misses_the_target(word: str) -> None:
    assert list(report.missed(result(verdict(), verdict(word)))) == ["ws: 1 FAILED"]


@pytest.mark.parametrize("word", ["WRONG CODE", "UNCLEAN", "FAILED", "FAILED BY CLIENT"])
def test_one_wrong_close_misses_the_target(word: str) -> None:
    assert list(report.missed(result(verdict(), verdict(close=word)))) == ["ws: 1 wrong close"]


def test_more_than_two_non_strict_miss_the_target() -> None:
    [text] = report.missed(result(*[verdict("NON-STRICT")] * 3))
    assert text.startswith("ws: 3 NON-STRICT")


def test_what_never_came_to_a_verdict_has_failed_in_both_respects() -> None:
    assert list(report.missed(result(missing("1.1")))) == ["ws: 1 FAILED", "ws: 1 wrong close"]


def test_a_client_that_complains_misses_the_target() -> None:
    [text] = report.missed(result(verdict(), complaint="Traceback"))
    assert "Traceback" in text


def test_the_table_counts_by_run_and_by_chapter() -> None:
    several = Result(
        RUN, {"10.1.1": verdict(), "2.1": verdict("NON-STRICT", "UNCLEAN"), "2.2": verdict("FAILED")}
    )
    assert report.table([several], in_chapters=True)[2:] == [
        "| ws | 3 | 1 | 1 | 0 | 1 | 1 | 1.5 |",
        "| … 2 | 2 | 0 | 1 | 0 | 1 | 1 | 1.0 |",
        "| … 10 | 1 | 1 | 0 | 0 | 0 | 0 | 0.5 |",
    ]


def test_everything_is_written(tmp_path: Path) -> None:
    report.write(tmp_path / "found.json", "connman", [result(verdict("FAILED"))])
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["missed"] == ["ws: 1 FAILED"]
    assert found["runs"]["ws"]["1.0"]["behavior"] == "FAILED"


# The runs


def test_both_readers_are_each_run_twice() -> None:
    names = [(run.name, run.readers) for run in both_readers([RUN])]
    assert names == [("ws", "own"), ("ws-shared", "shared")]


def test_quick_leaves_only_compressed_messages_out() -> None:
    for run, less in zip(RUNS, quick(RUNS), strict=True):
        assert (less == run) != bool(run.compression)
        assert less.cases


def test_a_wrong_call_and_an_unfit_machine_have_exit_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run", "nothing"]) == 2
    assert "there are ws, limits" in capsys.readouterr().err
    for name in ("PATH", "PYENV_ROOT", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("PYTHON27", raising=False)
    assert main([]) == 2
    assert "found no Python 2.7" in capsys.readouterr().err


def test_what_cannot_run_is_no_python27(tmp_path: Path) -> None:
    shim = tmp_path / "python2.7"
    shim.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    shim.chmod(0o755)
    assert not suite.is_python27(str(shim))
    assert not suite.is_python27(os.fspath(tmp_path / "nothing"))


# connman


@pytest.fixture(scope="module")
def python27() -> str:
    """Set the suite up where there is a Python 2.7, and skip, saying so, where there is none."""
    try:
        suite.find_python27()
    except suite.UnfitError as why:
        pytest.skip(str(why))
    try:
        return suite.set_up()
    except suite.UnfitError as why:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(why))


@pytest.mark.slow
@pytest.mark.timeout(300)  # setting the suite up takes half a minute, and its server is slow
def test_connman_speaks_websocket_as_the_rfcs_have_it(python27: str) -> None:
    """websocket-client 1.9.2 (`scripts/conformance --client websocket-client`): of the first 247 cases over ws alone 12
    FAILED, 117 wrong closes, 4 NON-STRICT, and no compression at all."""
    runs = [*quick(RUNS), *(run for run in both_readers(quick(RUNS)) if run.name == "ws-shared")]
    only = ["[1-7].*", "10.*", "12.*.1", "13.*.1"]  # not 9.*, where the suite's server works for seconds
    results = execute_all(
        [run for run in runs if run.name != "limits"], 2, lambda run: execute(run, python27, only=only)
    )
    print(*report.table(results), sep="\n")
    assert sum(len(found.cases) for found in results) == 3 * 247 + 12
    assert [text for found in results for text in report.missed(found)] == []
