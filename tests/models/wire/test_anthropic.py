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
    FileCitation,
    FunctionCall,
    Item,
    Message,
    OutputText,
    ProviderFields,
    ProviderItem,
    Reasoning,
    ReasoningText,
    Refusal,
    user_message,
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
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic import AnthropicWire
from treadle.models.wire.anthropic_decoder import AnthropicDecoder
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
CITED = ProviderFields("anthropic", {"citations": [{"type": "page_location"}]})
WRITTEN = Message("assistant", (OutputText("Grüße 😀"),))
SAID = msgspec.structs.replace(
    WRITTEN, content=(OutputText("Grüße 😀", (FileCitation(),)),), provider_fields=CITED
)
LOOK = FunctionCall("toolu_a", "look", '{"at":"Zürich"}')
NOW = FunctionCall("toolu_b", "now", "")


def decode(*chunks: bytes, used_call_ids: tuple[str, ...] = ()) -> list[StreamEvent]:
    decoder = AnthropicDecoder("anthropic", used_call_ids)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [*events, *decoder.end()]


def failing(*chunks: bytes) -> tuple[list[StreamEvent], ModelError]:
    """The events before the error, and the error."""
    decoder = AnthropicDecoder("anthropic")
    events: list[StreamEvent] = []
    with pytest.raises(ModelError) as caught:
        for chunk in chunks:
            events.extend(decoder.feed(chunk))
        events.extend(decoder.end())
    return events, caught.value


def deltas_of(events: list[StreamEvent]) -> str:
    """All text, reasoning and arguments, as they were streamed."""
    kinds = (TextDelta, ReasoningDelta, ToolArgumentsDelta)
    return "".join(event.delta for event in events if isinstance(event, kinds))


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
        repr([_shown(event) for event in events]),
    )


def _shown(event: StreamEvent) -> object:
    if isinstance(event, ItemFinished) and isinstance(event.item, ProviderItem):
        return event.index, bytes(event.item.raw)
    return event


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


def test_every_prefix_without_a_stop_reason_is_incomplete() -> None:
    last = STREAM.rindex(b"event: message_delta")
    for cut in range(last + 1):
        with pytest.raises(StreamIncomplete):
            decode(STREAM[:cut])


def test_a_stop_reason_without_message_stop_is_an_end() -> None:
    whole = shape(decode(STREAM))
    decoder = AnthropicDecoder("anthropic")
    assert not decoder.stopped
    decoder.feed(STREAM[: -len(STOP)])
    assert decoder.stopped
    assert not decoder.finished
    for cut in range(len(STOP) + 1):
        assert shape(decode(STREAM[: len(STREAM) - cut])) == whole
    assert shape(decode(STREAM[: -len(STOP)] + frame("ping") * 3)) == whole


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
        ("END_TURN", "stop"),
        (None, "stop"),
    ],
)
def test_stop_reasons(reason: str | None, finish: str) -> None:
    events = decode(START, start(0, type="text", text="a"), stop(0), stopped(reason), STOP)
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].finish_reason == finish
    assert items_of(events) == [Message("assistant", (OutputText("a"),))]


@pytest.mark.parametrize("last", [STOP, b""])
def test_every_other_stop_reason_is_an_error(last: bytes) -> None:
    half = [START, start(0, type="text", text="half "), stopped("something_new"), last]
    events, error = failing(*half)
    assert isinstance(error, ServerFailed)
    assert error.provider_code == "something_new"
    said = Message("assistant", (OutputText("half "),), unknown_end="something_new")
    assert items_of(events) == [said]  # kept and marked
    events, _ = failing(START, start(0, type="text", text="a"), stop(0), *half[2:])
    assert items_of(events) == [Message("assistant", (OutputText("a"),))]
    events, _ = failing(START, tool(0, "a", "look"), written(0, "{}"), stop(0), *half[2:])
    assert items_of(events) == []


