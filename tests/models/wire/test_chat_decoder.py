"""Bytes of Chat Completions in, model events out; with the quirks of compatible servers."""

import itertools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.events import RefusalDelta, TextDelta, ToolArgumentsDelta, ToolCallStarted
from treadle.domain.items import (
    FunctionCall,
    Item,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    Refusal,
)
from treadle.domain.usage import Usage
from treadle.errors import (
    BadRequest,
    ContextOverflow,
    ModelError,
    RateLimited,
    ServerFailed,
    StreamIncomplete,
    StreamInvalid,
)
from treadle.models.wire.chat_decoder import ChatDecoder
from treadle.models.wire.ends import CHAT_ENDS, extended
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
    return [*events, *decoder.end()]


def items_of(events: list[StreamEvent]) -> list[Item]:
    """The finished items in response order, without their ids, which are made up."""
    finished = [event for event in events if isinstance(event, ItemFinished)]
    return [bare(event.item) for event in sorted(finished, key=lambda event: event.index)]


def bare(item: Item) -> Item:
    match item:
        case FunctionCall():
            return FunctionCall(item.call_id, item.name, item.arguments)
        case Message():
            return Message(item.role, item.content, unknown_end=item.unknown_end)
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


def test_call_ids_of_earlier_steps_are_not_used_again() -> None:
    (first, second) = [
        item
        for item in items_of(decode(STREAM, used_call_ids=("a",)))
        if isinstance(item, FunctionCall)
    ]
    assert first.call_id != "a"
    assert second.call_id == "b"


def outcome(*chunks: bytes, **options: object) -> tuple[list[object], str]:
    """The shape of all events, and the error that came after them with its message."""
    decoder = ChatDecoder("chat", **options)  # type: ignore[arg-type]
    events: list[StreamEvent] = []
    try:
        for piece in chunks:
            events += decoder.feed(piece)  # what comes before an error is added one by one
            if decoder.finished:
                return shape(events), ""
        events += decoder.end()
    except ModelError as error:
        return shape(events), f"{error.code}: {error.message}"
    return shape(events), ""


FRAMES = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "hm"}),
    chunk({"content": "Grüße "}),
    chunk({"content": "😀"}),
    calls(call(0, "a", name="look", arguments='{"at": "Z"}')),
    chunk(finish="tool_calls"),
    USAGE,
    DONE,
]
BAD_FRAMES = [
    b'data: {"error": {"message": "busy", "code": 503}}\n\n',
    b"data: {nope\n\n",
    b'data: {"zzz":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n",
    b'error: {"message": "busy"}\n\n',
    b'{"error": "busy"}\n\n',
    b"event: error\ndata: busy\n\n",
]


@pytest.mark.parametrize("bad", BAD_FRAMES)
@pytest.mark.parametrize("place", range(1, len(FRAMES)))
def test_an_error_frame_hides_nothing_that_came_before_it(bad: bytes, place: int) -> None:
    stream = b"".join([*FRAMES[:place], bad, *FRAMES[place:]])
    before = b"".join(FRAMES[:place])
    events, error = outcome(stream)
    seen = ChatDecoder("chat")
    assert events == shape(list(seen.feed(before)))
    assert error
    step = 1 if len(stream) < 4000 else len(stream) // 40
    for cut in range(0, len(stream), step):
        assert outcome(stream[:cut], stream[cut:]) == (events, error)
    if len(stream) < 4000:
        assert outcome(*(stream[i : i + 1] for i in range(len(stream)))) == (events, error)


def test_an_event_beyond_the_limit_hides_nothing_that_came_before_it() -> None:
    stream = FRAMES[2] + b"data: " + b"x" * (16 * 1024 * 1024 + 1) + b"\n\n"
    events, error = outcome(stream)
    assert events == shape(list(ChatDecoder("chat").feed(FRAMES[2])))
    assert "more than 16777216 bytes" in error
    assert outcome(stream[:500], stream[500:]) == (events, error)


