"""A relay as a program of its own, with small limits: it says where it listens, and ends when its stdin does."""

import json
import sys

from connman.relay import Limits, Relay
from connman.relay.admin import Admin
from connman.relay.jwt_tokens import JwtTokens

SECRET = "a secret that the rig alone knows, of 32 bytes at least"
ORIGIN = "https://good.example"
MESSAGE = 1024 * 1024

# Short, so that a run need not wait long for what is refused by time.
LIMITS = Limits(
    max_message_size=MESSAGE,
    max_connections=2000,
    max_per_address=300,
    max_per_name=16,
    handshake_timeout=2.0,
    join_timeout=2.0,
    ready_timeout=1.0,
    close_timeout=1.0,
    attempts_per_second=100.0,
    burst=400,
    ping_interval=5.0,
    ping_timeout=5.0,
)


def main() -> None:
    with Relay(port=0, tokens=JwtTokens(SECRET), limits=LIMITS, origins=[ORIGIN]) as relay:
        admin = Admin(relay.snapshot)
        admin.start()
        try:
            print(json.dumps({"port": relay.port, "admin": admin.port}), flush=True)
            sys.stdin.read()
        finally:
            admin.stop()


if __name__ == "__main__":
    main()
