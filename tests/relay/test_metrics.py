"""The numbers as Prometheus reads them: by its own parsers."""

import pytest

pytest.importorskip("prometheus_client", reason="needs connman[relay]")

from prometheus_client import CollectorRegistry, parser
from prometheus_client.openmetrics import parser as openmetrics

from connman.relay.counts import RelaySeen, Snapshot
from connman.relay.metrics import Metrics, RelayCollector

FULL = Snapshot(
    uptime=12.5,
    connections=7,
    spares=4,
    names=3,
    pairs=2,
    groups=1,
    connections_total=70,
    pairs_total=20,
    frames_total=1000,
    bytes_total=64_000,
    handovers_failed=5,
    refused={"token": 6, 'of"all\nkinds\\': 1},
    closes={1000: 11, 0: 12},
    relays=(RelaySeen("a", "10.0.0.1:8765", 0.5), RelaySeen("b", "10.0.0.2:8765", 1.5)),
    broker="up",
)


def samples(taken: Snapshot, accept: str = "") -> dict[str, float]:
    body, content_type = Metrics(lambda: taken).render(accept)
    parse = (
        openmetrics.text_string_to_metric_families
        if "openmetrics" in content_type
        else parser.text_string_to_metric_families
    )
    return {
        sample.name.removeprefix("connman_relay_")
        + "".join(f"[{v}]" for v in sample.labels.values()): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_every_number_is_there(accept: str) -> None:
    found = samples(FULL, accept)
    expected = {
        "connections": 7, "spares": 4, "names": 3, "pairs": 2, "groups": 1,
        "accepted_total": 70, "joined_total": 20, "forwarded_frames_total": 1000, "forwarded_bytes_total": 64_000,
        "handovers_failed_total": 5, "refused_total[token]": 6, 'refused_total[of"all\nkinds\\]': 1,
        "closes_total[1000]": 11, "closes_total[other]": 12,
        "uptime_seconds": 12.5, "stopping": 0, "broker_up": 1, "relays": 2,
    }  # fmt: skip
    assert {name: value for name, value in found.items() if not name.startswith("process_")} == expected
    assert found["process_resident_memory_bytes"] > 0


def test_without_a_broker_nothing_is_said_of_one() -> None:
    found = samples(Snapshot())
    assert "broker_up" not in found
    assert "relays" not in found


def test_a_lost_broker_and_a_relay_that_stops() -> None:
    found = samples(Snapshot(broker="lost", is_stopping=True))
    assert (found["broker_up"], found["stopping"]) == (0, 1)


def test_a_registry_of_ones_own() -> None:
    registry = CollectorRegistry()
    registry.register(RelayCollector(lambda: FULL))
    assert registry.get_sample_value("connman_relay_refused_total", {"reason": "token"}) == 6
