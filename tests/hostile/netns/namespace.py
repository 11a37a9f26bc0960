"""Network namespaces for tests: a network of one process, with a firewall, that vanishes with it.

A test marked `netns` runs in a pytest of its own under `unshare --net` (without root: with a user namespace as well),
which sees one interface, `lo`. Nothing that it does to the network reaches the machine.
"""

import contextlib
import fcntl
import functools
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

# In the environment of a pytest inside: the namespace it was started from.
OUTSIDE = "CONNMAN_NETNS_OUTSIDE"
ROOT = Path(__file__).parents[3]
SBIN = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
WAYS_IN = (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"])
PROBE = "add table inet probe; add chain inet probe in { type filter hook input priority 0; }"


def current() -> str:
    """Name the network namespace of this thread; empty where the system has none."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/thread-self/ns/net")
    return ""


def is_inside() -> bool:
    """Whether this process is in a namespace made for it, in which it may break the network."""
    return os.environ.get(OUTSIDE, current()) != current()


@functools.cache
def way_in() -> list[str]:
    """Return the command that runs another in a fresh namespace where nft works; it is cached.

    Raises: pytest.skip.Exception with the reason where there is none.
    """
    reasons = []
    for program in ("unshare", "nft"):
        if shutil.which(program, path=SBIN) is None:
            pytest.skip(f"no network namespace: {program} is not installed")
    for command in WAYS_IN:
        probe = subprocess.run(
            [*command, "nft", PROBE],
            env={**os.environ, "PATH": SBIN},
            text=True,
            capture_output=True,
            check=False,
        )
        if probe.returncode == 0:
            return command
        reasons.append(f"{' '.join(command)}: {(probe.stderr.strip() or 'failed').splitlines()[0]}")
    pytest.skip(f"no network namespace is permitted here ({'; '.join(reasons)})")


def raise_loopback() -> None:
    """Bring `lo` up, which a fresh namespace has down."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = bytearray(struct.pack("16sh14x", b"lo", 0))
        fcntl.ioctl(sock, siocgifflags, request)
        (flags,) = struct.unpack_from("h", request, 16)
        struct.pack_into("h", request, 16, flags | iff_up)
        fcntl.ioctl(sock, siocsifflags, request)


class Inside(pytest.Item):
    """A test that is run by a pytest inside a namespace; what that says is this one's outcome."""

    def runtest(self) -> None:
        command = [*way_in(), sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
        process = subprocess.Popen(
            [*command, "-q", "-s", "--no-header", self.nodeid],
            cwd=ROOT,
            env={**os.environ, "PATH": SBIN, OUTSIDE: current()},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it leaves behind can be ended as well
        )
        try:
            out, _ = process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        print(out)
        if process.returncode:
            pytest.fail("it failed inside its network namespace, see below", pytrace=False)
        if " skipped" in out.rstrip().splitlines()[-1]:
            pytest.skip(
                next((line for line in out.splitlines() if line.startswith("SKIPPED")), "skipped inside")
            )

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


class Firewall:
    """The firewall of this namespace, by nft. A rule stands until `heal`.

    Dropped on the way in, not on the way out: the system would tell a sender of what it drops on its way out.
    """

    def __init__(self) -> None:
        if not is_inside():
            raise PermissionError("the firewall of the machine itself is not for tests")
        self.heal()

    def heal(self) -> None:
        """Let everything pass again."""
        self._nft(
            "add table inet hostile; delete table inet hostile; add table inet hostile;"
            "add chain inet hostile in { type filter hook input priority 0; }"
        )

    def drop(self, port: int, *, way: str = "both", percent: int = 100) -> None:
        """Lose packets of a server's port: `way` "up" those to it, "down" those from it."""
        lost = "" if percent >= 100 else f"numgen random mod 100 < {percent} "
        for name, side in (("up", "dport"), ("down", "sport")):
            if way in (name, "both"):
                self.rule(f"tcp {side} {port} {lost}drop")

    def reject(self, port: int, how: str) -> None:
        """Answer every packet to a server's port with "tcp reset" or an ICMP, such as "icmpx host-unreachable"."""
        self.rule(f"tcp dport {port} reject with {how}")

    def rule(self, text: str) -> None:
        """Add a rule, in nft's words, for what comes in."""
        self._nft(f"add rule inet hostile in {text}")

    def _nft(self, commands: str) -> None:
        subprocess.run(["nft", commands], env={**os.environ, "PATH": SBIN}, check=True)
