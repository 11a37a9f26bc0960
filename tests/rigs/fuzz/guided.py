"""Coverage-guided: atheris (libFuzzer) makes the cases, and keeps those that reach code that none before has reached."""

import importlib.util
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

KEPT = Path("build") / "fuzz"
_MOST_SECONDS = 5  # of one case, on a machine that does other things too; the plain mode counts CPU
_MOST_MEMORY = 1024  # MiB
_LONGEST_CASE = 2048


def run_guided(seconds: float, name: str | None) -> int:
    """Fuzz one target for so long; return the exit status. What is found stays in `KEPT`, and grows from run to run.

    Never returns where there is something to run: libFuzzer ends the process.
    """
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: pip install 'connman[fuzz]'", file=sys.stderr)
        return 2
    import atheris  # lazy: an extra

    # Only what is imported from here on counts branches.
    with atheris.instrument_imports(include=["connman", "websocket", "python_socks"]):
        from tests.rigs.fuzz.targets import TARGETS  # lazy: not before
    if name not in TARGETS:
        print(f"--guided wants a target behind it: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    target = TARGETS[name]
    grown = KEPT / f"corpus-{name}"
    grown.mkdir(parents=True, exist_ok=True)
    logging.disable()  # what a login raises is logged with its traceback
    with TemporaryDirectory() as folder:
        dictionary = Path(folder) / "tokens"
        dictionary.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens if token))
        atheris.Setup(
            [
                sys.argv[0],
                f"-max_total_time={int(seconds)}",
                f"-timeout={_MOST_SECONDS}",
                f"-rss_limit_mb={_MOST_MEMORY}",
                f"-max_len={_LONGEST_CASE}",
                f"-dict={dictionary}",
                f"-artifact_prefix={KEPT}/{name}-",
                "-print_final_stats=1",
                str(grown),
                *([str(kept)] if (kept := _kept(name)).is_dir() else []),
            ],
            target.check,
        )
        atheris.Fuzz()
    return 0


def _kept(name: str) -> Path:
    return Path(__file__).parent / "corpus" / name


def _escaped(token: bytes) -> str:
    return "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\x{c:02x}" for c in token)
