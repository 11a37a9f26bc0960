"""Open the default tree to a SockJS server, with what a file remembers, and print each step: PORT FILE PROXY."""

import sys

import connman
from connman.strategy import pusher_default

port, file, proxy = sys.argv[1:]
tree = pusher_default(
    f"ws://127.0.0.1:{port}/echo/websocket", http=f"http://127.0.0.1:{port}/echo", store=file
)
with connman.connect(tree, proxy=proxy) as conn:
    print(", ".join(f"{step.leaf} {step.phase}" for step in conn.attempts), end="")
