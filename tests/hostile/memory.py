"""The most memory this process has held, since one asked for it to be counted anew."""

from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak() -> int:
    """Return the bytes that were resident at most: since the process began, or since `forget_peak`."""
    return _read("VmHWM:")


def forget_peak() -> int:
    """Count the peak anew and return the bytes that are resident now."""
    # 5: "reset the peak resident set size", see proc(5).
    Path("/proc/self/clear_refs").write_text("5")
    return _read("VmRSS:")


def _read(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name} in {_STATUS}")
