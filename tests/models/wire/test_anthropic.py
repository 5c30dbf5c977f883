"""Bytes of the Messages API in, model events out; the result must not depend on the cuts."""

import itertools
import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.events import ReasoningDelta, RefusalDelta, TextDelta, ToolArgumentsDelta
from treadle.domain.items import (
    FunctionCall,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    ReasoningText,
    Refusal,
    user_message,
)
from treadle.domain.usage import Usage
from treadle.errors import (
    BadRequest,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
    StreamIncomplete,
    StreamInvalid,
)
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic import AnthropicDecoder, AnthropicWire
from treadle.models.wire.anthropic_request import AnthropicOptions
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent


def frame(kind: str, **fields: object) -> bytes:
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def start(index: int, **block: object) -> bytes:
    return frame("content_block_start", index=index, content_block=block)


def delta(index: int, kind: str, **fields: object) -> bytes:
    return frame("content_block_delta", index=index, delta={"type": kind, **fields})


def text(index: int, text: str) -> bytes:
    return delta(index, "text_delta", text=text)


def written(index: int, partial_json: str) -> bytes:
    return delta(index, "input_json_delta", partial_json=partial_json)


def stop(index: int) -> bytes:
    return frame("content_block_stop", index=index)


def tool(index: int, id: str, name: str, **more: object) -> bytes:
    return start(index, **{"type": "tool_use", "id": id, "name": name, "input": {}, **more})


def stopped(reason: str | None, **more: object) -> bytes:
    change = {"stop_reason": reason, "stop_sequence": None, **more}
    return frame("message_delta", delta=change, usage={"output_tokens": 9})


START = frame(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "claude",
        "stop_reason": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 100,
            "output_tokens": 1,
        },
    },
)
STOP = frame("message_stop")
STREAM = b"".join(
    [
        START,
        start(0, type="thinking", thinking="", signature=""),
        frame("ping"),
        delta(0, "thinking_delta", thinking="Let me "),
        delta(0, "thinking_delta", thinking="see."),
        delta(0, "signature_delta", signature="c2ln"),
        stop(0),
        start(1, type="redacted_thinking", data="b3BhcXVl"),
        stop(1),
        start(2, type="text", text=""),
        text(2, "Grü"),
        delta(2, "citations_delta", citation={"type": "page_location"}),
        text(2, "ße 😀"),
        stop(2),
        tool(3, "toolu_a", "look"),
        written(3, ""),
        written(3, '{"at":'),
        written(3, '"Zürich"}'),
        stop(3),
        tool(4, "toolu_b", "now"),
        written(4, ""),
        stop(4),
        frame("something_new", whatever=[1, 2]),
        frame(
            "message_delta",
            delta={"stop_reason": "tool_use"},
            usage={"output_tokens": 40, "output_tokens_details": {"thinking_tokens": 12}},
        ),
        STOP,
    ]
)
THOUGHT = Reasoning(
    content=(ReasoningText("Let me see."),), encrypted_content="c2ln", provider="anthropic"
)
HIDDEN = Reasoning(encrypted_content="b3BhcXVl", provider="anthropic")
SAID = Message("assistant", (OutputText("Grüße 😀"),))
LOOK = FunctionCall("toolu_a", "look", '{"at":"Zürich"}')
NOW = FunctionCall("toolu_b", "now", "")


def decode(*chunks: bytes, used_call_ids: tuple[str, ...] = ()) -> list[StreamEvent]:
    decoder = AnthropicDecoder("anthropic", used_call_ids)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [*events, *decoder.end()]


def bare(item: Item) -> Item:
    """The item without its id, which is made up."""
    return item if isinstance(item, ProviderItem) else msgspec.structs.replace(item, id="")


def items_of(events: list[StreamEvent]) -> list[Item]:
    finished = [event for event in events if isinstance(event, ItemFinished)]
    return [bare(event.item) for event in sorted(finished, key=lambda event: event.index)]


