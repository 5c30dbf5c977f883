"""Bytes of the Responses API in, model events out; the result must not depend on the cuts."""

import itertools
import json
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.events import ReasoningDelta, RefusalDelta, TextDelta, ToolArgumentsDelta
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    Refusal,
    SummaryText,
    message,
    user_message,
)
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.domain.usage import Usage
from treadle.errors import (
    BadRequest,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
    StreamIncomplete,
    StreamInvalid,
)
from treadle.models.base import ModelRequest, ModelSettings, NamedTool
from treadle.models.wire.responses import ResponsesDecoder, ResponsesWire
from treadle.models.wire.responses_request import encode_request
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent


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


def arguments(delta: str, index: int) -> bytes:
    return frame(
        "response.function_call_arguments.delta",
        item_id=f"fc_{index}",
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
SAID = {
    "type": "message",
    "id": "msg_1",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Grüße 😀", "annotations": []}],
}
LOOK = {
    "type": "function_call",
    "id": "fc_2",
    "call_id": "call_a",
    "name": "look",
    "arguments": '{"at":"Zürich"}',
    "status": "completed",
}


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
ITEMS: list[Item] = [
    Reasoning(
        id="rs_1",
        summary=(SummaryText("A"), SummaryText("B")),
        encrypted_content="xyz",
        provider="openai",
    ),
    Message("assistant", (OutputText("Grüße 😀"),), "msg_1"),
    FunctionCall("call_a", "look", '{"at":"Zürich"}', "fc_2"),
]


def decode(*chunks: bytes, used_call_ids: tuple[str, ...] = ()) -> list[StreamEvent]:
    decoder = ResponsesDecoder("openai", used_call_ids)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [*events, *decoder.end()]


def items_of(events: list[StreamEvent]) -> list[Item]:
    return [event.item for event in events if isinstance(event, ItemFinished)]


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
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
    assert decode(*chunks) == decode(STREAM)


def test_every_proper_prefix_is_incomplete() -> None:
    last = STREAM.rindex(b"event:")
    for cut in range(last + 1):
        with pytest.raises(StreamIncomplete):
            decode(STREAM[:cut])


def test_a_call_is_finished_before_the_response_ends() -> None:
    decoder = ResponsesDecoder("openai")
    before_end = STREAM[: STREAM.index(b"event: response.something.new")]
    assert items_of(decoder.feed(before_end))[-1] == ITEMS[-1]
    assert not decoder.finished


def test_frames_without_event_names_and_a_done_marker() -> None:
    bare = b"".join(line + b"\n\n" for line in STREAM.split(b"\n") if line.startswith(b"data:"))
    assert decode(bare + b"data: [DONE]\n\n") == decode(STREAM)


def test_events_nobody_knows_are_ignored() -> None:
    noise = b'data: {"type":"x.y","z":1}\n\ndata: {"no":"type"}\n\ndata: [1]\n\n'
    assert decode(noise + STREAM) == decode(STREAM)


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {not json\n\n",
        b"event: response.completed\ndata: <html>\n\n",
        frame("response.output_text.delta", delta=7, output_index=0),
        b"data: \xff\xfe\n\n",
        b'data: {"type":"error","message":"\xff"}\n\n',
    ],
)
def test_garbage_is_an_error(garbage: bytes) -> None:
    with pytest.raises(StreamInvalid):
        decode(garbage + STREAM)


def test_a_cut_last_frame_is_incomplete_rather_than_garbage() -> None:
    with pytest.raises(StreamIncomplete):
        decode(text("a") + b'data: {"type":"response.comp')


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
    again = encode_request("gpt-5", ModelRequest(items=[item]))
    assert json.loads(again.body)["input"] == [search]
    elsewhere = encode_request("m", ModelRequest(items=[ProviderItem("anthropic", item.raw)]))
    assert "web_search" not in elsewhere.body.decode()


@pytest.mark.parametrize(
    ("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter")]
)
def test_a_truncated_call_is_never_finished(reason: str, finish: str) -> None:
    cut_off = {**LOOK, "arguments": '{"at":"Zü', "status": "incomplete"}
    stream = [
        text("a"),
        added(2, type="function_call", id="fc_2", call_id="call_a", name="look"),
        arguments('{"at":"Zü', 2),
    ]
    end = frame(
        "response.incomplete",
        response={"id": "resp_1", "incomplete_details": {"reason": reason}},
    )
    for frames in (stream, [*stream, done(2, **cut_off)]):
        events = decode(*frames, end)
        assert items_of(events) == [Message("assistant", (OutputText("a"),), "msg_1")]
        assert events[-1] == ResponseFinished("resp_1", finish, Usage(requests=1))  # type: ignore[arg-type]


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
        (frame("response.failed", response={"id": "x"}), BadRequest, None),
        (frame("error", code="503", message="m"), ServerFailed, "503"),
    ],
)
def test_errors_inside_the_stream(stream: bytes, kind: type[Exception], code: str | None) -> None:
    with pytest.raises(kind) as caught:
        decode(stream)
    assert caught.value.provider_code == code  # type: ignore[attr-defined]


