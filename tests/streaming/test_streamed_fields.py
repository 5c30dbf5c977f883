"""Streamed fields over random calls and chunkings: what a subscriber reads is what was written."""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.events import (
    FieldDelta,
    LiveEvent,
    ReasoningDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStarted,
    ToolProgress,
    ToUserDelta,
)
from treadle.streaming.streamed_fields import StreamedFields, StreamedParameters

TOOLS = {
    "look": StreamedParameters("to_user", ()),
    "write": StreamedParameters("say", ("title", "body")),
    "note": StreamedParameters("", ("body",)),
}


def started(name: str, item: str = "fc") -> ToolCallStarted:
    return ToolCallStarted(item, f"call_{item}", name)


def grown(
    events: Sequence[LiveEvent], fields: StreamedFields | None = None
) -> dict[tuple[str, str, str], str]:
    """The texts of all fields, by item, call and field; what is said to the user is field ""."""
    fields = fields or StreamedFields(TOOLS.get)
    texts: dict[tuple[str, str, str], str] = defaultdict(str)
    for event in events:
        for growth in fields.feed(event):
            assert isinstance(growth, ToUserDelta | FieldDelta)
            assert growth.delta
            field = growth.field if isinstance(growth, FieldDelta) else ""
            texts[growth.item_id, growth.call_id, field] += growth.delta
    return texts


def arguments(text: str, *cuts: int, item: str = "fc") -> Iterator[ToolArgumentsDelta]:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for a, b in itertools.pairwise(edges):
        yield ToolArgumentsDelta(item, f"call_{item}", text[a:b])


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{"to_user":"Let me look…","city":"Paris"}', "Let me look…"),
        ('{"city":"Paris","to_user":"Let me look…"}', "Let me look…"),
        (
            '{ "n" : [1,{"to_user":"no"}] ,\n"to_user" : "J\\u00e9 \\ud83d\\ude00\\n" }',
            "Jé 😀\n",
        ),
        ('{"to_user":"first","to_user":"second"}', "first"),
        ('{"to_\\u0075ser":"escaped"}', "escaped"),
        ('{"to_user":"\\ud83d"}', "\ufffd"),
        ('{"to_user":null,"city":"Paris"}', ""),
        ('{"to_user":17}', ""),
        ('{"to_user":{"to_user":"inner"}}', ""),
        ('{"to_user":["no"]}', ""),
        ('{"to_user":""}', ""),
        ('{"city":"Paris"}', ""),
        ("{}", ""),
        ("", ""),
        ("[1]", ""),
        ('{"to_user":"begun\\x broken', "begun"),
    ],
)
def test_what_is_said_is_read_at_every_cut(written: str, said: str) -> None:
    for cut in range(len(written) + 1):
        texts = grown([started("look"), *arguments(written, cut)])
        assert texts == ({("fc", "call_fc", ""): said} if said else {})
    assert "".join(grown([started("look"), *arguments(written, *range(99))]).values()) == said


VALUES = st.one_of(
    st.text(max_size=8),
    st.none(),
    st.integers(),
    st.booleans(),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.sampled_from(["say", "body"]), st.text(max_size=3), max_size=2),
)
WRITTEN = st.dictionaries(st.sampled_from(["say", "title", "body", "other"]), VALUES, max_size=4)
CALLS = st.lists(st.tuples(st.sampled_from([*TOOLS, "plain"]), WRITTEN, st.booleans()), max_size=4)


@given(CALLS, st.lists(st.integers(0, 120), max_size=12), st.randoms(use_true_random=False))
def test_each_call_yields_the_strings_of_its_finished_arguments(
    calls: list[tuple[str, dict[str, Any], bool]], cuts: list[int], chance: Any
) -> None:
    """However the calls interleave and wherever they are cut."""
    streams: list[list[LiveEvent]] = []
    expected: dict[tuple[str, str, str], str] = {}
    for number, (name, values, ascii) in enumerate(calls):
        item = f"fc{number}"
        text = json.dumps(values, ensure_ascii=ascii)
        streams.append([started(name, item), *arguments(text, *cuts, item=item)])
        streamed = TOOLS.get(name, StreamedParameters("", ()))
        names = {field: field for field in streamed.fields} | {streamed.to_user: ""}
        for key, value in json.loads(text).items():
            if key in names and isinstance(value, str) and value:
                expected[item, f"call_{item}", names[key]] = value
    events: list[LiveEvent] = []
    while streams := [stream for stream in streams if stream]:
        events.append(chance.choice(streams).pop(0))
    assert grown(events) == expected


def test_growth_comes_at_once() -> None:
    fields = StreamedFields(TOOLS.get)
    fields.feed(started("write"))
    assert fields.feed(ToolArgumentsDelta("fc", "call_fc", '{"say":"Let')) == [
        ToUserDelta("fc", "call_fc", "Let")
    ]
    assert fields.feed(ToolArgumentsDelta("fc", "call_fc", ' me…","title":"A","body":"B')) == [
        ToUserDelta("fc", "call_fc", " me…"),
        FieldDelta("fc", "call_fc", "title", "A"),
        FieldDelta("fc", "call_fc", "body", "B"),
    ]
    assert list(fields.feed(ToolArgumentsDelta("fc", "call_fc", '"}'))) == []


def test_what_has_no_streamed_fields_yields_nothing() -> None:
    events: list[LiveEvent] = [
        started("plain"),
        *arguments('{"to_user":"x","body":"x"}'),
        TextDelta("m", '{"body":"x"}'),
        ReasoningDelta("r", '{"body":"x"}'),
        ToolProgress("call_fc", "look", "half"),
        *arguments('{"to_user":"x"}', item="unknown"),
    ]
    assert grown(events) == {}


def test_beyond_the_limits_of_the_scanner_nothing_more_comes_of_that_call() -> None:
    deep = '{"to_user":"Let me","other":' + "[" * 200
    events: list[LiveEvent] = [
        started("look", "a"),
        started("look", "b"),
        *arguments(deep, 30, item="a"),
        *arguments('],"more":1}', item="a"),
        *arguments('{"to_user":"fine"}', item="b"),
    ]
    assert grown(events) == {("a", "call_a", ""): "Let me", ("b", "call_b", ""): "fine"}


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('{"title":"A report","n":1}', "A report"),
        (' \n{"n":1,"title":"A report"}', "A report"),
        ('```json\n{"title":"A report"}\n```', "A report"),
        ('\n```\n {"title":"A report"}\n```\n', "A report"),
        ('Here is {"title":"no"}', ""),
        (
            "No object at all, but a text that continues for more than a hundred characters. " * 2,
            "",
        ),
        ("", ""),
        ('"title"', ""),
    ],
)
def test_fields_of_the_structured_output(text: str, title: str) -> None:
    for cut in range(len(text) + 1):
        events = [TextDelta("m", text[:cut]), TextDelta("m", text[cut:])]
        texts = grown(events, StreamedFields(TOOLS.get, ["title"]))
        assert texts == ({("m", "", "title"): title} if title else {})


def test_messages_are_told_apart() -> None:
    events = [TextDelta("m", '{"title":"A'), TextDelta("n", '{"title":"B'), TextDelta("m", 'a"}')]
    assert grown(events, StreamedFields({}.get, ["title"])) == {
        ("m", "", "title"): "Aa",
        ("n", "", "title"): "B",
    }