def shape(events: list[StreamEvent]) -> str:
    """Events with made-up ids replaced by their order of appearance."""
    names: dict[str, int] = {}
    return re.sub(
        r"(msg|rs|fc|call)_[0-9a-z]{26}",
        lambda found: f"{found[1]}#{names.setdefault(found[0], len(names))}",
        repr(events),
    )


def test_a_whole_response() -> None:
    events = decode(STREAM)
    assert items_of(events) == [THOUGHT, HIDDEN, SAID, LOOK, NOW]
    assert [e.delta for e in events if isinstance(e, TextDelta)] == ["Grü", "ße 😀"]
    assert [e.delta for e in events if isinstance(e, ReasoningDelta)] == ["Let me ", "see."]
    assert [e.delta for e in events if isinstance(e, ToolArgumentsDelta)] == [
        '{"at":',
        '"Zürich"}',
    ]
    usage = Usage(
        input_tokens=125,
        output_tokens=40,
        cached_input_tokens=100,
        reasoning_tokens=12,
        requests=1,
        cache_write_tokens=20,
    )
    assert events[-1] == ResponseFinished("msg_1", "stop", usage)


def test_reasoning_has_one_id_from_its_first_delta_on() -> None:
    events = decode(STREAM)
    (thought, _) = [
        e.item for e in events if isinstance(e, ItemFinished) and isinstance(e.item, Reasoning)
    ]
    assert {e.item_id for e in events if isinstance(e, ReasoningDelta)} == {thought.id}


def test_the_result_does_not_depend_on_the_cut() -> None:
    whole = shape(decode(STREAM))
    for cut in range(len(STREAM) + 1):
        assert shape(decode(STREAM[:cut], STREAM[cut:])) == whole
    assert shape(decode(*(STREAM[i : i + 1] for i in range(len(STREAM))))) == whole


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_nor_on_any_set_of_cuts(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
    assert shape(decode(*chunks)) == shape(decode(STREAM))


def test_every_proper_prefix_is_incomplete() -> None:
    last = STREAM.rindex(b"event:")
    for cut in range(last + 1):
        with pytest.raises(StreamIncomplete):
            decode(STREAM[:cut])


def cut_anywhere(words: str) -> st.SearchStrategy[list[str]]:
    """The pieces of a text, cut at any places."""
    cuts = st.lists(st.integers(0, len(words)), max_size=6).map(sorted)
    return cuts.map(lambda at: [words[a:b] for a, b in itertools.pairwise([0, *at, len(words)])])


values = st.dictionaries(st.text(max_size=5), st.text(max_size=10) | st.integers(), max_size=4)
blocks = st.one_of(
    st.tuples(st.just("text"), st.text(min_size=1).flatmap(cut_anywhere)),
    st.tuples(st.just("thinking"), st.text(min_size=1).flatmap(cut_anywhere)),
    st.tuples(st.just("tool"), values.map(json.dumps).flatmap(cut_anywhere)),
)


@given(st.lists(blocks, max_size=6))
def test_any_response_is_put_together_again(response: list[tuple[str, list[str]]]) -> None:
    stream = [START]
    expected: list[Item] = []
    for index, (kind, pieces) in enumerate(response):
        whole = "".join(pieces)
        if kind == "text":
            stream.append(start(index, type="text", text=""))
            stream += [text(index, piece) for piece in pieces]
            expected.append(Message("assistant", (OutputText(whole),)))
        elif kind == "thinking":
            stream.append(start(index, type="thinking", thinking="", signature=""))
            stream += [delta(index, "thinking_delta", thinking=piece) for piece in pieces]
            stream.append(delta(index, "signature_delta", signature=f"s{index}"))
            content = (ReasoningText(whole),)
            expected.append(
                Reasoning(content=content, encrypted_content=f"s{index}", provider="anthropic")
            )
        else:
            stream.append(tool(index, f"toolu_{index}", "look"))
            stream += [written(index, piece) for piece in pieces]
            expected.append(FunctionCall(f"toolu_{index}", "look", whole))
        stream.append(stop(index))
    events = decode(*stream, stopped("end_turn"), STOP)
    assert items_of(events) == expected
    said = "".join(e.delta for e in events if isinstance(e, TextDelta))
    assert said == "".join("".join(pieces) for kind, pieces in response if kind == "text")


def test_a_call_is_finished_before_the_response_ends() -> None:
    decoder = AnthropicDecoder("anthropic")
    look_ended = STREAM.index(stop(3)) + len(stop(3))
    events = decoder.feed(STREAM[:look_ended])
    assert items_of(events)[-1] == LOOK
    # Without arguments, a call may as well be one that broke off: the next block decides.
    now_ended = STREAM.index(stop(4)) + len(stop(4))
    assert items_of(decoder.feed(STREAM[look_ended:now_ended])) == []
    assert items_of(decoder.feed(start(5, type="text", text=""))) == [NOW]
    assert not decoder.finished


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "stop"),
        ("pause_turn", "pause"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
        (None, "stop"),
    ],
)
def test_stop_reasons(reason: str | None, finish: str) -> None:
    events = decode(START, start(0, type="text", text="a"), stop(0), stopped(reason), STOP)
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].finish_reason == finish
    assert items_of(events) == [Message("assistant", (OutputText("a"),))]


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded", "refusal"])
@pytest.mark.parametrize("pieces", [[], [""], ['{"at":"Zü'], ['{"at"', ':"Zürich"']])
@pytest.mark.parametrize("ended", [True, False])
def test_a_truncated_call_is_never_finished(reason: str, pieces: list[str], ended: bool) -> None:
    stream = [START, tool(0, "toolu_a", "look"), *(written(0, piece) for piece in pieces)]
    events = decode(*stream, *([stop(0)] if ended else []), stopped(reason), STOP)
    assert items_of(events) == []