@given(
    st.lists(st.sampled_from([*FRAMES, *BAD_FRAMES, b": ping\n\n", b"\n"]), max_size=12), st.data()
)
def test_no_order_of_frames_and_no_cut_changes_the_outcome(
    frames: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert outcome(*pieces) == outcome(stream)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["stop", "text", "{}", "\ud83d", "\udd11"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "delta", "message", "content", "tool_calls", "function", "name", "index",
             "arguments", "id", "usage", "prompt_tokens", "error", "code", "type", "text", "detail",
             "finish_reason", "reasoning", "thinking", "loc", "metadata", "raw"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=25,
)  # fmt: skip


@given(st.lists(JSON, max_size=6))
def test_any_json_is_read_or_is_an_error_of_the_tree(documents: list[object]) -> None:
    frames = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in documents]
    outcome(*frames, DONE)  # raises nothing else
    for frame in frames:
        outcome(frame.removeprefix(b"data: "))


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_are_an_error_of_the_tree(data: bytes) -> None:
    outcome(STREAM[:300] + data + STREAM[300:])
    outcome(b"data: " + data, b"\n\n", DONE)
    outcome(data)


@pytest.mark.parametrize(
    "word",
    ["abort", "error", "network_error", "malformed_function_call", "insufficient_system_resource",
     "model_error", "timeout", "what_is_this"],
)  # fmt: skip
def test_an_end_that_is_not_good_is_an_error_with_its_word(word: str) -> None:
    with pytest.raises(ServerFailed, match=word) as caught:
        decode(chunk(finish=word), DONE)
    assert (caught.value.retryable, caught.value.provider_code) == (True, word)
    assert ("ends={" in caught.value.message) is (word == "what_is_this")


@pytest.mark.parametrize("ending", [[DONE], [b""], [chunk(finish="stop"), USAGE, DONE]])
def test_text_before_a_bad_end_is_kept_and_marked(ending: list[bytes]) -> None:
    decoder = ChatDecoder("chat")
    events: list[StreamEvent] = []
    with pytest.raises(ServerFailed, match="abort"):
        for piece in [
            chunk({"content": "half a sen"}),
            calls(call(0, "x", name="a", arguments='{"n":')),
            chunk(finish="abort"),
            *ending,
        ]:
            events += decoder.feed(piece)
        events += decoder.end()
    marked = Message("assistant", (OutputText("half a sen"),), unknown_end="abort")
    assert items_of(events) == [marked]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["stop"], "stop"),
        (["STOP"], "stop"),
        (["eos"], "stop"),
        (["tool_calls", "stop"], "stop"),
        (["MAX_TOKENS"], "length"),
        (["length", "stop"], "length"),
        (["stop", "length"], "length"),
        (["sensitive"], "content_filter"),
        (["guardrail_intervened"], "content_filter"),
        (["SAFETY"], "content_filter"),
    ],
)
def test_good_ends_of_many_servers(words: list[str], reason: str) -> None:
    events = decode(chunk({"content": "hi"}), *(chunk(finish=word) for word in words), DONE)
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].finish_reason == reason


def test_good_ends_can_be_added() -> None:
    stream = chunk({"content": "hi"}) + chunk(finish="fertig") + DONE
    decoder = ChatDecoder("chat", ends=extended(CHAT_ENDS, {"fertig": "stop"}))
    assert isinstance(list(decoder.feed(stream))[-1], ResponseFinished)
    assert "fertig" in outcome(stream)[1]


def test_a_failure_that_a_gateway_translates_to_stop() -> None:
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}
    for native, fails in (("network_error", True), ("STOP", False), ("end_turn", False)):
        body = {"choices": [{**choice, "native_finish_reason": native}]}
        frame = b"data: " + json.dumps(body).encode() + b"\n\n"
        assert (native in outcome(frame, DONE)[1]) is fails


@pytest.mark.parametrize(
    "nothing",
    [[], [chunk({"role": "assistant", "content": ""})], [USAGE], [b": ping\n\n"], [b"data:\n\n"]],
)
def test_done_after_nothing_is_not_an_answer(nothing: list[bytes]) -> None:
    with pytest.raises(StreamIncomplete, match="without an answer"):
        decode(*nothing, DONE)


