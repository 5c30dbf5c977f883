"""Bytes of Chat Completions in, model events out; with the quirks of compatible servers."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.events import RefusalDelta, TextDelta, ToolArgumentsDelta, ToolCallStarted
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    Refusal,
    message,
    user_message,
)
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.domain.usage import Usage
from treadle.errors import BadRequest, ServerFailed, StreamIncomplete, StreamInvalid
from treadle.models.base import ModelRequest, ModelSettings, NamedTool
from treadle.models.wire.chat import ChatDecoder, ChatWire
from treadle.models.wire.chat_request import ChatOptions, encode_request
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent


def chunk(delta: object = None, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    body = {"id": "cmpl_1", "object": "chat.completion.chunk", "choices": [choice], **more}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def calls(*tool_calls: object) -> bytes:
    return chunk({"tool_calls": list(tool_calls)})


def call(index: int | None = None, id: str | None = None, **function: object) -> dict[str, object]:
    found: dict[str, object] = {"function": function}
    if index is not None:
        found["index"] = index
    if id is not None:
        found["id"] = id
    return found


DONE = b"data: [DONE]\n\n"
USAGE = chunk(
    choices=[],
    usage={
        "prompt_tokens": 10,
        "completion_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    },
)
STREAM = b"".join(
    [
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "hm "}),
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "Grü"}),
        chunk({"content": "ße 😀"}),
        calls(call(0, "a", name="look", arguments="")),
        calls(call(0, arguments='{"at":')),
        calls(call(1, "b", name="draw", arguments="")),
        calls(call(1, arguments='{"it": "\\u00e')),
        calls(call(0, arguments=' "Zürich"}')),
        calls(call(1, arguments='9"}')),
        chunk(finish="tool_calls"),
        USAGE,
        DONE,
    ]
)
LOOK = FunctionCall("a", "look", '{"at": "Zürich"}')
DRAW = FunctionCall("b", "draw", '{"it": "\\u00e9"}')


def decode(*chunks: bytes, used_call_ids: tuple[str, ...] = ()) -> list[StreamEvent]:
    decoder = ChatDecoder("chat", used_call_ids)
    events = [event for piece in chunks for event in decoder.feed(piece)]
    return events + decoder.end()


def items_of(events: list[StreamEvent]) -> list[Item]:
    """The finished items in response order, without their ids, which are made up."""
    finished = [event for event in events if isinstance(event, ItemFinished)]
    return [bare(event.item) for event in sorted(finished, key=lambda event: event.index)]


def bare(item: Item) -> Item:
    match item:
        case FunctionCall():
            return FunctionCall(item.call_id, item.name, item.arguments)
        case Message():
            return Message(item.role, item.content)
        case Reasoning():
            return Reasoning(content=item.content, provider=item.provider)
        case _:
            return item


def called(*chunks: bytes) -> list[tuple[str, str]]:
    items = items_of(decode(*chunks))
    return [(item.name, item.arguments) for item in items if isinstance(item, FunctionCall)]


def shape(events: list[StreamEvent]) -> list[object]:
    """Events with made-up ids replaced by their order of appearance."""
    names: dict[str, int] = {}
    text = repr(events)
    import re

    return re.split(
        r"(?<=\)), ",
        re.sub(
            r"(msg|rs|fc|call)_[0-9a-z]{26}",
            lambda found: f"{found[1]}#{names.setdefault(found[0], len(names))}",
            text,
        ),
    )


def test_a_whole_response() -> None:
    events = decode(STREAM)
    assert items_of(events) == [
        Reasoning(content=(ReasoningText("hm hm"),), provider="chat"),
        Message("assistant", (OutputText("Grüße 😀"),)),
        LOOK,
        DRAW,
    ]
    assert events[-1] == ResponseFinished("cmpl_1", "stop", Usage(10, 6, 4, 2, 1))


def test_a_call_is_finished_as_soon_as_its_arguments_close() -> None:
    decoder = ChatDecoder("chat")
    before = STREAM[: STREAM.index(b'9\\"}')]
    items = [e.item for e in decoder.feed(before) if isinstance(e, ItemFinished)]
    assert [bare(item) for item in items] == [LOOK]


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


def test_every_prefix_before_the_finish_is_incomplete() -> None:
    end = STREAM.index(b'tool_calls"}')
    for cut in range(0, end, 7):
        with pytest.raises(StreamIncomplete):
            decode(STREAM[:cut])


@pytest.mark.parametrize(
    "ending",
    [
        [chunk(finish="stop")],
        [DONE],
        [b"data: [DONE]"],
        [chunk(finish="stop"), USAGE],
        [chunk(finish="stop"), chunk({"content": "again"}), DONE],
        [DONE + chunk({"content": "again"})],
        [DONE, chunk({"content": "again"})],
        [b'data: {"choices": [{"finish_reason": "stop"}]}\n\n'],
    ],
)
def test_either_terminal_mark_is_enough(ending: list[bytes]) -> None:
    events = decode(chunk({"content": "hi"}), *ending)
    assert items_of(events) == [Message("assistant", (OutputText("hi"),))]
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].usage.requests == 1


@pytest.mark.parametrize(
    "chunks",
    [
        # whole arguments in one chunk, as Ollama and Gemini send them
        [calls(call(0, "x", name="a", arguments='{"n":1}'))],
        # as an object
        [calls(call(0, "x", name="a", arguments={"n": 1}))],
        # the id and the name repeated in every chunk
        [
            calls(call(0, "x", name="a", arguments='{"n"')),
            calls(call(0, "x", name="a", arguments=":1}")),
        ],
        # an empty id afterwards
        [calls(call(0, "x", name="a", arguments='{"n"')), calls(call(0, "", arguments=":1}"))],
        # neither index nor id
        [calls(call(name="a", arguments='{"n"')), calls(call(arguments=":1}"))],
        # no index, the id repeated
        [
            calls(call(id="x", name="a", arguments='{"n"')),
            calls(call(id="x", arguments=":1}")),
        ],
        # white space after the end
        [calls(call(0, "x", name="a", arguments='{"n":1}')), calls(call(0, arguments=" \n"))],
    ],
)
def test_one_call_in_many_dialects(chunks: list[bytes]) -> None:
    (found,) = called(*chunks, chunk(finish="stop"), DONE)
    assert (found[0], json.loads(found[1])) == ("a", {"n": 1})


@pytest.mark.parametrize(
    "chunks",
    [
        # two calls in one chunk
        [
            calls(
                call(0, "x", name="a", arguments='{"n":1}'),
                call(1, "y", name="b", arguments='{"n":2}'),
            )
        ],
        # the same index for both
        [
            calls(call(0, "x", name="a", arguments='{"n":1}')),
            calls(call(0, "y", name="b", arguments='{"n":2}')),
        ],
        # no index at all
        [
            calls(call(id="x", name="a", arguments='{"n":1}')),
            calls(call(id="y", name="b", arguments='{"n":2}')),
        ],
        # neither index nor id
        [
            calls(call(name="a", arguments='{"n":1}')),
            calls(call(name="b", arguments='{"n":2}')),
        ],
        # the same id for both
        [
            calls(call(0, "x", name="a", arguments='{"n":1}')),
            calls(call(1, "x", name="b", arguments='{"n":2}')),
        ],
        # no ids
        [
            calls(call(0, name="a", arguments='{"n":1}')),
            calls(call(1, name="b", arguments='{"n":2}')),
        ],
    ],
)
def test_two_calls_in_many_dialects(chunks: list[bytes]) -> None:
    events = decode(*chunks, chunk(finish="tool_calls"), DONE)
    items = [item for item in items_of(events) if isinstance(item, FunctionCall)]
    assert [(i.name, i.arguments) for i in items] == [("a", '{"n":1}'), ("b", '{"n":2}')]
    assert len({item.call_id for item in items}) == 2
    started = [event.call_id for event in events if isinstance(event, ToolCallStarted)]
    assert started == [item.call_id for item in items]


def test_an_empty_object_waits_for_what_may_follow() -> None:
    assert called(
        calls(call(0, "x", name="a", arguments="{}")), chunk(finish="tool_calls"), DONE
    ) == [("a", "{}")]
    assert called(calls(call(0, "x", name="a")), chunk(finish="tool_calls"), DONE) == [("a", "")]


def test_arguments_after_their_end_are_an_error() -> None:
    with pytest.raises(StreamInvalid):
        called(calls(call(0, "x", name="a", arguments='{"n":1}')), calls(call(0, arguments="{")))


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("length", "length"), ("max_tokens", "length"), ("content_filter", "content_filter")],
)
def test_a_truncated_call_is_never_finished(finish: str, reason: str) -> None:
    events = decode(
        chunk({"content": "a"}),
        calls(call(0, "x", name="a", arguments='{"n":1}')),
        calls(call(1, "y", name="b", arguments='{"n":')),
        chunk(finish=finish),
        DONE,
    )
    names = [item.name for item in items_of(events) if isinstance(item, FunctionCall)]
    assert names == ["a"]
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].finish_reason == reason


def test_other_dialects_of_text() -> None:
    events = decode(
        chunk({"reasoning": "hm"}),
        chunk(
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "!"}]},
                    {"type": "text", "text": "hi"},
                ]
            }
        ),
        chunk({"refusal": "No."}),
        b'data: {"choices": null}\n\n',
        b'data: {"choices": [{"index": 1, "delta": {"content": "other"}}]}\n\n',
        b": keep-alive\n\n",
        chunk(finish="stop"),
        DONE,
    )
    assert items_of(events) == [
        Reasoning(content=(ReasoningText("hm!"),), provider="chat"),
        Message("assistant", (OutputText("hi"), Refusal("No."))),
    ]
    assert [type(e) for e in events if isinstance(e, TextDelta | RefusalDelta)] == [
        TextDelta,
        RefusalDelta,
    ]


@pytest.mark.parametrize("garbage", [b"data: {nope\n\n", b"data: []\n\n", b"data: \xff\n\n"])
def test_garbage_is_an_error(garbage: bytes) -> None:
    with pytest.raises(StreamInvalid):
        decode(garbage + STREAM)


def test_a_cut_last_chunk_is_incomplete_rather_than_garbage() -> None:
    with pytest.raises(StreamIncomplete):
        decode(chunk({"content": "a"}) + b'data: {"choices": [')


def test_errors_inside_the_stream() -> None:
    with pytest.raises(ServerFailed, match="busy"):
        decode(b'data: {"error": {"message": "busy", "code": 503}}\n\n')
    with pytest.raises(BadRequest, match="wrong"):
        decode(b'data: {"error": "wrong"}\n\n')


def test_arguments_stream_as_they_come() -> None:
    deltas = [e.delta for e in decode(STREAM) if isinstance(e, ToolArgumentsDelta)]
    assert deltas == ['{"at":', '{"it": "\\u00e', ' "Zürich"}', '9"}']


TOOL = ToolSchema("look", "Looks.", {"type": "object"}, strict=False)


def sent(**options: object) -> dict[str, object]:
    items = options.pop("items", [user_message("hi")])
    chat = ChatOptions(max_tokens_field=str(options.pop("field", "max_tokens")))
    request = ModelRequest(items=items, **options)  # type: ignore[arg-type]
    return json.loads(encode_request("m", request, chat).body)


def test_a_plain_request() -> None:
    assert sent(instructions="Be brief.") == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_all_settings() -> None:
    body = sent(
        tools=(TOOL,),
        field="max_completion_tokens",
        output=OutputSchema("Answer", {"type": "object"}, strict=True),
        settings=ModelSettings(
            tool_choice=NamedTool("look"),
            parallel_tool_calls=True,
            temperature=0.0,
            top_p=1.0,
            max_output_tokens=9,
            reasoning_effort="high",
            extra_body={"seed": 1},
        ),
    )
    del body["messages"]
    assert body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Looks.",
                    "parameters": {"type": "object", "properties": {}},
                    "strict": False,
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "parallel_tool_calls": True,
        "temperature": 0.0,
        "top_p": 1.0,
        "max_completion_tokens": 9,
        "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "Answer", "schema": {"type": "object"}, "strict": True},
        },
        "seed": 1,
    }
    none = ModelSettings(tool_choice="none")
    assert sent(settings=none, tools=(TOOL,))["tool_choice"] == "none"


def test_history_becomes_messages() -> None:
    image = InputImage("https://x/y.png")
    history: list[Item] = [
        message("developer", "be kind"),
        user_message([InputText("see"), image]),
        Reasoning(id="r"),
        message("assistant", "looking"),
        FunctionCall("a", "look", '{"n":1}'),
        FunctionCall("b", "draw", ""),
        FunctionCallOutput("a", "fine"),
        FunctionCallOutput("b", (image,)),
        Message("assistant", (Refusal("No."),)),
        message("assistant", "or yes"),
        FunctionCall("c", "draw", "{}"),
        FunctionCallOutput("c", (InputText("t"), image)),
    ]
    picture = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "auto"}}
    assert sent(items=history)["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "see"}, picture]},
        {
            "role": "assistant",
            "content": "looking",
            "tool_calls": [_sent_call("a", "look", '{"n":1}'), _sent_call("b", "draw", "{}")],
        },
        {"role": "tool", "tool_call_id": "a", "content": "fine"},
        {"role": "tool", "tool_call_id": "b", "content": "The images are in the next message."},
        {"role": "user", "content": [picture]},
        {
            "role": "assistant",
            "content": "No.\n\nor yes",
            "tool_calls": [_sent_call("c", "draw", "{}")],
        },
        {"role": "tool", "tool_call_id": "c", "content": "t"},
        {"role": "user", "content": [picture]},
    ]


def _sent_call(id: str, name: str, arguments: str) -> dict[str, object]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_the_wire() -> None:
    wire = ChatWire(ChatOptions(provider="groq"))
    assert wire.provider == "groq"
    assert wire.headers("k") == {"Authorization": "Bearer k"}
    assert wire.headers("") == {}
    body = json.loads(wire.encode("m", ModelRequest(items=[user_message("hi")])).body)
    assert body["model"] == "m"
    assert not wire.decoder(ModelRequest(items=[LOOK])).finished


def test_call_ids_of_earlier_steps_are_not_used_again() -> None:
    (first, second) = [
        item
        for item in items_of(decode(STREAM, used_call_ids=("a",)))
        if isinstance(item, FunctionCall)
    ]
    assert first.call_id != "a"
    assert second.call_id == "b"