def test_invalid_arguments_that_the_model_has_finished_arrive_as_they_are() -> None:
    events = decode(START, tool(0, "a", "look"), written(0, '{"at": '), stop(0), STOP)
    assert items_of(events) == [FunctionCall("a", "look", '{"at": ')]


def test_arguments_in_one_piece_at_the_start() -> None:
    events = decode(START, tool(0, "a", "look", input={"at": "x"}), stop(0), STOP)
    (call,) = items_of(events)
    assert isinstance(call, FunctionCall)
    assert json.loads(call.arguments) == {"at": "x"}


def test_a_refusal_with_its_explanation() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "Not that."}
    events = decode(START, stopped("refusal", stop_details=details), STOP)
    assert [e.delta for e in events if isinstance(e, RefusalDelta)] == ["Not that."]
    assert items_of(events) == [Message("assistant", (Refusal("Not that."),))]
    silent = decode(START, stopped("refusal", stop_details={"type": "refusal"}), STOP)
    assert items_of(silent) == []


def test_thinking_of_which_only_the_signature_is_shown() -> None:
    block = start(0, type="thinking", thinking="", signature="")
    events = decode(START, block, delta(0, "signature_delta", signature="s"), stop(0), STOP)
    assert items_of(events) == [
        Reasoning(content=(ReasoningText(""),), encrypted_content="s", provider="anthropic")
    ]
    assert not [e for e in events if isinstance(e, ReasoningDelta)]
    assert items_of(decode(START, block, stop(0), STOP)) == []


def test_thinking_that_breaks_off_has_no_signature() -> None:
    block = start(0, type="thinking", thinking="hm", signature="")
    (item,) = items_of(decode(START, block, stopped("max_tokens"), STOP))
    assert item == Reasoning(content=(ReasoningText("hm"),), provider="anthropic")


def test_thinking_without_a_start() -> None:
    events = decode(START, delta(0, "thinking_delta", thinking="hm"), stop(0), STOP)
    assert items_of(events) == [Reasoning(content=(ReasoningText("hm"),), provider="anthropic")]


def test_blocks_of_hosted_tools_are_kept_as_they_are() -> None:
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"x": 1}]}
    events = decode(
        START,
        start(0, **search),
        written(0, '{"query":'),
        written(0, ' "treadle"}'),
        stop(0),
        start(1, **found),
        stop(1),
        start(2, **search),
        written(2, '{"que'),
        stop(2),
        stopped("max_tokens"),
        STOP,
    )
    first, second = items_of(events)
    assert isinstance(first, ProviderItem)
    assert isinstance(second, ProviderItem)
    assert first.provider == "anthropic"
    assert json.loads(bytes(first.raw)) == {**search, "input": {"query": "treadle"}}
    assert json.loads(bytes(second.raw)) == found