def test_done_in_the_middle_of_a_call_is_not_an_end() -> None:
    with pytest.raises(StreamIncomplete, match="in the middle of a tool call"):
        decode(calls(call(0, "x", name="a", arguments='{"n":')), DONE)


def test_what_comes_after_the_end_is_read() -> None:
    late = calls(call(0, "x", name="a", arguments='{"n":1}'))
    assert called(chunk({"content": "Hm."}), chunk(finish="tool_calls"), late, DONE) == [
        ("a", '{"n":1}')
    ]
    (item,) = items_of(
        decode(chunk({"content": "all "}, "stop"), chunk({"content": "of it"}, "stop"), DONE)
    )
    assert item == Message("assistant", (OutputText("all of it"),))


ERRORS: list[tuple[object, type[ModelError]]] = [
    ({"choices": [], "error": {"code": 502, "message": "Limit"}}, ServerFailed),
    ({"choices": None, "error": {"code": "server_error", "message": "Limit"}}, ServerFailed),
    ({"error": {"code": 500, "message": {"text": "Limit"}}}, ServerFailed),
    ({"error": {"code": 429.0, "message": "Limit"}}, RateLimited),
    ({"choices": [{"error": {"code": 502, "message": "Limit"}}]}, ServerFailed),
    ({"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "Limit"}}]},
     ServerFailed),
    ({"error": "Limit"}, BadRequest),
    ({"errors": [{"message": "Limit"}]}, BadRequest),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Limit"}}, ServerFailed),
    ({"object": "error", "message": "Limit", "code": 500}, ServerFailed),
    ({"code": "429", "message": "Limit", "status": "error"}, RateLimited),
    ({"detail": "Limit"}, BadRequest),
    ({"error": {"message": "Limit", "status": "RESOURCE_EXHAUSTED", "code": None}}, RateLimited),
    ({"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "Limit"}}},
     ServerFailed),
    ({"error": '{"error": {"message": "Limit"}}'}, BadRequest),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind"), ERRORS)
@pytest.mark.parametrize("before", [b"", chunk({"content": "So far "})])
def test_errors_in_any_place_and_shape(
    error: object, kind: type[ModelError], before: bytes
) -> None:
    data = json.dumps(error).encode()
    for frame in (
        b"data: " + data + b"\n\n",
        b"event: error\ndata: " + data + b"\n\n",
        b"error: " + data + b"\n\n",
        data + b"\n\n",
        data,
    ):
        for rest in (DONE, b""):
            if rest and frame == data:
                continue  # not two lines
            with pytest.raises(kind, match="Limit"):
                decode(before + frame + rest)


@pytest.mark.parametrize("error", [None, {}, "", {"message": None, "code": None}, []])
def test_an_error_that_says_nothing_is_ignored(error: object) -> None:
    events = decode(chunk({"content": "hi"}, error=error), chunk(finish="stop", error=error), DONE)
    assert items_of(events) == [Message("assistant", (OutputText("hi"),))]


def test_an_error_in_a_document_with_lines() -> None:
    body = json.dumps(
        {"error": {"message": "too long", "code": "context_length_exceeded"}}, indent=1
    )
    with pytest.raises(ContextOverflow, match="too long"):
        decode(body.encode())
    with pytest.raises(ContextOverflow, match="too long"):
        decode(chunk({"content": "hi"}) + body.encode())


@pytest.mark.parametrize(
    "more",
    [
        {"id": 7},
        {"id": None},
        {"usage": {"prompt_tokens": 3.0, "completion_tokens": "1"}},
        {"usage": {"prompt_tokens": -1, "completion_tokens": 1e300}},
        {"usage": []},
        {"usage": {"prompt_tokens": 3, "prompt_tokens_details": []}},
    ],
)
def test_fields_of_a_chunk_that_do_not_matter(more: dict[str, object]) -> None:
    events = decode(chunk({"content": "hi"}, **more), chunk(finish="stop", **more), DONE)
    assert items_of(events) == [Message("assistant", (OutputText("hi"),))]


@pytest.mark.parametrize(
    "more",
    [
        {"role": None},
        {"refusal": {}},
        {"tool_calls": {}},
        {"tool_calls": [None]},
        {"tool_calls": [{"index": "x"}]},
        {"function_call": []},
        {"reasoning": 5},
    ],
)
def test_fields_of_a_delta_that_do_not_matter(more: dict[str, object]) -> None:
    events = decode(chunk({"content": "hi", **more}), chunk(finish="stop"), DONE)
    assert items_of(events) == [Message("assistant", (OutputText("hi"),))]


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "hi"}, {"type": "text", "text": None}],
        [{"type": "text", "text": "hi"}, {"type": "reference", "text": 5}],
        [{"type": "text", "text": "hi"}, None],
        ["hi"],
        {"type": "text", "text": "hi"},
    ],
)
def test_content_of_other_shapes(content: object) -> None:
    events = decode(chunk({"content": content}), chunk(finish="stop"), DONE)
    assert items_of(events) == [Message("assistant", (OutputText("hi"),))]