def test_ends_of_other_servers_can_be_added() -> None:
    wire = AnthropicWire(ends={"something_new": "length"})
    decoder = wire.decoder(ModelRequest(items=[]))
    events = list(decoder.feed(START + stopped("something_new") + STOP))
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].finish_reason == "length"


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded", "refusal"])
@pytest.mark.parametrize("pieces", [[], [""], ['{"at":"Zü'], ['{"at"', ':"Zürich"']])
@pytest.mark.parametrize("ended", [True, False])
def test_a_truncated_call_is_never_finished(reason: str, pieces: list[str], ended: bool) -> None:
    stream = [START, tool(0, "toolu_a", "look"), *(written(0, piece) for piece in pieces)]
    events = decode(*stream, *([stop(0)] if ended else []), stopped(reason), STOP)
    assert items_of(events) == []


def test_invalid_arguments_that_the_model_has_finished_arrive_as_they_are() -> None:
    call = [START, tool(0, "a", "look"), written(0, '{"at": '), stop(0)]
    events = decode(*call, stopped("tool_use"), STOP)
    assert items_of(events) == [FunctionCall("a", "look", '{"at": ')]
    with pytest.raises(StreamIncomplete, match="in the middle of a call of 'look'"):
        decode(*call, STOP)  # there is no word that it is complete


@pytest.mark.parametrize("end", [[stopped("tool_use"), STOP], [STOP]])
def test_a_call_that_began_and_did_not_end_is_an_error(end: list[bytes]) -> None:
    events, error = failing(
        START, start(0, type="text", text="a"), tool(1, "a", "look"), written(1, '{"at": '), *end
    )
    assert isinstance(error, StreamIncomplete)
    assert "in the middle of a call of 'look'" in error.message
    assert items_of(events) == [Message("assistant", (OutputText("a"),))]
    whole = [START, tool(0, "a", "look"), written(0, "{}"), *end]
    assert items_of(decode(*whole)) == [FunctionCall("a", "look", "{}")]
    assert items_of(decode(START, tool(0, "a", "look"), *end)) == [FunctionCall("a", "look", "")]


def test_arguments_in_one_piece_at_the_start() -> None:
    events = decode(START, tool(0, "a", "look", input={"at": "x"}), stop(0), STOP)
    (call,) = items_of(events)
    assert isinstance(call, FunctionCall)
    assert json.loads(call.arguments) == {"at": "x"}
    again = decode(
        START, tool(0, "a", "look", input={"at": "x"}), written(0, '{"at":"x"}'), stop(0), STOP
    )
    assert items_of(again) == [FunctionCall("a", "look", '{"at":"x"}')]
    for empty in ({}, None, "", []):
        events = decode(START, tool(0, "a", "look", input=empty), stop(0), stopped("tool_use"))
        assert items_of(events) == [FunctionCall("a", "look", "")]


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


def test_a_response_that_is_not_streamed() -> None:
    search = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "b3BhcXVl"},
            {"type": "text", "text": "Grüße 😀"},
            search,
            {"type": "tool_use", "id": "toolu_b", "name": "now", "input": {}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }
    document = json.dumps(message).encode()
    for cut in range(0, len(document), 7):
        events = decode(document[:cut], document[cut:])
        *written_items, hosted, now = items_of(events)
        assert written_items == [THOUGHT, HIDDEN, WRITTEN]
        assert isinstance(hosted, ProviderItem)
        assert json.loads(bytes(hosted.raw)) == search
        assert now == NOW
        assert events[-1] == ResponseFinished("msg_1", "stop", Usage(5, 2, requests=1))
    with pytest.raises(ServerFailed):
        decode(b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}')
    with pytest.raises(StreamInvalid, match="neither"):
        decode(b'{"hello":"world"}')
    # Some gateways send all of it in the first event.
    begun = [frame("message_start", message=message), stopped("tool_use"), STOP]
    assert items_of(decode(*begun))[:3] == [THOUGHT, HIDDEN, WRITTEN]
    odd = {**message, "content": [{"type": "text", "text": "@"}]}
    cut_in_half = json.dumps(odd).replace("@", "a\\ud83d").encode()
    for body in (cut_in_half, b'data: {"type":"message_start","message":' + cut_in_half + b"}\n\n"):
        (said,) = items_of(decode(body, b"" if body is cut_in_half else STOP))
        assert said == Message("assistant", (OutputText("a\ufffd"),))


