"""What the demo's calls go to, a process each: a relay, or a device that offers services behind it and only dials out.

stdin: one JSON line, ``{"pass": …, "port": …, "mode": "relay" | "device"}``, with the relay's port in both modes. Its end
is the order to stop, so that neither outlives the demo.

stdout: a JSON line for what somebody may want to know, ``{"event": "listening" | "ran twice"}``.
"""

from __future__ import annotations

import hmac
import json
import os
import sys
import threading
from collections import Counter

import pace

from connman import relay, rpc

HOST = "127.0.0.1"
DEVICE = "device-7"


class OnePass:
    """Lets in whoever shows the pass. Of the kind `connman.relay.Tokens`."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def check(self, token: str | None) -> relay.Grant:
        """Return what the token grants: the one name."""
        if token is None or not hmac.compare_digest(token.encode(), self._secret):
            raise relay.TokenRefused("the pass is wrong")
        return relay.Grant(provide=(DEVICE,), reach=(DEVICE,))


class Device:
    """The services of the device.

    Threads: services run on several at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Guarded by _lock: how often each number has been squared.
        self._runs: Counter[int] = Counter()
        self._work = threading.Event()  # never set: to take some time

    def square(self, number: int) -> int:
        """Return the square of a number, which nobody asks for twice; report it if one was asked for twice all the same."""
        with self._lock:
            self._runs[number] += 1
            is_again = self._runs[number] > 1
        if is_again:
            tell("ran twice")
        self._work.wait(pace.CALL_TAKES)
        return number * number

    def charge(self, price: int) -> int:
        """Return a price with its fee, which is asked of whoever calls."""
        self._work.wait(pace.CALL_TAKES)
        fee: int = rpc.current_peer().call("fee", price, timeout=pace.CALL_TIMEOUT)
        return price + fee


def tell(event: str) -> None:
    """Report one event to the parent process."""
    print(json.dumps({"event": event}), flush=True)


def run(order: dict[str, object]) -> None:
    """Be what was ordered until stdin ends."""
    secret, port = str(order["pass"]), int(str(order["port"]))
    if order["mode"] == "relay":
        with relay.Relay(HOST, port, tokens=OnePass(secret)):
            tell("listening")
            sys.stdin.read()
    else:
        device = Device()
        services = {"square": device.square, "charge": device.charge}
        url = f"ws://{HOST}:{port}/"
        provider = rpc.provide(url, DEVICE, services, token=secret, wait=pace.call_wait())
        tell("listening")
        sys.stdin.read()
        provider.close(1.0)


def main() -> None:
    """Read the order and carry it out."""
    try:
        run(json.loads(sys.stdin.readline()))
    except BrokenPipeError:
        os._exit(1)  # nobody reads our reports any more; a flush at exit would complain about that


if __name__ == "__main__":
    main()