def test_reasoning_of_other_shapes() -> None:
    content = [{"type": "thinking", "thinking": "h"}, {"type": "text", "text": "hi"}]
    odd = chunk({"content": content, "reasoning": {"text": "m"}})
    (thought, _) = items_of(decode(odd, chunk(finish="stop"), DONE))
    assert thought == Reasoning(content=(ReasoningText("hm"),), provider="chat")


def test_numbers_as_ids_and_indices_as_texts() -> None:
    assert called(
        calls({"index": "0", "id": 5, "function": {"name": "a", "arguments": '{"n":'}}),
        calls({"index": 0.0, "function": {"arguments": "1}"}}),
        chunk(finish="stop"),
    ) == [("a", '{"n":1}')]


def test_an_empty_count_never_replaces_a_real_one() -> None:
    empty = chunk(choices=[], usage={"prompt_tokens": 0, "completion_tokens": None})
    for more in (empty, chunk(usage={}), chunk(usage=None)):
        events = decode(chunk({"content": "hi"}, "stop"), USAGE, more, DONE)
        assert isinstance(events[-1], ResponseFinished)
        assert events[-1].usage == Usage(10, 6, 4, 2, 1)


def test_usage_in_the_choice() -> None:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 7}}
    events = decode(chunk({"content": "hi"}), chunk(choices=[choice]), DONE)
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].usage.input_tokens == 7


KEY = "\U0001f511"
HIGH, LOW = "\ud83d", "\udd11"


def raw(content: str, field: str = "content") -> bytes:
    """A chunk with halves of surrogate pairs as escapes, as JavaScript writes them."""
    body = {"choices": [{"index": 0, "delta": {field: content}, "finish_reason": None}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a" + HIGH + LOW], "a" + KEY),
        (["a" + HIGH, LOW + "b"], "a" + KEY + "b"),
        (["a" + HIGH, "", LOW, HIGH, LOW], "a" + KEY + KEY),
        (["a" + HIGH + "b"], "a\ufffdb"),
        (["a" + HIGH, "b"], "a\ufffdb"),
        (["a" + LOW], "a\ufffd"),
        (["a", HIGH], "a\ufffd"),
    ],
)
def test_halves_of_characters_are_joined(pieces: list[str], text: str) -> None:
    for field in ("content", "reasoning_content", "refusal"):
        events = decode(*(raw(piece, field) for piece in pieces), chunk(finish="stop"), DONE)
        deltas = "".join(event.delta for event in events if hasattr(event, "delta"))  # type: ignore[union-attr]
        assert deltas == text
        text.encode()


def test_halves_of_characters_in_arguments() -> None:
    pieces = ['{"n":"' + HIGH, LOW + '"}']
    first = {"index": 0, "id": "x", "function": {"name": "a", "arguments": pieces[0]}}
    rest = {"index": 0, "function": {"arguments": pieces[1]}}
    frames = [
        b"data: " + json.dumps({"choices": [{"delta": {"tool_calls": [one]}}]}).encode() + b"\n\n"
        for one in (first, rest)
    ]
    assert called(*frames, chunk(finish="stop")) == [("a", '{"n":"' + KEY + '"}')]


