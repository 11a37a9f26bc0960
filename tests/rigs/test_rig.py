"""The command `scripts/rig`: it knows all rigs, and says what it wants."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
OWN_SCRIPTS = {"conformance", "fuzz", "soak", "stress"}


def rig(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "scripts" / "rig"), *words], text=True, capture_output=True, check=False, timeout=30
    )


def listed() -> dict[str, str]:
    run = rig("--list")
    assert (run.returncode, run.stderr) == (0, "")
    return dict(line.split(maxsplit=1) for line in run.stdout.splitlines())


def test_all_rigs_are_listed_with_what_they_do() -> None:
    folders = {main.parent.name.replace("_", "-") for main in (ROOT / "tests" / "rigs").glob("*/__main__.py")}
    assert listed().keys() == folders - OWN_SCRIPTS
    assert all(len(text) > 30 for text in listed().values())


@pytest.mark.parametrize(
    "words", [(), ("nowhere",), ("../herd",), ("fuzz",), ("--nothing", "herd"), ("--python",)]
)
def test_a_wrong_call_is_told_so(words: tuple[str, ...]) -> None:
    run = rig(*words)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.splitlines()[-1].startswith("rig: ")


def test_the_documentation_names_rigs_that_there_are() -> None:
    texts = [ROOT / "SECURITY.md", ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    named = {
        name
        for path in texts
        for name in re.findall(r"scripts/rig ([a-z-]+)", path.read_text(encoding="utf-8"))
    }
    assert {name for name in named if not name.startswith("-")} <= listed().keys()


@pytest.mark.slow
def test_each_rig_tells_of_its_options() -> None:
    for name in listed():
        module = f"tests.rigs.{name.replace('-', '_')}"
        run = subprocess.run(
            [sys.executable, "-m", module, "--help"], cwd=ROOT, text=True, capture_output=True, check=True
        )
        assert run.stdout.startswith(f"usage: scripts/rig {name} ["), name