def test_frames_without_event_names_and_a_done_marker() -> None:
    named = b"".join(line + b"\n\n" for line in STREAM.split(b"\n") if line.startswith(b"data:"))
    assert shape(decode(named + b"data: [DONE]\n\n")) == shape(decode(STREAM))


def test_what_comes_after_the_end_is_not_read() -> None:
    assert shape(decode(STREAM + b"data: nonsense\n\n")) == shape(decode(STREAM))


def test_usage_that_is_left_out() -> None:
    events = decode(frame("message_start", message={"id": "m"}), STOP)
    assert events == [ResponseFinished("m", "stop", Usage(requests=1))]


def test_events_nobody_knows_are_ignored() -> None:
    noise = b'data: {"type":"x.y","z":1}\n\ndata: {"no":"type"}\n\ndata: [1]\n\n'
    unknown = delta(9, "sparkles_delta", sparkle=1) + frame("content_block_delta_v2", delta=7)
    assert shape(decode(noise + unknown + STREAM)) == shape(decode(STREAM))


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {not json\n\n",
        b"event: message_stop\ndata: <html>\n\n",
        delta(0, "text_delta", text=7),
        frame("content_block_delta", index=0),
        frame("content_block_delta", index=0, delta=7),
        start(0),
        start(0, type="redacted_thinking"),
        start(0, type="tool_use", id=7),
        b"event: content_block_delta\ndata: \xff\xfe\n\n",
        written(7, "{}"),
    ],
)
def test_garbage_is_an_error(garbage: bytes) -> None:
    with pytest.raises(StreamInvalid):
        decode(garbage + STREAM)


def test_a_cut_last_frame_is_incomplete_rather_than_garbage() -> None:
    with pytest.raises(StreamIncomplete):
        decode(START + text(0, "a") + b'event: message_stop\ndata: {"type":"mess')


def test_a_repeated_call_id_is_repaired() -> None:
    events = decode(STREAM, used_call_ids=(LOOK.call_id,))
    call = items_of(events)[3]
    assert isinstance(call, FunctionCall)
    assert call.call_id != "toolu_a"
    assert {e.call_id for e in events if isinstance(e, ToolArgumentsDelta)} == {call.call_id}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, ServerFailed),
        ({"type": "api_error", "message": "m"}, ServerFailed),
        ({"type": "timeout_error", "message": "m"}, ServerFailed),
        ({"type": "rate_limit_error", "message": "m"}, RateLimited),
        ({"type": "billing_error", "message": "m"}, QuotaExceeded),
        ({"type": "invalid_request_error", "message": "m", "details": None}, BadRequest),
        ({}, BadRequest),
    ],
)
def test_errors_inside_the_stream(error: dict[str, str], kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        decode(START, text(0, "a"), frame("error", error=error, request_id="req_1"))
    assert caught.value.provider_code == error.get("type")  # type: ignore[attr-defined]


def test_an_error_event_without_an_error() -> None:
    with pytest.raises(BadRequest):
        decode(frame("error"))


def test_the_wire() -> None:
    wire = AnthropicWire(AnthropicOptions(provider="mine"))
    assert wire.provider == "mine"
    assert wire.headers("k") == {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    assert wire.headers("") == {"anthropic-version": "2023-06-01"}
    body = json.loads(wire.encode("m", ModelRequest(items=[user_message("hi")])).body)
    assert body["model"] == "m"
    decoder = wire.decoder(ModelRequest(items=[LOOK]))
    items = items_of(decoder.feed(STREAM))
    assert items[0] == msgspec.structs.replace(THOUGHT, provider="mine")
    assert isinstance(items[3], FunctionCall)
    assert items[3].call_id != "toolu_a"
    assert decoder.finished
    assert AnthropicWire().provider == "anthropic"
