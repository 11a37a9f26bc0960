"""Ten thousand mutated cases of everything (of some in the quick run), every case that was ever worth keeping, and the rig itself.

Seen failing: `planted.BUGS` names the bugs that were planted for this, and `scripts/fuzz --planted` plants them again.
Found in connman itself, and kept in the corpus: a chunked body that ended where its content looked like the end
(upgrade/chunk-that-looks-like-the-end), complaints of the command line that quoted a value (command/*-quoted), or went
over two lines, a path with a NUL that was no usage error, and an address that was refused only by the dial.
"""

import os
import threading
from collections.abc import Callable
from random import Random

import pytest

from connman.errors import ProtocolError
from tests.rigs.fuzz import planted, reference
from tests.rigs.fuzz.__main__ import main
from tests.rigs.fuzz.engine import Cases, Outcome, run
from tests.rigs.fuzz.mutation import mutated, smaller
from tests.rigs.fuzz.script import Script, cut, piece
from tests.rigs.fuzz.target import Finding, Target, expect
from tests.rigs.fuzz.targets import TARGETS
from tests.rigs.fuzz.targets.frames import make_frames
from tests.rigs.fuzz.workers import run_in_processes
from tests.transport.test_frames_beside_websocket_client import Eof, Violation, strict_events

COUNT = 10_000
# What peers of most connections send. The others are tried as often only in the slow tests.
QUICK = ("frames", "streams", "upgrade", "login")
# Each case has a bound of its own, of CPU time; ten thousand command lines take 22 s, and three times that on a busy machine.
SLOW = [pytest.mark.slow, pytest.mark.timeout(180)]


def report(outcome: Outcome) -> str:
    return "\n\n".join(f"case {found.number}: {found.case!r}\n{found.error}" for found in outcome.findings)


# What is fuzzed


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else SLOW) for name in TARGETS]
)
def test_whatever_comes_ends_as_documented(name: str, seed: int) -> None:
    outcome = run(TARGETS[name], range(COUNT), seed)
    assert not outcome.findings, report(outcome)
    assert outcome.cases == COUNT


@pytest.mark.parametrize("name", TARGETS)
def test_every_case_that_was_kept_ends_as_documented(name: str) -> None:
    cases = TARGETS[name].seeds()
    assert len(cases) >= 4
    outcome = run(TARGETS[name], range(0), 0)
    assert not outcome.findings, report(outcome)


