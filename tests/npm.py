"""npm packages for tests: installed once into an ignored folder of the checkout, where node and npm are."""

import fcntl
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

HOME = Path(__file__).parents[1] / ".node"
INSTALL_TIMEOUT = 300.0  # seconds


def npm_packages(
    name: str,
    dependencies: Mapping[str, str],
    *,
    overrides: Mapping[str, Any] | None = None,
    within: float = INSTALL_TIMEOUT,
) -> Path:
    """Return a folder whose `node_modules` has `dependencies` (package: exact version); install them if need be.

    `overrides`: npm's, for a dependency that cannot be installed as its package names it. Skips the test, with the
    reason, where there is no node or npm, and when npm fails, or takes longer than `within` seconds: nobody can run
    everything everywhere.
    """
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {missing[0]}")
    folder = HOME / name
    folder.mkdir(parents=True, exist_ok=True)
    wanted = json.dumps(
        {"private": True, "dependencies": dict(dependencies), "overrides": dict(overrides or {})}, indent=2
    )
    stamp = folder / "installed.json"
    # Several runs of the tests, and the workers of one, may come here at once.
    with (HOME / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text(encoding="utf-8") == wanted):
            _install(folder, wanted, within)
            stamp.write_text(wanted, encoding="utf-8")
    return folder


def _install(folder: Path, wanted: str, within: float) -> None:
    (folder / "package.json").write_text(wanted, encoding="utf-8")
    # No script of a package is run: what is needed comes ready made.
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    try:
        run = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=within, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {folder.name} within {within:g} s")
    if run.returncode:
        pytest.skip(
            f"npm could not install {folder.name}: {(run.stderr.strip().splitlines() or ['no reason'])[-1]}"
        )