def test_what_comes_after_the_end_is_not_read() -> None:
    assert shape(decode(STREAM + b"data: nonsense\n\n")) == shape(decode(STREAM))


def test_usage_that_is_left_out() -> None:
    events = decode(frame("message_start", message={"id": "m"}), stopped(None), stopped("end_turn"))
    assert events == [ResponseFinished("m", "stop", Usage(output_tokens=9, requests=1))]
    with pytest.raises(StreamIncomplete, match="without an answer"):
        decode(frame("message_start", message={"id": "m"}), STOP)


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 0, "output_tokens": 40.0, "cache_read_input_tokens": None},
        {"input_tokens": None, "output_tokens": "40"},
        {"input_tokens": -1, "output_tokens": 40, "output_tokens_details": "none"},
    ],
)
def test_an_empty_count_never_replaces_another(usage: dict[str, object]) -> None:
    last = frame("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)
    end = decode(START, last, STOP)[-1]
    assert isinstance(end, ResponseFinished)
    assert end.usage == Usage(125, 40, 100, requests=1, cache_write_tokens=20)
    end = decode(START, last, frame("message_delta", delta={}, usage="none"), STOP)[-1]
    assert isinstance(end, ResponseFinished)
    assert end.usage.output_tokens == 40


@pytest.mark.parametrize(
    "odd",
    [
        [frame("message_start", message=None)],
        [frame("message_start", message={"id": 7, "usage": "many", "content": "none"})],
        [frame("message_start")],
        [start(9, type="text", text=None), stop(9)],
        [start(9, type="thinking", thinking=None, signature=None), stop(9)],
        [delta(9, "text_delta", text=None)],
        [delta(9, "thinking_delta", thinking=None)],
        [delta(9, "signature_delta", signature="")],
        [delta(9, "input_json_delta", partial_json=None)],
        [written(9, " ")],
        [frame("content_block_stop"), frame("content_block_stop", index="x")],
        [b"event: ping\ndata: ping\n\n", b"data:\n\n", b"data: null\n\n"],
        [frame("message_delta", delta=None), frame("message_delta", delta={"stop_details": 7})],
        [frame("message_delta", delta={"stop_reason": ""})],
    ],
)
def test_fields_that_do_not_matter_destroy_no_answer(odd: list[bytes]) -> None:
    items = items_of(decode(*odd, STREAM))
    assert [item for item in items if item != Reasoning(provider="anthropic")][-5:] == [
        THOUGHT,
        HIDDEN,
        SAID,
        LOOK,
        NOW,
    ]


def test_odd_types_of_fields_that_matter_are_read() -> None:
    events = decode(
        frame("content_block_start", index="0", content_block={"type": "text", "text": ""}),
        frame("content_block_delta", index=0.0, delta={"type": "text_delta", "text": "a"}),
        frame("content_block_delta", index=None, delta={"text": "b"}),
        frame("content_block_delta", delta={"type": "text_delta", "text": "c"}),
        frame("content_block_stop", index=None),
        frame(
            "content_block_start",
            index=1,
            content_block={"type": "tool_use", "id": 7, "name": "look", "input": {}},
        ),
        frame("content_block_delta", delta={"partial_json": "{}"}, index=1),
        stopped("tool_use"),
    )
    assert items_of(events) == [
        Message("assistant", (OutputText("abc"),)),
        FunctionCall("7", "look", "{}"),
    ]


HIGH, LOW = "\\ud83d", "\\ude00"


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
@pytest.mark.parametrize("kind", ["text", "thinking", "input_json"])
def test_halves_of_a_character_are_joined(kind: str, pieces: list[str], wanted: str) -> None:
    blocks = {
        "text": start(0, type="text", text=""),
        "thinking": start(0, type="thinking", thinking="", signature=""),
        "input_json": tool(0, "a", "look"),
    }
    field = "partial_json" if kind == "input_json" else kind
    if kind == "input_json":
        pieces = ['{\\"at\\":\\"', *pieces, '\\"}']
        wanted = f'{{"at":"{wanted}"}}'
    stream = [blocks[kind]]
    for piece in pieces:
        change = f'{{"type":"{kind}_delta","{field}":"{piece}"}}'
        data = f'{{"type":"content_block_delta","index":0,"delta":{change}}}'
        stream.append(f"event: content_block_delta\ndata: {data}\n\n".encode())
    events = decode(*stream, stop(0), stopped("end_turn"))
    (item,) = items_of(events)
    assert (item.arguments if isinstance(item, FunctionCall) else item.text) == wanted  # type: ignore[union-attr]
    assert deltas_of(events) == wanted


def test_halves_of_a_character_in_whole_blocks() -> None:
    text_block = start(0, type="text", text="a@b").replace(b"@", b"\\ud83d")
    search = start(1, type="server_tool_use", id="@", input={}).replace(b"@", b"\\ud83d")
    said, hosted = items_of(decode(text_block, stop(0), search, stop(1), stopped("end_turn")))
    assert said == Message("assistant", (OutputText("a\ufffdb"),))
    assert isinstance(hosted, ProviderItem)
    assert json.loads(bytes(hosted.raw))["id"] == "\ufffd"


def test_invalid_utf8_becomes_the_replacement_character() -> None:
    text_block = start(0, type="text", text="a@").replace(b"@", b"\xff")
    search = start(1, type="server_tool_use", id="@", input={}).replace(b"@", b"\xff")
    said, hosted = items_of(decode(text_block, stop(0), search, stop(1), stopped("end_turn")))
    assert said == Message("assistant", (OutputText("a\ufffd"),))
    assert isinstance(hosted, ProviderItem)
    assert json.loads(bytes(hosted.raw))["id"] == "\ufffd"


def test_a_delta_without_an_index_belongs_to_the_newest_block() -> None:
    events = decode(
        start(0, type="text", text="a"),
        start(1, type="text", text="b"),
        frame("content_block_delta", delta={"type": "text_delta", "text": "c"}),
        stopped("end_turn"),
    )
    assert [item.text for item in items_of(events) if isinstance(item, Message)] == ["a", "bc"]


def test_citations_stay_with_their_text() -> None:
    first, second = {"cited_text": "a"}, {"cited_text": "b"}
    events = decode(
        start(0, type="text", text="A", citations=[first]),
        delta(0, "citations_delta", citation=second),
        stop(0),
        start(1, type="text", text="B"),
        stop(1),
        stopped("end_turn"),
    )
    cited, other = items_of(events)
    assert isinstance(cited, Message)
    assert isinstance(other, Message)
    assert cited.provider_fields == ProviderFields("anthropic", {"citations": [first, second]})
    assert other.provider_fields is None


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
        frame("content_block_delta", index=0, delta={"type": 7}),
        frame("content_block_delta", index=0, delta={"stop": 7}),
        start(0, text="a"),
        frame("content_block_start", index=0, content_block="text"),
        b'event: content_block_delta\ndata: {"index":"0" x}\n\n',
        b'event: message_start\ndata: {"z":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n",
        b'data: {"z":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n",
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
    events, error = failing(START + text(8, "a") + garbage + STREAM)
    assert isinstance(error, StreamInvalid)
    assert [event.delta for event in events if isinstance(event, TextDelta)] == ["a"]


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
    ],
)
def test_errors_inside_the_stream(error: dict[str, str], kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        decode(START, text(0, "a"), frame("error", error=error, request_id="req_1"))
    assert caught.value.provider_code == error.get("type")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (frame("error"), BadRequest),
        (b"event: error\ndata: It broke.\n\n", BadRequest),
        (b'data: {"error":{"code":503,"message":"m"}}\n\n', ServerFailed),
        (b'data: {"type":"odd","error":"It broke."}\n\n', BadRequest),
        (frame("api_error", message="m", code=503), ServerFailed),
    ],
)
def test_errors_of_other_shapes(error: bytes, kind: type[Exception]) -> None:
    events, raised = failing(START + text(0, "a") + error)
    assert type(raised) is kind
    assert deltas_of(events) == "a"


