import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.bus.position import Block, Position
from treadle.domain.envelope import EVENT_TYPES, Envelope, decode_event, decode_events, recorded
from treadle.domain.events import (
    AgentEvent,
    EventRemoved,
    RunFinishing,
    TextDelta,
    ToolCallRequested,
    UnknownEvent,
)
from treadle.domain.items import FunctionCall


def test_an_event_is_encoded_once() -> None:
    envelope = Envelope(RunFinishing(seq=3, at=1.0, run_id="r"), 3)
    assert envelope.json is envelope.json
    assert decode_events(b"[" + envelope.json + b"]") == recorded([envelope])
    assert msgspec.json.decode(envelope.json)["type"] == "run.finishing"


def test_positions() -> None:
    event = TextDelta("a", "x")
    assert [Envelope(event, 3, n).position for n in (0, 4)] == ["3", "3.4"]
    within = Envelope(event, 3, Block(4, 99, 2).n)
    assert within.position == "3.2" + "4".zfill(15) + "99".zfill(15)
    assert Position.parse(within.position) == (3, within.n)


def test_the_arguments_of_a_requested_call_are_decoded() -> None:
    def arguments(text: str) -> dict[str, object] | None:
        return ToolCallRequested(run_id="r", item=FunctionCall("c", "t", text)).arguments

    assert arguments('{"a": [1, "é"]}') == {"a": [1, "é"]}
    assert arguments("") == {}
    assert arguments("[1]") is None
    assert arguments("{broken") is None
    assert arguments("[" * 100_000) is None


WORDS = st.from_regex(r"[a-z][a-z0-9_]{0,9}(\.[a-z][a-z0-9_]{0,9}){0,2}", fullmatch=True).filter(
    lambda word: word not in EVENT_TYPES
)
FIELDS = st.dictionaries(
    st.sampled_from(["item", "call_id", "agent", "thread_id", "event", "new", "delta"]),
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
)


def written(word: str, seq: int, fields: dict[str, object]) -> bytes:
    """Returns the JSON of an event, as a newer version may have recorded it."""
    names = ("call_id", "agent", "thread_id")
    texts = {name: str(fields[name]) for name in names if name in fields}
    return msgspec.json.encode(
        {"type": word, "at": 2.5, "run_id": "r", **fields, **texts, "seq": seq}
    )


@given(st.lists(st.none() | st.tuples(WORDS, FIELDS), max_size=6))
def test_events_of_unknown_types_keep_their_places_and_their_json(
    events: list[tuple[str, dict[str, object]] | None],
) -> None:
    known = [RunFinishing(seq=n, at=1.0, run_id="r") for n in range(1, len(events) + 1)]
    stored = [
        msgspec.json.encode(known[n]) if event is None else written(event[0], n + 1, event[1])
        for n, event in enumerate(events)
    ]
    decoded = decode_events(b"[" + b",".join(stored) + b"]")
    assert [Envelope(event, event.seq).json for event in decoded] == stored
    for n, (event, one) in enumerate(zip(events, decoded, strict=True)):
        if event is None:
            assert one == known[n]
        else:
            assert isinstance(one, UnknownEvent)
            assert (one.original_type, one.seq, one.at, one.run_id) == (event[0], n + 1, 2.5, "r")


@given(WORDS, FIELDS, st.sampled_from([0, 7]))
def test_an_unknown_event_inside_another(word: str, fields: dict[str, object], seq: int) -> None:
    inner = written(word, seq, fields)
    removed = b'{"type":"event.removed","seq":4,"at":1.0,"event":' + inner + b"}"
    (event,) = decode_events(b"[" + removed + b"]")
    assert isinstance(event, EventRemoved)
    assert isinstance(event.event, UnknownEvent)
    assert (event.seq, event.event.original_type, event.event.raw) == (4, word, inner)
    assert decode_events(b"[" + Envelope(event, 4).json + b"]") == [event]
    shown = b'{"type":"agent.event","call_id":"c","agent":"a","thread_id":"t","event":%s}' % inner
    live = decode_event(shown)
    if seq:
        assert isinstance(live, AgentEvent)
        assert (live.agent, live.event) == ("a", decode_event(inner))
    else:  # a live event of a new type, which readers can do without
        assert live is None
        assert decode_event(inner) is None


@pytest.mark.parametrize(
    "stored",
    [
        b"{",
        b"{}",
        b'{"seq":1}',
        b'{"type":7,"seq":1}',
        b'{"type":"tool.paused"}',
        b'{"type":"tool.paused","seq":-1}',
        b'{"type":"tool.paused","seq":"1"}',
        b'{"type":"tool.paused","seq":1,"new":"\xff"}',
        b'{"type":"tool.paused","seq":1,"new":[1,]}',
        b'{"type":"tool paused","seq":1}',
        b'{"type":"","seq":1}',
        b'{"type":"text.delta","seq":1,"item_id":"i","delta":"x"}',
        b'{"type":"step.started","seq":1,"run_id":"r","step":"one","model":"m"}',
        b'{"type":"event.removed","seq":1,"event":{"type":"step.started"}}',
        b'{"type":"event.removed","seq":1,"event":[]}',
        b'{"type":"unknown","seq":1}',
    ],
)
def test_damage_is_not_taken_for_a_newer_version(stored: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        decode_events(b"[" + stored + b"]")


@pytest.mark.parametrize(
    "sent",
    [
        b"{}",
        b'{"type":"text.delta"}',
        b'{"type":"agent.event","call_id":"c","agent":"a","thread_id":"t"}',
        b'{"type":"agent.event","event":{"type":"text.delta"}}',
    ],
)
def test_a_live_event_that_cannot_be_read(sent: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_event(sent)
