"""Bytes of the Responses API in, model events out; the result must not depend on the cuts."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.events import (
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolArgumentsDelta,
)
from treadle.domain.items import (
    FunctionCall,
    Item,
    Message,
    OutputText,
    ProviderFields,
    ProviderItem,
    Reasoning,
    ReasoningText,
    Refusal,
    SummaryText,
    UrlCitation,
)
from treadle.domain.usage import Usage
from treadle.errors import (
    BadRequest,
    ModelError,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
    StreamIncomplete,
    StreamInvalid,
)
from treadle.models.wire import responses_decoder
from treadle.models.wire.ends import RESPONSES_ENDS
from treadle.models.wire.responses_decoder import ResponsesDecoder
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent

Object = dict[str, Any]


def frame(kind: str, **fields: object) -> bytes:
    data = json.dumps({"type": kind, "sequence_number": 0, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def added(index: int, **item: object) -> bytes:
    return frame("response.output_item.added", output_index=index, item=item)


def done(index: int, **item: object) -> bytes:
    return frame("response.output_item.done", output_index=index, item=item)


def text(delta: str, index: int = 1, item_id: str = "msg_1") -> bytes:
    return frame(
        "response.output_text.delta",
        item_id=item_id,
        output_index=index,
        content_index=0,
        delta=delta,
        logprobs=[],
    )


def arguments(delta: str, index: int, item_id: str = "") -> bytes:
    return frame(
        "response.function_call_arguments.delta",
        item_id=item_id or f"fc_{index}",
        output_index=index,
        delta=delta,
    )


def completed(**response: object) -> bytes:
    return frame("response.completed", response={"id": "resp_1", "usage": USAGE, **response})


USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 6,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 16,
}
THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "A"}, {"type": "summary_text", "text": "B"}],
    "encrypted_content": "xyz",
}
SAID: Object = {
    "type": "message",
    "id": "msg_1",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Grüße 😀", "annotations": []}],
}
LOOK: Object = {
    "type": "function_call",
    "id": "fc_2",
    "call_id": "call_a",
    "name": "look",
    "arguments": '{"at":"Zürich"}',
    "status": "completed",
}
OPENED_LOOK = {**LOOK, "arguments": "", "status": "in_progress"}
OPENED_SAID = {**SAID, "content": [], "status": "in_progress"}


def summary(delta: str, part: int) -> bytes:
    return frame(
        "response.reasoning_summary_text.delta",
        item_id="rs_1",
        output_index=0,
        summary_index=part,
        delta=delta,
    )


STREAM = b"".join(
    [
        frame("response.created", response={"id": "resp_1", "status": "in_progress"}),
        frame("response.in_progress", response={"id": "resp_1"}),
        added(0, type="reasoning", id="rs_1", summary=[]),
        summary("A", 0),
        summary("B", 1),
        done(0, **THOUGHT),
        added(1, type="message", id="msg_1", role="assistant", content=[]),
        frame("response.content_part.added", part={"type": "output_text", "text": ""}),
        text("Grü"),
        text("ße 😀"),
        frame("response.output_text.done", text="Grüße 😀"),
        done(1, **SAID),
        added(2, type="function_call", id="fc_2", call_id="call_a", name="look", arguments=""),
        arguments('{"at":', 2),
        arguments('"Zürich"}', 2),
        frame("response.function_call_arguments.done", arguments='{"at":"Zürich"}'),
        done(2, **LOOK),
        frame("response.something.new", whatever=[1, 2]),
        completed(),
    ]
)
MESSAGE = Message("assistant", (OutputText("Grüße 😀"),), "msg_1")
CALL = FunctionCall("call_a", "look", '{"at":"Zürich"}', "fc_2")
ITEMS: list[Item] = [
    Reasoning(
        id="rs_1",
        summary=(SummaryText("A"), SummaryText("B")),
        encrypted_content="xyz",
        provider="openai",
    ),
    MESSAGE,
    CALL,
]


def decode(*chunks: bytes, used_call_ids: tuple[str, ...] = ()) -> list[StreamEvent]:
    decoder = ResponsesDecoder("openai", used_call_ids)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [*events, *decoder.end()]


def items_of(events: list[StreamEvent]) -> list[Item]:
    finished = [event for event in events if isinstance(event, ItemFinished)]
    return [event.item for event in sorted(finished, key=lambda event: event.index)]


def shape(events: list[StreamEvent]) -> str:
    """Events with made-up ids replaced by their order of appearance."""
    names: dict[str, int] = {}
    return re.sub(
        r"(msg|rs|fc|call)_[0-9a-z]{26}",
        lambda found: f"{found[1]}#{names.setdefault(found[0], len(names))}",
        repr([_shown(event) for event in events]),
    )


def _shown(event: StreamEvent) -> object:
    if isinstance(event, ItemFinished) and isinstance(event.item, ProviderItem):
        return event.index, bytes(event.item.raw)
    return event


def failing(*chunks: bytes) -> tuple[list[StreamEvent], ModelError]:
    """The events before the error, and the error."""
    decoder = ResponsesDecoder("openai")
    events: list[StreamEvent] = []
    with pytest.raises(ModelError) as caught:
        for chunk in chunks:
            events.extend(decoder.feed(chunk))
        events.extend(decoder.end())
    return events, caught.value


def test_a_whole_response() -> None:
    events = decode(STREAM)
    assert items_of(events) == ITEMS
    assert [e.delta for e in events if isinstance(e, TextDelta)] == ["Grü", "ße 😀"]
    assert "".join(e.delta for e in events if isinstance(e, ReasoningDelta)) == "A\n\nB"
    assert [e.delta for e in events if isinstance(e, ToolArgumentsDelta)] == [
        '{"at":',
        '"Zürich"}',
    ]
    assert events[-1] == ResponseFinished("resp_1", "stop", Usage(10, 6, 4, 2, 1))


def test_the_result_does_not_depend_on_the_cut() -> None:
    whole = decode(STREAM)
    for cut in range(len(STREAM) + 1):
        assert decode(STREAM[:cut], STREAM[cut:]) == whole
    assert decode(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == whole


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_nor_on_any_set_of_cuts(cuts: list[int]) -> None:
    assert decode(*_cut(STREAM, cuts)) == decode(STREAM)


def _cut(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def test_every_proper_prefix_is_incomplete() -> None:
    last = STREAM.rindex(b"event:")
    for cut in range(last + 1):
        with pytest.raises(StreamIncomplete):
            decode(STREAM[:cut])


def test_a_call_is_finished_before_the_response_ends() -> None:
    decoder = ResponsesDecoder("openai")
    before_end = STREAM[: STREAM.index(b"event: response.something.new")]
    assert items_of(list(decoder.feed(before_end)))[-1] == ITEMS[-1]
    assert not decoder.finished


def test_frames_without_event_names_and_a_done_marker() -> None:
    bare = b"".join(line + b"\n\n" for line in STREAM.split(b"\n") if line.startswith(b"data:"))
    assert decode(bare + b"data: [DONE]\n\n") == decode(STREAM)
    assert decode(b"data: [DONE]\n\n" + bare) == decode(STREAM)


def test_events_nobody_knows_are_ignored() -> None:
    noise = (
        b'data: {"type":"x.y","z":1}\n\ndata: {"no":"type"}\n\ndata: [1]\n\n: comment\n\n'
        b"event: ping\ndata: ping\n\nevent: response.new\ndata: <not json>\n\n"
        b"data:\n\nevent: ping\ndata: {}\n\n" + frame("response.audio.delta", delta=7)
    )
    assert decode(noise + STREAM) == decode(STREAM)


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {not json\n\n",
        b"event: response.completed\ndata: <html>\n\n",
        b"event: response.completed\ndata: [1]\n\n",
        frame("response.output_text.delta", delta=7, output_index=0),
        frame("response.reasoning_text.delta", delta=["a"], output_index=0),
        frame("response.output_item.done", output_index=0, item={"id": "x"}),
        frame("response.output_item.done", output_index=0, item={"type": "x", "id": "x"})[:-20]
        + b"\n\n",
        b"data: \xff\xfe\n\n",
        b'event: response.output_text.delta\ndata: {"output_index":"0" x}\n\n',
        b'event: response.completed\ndata: {"z":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n",
        b'data: {"z":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n",
    ],
)
def test_garbage_is_an_error(garbage: bytes) -> None:
    with pytest.raises(StreamInvalid):
        decode(garbage + STREAM)
    events, _ = failing(text("a"), garbage + STREAM)
    assert [event.delta for event in events if isinstance(event, TextDelta)] == ["a"]


def test_a_cut_last_frame_is_incomplete_rather_than_garbage() -> None:
    with pytest.raises(StreamIncomplete):
        decode(text("a") + b'data: {"type":"response.comp')
    with pytest.raises(StreamIncomplete):
        decode(text("a") + b'event: response.output_text.delta\ndata: {"delta":"b')


def test_a_repeated_call_id_is_repaired() -> None:
    events = decode(STREAM, used_call_ids=("call_a",))
    call = items_of(events)[-1]
    assert isinstance(call, FunctionCall)
    assert call.call_id != "call_a"
    assert {e.call_id for e in events if isinstance(e, ToolArgumentsDelta)} == {call.call_id}


def test_refusal() -> None:
    refused = {**SAID, "content": [{"type": "refusal", "refusal": "No."}]}
    events = decode(
        frame("response.refusal.delta", item_id="msg_1", output_index=1, delta="No."),
        done(1, **refused),
        completed(),
    )
    assert events[0] == RefusalDelta("msg_1", "No.")
    assert items_of(events) == [Message("assistant", (Refusal("No."),), "msg_1")]


def test_raw_reasoning_text() -> None:
    thought = {**THOUGHT, "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    events = decode(
        frame("response.reasoning_text.delta", item_id="rs_1", output_index=0, delta="hm"),
        done(0, **thought),
        completed(),
    )
    assert events[0] == ReasoningDelta("rs_1", "hm")
    (item,) = items_of(events)
    assert isinstance(item, Reasoning)
    assert item.text == "hm"


def test_items_of_hosted_tools_are_kept_as_they_are() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "content": 5, "action": {"query": "x"}}
    (item,) = items_of(decode(done(0, **search), completed()))
    assert isinstance(item, ProviderItem)
    assert msgspec.json.decode(item.raw) == search


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ({"reason": "max_output_tokens"}, "length"),
        ({"reason": "content_filter"}, "content_filter"),
        ({}, "length"),
        (None, "length"),
    ],
)
@pytest.mark.parametrize(
    "end", [frame("response.incomplete"), frame("response.completed", status="incomplete")]
)
def test_a_truncated_call_is_never_finished(
    reason: object, finish: FinishReason, end: bytes
) -> None:
    cut_off = {**LOOK, "arguments": '{"at":"Zü', "status": "incomplete"}
    called_whole = {**cut_off, "status": "completed"}
    stream = [text("a"), added(2, **OPENED_LOOK), arguments('{"at":"Zü', 2)]
    response = {"id": "resp_1", "status": "incomplete", "incomplete_details": reason}
    for output in ([], [cut_off], [called_whole]):
        last = frame("response.incomplete", response={**response, "output": output})
        if b"completed" in end:
            last = frame("response.completed", response={**response, "output": output})
        for frames in (stream, [*stream, done(2, **cut_off)], [*stream, done(2, **called_whole)]):
            events = decode(*frames, last)
            assert items_of(events) == [Message("assistant", (OutputText("a"),), "msg_1")]
            assert events[-1] == ResponseFinished("resp_1", finish, Usage(requests=1))


@pytest.mark.parametrize("status", ["completed", "incomplete"])
@pytest.mark.parametrize("half", ['{"at":"Zü', "{", '{"at": ['])
def test_half_a_call_of_a_complete_response_is_an_error(half: str, status: str) -> None:
    """llama.cpp calls a call complete that the token limit has cut off."""
    cut_off = {**LOOK, "arguments": half, "status": status}
    for frames in (
        [done(2, **cut_off), completed()],
        [added(2, **OPENED_LOOK), arguments(half, 2), done(2, **cut_off), completed()],
        [added(2, **OPENED_LOOK), arguments(half, 2), completed()],
        [completed(output=[cut_off], status="completed")],
    ):
        events, error = failing(text("a"), *frames)
        assert isinstance(error, StreamIncomplete)
        assert "in the middle of a call of 'look'" in error.message
        # What was whole stays.
        assert items_of(events) == [Message("assistant", (OutputText("a"),), "msg_1")]


@pytest.mark.parametrize("written", ["nonsense", "[1]", "null", "{'at': 1}", '{"at": 1} more'])
def test_invalid_arguments_that_do_not_break_off_are_handed_on(written: str) -> None:
    (call,) = items_of(decode(done(0, **{**LOOK, "arguments": written}), completed()))
    assert call == FunctionCall("call_a", "look", written, "fc_2")


@pytest.mark.parametrize(
    "frames",
    [
        [added(2, **OPENED_LOOK)],
        [arguments("{}", 2)],
        [arguments("{}", 2), arguments(" ", 2)],
        [frame("response.function_call_arguments.done", arguments="{}", output_index=2)],
        [done(2, **{**LOOK, "name": ""})],
    ],
)
def test_a_call_that_began_and_did_not_end_is_an_error(frames: list[bytes]) -> None:
    with pytest.raises(StreamIncomplete, match="in the middle of a call"):
        decode(*frames, completed())


def test_a_call_that_ended_without_arguments_has_none() -> None:
    opened, ended = OPENED_LOOK, {**LOOK, "arguments": ""}
    assert items_of(decode(added(2, **opened), done(2, **ended), completed())) == [
        FunctionCall("call_a", "look", "", "fc_2")
    ]


def test_more_arguments_after_the_end_of_a_call_are_an_error() -> None:
    with pytest.raises(StreamInvalid, match="after its end"):
        decode(done(2, **LOOK), arguments("x", 2))
    assert items_of(decode(done(2, **LOOK), arguments(" ", 2), completed())) == [CALL]


def test_arguments_after_the_end_of_a_call_whose_deltas_were_read_are_an_error() -> None:
    stream = [added(2, **OPENED_LOOK), *(arguments(piece, 2) for piece in '{"at":"Zürich"}')]
    assert items_of(decode(*stream, done(2, **LOOK), completed())) == [CALL]
    with pytest.raises(StreamInvalid, match="after its end"):
        decode(*stream, done(2, **LOOK), arguments("x", 2))


def test_deltas_of_calls_under_one_index_are_told_apart_by_their_ids() -> None:
    other = {**LOOK, "id": "fc_3", "call_id": "call_b", "arguments": '{"at":"Genf"}'}
    stream = [added(0, **OPENED_LOOK), added(0, **{**OPENED_LOOK, **other, "arguments": ""})]
    for number in range(15):
        for call in (LOOK, other):
            piece = call["arguments"][number : number + 1]
            stream.append(arguments(piece, 0, call["id"]))
    stream += [done(0, **LOOK), done(0, **other), completed()]
    calls = [item for item in items_of(decode(*stream)) if isinstance(item, FunctionCall)]
    assert [call.arguments for call in calls] == [LOOK["arguments"], other["arguments"]]


def test_an_output_that_repeats_the_items_is_not_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[object] = []
    read = ResponsesDecoder._read
    monkeypatch.setattr(
        ResponsesDecoder, "_read", lambda self, raw: reads.append(raw) or read(self, raw)
    )
    stream = [done(0, **SAID), done(2, **LOOK)]
    assert items_of(decode(*stream, completed(output=[SAID, LOOK]))) == [MESSAGE, CALL]
    assert len(reads) == 2
    # Another order, a part of them, and an item that its own end could not complete are read.
    for output in ([LOOK, SAID], [LOOK]):
        assert items_of(decode(*stream, completed(output=output))) == [MESSAGE, CALL]
    bare = {**LOOK, "arguments": ""}
    assert items_of(decode(done(2, **bare), completed(output=[LOOK]))) == [CALL]


def test_two_items_of_one_id_and_index_are_both_in_the_output() -> None:
    other = {**LOOK, "call_id": "call_b", "arguments": '{"at":"Genf"}'}
    stream = [done(0, **LOOK), done(0, **other), completed(output=[LOOK, other])]
    calls = [item for item in items_of(decode(*stream)) if isinstance(item, FunctionCall)]
    assert [call.call_id for call in calls] == ["call_a", "call_b"]


def test_arguments_without_a_call_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_decoder, "_MAX_PENDING", 5)
    with pytest.raises(StreamInvalid, match="did not name"):
        decode(arguments("abc", 1), arguments("abc", 2))


# What servers leave out, number or name in their own way: BerriAI/litellm#36375, llama.cpp,
# orka-agents/orka#602, yunionio/cloudpods#25157, router-for-me/CLIProxyAPI#1004.
ARGUMENTS_DONE = frame(
    "response.function_call_arguments.done",
    item_id="fc_2",
    output_index=0,
    name="look",
    arguments=LOOK["arguments"],
)
TEXT_DONE = frame("response.output_text.done", item_id="msg_1", output_index=0, text="Grüße 😀")
CALLS: dict[str, list[bytes]] = {
    "only in the last event": [],
    "no end": [added(0, **OPENED_LOOK), arguments(LOOK["arguments"], 0), ARGUMENTS_DONE],
    "only the end of the arguments": [added(0, **OPENED_LOOK), ARGUMENTS_DONE],
    "announced twice": [added(0, **OPENED_LOOK), added(0, **OPENED_LOOK), done(0, **LOOK)],
    "ended twice": [done(0, **LOOK), done(0, **LOOK)],
    "ended twice without an id": [done(0, **{**LOOK, "id": None})] * 2,
    "announced after its end": [done(0, **LOOK), added(0, **OPENED_LOOK)],
    "an end without a name": [
        added(0, **OPENED_LOOK),
        arguments(LOOK["arguments"], 0),
        done(0, **{**LOOK, "name": ""}),
    ],
    "an end without arguments": [
        added(0, **OPENED_LOOK),
        ARGUMENTS_DONE,
        done(0, **{**LOOK, "arguments": ""}),
    ],
    "an end with empty arguments": [
        added(0, **OPENED_LOOK),
        arguments(LOOK["arguments"], 0),
        done(0, **{**LOOK, "arguments": "{}"}),
    ],
    "an end without a call id": [
        added(0, **OPENED_LOOK),
        arguments(LOOK["arguments"], 0),
        done(0, **{**LOOK, "call_id": None}),
    ],
    "not announced": [arguments(LOOK["arguments"], 0, "fc_2"), done(0, **LOOK)],
    "not announced, without arguments at its end": [
        arguments(LOOK["arguments"], 0, "fc_2"),
        done(0, **{**LOOK, "arguments": None}),
    ],
    "announced after its deltas": [
        arguments(LOOK["arguments"], 0, "fc_2"),
        added(0, **OPENED_LOOK),
    ],
    "announced without a name": [
        added(0, **{**OPENED_LOOK, "name": None}),
        arguments(LOOK["arguments"], 0),
        done(0, **LOOK),
    ],
    "whole when announced": [added(0, **LOOK)],
    "deltas with the call id": [
        added(0, **OPENED_LOOK),
        arguments(LOOK["arguments"], 0, "call_a"),
        done(0, **LOOK),
    ],
    "arguments as an object": [done(0, **{**LOOK, "arguments": {"at": "Zürich"}})],
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_of_which_events_are_missing(name: str) -> None:
    for output in ([LOOK], [{**LOOK, "id": "fc_9"}]):
        (call,) = items_of(decode(*CALLS[name], completed(output=output)))
        assert isinstance(call, FunctionCall)
        assert (call.name, call.call_id) == ("look", "call_a")
        assert json.loads(call.arguments) == {"at": "Zürich"}


TEXTS: dict[str, list[bytes]] = {
    "only in the last event": [],
    "no end": [added(0, **OPENED_SAID), text("Grüße 😀", 0)],
    "only the end of its text": [added(0, **OPENED_SAID), TEXT_DONE],
    "only the end of its part": [
        frame(
            "response.content_part.done",
            item_id="msg_1",
            output_index=0,
            part={"type": "output_text", "text": "Grüße 😀"},
        )
    ],
    "an end without content": [text("Grüße 😀", 0), TEXT_DONE, done(0, **OPENED_SAID)],
    "only its end, without content": [done(0, **OPENED_SAID)],
    "announced alone": [added(0, **OPENED_SAID)],
    "ended twice": [done(0, **SAID), done(0, **SAID)],
    "ended twice without an id": [done(0, **{**SAID, "id": None})] * 2,
    "half of its deltas": [added(0, **OPENED_SAID), text("Grü", 0), done(0, **SAID)],
    "another id in each event": [
        added(0, **OPENED_SAID),
        *(text(letter, 0, f"x{number}") for number, letter in enumerate("Grüße 😀")),
        done(0, **{**SAID, "id": "msg_9"}),
    ],
    "content as a text": [done(0, **{**SAID, "content": "Grüße 😀"})],
    "content as texts": [done(0, **{**SAID, "content": ["Grüße ", "😀", None, {"text": None}]})],
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_message_of_which_events_are_missing(name: str) -> None:
    for output in ([SAID], [{**SAID, "id": "msg_7"}]):
        events = decode(*TEXTS[name], completed(output=output))
        (message,) = items_of(events)
        assert isinstance(message, Message)
        assert message.text == "Grüße 😀"
        assert "".join(e.delta for e in events if isinstance(e, TextDelta)) == "Grüße 😀"


@pytest.mark.parametrize("output", [None, [], "none", {}, 7])
def test_an_output_that_says_nothing(output: object) -> None:
    for frames in list(TEXTS.values())[1:4]:
        (message,) = items_of(decode(*frames, completed(output=output)))
        assert isinstance(message, Message)
        assert message.text == "Grüße 😀"
    assert items_of(decode(STREAM[: -len(completed())], completed(output=output))) == ITEMS


def test_reasoning_of_which_events_are_missing() -> None:
    bare = {**THOUGHT, "summary": []}
    ends = [
        frame(
            "response.reasoning_summary_part.done",
            item_id="rs_1",
            output_index=0,
            summary_index=number,
            part={"type": "summary_text", "text": words},
        )
        for number, words in enumerate("AB")
    ]
    raw = frame("response.reasoning_text.done", item_id="rs_1", output_index=0, text="hm")
    for frames in (
        [done(0, **THOUGHT)],
        [*ends, done(0, **bare)],
        [ends[1], ends[0], done(0, **bare)],
        [summary("A", 0), summary("B", 1), *ends, done(0, **bare)],
        [completed(output=[THOUGHT])],
    ):
        assert items_of(decode(*frames, completed()))[:1] == ITEMS[:1]
    (item,) = items_of(decode(raw, done(0, **bare), completed()))
    assert isinstance(item, Reasoning)
    assert item.content == (ReasoningText("hm"),)
    (item,) = items_of(decode(summary("A", 0), summary("B", 1), done(0, **bare), completed()))
    assert isinstance(item, Reasoning)
    assert item.text == "A\n\nB"


def test_a_refusal_of_which_only_the_end_of_its_part_is_sent() -> None:
    part = {"type": "refusal", "refusal": "No."}
    for last in (
        frame("response.refusal.done", item_id="m", output_index=0, refusal="No."),
        frame("response.content_part.done", item_id="m", output_index=0, part=part),
    ):
        events = decode(last, completed())
        assert items_of(events) == [Message("assistant", (Refusal("No."),), "m")]
    assert (
        items_of(decode(frame("response.content_part.done", part={"type": "x"}), completed())) == []
    )


def test_phase_and_annotations_stay_with_their_message() -> None:
    note = {"type": "url_citation", "url": "https://x"}
    shown = {**SAID, "phase": "commentary"}
    shown["content"] = [{**SAID["content"][0], "annotations": [note]}]
    fields = ProviderFields("openai", {"phase": "commentary", "annotations": [[note]]})
    for frames in ([text("Grü"), done(1, **shown), completed()], [completed(output=[shown])]):
        said = OutputText("Grüße 😀", (UrlCitation("https://x"),))
        assert items_of(decode(*frames)) == [
            msgspec.structs.replace(MESSAGE, content=(said,), provider_fields=fields)
        ]
    # Two texts of one message are joined, so that annotations of each cannot be kept.
    two = {**SAID, "content": shown["content"] * 2}
    (joined,) = items_of(decode(done(1, **two), completed()))
    assert isinstance(joined, Message)
    assert joined.provider_fields is None


def test_an_output_of_another_response_is_not_read() -> None:
    other = {**SAID, "id": "msg_8", "content": [{"type": "output_text", "text": "Then."}]}
    stream = [done(0, **SAID), completed(output=[THOUGHT, other, LOOK])]
    assert items_of(decode(*stream)) == [MESSAGE]


def test_what_comes_after_the_end_of_an_item_begins_another() -> None:
    events = decode(done(0, **SAID), text(" Well.", 0), completed())
    assert [item.text for item in items_of(events) if isinstance(item, Message)] == [
        "Grüße 😀",
        " Well.",
    ]


def test_ends_that_repeat_themselves_are_told_from_those_of_other_items() -> None:
    other = {**SAID, "content": [{"type": "output_text", "text": "Then."}]}
    for frames, items in (
        ([done(2, **LOOK), done(2, **{**LOOK, "id": "fc_9"})], [CALL]),
        (
            [done(0, **SAID), done(5, **other)],
            [MESSAGE, Message("assistant", (OutputText("Then."),), "msg_1")],
        ),
    ):
        assert items_of(decode(*frames, completed())) == items
    nameless = {**LOOK, "id": None, "call_id": None}
    (call,) = items_of(decode(done(0, **nameless), completed(output=[LOOK])))
    assert isinstance(call, FunctionCall)
    assert call.arguments == LOOK["arguments"]


def test_events_that_bring_nothing() -> None:
    empty = [
        added(0, type="reasoning", id="rs_1", summary=[]),
        added(3, **{**OPENED_SAID, "id": "msg_3"}),
        added(4, type="web_search_call", id="ws_1"),
        frame("response.function_call_arguments.done", arguments="", output_index=9),
        frame("response.output_text.done", text="", output_index=3),
        done(5, type="message", id="m", content=[{"type": "refusal", "refusal": None}]),
    ]
    (thought,) = items_of(decode(*empty, summary("B", 1), completed()))
    assert isinstance(thought, Reasoning)
    assert thought.text == "B"


def test_invalid_utf8_becomes_the_replacement_character() -> None:
    item = {**SAID, "content": [{"type": "output_text", "text": "a@"}]}
    search = {"type": "web_search_call", "id": "@"}
    stream = done(0, **item) + done(1, **search)
    said, hosted = items_of(decode(stream.replace(b"@", b"\xff"), completed()))
    assert said == Message("assistant", (OutputText("a\ufffd"),), "msg_1")
    assert isinstance(hosted, ProviderItem)
    assert json.loads(bytes(hosted.raw))["id"] == "\ufffd"


def test_missing_items_are_inserted_where_the_output_has_them() -> None:
    events = decode(
        added(1, **OPENED_SAID), text("Grüße 😀", 1), completed(output=[THOUGHT, SAID, LOOK])
    )
    assert items_of(events) == ITEMS


def test_announced_items_keep_their_order() -> None:
    events = decode(
        added(0, **OPENED_SAID),
        added(1, **OPENED_LOOK),
        done(1, **LOOK),
        text("Grüße 😀", 0),
        done(0, **SAID),
        completed(),
    )
    assert items_of(events) == [MESSAGE, CALL]


@pytest.mark.parametrize(
    ("response", "finish"),
    [
        ({}, "stop"),
        ({"status": None}, "stop"),
        ({"status": "completed"}, "stop"),
        ({"status": "Completed"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_tokens"}}, "length"),
        ({"status": "completed", "error": {}}, "stop"),
        ({"status": "completed", "error": {"message": None}}, "stop"),
    ],
)
def test_good_ends(response: Object, finish: FinishReason) -> None:
    events = decode(done(0, **SAID), completed(**response))
    assert events[-1] == ResponseFinished("resp_1", finish, Usage(10, 6, 4, 2, 1))


@pytest.mark.parametrize(
    ("kind", "response", "word"),
    [
        ("response.completed", {"status": "cancelled"}, "cancelled"),
        ("response.completed", {"status": "failed"}, "failed"),
        ("response.completed", {"status": "in_progress"}, "in_progress"),
        ("response.completed", {"status": "odd"}, "odd"),
        ("response.failed", {}, "failed"),
        ("response.failed", {"status": "completed"}, "failed"),
        ("response.incomplete", {"incomplete_details": {"reason": "odd"}}, "odd"),
    ],
)
def test_every_other_end_is_an_error(kind: str, response: Object, word: str) -> None:
    _, error = failing(frame(kind, response=response))
    assert isinstance(error, ServerFailed)
    assert error.provider_code == word
    assert f'"{word}"' in error.message
    events, _ = failing(text("half "), added(2, **OPENED_LOOK), frame(kind, response=response))
    said = Message("assistant", (OutputText("half "),), "msg_1", unknown_end=word)
    assert items_of(events) == [said]  # kept and marked
    events, _ = failing(done(1, **SAID), frame(kind, response=response))
    assert items_of(events) == [MESSAGE]  # it has an end of its own


def test_ends_of_other_servers_can_be_added() -> None:
    decoder = ResponsesDecoder("x", (), {**RESPONSES_ENDS, "odd": "stop"})
    events = list(decoder.feed(done(0, **SAID) + completed(status="odd")))
    assert isinstance(events[-1], ResponseFinished)
    assert decoder.finished
    assert decoder.stopped


@pytest.mark.parametrize(
    ("stream", "kind", "code"),
    [
        (frame("error", code="server_error", message="m"), ServerFailed, "server_error"),
        (frame("error", error={"code": "rate_limit_exceeded"}), RateLimited, "rate_limit_exceeded"),
        (
            frame("response.failed", response={"error": {"code": "insufficient_quota"}}),
            QuotaExceeded,
            "insufficient_quota",
        ),
        (
            completed(status="failed", error={"code": "server_error", "message": "It broke."}),
            ServerFailed,
            "server_error",
        ),
        (completed(error="It broke."), BadRequest, None),
        (frame("error", code="503", message="m"), ServerFailed, "503"),
        (frame("response.error", error={"code": "server_error"}), ServerFailed, "server_error"),
        (frame("response.error", code="server_error", message="m"), ServerFailed, "server_error"),
        (b'data: {"error":{"code":503,"message":"m"}}\n\n', ServerFailed, "503"),
        (b'data: {"type":"odd","error":{"code":503}}\n\n', ServerFailed, "503"),
        (b'event: odd\ndata: {"error":"It broke."}\n\n', BadRequest, None),
        (b"event: error\ndata: It broke.\n\n", BadRequest, None),
        (b'{"error":{"code":503,"message":"m"}}', ServerFailed, "503"),
    ],
)
def test_errors_inside_the_stream(stream: bytes, kind: type[Exception], code: str | None) -> None:
    _, error = failing(stream)
    assert type(error) is kind
    assert error.provider_code == code
    if not stream.startswith(b"{"):
        events, error = failing(text("a"), stream)
        assert type(error) is kind
        assert [event.delta for event in events if isinstance(event, TextDelta)] == ["a"]


@pytest.mark.parametrize(
    "odd",
    [
        {"id": None},
        {"id": 7},
        {"usage": None},
        {"usage": "many"},
        {"usage": {"input_tokens": 3.0, "output_tokens": "1", "total_tokens": None}},
        {"usage": {"input_tokens": None, "input_tokens_details": 7}},
        {"usage": {"input_tokens": -1, "output_tokens_details": {"reasoning_tokens": []}}},
        {"incomplete_details": "none"},
        {"output": [{**SAID, "content": [{"type": "output_text", "text": None}]}]},
    ],
)
def test_fields_that_do_not_matter_destroy_no_answer(odd: Object) -> None:
    events = decode(done(0, **SAID), completed(**odd))
    assert items_of(events) == [MESSAGE]
    assert isinstance(events[-1], ResponseFinished)


@pytest.mark.parametrize(
    "odd",
    [
        {"output_index": None},
        {"output_index": "1"},
        {"output_index": 1.0},
        {"item_id": None},
        {"item_id": 7},
        {"content_index": "x"},
        {"sequence_number": None},
        {"logprobs": "none"},
        {"delta": None},
        {"delta": ""},
    ],
)
def test_fields_of_deltas_that_do_not_matter(odd: Object) -> None:
    fields = {"item_id": "msg_1", "output_index": 1, "delta": "a", **odd}
    deltas = [frame("response.output_text.delta", **{**fields, **odd})] * 3
    events = decode(added(1, **OPENED_SAID), *deltas, text("b"), completed())
    (message,) = items_of(events)
    assert isinstance(message, Message)
    assert message.text == ("b" if "delta" in odd else "aaab")


def test_counts_that_are_floats_are_read() -> None:
    events = decode(completed(usage={"input_tokens": 3.0, "output_tokens": "1"}))
    assert events == [ResponseFinished("resp_1", "stop", Usage(3, 1, requests=1))]


def test_a_completed_event_without_a_response() -> None:
    (end,) = decode(frame("response.completed"))
    assert end == ResponseFinished("", "stop", Usage(requests=1))
    assert decode(frame("response.completed", response=None)) == [end]


HIGH, LOW = "\\ud83d", "\\ude00"


def escaped(kind: str, delta: str, **fields: object) -> bytes:
    """A delta written with escapes, in which a character may be cut in half."""
    data = json.dumps({"type": kind, "output_index": 0, "item_id": "i", **fields})
    return f'event: {kind}\ndata: {data[:-1]},"delta":"{delta}"}}\n\n'.encode()


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        ([HIGH + LOW], "😀"),
        (["a" + HIGH, LOW + "b"], "a😀b"),
        (["a", "b" + HIGH, LOW, "c"], "ab😀c"),
        (["a" + HIGH, "b"], "a\ufffdb"),
        (["a" + LOW], "a\ufffd"),
        (["a" + HIGH], "a\ufffd"),
        ([HIGH, HIGH, LOW], "\ufffd😀"),
    ],
)
def test_halves_of_a_character_are_joined(pieces: list[str], wanted: str) -> None:
    kinds: dict[str, Callable[[Item], str]] = {
        "response.output_text.delta": lambda item: item.text,  # type: ignore[union-attr]
        "response.refusal.delta": lambda item: item.refusal,  # type: ignore[union-attr]
        "response.reasoning_text.delta": lambda item: item.text,  # type: ignore[union-attr]
    }
    for kind, read in kinds.items():
        frames = [escaped(kind, piece) for piece in pieces]
        events = decode(*frames, completed())
        (item,) = items_of(events)
        assert read(item) == wanted
        deltas = [e.delta for e in events if not isinstance(e, ItemFinished | ResponseFinished)]  # type: ignore[union-attr]
        assert "".join(deltas) == wanted
    opened = {**OPENED_LOOK, "id": "i"}
    whole = '{\\"at\\":\\"' + "".join(pieces) + '\\"}'
    call_pieces = [*pieces]
    call_pieces[0] = '{\\"at\\":\\"' + call_pieces[0]
    call_pieces[-1] += '\\"}'
    frames = [escaped("response.function_call_arguments.delta", piece) for piece in call_pieces]
    (call,) = items_of(decode(added(0, **opened), *frames, completed()))
    assert isinstance(call, FunctionCall)
    assert json.loads(call.arguments) == {"at": wanted}
    assert whole.startswith("{")


def test_halves_of_a_character_in_whole_texts() -> None:
    for name in ("text", "summary"):
        content = {"type": "output_text", "text": "@"} if name == "text" else {"text": "@"}
        item = {"type": "message" if name == "text" else "reasoning", "id": "i"}
        item |= {"content": [content]} if name == "text" else {"summary": [content]}
        for stream in (done(0, **item), frame("response.completed", response={"output": [item]})):
            cut = stream.replace(b"@", b"a\\ud83d")
            (read,) = items_of(decode(cut, completed()))
            assert read.text == "a\ufffd"  # type: ignore[union-attr]
    search = done(0, type="web_search_call", id="@").replace(b"@", b"\\ud83d")
    (item,) = items_of(decode(search, completed()))
    assert isinstance(item, ProviderItem)
    assert json.loads(bytes(item.raw))["id"] == "\ufffd"
    whole = done(0, **{**SAID, "id": "i"})
    half = escaped("response.output_text.delta", "Grüße " + HIGH)
    assert items_of(decode(half, whole, completed())) == [
        Message("assistant", (OutputText("Grüße 😀"),), "i")
    ]


DOCUMENT = {"id": "resp_1", "object": "response", "status": "completed", "usage": USAGE}


def test_a_response_that_is_not_streamed() -> None:
    document = json.dumps({**DOCUMENT, "output": [THOUGHT, SAID, LOOK]}).encode()
    for cut in range(0, len(document), 7):
        events = decode(document[:cut], document[cut:])
        assert items_of(events) == ITEMS
        assert events[-1] == ResponseFinished("resp_1", "stop", Usage(10, 6, 4, 2, 1))
    with pytest.raises(ServerFailed):
        decode(json.dumps({**DOCUMENT, "status": "failed", "output": []}).encode())
    with pytest.raises(StreamInvalid, match="neither"):
        decode(b'{"hello": "world"}')


# Any response, as any server sends it.

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def outputs(draw: st.DrawFn) -> list[Object]:
    """The output of a response, as OpenAI would send it in the last event."""
    kinds = draw(st.lists(st.sampled_from(["message", "reasoning", "call", "search"]), max_size=5))
    return [_item(draw, kind, number) for number, kind in enumerate(kinds)]


def _item(draw: st.DrawFn, kind: str, number: int) -> Object:
    match kind:
        case "message":
            # Without ids, an equal message looks like the repetition of an event.
            said = draw(words) + str(number)
            content: list[Object] = [{"type": "output_text", "text": said}]
            if draw(st.booleans()):
                content.append({"type": "refusal", "refusal": draw(words)})
            return {"type": kind, "id": f"m{number}", "role": "assistant", "content": content}
        case "reasoning":
            parts = [{"type": "summary_text", "text": t} for t in draw(st.lists(words, max_size=3))]
            secret = draw(words) + str(number)
            return {"type": kind, "id": f"r{number}", "summary": parts, "encrypted_content": secret}
        case "call":
            written = json.dumps(draw(st.dictionaries(words, words, max_size=2)))
            name = draw(st.sampled_from(["look", "now"]))
            ids = {"id": f"f{number}", "call_id": f"c{number}"}
            return {"type": "function_call", "name": name, "arguments": written, **ids}
        case _:
            return {"type": "web_search_call", "id": f"w{number}", "action": {"q": number}}


class Server(msgspec.Struct):
    """What a server sends of the redundant fields and events."""

    index: str = "own"  # own, gaps, zero, none
    ids: str = "own"  # own, none, each (another one in each event)
    announces: bool = True
    deltas: bool = True
    ends_parts: bool = True
    ends_items: bool = True
    output: str = "own"  # own, none, other_ids
    names: bool = True
    interleaves: bool = False


@st.composite
def servers(draw: st.DrawFn) -> Server:
    server = Server(
        index=draw(st.sampled_from(["own", "gaps", "zero", "none"])),
        ids=draw(st.sampled_from(["own", "none", "each"])),
        announces=draw(st.booleans()),
        deltas=draw(st.booleans()),
        ends_parts=draw(st.booleans()),
        ends_items=draw(st.booleans()),
        output=draw(st.sampled_from(["own", "none", "other_ids"])),
        names=draw(st.booleans()),
    )
    if not server.ends_items and server.output == "none":
        # Then there is no encrypted reasoning and no hosted tool, and calls have no name.
        server.ends_items = True
    tells_apart = server.index in {"own", "gaps"} or server.ids == "own"
    if not tells_apart and not server.ends_items:
        server.announces = True
    if not server.announces and server.ids == "each":
        server.ids = "own"  # nothing would tell the deltas of one item from those of another
    if not server.announces and not server.ends_items and server.index in {"zero", "none"}:
        server.ends_parts = False  # a text of one delta looks as if each event had another id
        server.deltas = False
    server.interleaves = (
        server.index in {"own", "gaps"} or (server.ids == "own" and server.announces)
    ) and draw(st.booleans())
    return server


def _stream(draw: st.DrawFn, items: list[Object], server: Server) -> bytes:
    queues = [list(_events(draw, item, number, server)) for number, item in enumerate(items)]
    frames: list[bytes] = []
    if server.interleaves:
        # The items begin in their order, then go on side by side.
        frames += [queue.pop(0) for queue in queues if queue]
        while any(queues):
            frames.append(draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    else:
        frames += [one for queue in queues for one in queue]
    output = [
        {**item, "id": f"{item['id']}x"} if server.output == "other_ids" else item for item in items
    ]
    response: Object = {"id": "resp_1", "status": "completed"}
    if server.output != "none":
        response["output"] = output
    frames.append(_frame("completed", {"response": response}, server))
    return b"".join(frames)


def _frame(kind: str, fields: Object, server: Server) -> bytes:
    data = json.dumps({"type": f"response.{kind}", **fields})
    name = f"event: response.{kind}\n" if server.names else ""
    return f"{name}data: {data}\n\n".encode()


def _events(draw: st.DrawFn, item: Object, number: int, server: Server) -> Iterator[bytes]:
    fresh = itertools.count()

    def wire_id() -> Object:
        if server.ids == "none":
            return {}
        return {"id": item["id"] if server.ids == "own" else f"{item['id']}_{next(fresh)}"}

    def place() -> Object:
        index = {"own": number, "gaps": number * 2 + 1, "zero": 0}.get(server.index)
        return {} if index is None else {"output_index": index}

    def event(kind: str, **fields: object) -> bytes:
        ids = wire_id()
        named = {"item_id": ids["id"]} if ids else {}
        return _frame(kind, {**place(), **named, **fields}, server)

    def whole(kind: str, **fields: object) -> bytes:
        shown = {name: value for name, value in item.items() if name != "id"}
        return _frame(kind, {**place(), "item": {**shown, **wire_id(), **fields}}, server)

    if server.announces:
        empty = {"content": []} if item["type"] == "message" else {}
        empty |= {"arguments": ""} if item["type"] == "function_call" else {}
        empty |= {"summary": []} if item["type"] == "reasoning" else {}
        yield whole("output_item.added", **empty)
    for kind, part, number_field, words in _parts(item):
        if server.deltas:
            for piece in _pieces(draw, words):
                yield event(f"{kind}.delta", delta=piece, **number_field)
        if server.ends_parts:
            yield event(f"{kind}.done", **{part: words}, **number_field)
    if server.ends_items:
        yield whole("output_item.done")


def _parts(item: Object) -> Iterator[tuple[str, str, Object, str]]:
    for number, part in enumerate(item.get("content", ())):
        kind = "refusal" if part["type"] == "refusal" else "output_text"
        name = "refusal" if kind == "refusal" else "text"
        yield kind, name, {"content_index": number}, part[name]
    for number, part in enumerate(item.get("summary", ())):
        yield "reasoning_summary_text", "text", {"summary_index": number}, part["text"]
    if item["type"] == "function_call":
        yield "function_call_arguments", "arguments", {}, item["arguments"]


def _pieces(draw: st.DrawFn, words: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(words)), max_size=3)))
    edges = [0, *cuts, len(words)]
    return [words[a:b] for a, b in itertools.pairwise(edges)]


def _content(item: Item | Object) -> object:
    """What must be the same, however an item was sent."""
    match item:
        case Message():
            return item.text, item.refusal
        case Reasoning():
            return [part.text for part in item.summary], item.encrypted_content
        case FunctionCall():
            return item.call_id, item.name, item.arguments
        case ProviderItem():
            return json.loads(bytes(item.raw))["action"]
        case dict():
            return _content_of_wire(item)
        case _:
            raise AssertionError(item)


def _content_of_wire(item: Object) -> object:
    match item["type"]:
        case "message":
            texts = [part.get("text", "") for part in item["content"]]
            refusals = [part.get("refusal", "") for part in item["content"]]
            return "".join(texts), "".join(refusals)
        case "reasoning":
            return [part["text"] for part in item["summary"]], item["encrypted_content"]
        case "function_call":
            return item["call_id"], item["name"], item["arguments"]
        case _:
            return item["action"]


@given(st.data(), outputs(), servers(), st.lists(st.integers(0, 5000), max_size=10))
def test_any_response_of_any_server(
    data: st.DataObject, output: list[Object], server: Server, cuts: list[int]
) -> None:
    stream = data.draw(st.composite(_stream)(output, server))
    events = decode(stream)
    assert [_content(item) for item in items_of(events)] == list(map(_content, output))
    said = "".join(e.delta for e in events if isinstance(e, TextDelta))
    if not server.interleaves:
        assert said == "".join(_content(item)[0] for item in output if item["type"] == "message")  # type: ignore[index]
    assert shape(decode(*_cut(stream, cuts))) == shape(events)


@given(st.data(), outputs(), servers())
def test_an_error_in_any_place_comes_after_what_was_read(
    data: st.DataObject, output: list[Object], server: Server
) -> None:
    stream = data.draw(st.composite(_stream)(output, server))
    frames = [one + b"\n\n" for one in stream.split(b"\n\n")[:-1]]
    place = data.draw(st.integers(0, len(frames) - 1))
    bad = data.draw(st.sampled_from([frame("error", message="It broke."), b"data: {not\n\n"]))
    broken = b"".join([*frames[:place], bad, *frames[place:]])
    cuts = data.draw(st.lists(st.integers(0, len(broken)), max_size=10))
    events, error = failing(broken)
    again, same = failing(*_cut(broken, cuts))
    assert shape(again) == shape(events)
    assert repr(same) == repr(error)


assert set(RESPONSES_ENDS.values()) <= set(get_args(FinishReason))
