"""Every bad behaviour, by name, and what websocket-client does there."""

import json
from pathlib import Path

from tests.hostile.acts import Bad
from tests.hostile.streams import STREAMS
from tests.hostile.upgrades import UPGRADES
from tests.hostile.ways import WAYS

BEHAVIOURS: dict[str, Bad] = {bad.name: bad for bad in (*UPGRADES, *WAYS, *STREAMS)}
assert len(BEHAVIOURS) == len(UPGRADES) + len(WAYS) + len(STREAMS), "two rows of one name"

MEASURED = Path(__file__).with_name("websocket_client.json")
"""What bare websocket-client does with each, as `scripts/rig hostile --write` has measured it."""


def websocket_client_does() -> dict[str, str]:
    measured: dict[str, str] = json.loads(MEASURED.read_text(encoding="utf-8"))["outcomes"]
    return measured