# What gateways leave out.

Gateway = dict[str, bool]


def _as_sent(response: list[tuple[str, list[str]]], index: str, gateway: Gateway) -> list[bytes]:
    frames = [START]
    for number, (kind, pieces) in enumerate(response):
        place = {"own": number, "gaps": number * 3 + 1, "zero": 0}.get(index)
        at = {} if place is None else {"index": place}
        blocks: dict[str, dict[str, object]] = {
            "text": {"type": "text", "text": ""},
            "thinking": {"type": "thinking", "thinking": "", "signature": ""},
            "tool": {"type": "tool_use", "id": f"toolu_{number}", "name": "look", "input": {}},
        }
        block = blocks[kind]
        field = {"tool": "input"}.get(kind, kind)
        whole = "".join(pieces)
        if gateway["whole"]:
            block[field] = json.loads(whole) if kind == "tool" else whole
        frames.append(frame("content_block_start", content_block=block, **at))
        if not gateway["whole"]:
            name = {"tool": "input_json"}.get(kind, kind)
            field = {"tool": "partial_json"}.get(kind, kind)
            frames += [
                frame("content_block_delta", delta={"type": f"{name}_delta", field: piece}, **at)
                for piece in pieces
            ]
        if kind == "thinking":
            signed = {"type": "signature_delta", "signature": f"s{number}"}
            frames.append(frame("content_block_delta", delta=signed, **at))
        if gateway["stops"]:
            frames.append(frame("content_block_stop", **at))
    frames.append(stopped("end_turn"))
    if gateway["ends"]:
        frames.append(STOP)
    if not gateway["names"]:
        frames = [one.partition(b"\n")[2] for one in frames]
    return frames


