"""A TCP proxy on loopback whose faults are switched on and off while connections run through it."""

from __future__ import annotations

from typing import Self, get_args

from connman.testing.links import Way, WebSockets
from connman.testing.proxy_loop import ProxyLoop


class FaultProxy:
    """Stand between a client and a server, and fail on demand. A with-block; one thread in all.

    ::

        with FaultProxy("127.0.0.1", server_port) as proxy:
            conn = connman.connect(proxy.url("ws", "/feed"))
            conn.get_connected().result(5)
            proxy.deaf(True)  # a black hole: the links stay, nothing arrives (way="down": nothing comes back)
            proxy.reset()  # RST to both sides of every link
            proxy.refuse(True)  # the reconnect is refused
            proxy.refuse(False)

    Settable at any time: ``latency`` and ``jitter`` (seconds, a chunk comes that much later, never out of order),
    ``rate`` (bytes a second for each link and direction, None for no limit), ``slice`` (most bytes written at once, None
    for no limit), ``kill_every`` (3: each third client that connects is reset, counted as `accepted` is; None for none),
    ``websockets`` ("refuse": an upgrade is answered with 403, "swallow": never; plain HTTP and all else pass).
    A fault has taken effect when the call or the assignment returns.

    Counted: ``accepted`` clients, ``bytes_up`` and ``bytes_down`` passed on. Each direction of a link holds at most some
    300 KiB; then its sender has to wait.

    Threads: every method from any thread.
    """

    def __init__(
        self, upstream_host: str, upstream_port: int, host: str = "127.0.0.1", *, seed: int | None = None
    ) -> None:
        self._loop = ProxyLoop((upstream_host, upstream_port), host, seed)

    def start(self) -> Self:
        """Take a free port and begin to serve; what ``with`` does.

        Raises: OSError when the upstream's name is unknown or there is no port; RuntimeError when it ran before.
        Threads: any.
        """
        self._loop.start()
        return self

    def close(self) -> None:
        """Close every link and the listener, and wait for the thread. Idempotent.

        Threads: any.
        """
        self._loop.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to; the port is 0 before the start."""
        return self._loop.address

    @property
    def port(self) -> int:
        """The port, which stays the same through `refuse`; 0 before the start."""
        return self._loop.address[1]

    def url(self, scheme: str = "ws", path: str = "/") -> str:
        """Return the URL of ``path`` through the proxy.

        Threads: any.
        """
        host, port = self._loop.address
        host = f"[{host}]" if ":" in host else host
        return f"{scheme}://{host}:{port}{'' if scheme in ('tcp', 'tls') else path}"

    def cut(self) -> None:
        """Close every link with a FIN to both sides; what was on its way is gone.

        Threads: any.
        """
        self._loop.call(lambda: self._loop.end_all(reset=False))

    def reset(self) -> None:
        """Close every link with a RST to both sides.

        Threads: any.
        """
        self._loop.call(lambda: self._loop.end_all(reset=True))

    def deaf(self, on: bool = True, way: Way = "both") -> None:
        """Be a black hole: links stay and new ones are accepted, but nothing is passed on, not even an end.

        The system still acknowledges what is sent, until its buffers are full. What was held is passed on afterwards.
        ``way``: "up" passes nothing to the server, "down" nothing to the client; the server then does what it was
        asked to, and the client never learns. The other direction goes on; a side that resets its link ends it.

        Threads: any.
        """
        self._loop.call(lambda: self._loop.deafen(on, way))

    def refuse(self, on: bool = True) -> None:
        """Refuse new connections; links that are open stay. With False accept again, on the same port.

        Raises: OSError when the system does not grant the port again.
        Threads: any.
        """
        self._loop.call(lambda: self._loop.refuse(on))

    def cut_after(self, count: int | None, way: Way = "both") -> None:
        """Close each link, as `cut` does, once ``count`` further bytes have been passed on over it: exactly so many.

        For a later link they count from its start. ``way``: "up" (to the server), "down", or "both" added up. None
        ends the fault.

        Raises: ValueError for a count below 1.
        Threads: any.
        """
        _check("count", count, 1)
        self._loop.call(lambda: self._loop.cut_after(count, way))

    @property
    def latency(self) -> float:
        """Seconds by which every chunk is late."""
        return self._loop.faults.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        _check("latency", seconds, 0)
        self._loop.call(lambda: self._loop.change("latency", seconds))

    @property
    def jitter(self) -> float:
        """Most seconds by which a chunk may be later still, evenly spread."""
        return self._loop.faults.jitter

    @jitter.setter
    def jitter(self, seconds: float) -> None:
        _check("jitter", seconds, 0)
        self._loop.call(lambda: self._loop.change("jitter", seconds))

    @property
    def rate(self) -> float | None:
        """Bytes a second for each link and direction."""
        return self._loop.faults.rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        _check("rate", rate, 1)
        self._loop.call(lambda: self._loop.change("rate", rate))

    @property
    def slice(self) -> int | None:
        """Most bytes written at once."""
        return self._loop.faults.slice

    @slice.setter
    def slice(self, size: int | None) -> None:
        _check("slice", size, 1)
        self._loop.call(lambda: self._loop.change("slice", size))

    @property
    def kill_every(self) -> int | None:
        """Every how many-th client is reset as soon as it has connected; None for none."""
        return self._loop.faults.kill_every

    @kill_every.setter
    def kill_every(self, count: int | None) -> None:
        _check("kill_every", count, 1)
        self._loop.call(lambda: self._loop.change("kill_every", count))

    @property
    def websockets(self) -> WebSockets:
        """What becomes of a link whose first request, in clear text, is an upgrade: "pass", "refuse" or "swallow"."""
        return self._loop.faults.websockets

    @websockets.setter
    def websockets(self, fate: WebSockets) -> None:
        if fate not in get_args(WebSockets):
            raise ValueError('websockets is "pass", "refuse" or "swallow"')
        self._loop.call(lambda: self._loop.change("websockets", fate))

    @property
    def accepted(self) -> int:
        """How many clients have connected so far."""
        return self._loop.accepted

    @property
    def bytes_up(self) -> int:
        """Bytes passed on to the server."""
        return self._loop.passed["up"]

    @property
    def bytes_down(self) -> int:
        """Bytes passed on to the clients."""
        return self._loop.passed["down"]

    @property
    def open_links(self) -> int:
        """How many clients are connected at present."""
        return len(self._loop.links)


def _check(name: str, value: float | None, least: float) -> None:
    # Turned round, so that it refuses NaN as well.
    if value is not None and not value >= least:
        raise ValueError(f"{name} is {least} or more")
