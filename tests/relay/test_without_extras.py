"""What a relay says where its libraries are not installed."""

import subprocess
import sys
from pathlib import Path

# Stands for an environment in which nobody has installed them.
PROGRAM = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jwt", "cryptography", "prometheus_client"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
from connman import errors, relay
from connman.relay.jwt_keys import keys_from

PEM = b"-----BEGIN PUBLIC KEY-----\\nAA\\n-----END PUBLIC KEY-----"
for make in (
    lambda: relay.JwtTokens(b"x" * 32),
    lambda: keys_from(PEM),
    lambda: relay.RelayCollector(relay.Snapshot),
    lambda: relay.Relay(port=0, admin=("127.0.0.1", 0)),
):
    try:
        make()
    except errors.InvalidOption as error:
        print(error)
relay.TokenFile(sys.argv[1])
print("a file of tokens needs none")
"""


def test_each_is_asked_for_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("0123456789abcdef\n", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], text=True, capture_output=True, check=True, timeout=30
    )
    assert run.stdout.splitlines() == [
        "tokens that are JWTs need PyJWT: pip install connman[relay]",
        "RS256 needs cryptography: pip install connman[relay]",
        "metrics need prometheus_client: pip install connman[relay]",
        "metrics need prometheus_client: pip install connman[relay]",
        "a file of tokens needs none",
    ]
