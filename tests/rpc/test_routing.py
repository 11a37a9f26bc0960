"""Where each frame goes, whatever it is: property tests over what a peer may send."""

import json
import struct
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.rpc.rig import PATIENCE, Wired

# What messages are made of, right and wrong.
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from(["", "x", "$__undefined$", "utf8"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "$__stream$"]), inner, max_size=2)
    ),
    max_leaves=5,
)
kinds = st.sampled_from(
    [
        "request",
        "data",
        "error",
        "stream",
        "stream-start",
        "stream-end",
        "stream-error",
        "stream-credit",
        "write-stream-error",
    ]
)
names = st.sampled_from(
    [
        "requestId",
        "responseId",
        "serviceId",
        "args",
        "data",
        "error",
        "chunk",
        "encoding",
        "window",
        "bytes",
        "callId",
        "notice",
    ]
)
messages = st.builds(
    lambda kind, fields: {**fields, "type": kind}, kinds | values, st.dictionaries(names, values, max_size=6)
)
frames = st.one_of(
    messages.map(json.dumps),
    values.map(json.dumps),
    st.text(max_size=20).filter(lambda text: text.isprintable()),
    st.binary(max_size=20),
    st.builds(
        lambda number, rest: struct.pack("<d", number) + rest,
        st.floats() | st.integers(0, 3).map(float),
        st.binary(max_size=5),
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(frames, max_size=30))
def test_whatever_comes_is_survived(hostile: list[str | bytes]) -> None:
    """No frame, and no series of frames, ends the path, the reader, or what works beside them."""
    services: dict[int | str, Any] = {
        1: lambda *args: len(args),
        "x": lambda *args: (str(a) for a in args),
        "honest": lambda: "answer",
    }
    with Wired(services) as wire:
        pending = [wire.peer.send(1) for _ in range(3)]
        for frame in hostile:
            wire.say(frame)
        wire.say(
            {"requestId": "honest", "type": "x"}, {"requestId": 999, "type": "request", "serviceId": "honest"}
        )
        while wire.hear() != {"responseId": 999, "type": "data", "data": "answer"}:
            pass
        assert wire.conn.is_open
        future = wire.peer.send(2)
        number = wire.peer.stats.requests_sent_total - 1
        wire.say({"responseId": number, "type": "data", "data": "mine"})
        assert future.result(PATIENCE) == "mine"
        for call in pending:
            call.cancel()
