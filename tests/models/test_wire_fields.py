"""Streamed fields through the wire formats: the simulator's bytes, cut anywhere."""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.events import FieldDelta, ToUserDelta
from treadle.domain.items import FunctionCall, user_message
from treadle.domain.usage import Usage
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic import AnthropicWire
from treadle.models.wire.base import Wire
from treadle.models.wire.chat import ChatWire
from treadle.models.wire.converse import ConverseWire
from treadle.models.wire.gemini import GeminiWire
from treadle.models.wire.responses import ResponsesWire
from treadle.streaming.demux import ItemFinished, StreamEvent
from treadle.streaming.streamed_fields import StreamedFields, StreamedParameters
from treadle.testing import Call, Text, Turn
from treadle.testing.simulator.envelope import Envelope
from treadle.testing.simulator.frames import Frame, Piece
from treadle.testing.simulator.wire.chat_wire import stream_chat
from treadle.testing.simulator.wire.converse_wire import stream_converse
from treadle.testing.simulator.wire.gemini_wire import stream_gemini
from treadle.testing.simulator.wire.messages_wire import stream_messages
from treadle.testing.simulator.wire.responses_wire import stream_responses

Encode = Callable[[Turn, Envelope], list[Piece]]
WIRES: dict[str, tuple[Wire, Encode]] = {
    "responses": (ResponsesWire(), stream_responses),
    "chat": (ChatWire(), stream_chat),
    "messages": (AnthropicWire(), stream_messages),
    "gemini": (GeminiWire(), stream_gemini),
    "converse": (ConverseWire(), stream_converse),
}
TOOLS = {"write": StreamedParameters("to_user", ("title", "body"))}
REQUEST = ModelRequest(items=[user_message("hi")])


def body(turn: Turn, encode: Encode) -> bytes:
    envelope = Envelope("r1", "m", 1_700_000_000, Usage(requests=1))
    return b"".join(piece.data for piece in encode(turn, envelope) if isinstance(piece, Frame))


def decoded(wire: Wire, data: bytes, cuts: Sequence[int]) -> list[StreamEvent]:
    """All that a response yields, with the growth of its fields right behind each event."""
    decoder, fields = wire.decoder(REQUEST), StreamedFields(TOOLS.get, ["title"])
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    events: list[StreamEvent] = []
    for start, end in itertools.pairwise(edges):
        for event in decoder.feed(data[start:end]):
            events.append(event)
            events += fields.feed(event)  # type: ignore[arg-type]
    return [*events, *decoder.end()]


VALUES = st.one_of(st.text(max_size=12), st.none(), st.integers(), st.lists(st.text(max_size=2)))
ARGUMENTS = st.dictionaries(
    st.sampled_from(["to_user", "title", "body", "n"]), VALUES, min_size=1, max_size=4
)


@pytest.mark.parametrize("form", WIRES)
@given(
    calls=st.lists(st.tuples(ARGUMENTS, st.booleans(), st.integers(1, 40)), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 4000), max_size=20),
)
def test_the_deltas_of_a_call_make_up_its_finished_arguments(
    form: str, calls: list[tuple[dict[str, Any], bool, int]], cuts: list[int]
) -> None:
    wire, encode = WIRES[form]
    turn = Turn(
        tuple(
            Call("write", json.dumps(written, ensure_ascii=ascii), f"call_{number}", pieces)
            for number, (written, ascii, pieces) in enumerate(calls)
        )
    )
    texts: dict[tuple[str, str], str] = defaultdict(str)
    landed: set[str] = set()
    finished: list[FunctionCall] = []
    for event in decoded(wire, body(turn, encode), cuts):
        if isinstance(event, ToUserDelta | FieldDelta):
            assert event.item_id not in landed
            field = event.field if isinstance(event, FieldDelta) else "to_user"
            texts[event.call_id, field] += event.delta
        elif isinstance(event, ItemFinished):
            assert isinstance(event.item, FunctionCall)
            landed.add(event.item.id)
            finished.append(event.item)
    expected = {
        (call.call_id, field): value
        for call in finished
        for field, value in json.loads(call.arguments).items()
        if field != "n" and isinstance(value, str) and value
    }
    assert len(finished) == len(calls)
    assert texts == expected


@pytest.mark.parametrize("form", WIRES)
def test_what_is_said_comes_before_the_call_is_complete_at_every_cut(form: str) -> None:
    wire, encode = WIRES[form]
    arguments = '{"to_user":"Je regarde… 😀\\n","body":"x"}'
    data = body(Turn((Text("Well. "), Call("write", arguments, "c1"))), encode)
    for cut in range(0, len(data), 3):
        events = decoded(wire, data, [cut])
        said = [event.delta for event in events if isinstance(event, ToUserDelta)]
        assert "".join(said) == "Je regarde… 😀\n"
        assert len(said) > 1 or form == "gemini"  # its calls come whole


@pytest.mark.parametrize("form", WIRES)
@given(title=st.text(max_size=20), cuts=st.lists(st.integers(0, 3000), max_size=10))
def test_fields_of_the_structured_output(form: str, title: str, cuts: list[int]) -> None:
    wire, encode = WIRES[form]
    text = json.dumps({"n": [1, {"title": "no"}], "title": title})
    events = decoded(wire, body(Turn((Text(text, 7),)), encode), cuts)
    grown = [event for event in events if isinstance(event, FieldDelta)]
    assert "".join(event.delta for event in grown) == title
    assert {(event.call_id, event.field) for event in grown} <= {("", "title")}