@pytest.mark.parametrize("bug", planted.BUGS, ids=lambda bug: bug.what)
def test_every_bug_can_still_be_planted(bug: planted.Bug) -> None:
    # Seen failing: a line had moved to another file, and `scripts/fuzz --planted` ended in an error.
    compile(planted.with_bug(bug), bug.path, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_bug_that_is_planted_is_found(name: str) -> None:
    bug = next(bug for bug in planted.BUGS if bug.target == name)
    number, _ = planted.find(bug)
    assert 0 <= number < COUNT, f"{bug.what} was not found"


def test_the_reader_that_frames_are_compared_with_reads_as_websocket_client_does() -> None:
    random = Random(6455)
    for _ in range(300):
        stream = make_frames(random)[3:]
        read = reference.read(stream, 300)
        messages, pings, end = strict_events([stream], 300)
        assert (read.messages, read.pings) == (messages, pings), stream
        if isinstance(end, tuple):
            assert read.end == ("closed", *end)
        elif isinstance(end, Eof):
            assert read.end is None
        else:
            assert read.end is not None
            codes = {end.code} if isinstance(end, Violation) else {1002, 1007}
            assert read.end[0] == "violation"
            assert read.end[1] in codes


# The rig


def target(
    check: Callable[[bytes], None], make: Callable[[Random], bytes] = lambda r: r.randbytes(9)
) -> Target:
    return Target("made-up", "", 10, check, make)


def test_a_case_is_made_of_the_seed_and_its_number_alone() -> None:
    numbers = range(50)
    first, again = Cases(TARGETS["frames"], 5), Cases(TARGETS["frames"], 5)
    assert [first[n] for n in numbers] == [again[n] for n in reversed(numbers)][::-1]
    assert [first[n] for n in numbers] != [Cases(TARGETS["frames"], 6)[n] for n in numbers]


def test_whatever_is_raised_is_a_finding() -> None:
    def check(case: bytes) -> None:
        if case[0] < 64:
            raise ProtocolError("caught by nobody")
        expect(case[0] < 128, "too large", case)

    outcome = run(target(check), range(100), 1)
    assert len(outcome.findings) == 5
    assert {"ProtocolError" in found.error or "Finding" in found.error for found in outcome.findings} == {
        True
    }


@pytest.mark.slow
def test_a_case_that_takes_too_long_is_stopped() -> None:
    def check(case: bytes) -> None:
        while True:
            pass

    outcome = run(target(check), range(1), 1)
    assert "TookTooLong" in outcome.findings[0].error


def test_what_is_left_in_memory_is_a_finding() -> None:
    left: list[list[bytes]] = []
    outcome = run(target(lambda case: left.append([bytes([n % 256]) * 9 for n in range(10)])), range(4000), 1)
    assert "memory grew" in outcome.findings[0].error


# Newer Pythons warn of forking beside threads, which those who run tests side by side have.
beside_threads = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@beside_threads
@pytest.mark.parametrize("how", ["waits", "dies"])
def test_a_process_that_does_not_come_back_is_a_finding(how: str) -> None:
    def check(case: bytes) -> None:
        if how == "dies":
            os._exit(3)
        threading.Event().wait()

    outcome = run_in_processes(target(check), 2, 1, 1, patience=0.1)
    (found,) = outcome.findings
    assert ("hangs" if how == "waits" else "died") in found.error
    assert (found.number, found.case) == (0, Cases(target(check), 1)[0])


@beside_threads
def test_processes_share_the_cases_among_them() -> None:
    outcome = run_in_processes(TARGETS["lines"], 30, 1, 2)
    assert outcome.cases == 30
    assert not outcome.findings


def test_a_finding_is_made_smaller() -> None:
    assert smaller(b"there is an X and a Y somewhere", lambda case: b"X" in case and b"Y" in case) == b"XY"


def test_mutations_use_tokens_and_other_cases() -> None:
    random = Random(1)
    made = [mutated(random, b"base", [b"TOKEN"], [b"another one"]) for _ in range(300)]
    assert any(b"TOKEN" in case for case in made)
    assert any(b"another" in case for case in made)
    assert sum(case == b"base" for case in made) < 60


@pytest.mark.parametrize("size", [0, 1, 2, 50, 1000])
def test_every_way_to_cut_keeps_all(size: int) -> None:
    data = Random(size).randbytes(size)
    for seed in range(256):
        pieces = cut(data, seed)
        assert b"".join(pieces) == data
        assert all(pieces)


def test_a_script_says_something_whatever_it_is() -> None:
    script = Script(piece("é") + b"\x07" + b"rest")
    assert (script.text(), script.below(4), script.rest()) == ("é", 3, b"rest")
    assert not script
    assert (script.byte(), script.piece(), script.choose("ab")) == (0, b"", "a")


@beside_threads
def test_the_command_tells_and_repeats_what_it_finds(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(case: bytes) -> None:
        expect(b"\x07" not in case, "a seven")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TARGETS, "made-up", target(check, lambda random: b"a\x07b"))
    assert main(["--only", "made-up", "--count", "20", "--seed", "1", "--jobs", "1"]) == 1
    printed = capsys.readouterr().out
    path = printed.partition("--replay ")[2].partition(" ")[0]
    with pytest.raises(Finding, match="a seven"):
        main(["--replay", path, "made-up"])
    assert main(["--only", "lines", "--count", "20", "--seed", "1", "--jobs", "1"]) == 0
    assert main(["--list"]) == 0
    assert "login conversations" in capsys.readouterr().out


def test_a_target_that_is_not_there_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "nothing"])
    assert "no target 'nothing'" in capsys.readouterr().err
