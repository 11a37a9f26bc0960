"""Does the fuzzing find anything? Bugs are planted, one by one, in a copy of connman; each has to be found."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

_ROOT = Path(__file__).parents[3]
_MOST_CASES = 20_000
# Its own process imports the copy.
_PROGRAM = """
import sys
from tests.rigs.fuzz.engine import run
from tests.rigs.fuzz.targets import TARGETS
outcome = run(TARGETS[sys.argv[1]], range(int(sys.argv[2])), 1, use_corpus=False)
first = outcome.findings[0] if outcome.findings else None
print(first.number if first else -1, outcome.seconds)
print(first.error if first else "", file=sys.stderr)
"""


@dataclass(frozen=True)
class Bug:
    """One bug: which target has to find it, and the words in a file that are to be replaced."""

    target: str
    what: str
    path: str
    old: str
    new: str


BUGS = (
    Bug("frames", "a length of 16 bits may be 125", "transport/frames.py", "(126 if head == 4", "(125 if head == 4"),
    Bug("frames", "a close code of 1004 passes", "transport/closes.py", "1000 <= code <= 1003 or", "1000 <= code <= 1004 or"),
    Bug("frames", "text is not checked in fragments", "transport/frames.py", "if self._opcode == _TEXT:\n            self._check", "if False:\n            self._check"),
    Bug("frames", "a cut head is measured once", "transport/frames.py", "            self._cut_size = self._measure(self._cut, 0)\n", ""),
    Bug("frames", "the limit is of each fragment", "transport/frames.py", "len(self._message) + length > self._limit", "length > self._limit"),
    Bug("frames", "invalid text escapes", "transport/frames.py", "            except UnicodeDecodeError:\n                self._fail", "            except UnicodeEncodeError:\n                self._fail"),
    Bug("deflate", "no tail behind a message", "transport/deflate.py", "bytes(payload) + _TAIL if is_last", "bytes(payload) if is_last"),
    Bug("deflate", "no new stream within a message", "transport/deflate.py", "_MOST_ENDS = 16", "_MOST_ENDS = 0"),
    Bug("deflate", "zlib's own error escapes", "transport/deflate.py", "except zlib.error:", "except BufferError:"),
    Bug("deflate", "the limit is not that of what is inflated", "transport/deflate.py", "if len(self._message) > self._limit:", "if False:"),
    Bug("streams", "a delimiter over two chunks is missed", "transport/framing.py", "len(self._cut) - len(self._delimiter) + 1", "len(self._cut)"),
    Bug("streams", "a drip is parsed too late", "transport/framing.py", "self._needed = end - pos", "self._needed = end - pos + 1"),
    Bug("streams", "a line that cannot be decoded escapes", "transport/framing.py", "except UnicodeError:\n            raise ProtocolError", "except LookupError:\n            raise ProtocolError"),
    Bug("upgrade", "an accept key in the wrong case passes", "transport/upgrade.py", '!= [base64.b64encode(digest).decode()]', '!= [] and answer.values("sec-websocket-accept")[:1] == []'),
    Bug("upgrade", "bytes behind the head are lost", "transport/upgrade.py", "self.leftover = bytes(self._buffer[self._begin :])", "self.leftover = b''"),
    Bug("upgrade", "a CR at the end of a chunk is not seen again", "transport/upgrade.py", "max(self._begin, len(self._buffer) - 1)", "max(self._begin, len(self._buffer))"),
    Bug("upgrade", "a body ends where it looks like its end", "transport/websocket.py", "not chunks.is_complete:", "not body.endswith(b'0\\r\\n\\r\\n'):"),
    Bug("upgrade", "a date that no clock knows escapes", "connection/backoff.py", "except (TypeError, ValueError, OverflowError):", "except TypeError:"),
    Bug("proxy", "the head is read in one go", "transport/proxy.py", "sock.recv(seen.find(b\"\\n\") + 1 or len(seen))", "sock.recv(len(seen))"),
    Bug("proxy", "what is no SOCKS escapes", "transport/proxy.py", "except ValueError:\n        # Without the cause: python-socks", "except LookupError:\n        # Without the cause: python-socks"),
    Bug("login", "what lies behind the last reply is lost", "transport/login.py", "return self._waiting\n", "return self._waiting[1:]\n"),
    Bug("login", "a failed login leaves its transport open", "connection/attempt.py", "        transport.dispose()\n", "        pass\n"),
    Bug("login", "a login that sleeps is never too late", "transport/login.py", "        if deadline.expired:\n            raise", "        if False:\n            raise"),
    Bug("login", "each recv has the time of all", "transport/login.py", "self._deadline.sooner(timeout)", "Deadline.after(self._deadline.clock, timeout or 10.0)"),
    Bug("sockjs", "half a character passes", "transport/sockjs_frames.py", '"".join(texts).encode()', '"".join(texts)'),
    Bug("sockjs", "the limit is that of the escaped text", "transport/sockjs_frames.py", "- 2 - 5 *", "- 2 - 0 *"),
    Bug("sockjs", "of a line in three chunks the first is lost", "transport/sockjs_frames.py", "self._cut += chunk[begin:]", "self._cut = bytearray(chunk[begin:])"),
    Bug("http", "an interim answer is final", "transport/http_head.py", "answer.status >= 200 or", "answer.status > 100 or"),
    Bug("http", "half a head is a whole one", "transport/http_head.py", 'raise OSError("the answer was cut short")', "return bytes(head)"),
    Bug("http", "a length beside chunks passes", "transport/http_head.py", '!= ["chunked"] or lengths)', '!= ["chunked"])'),
    Bug("calls", "true is 1 to an id", "rpc/wire.py", "if type(value) is int:\n        return value", "if isinstance(value, int):\n        return value"),
    Bug("calls", "a short binary frame escapes", "rpc/codec.py", "if len(frame) < _ID.size:", "if False:"),
    Bug("calls", "credit of nothing passes", "rpc/streams.py", "0 < size < LARGEST_ID", "0 <= size < LARGEST_ID"),
    Bug("calls", "undefined stays in lists", "rpc/codec.py", "holder[:] = [None if", "holder[:] = [inner if"),
    Bug("calls", "a stream that is cancelled is not closed", "rpc/sending.py", "            self._source.close()\n", "            pass\n"),
    Bug("calls", "text and bytes mix", "rpc/receiving.py", "if self._kind is not None:\n                raise", "if False:\n                raise"),
    Bug("targets", "control characters enter a path", "endpoint.py", "quote(parts.path or \"/\", safe=_SAFE)", "unquote(parts.path or \"/\")"),
    Bug("targets", "a port that is no number is quoted", "endpoint.py", "{_without_url(error)}", "{error}"),
    Bug("targets", "a proxy may have any host", "transport/proxy.py", "port, host = parts.port, host_of(parts)", "port, host = parts.port, parts.hostname or 'x'"),
    Bug("options", "a line feed enters a header", "options.py", '(ord(c) < 32 and c != "\\t")', '(ord(c) < 32 and c not in "\\t\\n")'),
    Bug("options", "not a number is a number of seconds", "options.py", "if not (value > 0 or", "if (value < 0 or"),
    Bug("command", "argparse's complaint is passed on", "cli/arguments.py", "raise UsageError(_without_value(error))", "raise UsageError(str(error))"),
    Bug("lines", "a CR at the end of a chunk is dropped", "cli/lines.py", "first, *others = chunk.split(b\"\\n\")", "first, *others = chunk.removesuffix(b\"\\r\").split(b\"\\n\")"),
    Bug("lines", "the terminal obeys C1 controls", "cli/render.py", "(*range(32), *range(127, 160))", "range(32)"),
)  # fmt: skip


def find_planted(only: Sequence[str]) -> int:
    """Plant each bug, look for it, and print when it was found; return 1 if one was not."""
    print(f"{'target':<10}{'found in case':>14}{'seconds':>9}  planted")
    is_complete = True
    for bug in BUGS:
        if only and bug.target not in only:
            continue
        number, seconds = find(bug)
        is_complete = is_complete and number >= 0
        print(
            f"{bug.target:<10}{number if number >= 0 else 'NOT FOUND':>14}{seconds:>9.1f}  {bug.what}",
            flush=True,
        )
    return 0 if is_complete else 1


def find(bug: Bug) -> tuple[int, float]:
    """Return the number of the first case that shows the bug, -1 for none, and the seconds it took.

    The kept cases are left out: they would show most at once.

    Raises: ValueError when the words to replace are not there, or not once.
    """
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("connman", "tests/rigs"):
            shutil.copytree(_ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        path = root / "connman" / bug.path
        path.write_text(with_bug(bug), encoding="utf-8")
        began = time.perf_counter()
        command = [sys.executable, "-c", _PROGRAM, bug.target, str(_MOST_CASES)]
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise ValueError(f"the planted bug breaks everything: {run.stderr[-500:]}")
    found = re.match(r"(-?\d+) ([\d.]+)", run.stdout)
    return (int(found[1]), float(found[2])) if found else (-1, time.perf_counter() - began)


def with_bug(bug: Bug) -> str:
    """Return the text of the file with the bug in it.

    Raises: ValueError when the words to replace are not there, or not once: somebody has changed that line.
    """
    source = (_ROOT / "connman" / bug.path).read_text(encoding="utf-8")
    if source.count(bug.old) != 1:
        raise ValueError(f"{bug.path} has {bug.old!r} {source.count(bug.old)} times")
    return source.replace(bug.old, bug.new)
