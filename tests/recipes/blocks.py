"""The code blocks of README.md and docs/, and a place where they run against a real server."""

import contextlib
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.servers import WebSocketProcess, ws_server
from tests.transport.sockjs_peers import SockjsServer, TlsSocket, echoing

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = "wss://feed.example.com"
ELSEWHERE_BY_HTTP = "https://feed.example.com/echo"  # a SockJS base, alone and in a target
ELSEWHERE_RELAY = "wss://relay.example.com/"
PATIENCE = 30.0  # seconds that only a failing test reaches

_FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"# ([\w.]+\.py)\b")


@dataclass(frozen=True)
class Block:
    """One fenced block: where it stands, the word behind its fence, and its text."""

    place: str
    kind: str
    text: str

    @property
    def file(self) -> str:
        """The file it is, as its first line says; "" for a program of its own."""
        found = _FILE_NAME.match(self.text) if self.kind == "python" else None
        return found[1] if found else ""


def blocks(*kinds: str) -> list[Block]:
    """Return the blocks of these kinds, of every kind when none is named, in the order they stand."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in _FENCED.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(f"{document.name}:{line}", match[1].strip(), match[2]))
    return [block for block in found if not kinds or block.kind in kinds]


def recipe(file: str) -> Block:
    """Return the block that is a file of that name."""
    return next(block for block in blocks("python") if block.file == file)


class Site:
    """A folder in which blocks run as a user's own code would; their server is a real one on this machine.

    Nothing in the blocks is changed but the server's address: its TLS is real, and SSL_CERT_FILE makes its certificate
    one of the system's.
    """

    def __init__(
        self, folder: Path, server: WebSocketProcess, authority: Path, by_http: SockjsServer | None = None
    ) -> None:
        self.folder = folder
        self.server = server
        self.by_http = by_http
        self.relay = ""  # the URL of ours, where one runs
        self.env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.env |= {"PYTHONPATH": str(ROOT), "SSL_CERT_FILE": str(authority), "HOME": str(folder)}
        self.env |= {"PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": str(folder / "cache")}

    def local(self, text: str) -> str:
        """Return a text with our server's address instead of the documents'."""
        local = text.replace(ELSEWHERE, self.server.url(""))
        if self.by_http is not None:
            local = local.replace(ELSEWHERE_BY_HTTP, self.by_http.target.partition("+")[2])
        if self.relay:
            local = local.replace(ELSEWHERE_RELAY, self.relay)
        assert "example.com" not in local
        return local

    def write(self, *files: str) -> None:
        """Write the blocks that are files of these names."""
        for file in files:
            (self.folder / file).write_text(self.local(recipe(file).text), encoding="utf-8")

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a program to its end, which has to be a good one, and return what it printed."""
        run = subprocess.run(
            command, check=False, cwd=self.folder, env=self.env, input=stdin, capture_output=True, text=True,
            timeout=PATIENCE,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def python(self, *arguments: str, stdin: str = "") -> str:
        """Run this Python, with warnings as errors."""
        return self.run(sys.executable, "-W", "error", *arguments, stdin=stdin)


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Run a server with TLS, and have a `Site` in a folder that is empty but for ``chain.pem`` and ``key.pem``."""
    authority, certificate = trustme.CA(), folder.parent / f"{folder.name}.pem"
    authority_file = folder.parent / f"{folder.name}-authority.pem"
    authority.cert_pem.write_to_path(authority_file)
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    tls.sslsocket_class = TlsSocket
    for name in ("chain.pem", "key.pem"):
        (folder / name).symlink_to(certificate)
    with ws_server(certificate, certificate) as server, echoing("xhr-streaming+https", tls) as by_http:
        yield Site(folder, server, authority_file, by_http)
