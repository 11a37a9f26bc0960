"""What a server may answer to our offer of permessage-deflate, and what it may not (RFC 7692 7.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.headers import build_extension, parse_extension

from connman.transport.extensions import OFFER, Deflate, agreed_deflate
from connman.transport.upgrade import BadAnswer

NAME = "permessage-deflate"


@pytest.mark.parametrize(
    ("value", "agreed"),
    [
        ("", Deflate()),
        ("; server_no_context_takeover", Deflate(server_no_context_takeover=True)),
        ("; client_no_context_takeover", Deflate(client_no_context_takeover=True)),
        ("; server_max_window_bits=8", Deflate(server_max_window_bits=8)),
        (";client_max_window_bits=15", Deflate()),
        (" ;\tclient_max_window_bits = 10", Deflate(client_max_window_bits=10)),
        ('; client_max_window_bits="9"', Deflate(client_max_window_bits=9)),
        (
            "; client_max_window_bits=8; server_no_context_takeover; server_max_window_bits=12 ;client_no_context_takeover",
            Deflate(
                server_no_context_takeover=True,
                client_no_context_takeover=True,
                server_max_window_bits=12,
                client_max_window_bits=8,
            ),
        ),
    ],
)
def test_what_the_rfc_allows_is_agreed_on(value: str, agreed: Deflate) -> None:
    assert agreed_deflate([NAME + value], is_offered=True) == agreed


@pytest.mark.parametrize("is_offered", [True, False])
def test_no_answer_is_no_compression(is_offered: bool) -> None:
    assert agreed_deflate([], is_offered=is_offered) is None


def test_what_was_not_offered_is_refused() -> None:
    with pytest.raises(BadAnswer):
        agreed_deflate([NAME], is_offered=False)


@pytest.mark.parametrize(
    "values",
    [
        [""],
        ["x-webkit-deflate-frame"],
        ["Permessage-Deflate"],
        [NAME, NAME],
        [NAME, "other"],
        [f"{NAME}, {NAME}"],
        [f"{NAME}, other"],
        [f"other, {NAME}"],
        [f"{NAME},"],
        [f"{NAME};"],
        [f"{NAME};; client_no_context_takeover"],
        [f"{NAME}; client_no_context_takeover, {NAME}"],
        [f"{NAME}; unknown"],
        [f"{NAME}; unknown=1"],
        [f"{NAME}; Client_No_Context_Takeover"],
        [f"{NAME}; client_no_context_takeover; client_no_context_takeover"],
        [f"{NAME}; server_max_window_bits=10; server_max_window_bits=10"],
        [f"{NAME}; client_no_context_takeover=true"],
        [f"{NAME}; server_no_context_takeover="],
        [f'{NAME}; server_no_context_takeover=""'],
        [f"{NAME}; client_max_window_bits"],
        [f"{NAME}; server_max_window_bits"],
        [f"{NAME}; server_max_window_bits="],
        *([f"{NAME}; {side}_max_window_bits={bits}"]
          for side in ("server", "client")
          for bits in ("7", "16", "0", "-9", "+9", "09", "015", "9.0", "1 0", "9 9", "'9'", '"9', '9"', "٩", "9, x")),
    ],
)  # fmt: skip
def test_anything_else_is_refused(values: list[str]) -> None:
    with pytest.raises(BadAnswer) as caught:
        agreed_deflate(values, is_offered=True)
    assert "unknown=1" not in str(caught.value)


PARAMETERS = st.tuples(
    st.sampled_from(["server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits",
                     "client_max_window_bits", "other"]),
    st.sampled_from([None, "8", "9", "12", "15", "16", "08", "x"]),
)  # fmt: skip


@given(st.lists(PARAMETERS, max_size=4))
def test_agrees_with_what_websockets_takes(parameters: list[tuple[str, str | None]]) -> None:
    """But for client_max_window_bits=8: it refuses that, where we send uncompressed."""
    ours: Deflate | None = None
    try:
        ours = agreed_deflate([build_extension([(NAME, parameters)])], is_offered=True)
    except BadAnswer:
        pass
    if ours and ours.client_max_window_bits == 8:
        return
    try:
        theirs = ClientPerMessageDeflateFactory().process_response_params(parameters, [])
    except InvalidHandshake:
        assert ours is None
    else:
        assert ours == Deflate(
            server_no_context_takeover=theirs.remote_no_context_takeover,
            client_no_context_takeover=theirs.local_no_context_takeover,
            server_max_window_bits=theirs.remote_max_window_bits,
            client_max_window_bits=theirs.local_max_window_bits,
        )


def test_the_offer_is_one_that_a_server_takes() -> None:
    name, _, value = OFFER.partition(": ")
    assert name == "Sec-WebSocket-Extensions"
    [(extension, parameters)] = parse_extension(value)
    factory = ServerPerMessageDeflateFactory(client_max_window_bits=11, server_max_window_bits=10)
    answer, _ = factory.process_request_params(parameters, [])
    assert agreed_deflate([build_extension([(extension, answer)])], is_offered=True) == Deflate(
        client_max_window_bits=11, server_max_window_bits=10
    )