def test_bytes_that_are_not_utf8_become_replacement_characters() -> None:
    frame = chunk({"content": "hi"}).replace(b"hi", b"h\xff")
    assert items_of(decode(frame, chunk(finish="stop"))) == [
        Message("assistant", (OutputText("h\ufffd"),))
    ]


A, B = '{"n":1}', '{"n":2}'
DIALECTS: dict[str, list[bytes]] = {
    "index 0, no ids": [
        calls(call(0, name="a", arguments=A)),
        calls(call(0, name="a", arguments=B)),
    ],
    "index 0, empty ids": [
        calls(call(0, "", name="a", arguments=A)),
        calls(call(0, "", name="a", arguments=B)),
    ],
    "index 0, the same id": [
        calls(call(0, "x", name="a", arguments=A)),
        calls(call(0, "x", name="a", arguments=B)),
    ],
    "index 0, the same id, in pieces": [
        calls(call(0, "x", name="a", arguments="")),
        calls(call(0, arguments=A)),
        calls(call(0, "x", name="a", arguments="")),
        calls(call(0, arguments=B[:3])),
        calls(call(0, arguments=B[3:])),
    ],
    "index 0, no ids, in pieces": [
        calls(call(0, name="a", arguments="")),
        calls(call(0, arguments=A)),
        calls(call(0, name="a", arguments="")),
        calls(call(0, arguments=B)),
    ],
    "no index, no ids, one chunk": [
        calls(call(name="a", arguments=A), call(name="a", arguments=B))
    ],
    "a new id on each piece": [
        calls(call(0, "x1", name="a", arguments=A[:3])),
        calls(call(0, "x2", arguments=A[3:])),
        calls(call(1, "y1", name="a", arguments=B[:3])),
        calls(call(1, "y2", arguments=B[3:])),
    ],
    "a new id on each piece, no index": [
        calls(call(id="x1", name="a", arguments=A[:3])),
        calls(call(id="x2", arguments=A[3:])),
        calls(call(id="y1", name="a", arguments=B[:3])),
        calls(call(id="y2", arguments=B[3:])),
    ],
    "a new index on each piece": [
        calls(call(0, "x", name="a", arguments=A[:3])),
        calls(call(1, arguments=A[3:])),
        calls(call(2, "y", name="a", arguments=B[:3])),
        calls(call(3, arguments=B[3:])),
    ],
    "the id before the name": [
        calls(call(0, "x")),
        calls(call(0, name="a", arguments=A)),
        calls(call(1, "y", arguments=B[:3])),
        calls(call(1, name="a", arguments=B[3:])),
    ],
    "a repeated name at the end": [
        calls(call(0, "x", name="a", arguments=A)),
        calls(call(0, "x", name="a", arguments="")),
        calls(call(1, "y", name="a", arguments=B)),
        calls(call(1, name="a", arguments="")),
    ],
    "the whole arguments again": [
        calls(call(0, "x", name="a", arguments=A[:3])),
        calls(call(0, arguments=A[3:])),
        calls(call(0, "x", name="a", arguments=A)),
        calls(call(1, "y", name="a", arguments=B)),
        calls(call(1, arguments=B)),
    ],
    "the older field": [
        chunk({"function_call": {"name": "a", "arguments": one}}) for one in (A, B)
    ],
}


@pytest.mark.parametrize("name", DIALECTS)
def test_two_calls_in_more_dialects(name: str) -> None:
    events = decode(*DIALECTS[name], chunk(finish="tool_calls"), DONE)
    items = [item for item in items_of(events) if isinstance(item, FunctionCall)]
    assert [(item.name, item.arguments) for item in items] == [("a", A), ("a", B)]
    assert len({item.call_id for item in items}) == 2


