"""The numbers of a relay as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from connman.errors import InvalidOption
from connman.relay.counts import OTHER_CODE, Snapshot

try:
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ModuleNotFoundError:  # an extra: whoever asks for metrics is told
    if not TYPE_CHECKING:
        CollectorRegistry = None
        Collector = object

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_GAUGES = {
    "connections": "Sockets, in whatever phase",
    "spares": "Connections of providers that wait for a caller",
    "names": "Names under which a provider waits",
    "pairs": "Callers joined with a provider",
    "groups": "Groups of two",
}
# By the names of the metrics, which may not be those of the gauges.
_COUNTERS = {
    "accepted": ("connections_total", "Sockets since the start"),
    "joined": ("pairs_total", "Callers that have been joined with a provider"),
    "forwarded_frames": ("frames_total", "Frames that have been forwarded"),
    "forwarded_bytes": ("bytes_total", "Bytes of payload that have been forwarded"),
    "handovers_failed": (
        "handovers_failed",
        "Spares that were not ready in time, or died while they were handed over",
    ),
}


class RelayCollector(Collector):
    """Makes metrics of what ``snapshot()`` returns, each time it is asked; register it where you collect yours.

    Raises: InvalidOption without prometheus_client.
    Threads: any, when ``snapshot`` may be called by any.
    """

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        if CollectorRegistry is None:
            raise InvalidOption("metrics need prometheus_client: pip install connman[relay]")
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics.

        Threads: any.
        """
        taken = self._snapshot()
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"connman_relay_{name}", text, getattr(taken, name))
        for name, (field, text) in _COUNTERS.items():
            yield CounterMetricFamily(f"connman_relay_{name}", text, getattr(taken, field))
        refused = CounterMetricFamily(
            "connman_relay_refused", "Clients let down before they were joined", labels=["reason"]
        )
        for reason, count in taken.refused.items():
            refused.add_metric([reason], count)
        yield refused
        closes = CounterMetricFamily(
            "connman_relay_closes", "Connections that have ended, by close code", labels=["code"]
        )
        for code, count in taken.closes.items():
            closes.add_metric(["other" if code == OTHER_CODE else str(code)], count)
        yield closes
        yield GaugeMetricFamily("connman_relay_uptime_seconds", "Seconds since the start", taken.uptime)
        yield GaugeMetricFamily("connman_relay_stopping", "1 while it stops", taken.is_stopping)
        # Without a broker there is nothing that could be up: an alert on 0 would ring for ever.
        if taken.broker != "none":
            yield GaugeMetricFamily(
                "connman_relay_broker_up", "1 while the broker answers", taken.broker == "up"
            )
            yield GaugeMetricFamily(
                "connman_relay_relays", "Relays of the cluster, this one included", len(taken.relays)
            )


class Metrics:
    """What ``/metrics`` answers: a relay's numbers and the process's, in a registry of their own.

    Raises: InvalidOption without prometheus_client.
    Threads: any.
    """

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        collector = RelayCollector(snapshot)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the body and its content type, of the format that a scraper's ``Accept`` header asks for.

        Threads: any.
        """
        try:
            # A folded header has a line break in it, and the version that is asked for comes back in the answer's.
            encode, content_type = choose_encoder(accept if accept.isprintable() else "")
        except (TypeError, ValueError):  # a version that is none
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type