gateways = st.fixed_dictionaries(
    {name: st.booleans() for name in ("whole", "stops", "ends", "names")}
)


@given(
    st.lists(blocks, max_size=6),
    st.sampled_from(["own", "gaps", "zero", "none"]),
    gateways,
    st.lists(st.integers(0, 4000), max_size=10),
)
def test_any_response_of_any_gateway(
    response: list[tuple[str, list[str]]], index: str, gateway: Gateway, cuts: list[int]
) -> None:
    stream = b"".join(_as_sent(response, index, gateway))
    events = decode(stream)
    expected = [(kind, "".join(pieces)) for kind, pieces in response]
    assert [_content(item) for item in items_of(events)] == [
        (kind, json.loads(whole) if kind == "tool" else whole) for kind, whole in expected
    ]
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert shape(decode(*pieces)) == shape(events)


def _content(item: Item) -> tuple[str, object]:
    match item:
        case Message():
            return "text", item.text
        case Reasoning():
            assert item.encrypted_content is not None
            return "thinking", item.text
        case FunctionCall():
            return "tool", json.loads(item.arguments or "{}")
        case _:
            raise AssertionError(item)


@given(st.lists(blocks, max_size=4), gateways, st.data())
def test_an_error_in_any_place_comes_after_what_was_read(
    response: list[tuple[str, list[str]]], gateway: Gateway, data: st.DataObject
) -> None:
    frames = _as_sent(response, "own", gateway)
    place = data.draw(st.integers(0, len(frames) - 1))
    bad = data.draw(
        st.sampled_from([frame("error", error={"message": "It broke."}), b"data: {not\n\n"])
    )
    broken = b"".join([*frames[:place], bad, *frames[place:]])
    cuts = data.draw(st.lists(st.integers(0, len(broken)), max_size=10))
    events, error = failing(broken)
    edges = [0, *sorted(cuts), len(broken)]
    again, same = failing(*(broken[a:b] for a, b in itertools.pairwise(edges)))
    assert shape(again) == shape(events)
    assert repr(same) == repr(error)


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