@pytest.mark.parametrize("arguments", ["", None, "{}", "null"])
@pytest.mark.parametrize("index", [0, None])
def test_a_call_without_arguments_before_one_with_them(
    arguments: str | None, index: int | None
) -> None:
    found = called(
        calls(call(index, name="now", arguments=arguments)),
        calls(call(None if index is None else 1, name="a", arguments=A)),
        chunk(finish="tool_calls"),
    )
    assert found == [("now", "{}" if arguments == "{}" else ""), ("a", A)]


def test_calls_without_arguments_under_one_index() -> None:
    found = called(
        *(calls(call(0, name=name, arguments="{}")) for name in ("now", "now", "here")),
        chunk(finish="tool_calls"),
    )
    assert found == [("now", "{}"), ("now", "{}"), ("here", "{}")]


def test_arguments_for_a_call_without_a_name_are_an_error() -> None:
    for stream in ([calls(call(0, "x", arguments=A))], [calls(call(arguments=A))]):
        with pytest.raises(StreamInvalid, match="without a name"):
            called(*stream, chunk(finish="tool_calls"))


WHOLE: dict[str, object] = {
    "id": "cmpl_1",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "Grüße",
                "reasoning_content": "hm",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                ],
            },
        }
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 6},
}


DOCUMENTS = [
    json.dumps(WHOLE, ensure_ascii=False).encode(),
    b"\xef\xbb\xbf \n" + json.dumps(WHOLE, indent=2).encode() + b"\n",
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_instead_of_a_stream_is_the_answer(document: bytes) -> None:
    events = decode(document)
    assert items_of(events) == [
        Message("assistant", (OutputText("Grüße"),)),
        Reasoning(content=(ReasoningText("hm"),), provider="chat"),
        FunctionCall("a", "f", "{}"),
        FunctionCall("b", "f", "{}"),
    ]
    assert events[-1] == ResponseFinished("cmpl_1", "stop", Usage(10, 6, requests=1))
    for cut in range(len(document)):
        assert shape(decode(document[:cut], document[cut:])) == shape(events)


def test_a_document_that_is_no_answer() -> None:
    for document in (b"{}", b'{"choices": []}', b'{"status": "ok"}'):
        with pytest.raises(StreamInvalid, match="neither a response nor an error"):
            decode(document)
    with pytest.raises(StreamIncomplete):
        decode(b'{"choices": [')
    with pytest.raises(ServerFailed, match="abort"):
        decode(b'{"choices": [{"message": {"content": "a"}, "finish_reason": "abort"}]}')
    with pytest.raises(StreamInvalid, match="a JSON document of more than"):
        decode(b"{" + b" " * (16 * 1024 * 1024))


def test_a_chunk_on_each_line() -> None:
    lines = [frame.removeprefix(b"data: ").strip() for frame in FRAMES[:-1]]
    assert shape(decode(b"\n".join(lines))) == shape(decode(*FRAMES))


def test_a_text_that_comes_twice_in_one_chunk_is_read_once() -> None:
    def both(piece: str, whole: str) -> bytes:
        choice = {"index": 0, "delta": {"content": piece}, "message": {"content": whole}}
        return chunk(choices=[choice])

    events = decode(both("a", "a"), both("b", "ab"), chunk(finish="stop"), DONE)
    assert items_of(events) == [Message("assistant", (OutputText("ab"),))]


def test_signs_of_life_are_not_progress() -> None:
    decoder = ChatDecoder("chat")
    for ping in (b": ping\n\n", b"data:\n\n", b"event: ping\ndata: {}\n\n",
                 chunk({"content": ""}), chunk({})):  # fmt: skip
        assert not list(decoder.feed(ping))
        assert not decoder.progressed
    assert list(decoder.feed(chunk({"content": "a"})))


def test_the_reason_for_the_end_is_noted_before_the_end() -> None:
    decoder = ChatDecoder("chat")
    decoder.feed(chunk({"content": "a"}))
    assert not decoder.stopped
    decoder.feed(chunk(finish="stop"))
    assert (decoder.stopped, decoder.finished) == (True, False)
    assert isinstance(list(decoder.end())[-1], ResponseFinished)