TOOL = ToolSchema("look", "Looks.", {"type": "object", "properties": {}}, strict=True)


def sent(**options: object) -> dict[str, object]:
    items = options.pop("items", [user_message("hi")])
    model = str(options.pop("model", "gpt-4o"))
    return json.loads(encode_request(model, ModelRequest(items=items, **options)).body)  # type: ignore[arg-type]


def test_a_plain_request() -> None:
    assert sent(instructions="Be brief.") == {
        "model": "gpt-4o",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        ],
        "stream": True,
        "store": False,
        "instructions": "Be brief.",
    }


def test_all_settings() -> None:
    body = sent(
        tools=(TOOL,),
        output=OutputSchema("Answer", {"type": "object"}, strict=True),
        settings=ModelSettings(
            tool_choice=NamedTool("look"),
            parallel_tool_calls=False,
            temperature=0.5,
            top_p=0.9,
            max_output_tokens=100,
            reasoning_effort="low",
            extra_body={"service_tier": "flex", "store": True},
        ),
    )
    del body["input"]
    assert body == {
        "model": "gpt-4o",
        "stream": True,
        "store": True,
        "tools": [
            {
                "type": "function",
                "name": "look",
                "description": "Looks.",
                "parameters": {"type": "object", "properties": {}},
                "strict": True,
            }
        ],
        "tool_choice": {"type": "function", "name": "look"},
        "parallel_tool_calls": False,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 100,
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
        "text": {
            "format": {
                "type": "json_schema",
                "name": "Answer",
                "schema": {"type": "object"},
                "strict": True,
            }
        },
        "service_tier": "flex",
    }
    required = ModelSettings(tool_choice="required")
    assert sent(settings=required, tools=(TOOL,))["tool_choice"] == "required"


def test_reasoning_models_are_asked_for_what_can_be_sent_back() -> None:
    assert sent(model="gpt-5-mini")["include"] == ["reasoning.encrypted_content"]
    assert "include" not in sent(model="gpt-4o")


def test_history_goes_back_in_the_form_the_api_takes() -> None:
    history: list[Item] = [
        message("developer", "be kind"),
        user_message([InputText("see"), InputImage("https://x/y.png")]),
        *ITEMS,
        FunctionCallOutput("call_a", "fine"),
        Reasoning(id="rs_9", provider="openai"),
        Reasoning(id="rs_8", encrypted_content="x", provider="anthropic"),
        FunctionCall("call_b", "draw", "{}"),
        FunctionCallOutput(
            "call_b", (InputText("t"), InputImage("data:image/png;base64,iVBORw0KGgo="))
        ),
        Message("assistant", (Refusal("No."),), "m"),
    ]
    assert sent(items=history)["input"] == [
        {"type": "message", "role": "developer", "content": [_in("be kind")]},
        {
            "type": "message",
            "role": "user",
            "content": [
                _in("see"),
                {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [
                {"type": "summary_text", "text": "A"},
                {"type": "summary_text", "text": "B"},
            ],
            "encrypted_content": "xyz",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Grüße 😀"}],
            "id": "msg_1",
            "status": "completed",
        },
        {
            "type": "function_call",
            "call_id": "call_a",
            "name": "look",
            "arguments": '{"at":"Zürich"}',
        },
        {"type": "function_call_output", "call_id": "call_a", "output": "fine"},
        {"type": "function_call", "call_id": "call_b", "name": "draw", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "call_b",
            "output": [
                _in("t"),
                {
                    "type": "input_image",
                    "image_url": "data:image/png;base64,iVBORw0KGgo=",
                    "detail": "auto",
                },
            ],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": "No."}],
        },
    ]


def _in(text: str) -> dict[str, str]:
    return {"type": "input_text", "text": text}


def test_the_wire_authorises_only_with_a_key() -> None:
    wire = ResponsesWire()
    assert wire.headers("k") == {"Authorization": "Bearer k"}
    assert wire.headers("") == {}
    request = ModelRequest(items=[FunctionCall("call_a", "look", "{}")])
    decoder = wire.decoder(request)
    call = [e for e in _feed(decoder, STREAM) if isinstance(e, ItemFinished)][-1].item
    assert isinstance(call, FunctionCall)
    assert call.call_id != "call_a"


def _feed(decoder: object, stream: bytes) -> Iterator[StreamEvent]:
    yield from decoder.feed(stream)  # type: ignore[attr-defined]
