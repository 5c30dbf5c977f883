"""Bytes of the Converse API in, model events out; the result must not depend on the cuts."""

import base64
import itertools
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.wire.strict_servers import check_converse

from treadle.domain.events import ReasoningDelta, TextDelta, ToolArgumentsDelta
from treadle.domain.items import (
    FileCitation,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    ReasoningText,
    UrlCitation,
    user_message,
)
from treadle.domain.usage import Usage
from treadle.errors import (
    AccessDenied,
    BadRequest,
    ContextOverflow,
    ModelError,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
    StreamIncomplete,
    StreamInvalid,
)
from treadle.models.base import ModelRequest
from treadle.models.failure import http_failure
from treadle.models.wire.converse import ConverseWire
from treadle.models.wire.converse_decoder import ConverseDecoder
from treadle.models.wire.converse_request import ConverseOptions
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.testing.simulator.wire.converse_frames import message


def event(name: str, **fields: object) -> bytes:
    return message(name, json.dumps(fields, ensure_ascii=False).encode())


def delta(index: int, **fields: object) -> bytes:
    return event("contentBlockDelta", delta=fields, contentBlockIndex=index, p="abcdef")


def text(index: int, text: str) -> bytes:
    return delta(index, text=text)


def thought(index: int, **fields: object) -> bytes:
    return delta(index, reasoningContent=fields)


def start(index: int, **fields: object) -> bytes:
    return event("contentBlockStart", start=fields, contentBlockIndex=index)


def call(index: int, name: str = "look", wire_id: str = "tooluse_1", **more: object) -> bytes:
    return start(index, toolUse={"toolUseId": wire_id, "name": name, **more})


def given_input(index: int, piece: str) -> bytes:
    return delta(index, toolUse={"input": piece})


def stop(index: int) -> bytes:
    return event("contentBlockStop", contentBlockIndex=index)


def end(reason: str = "end_turn", **usage: int) -> bytes:
    counts = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15, **usage}
    last = event("metadata", usage=counts, metrics={"latencyMs": 1})
    return event("messageStop", stopReason=reason) + last


BEGIN = event("messageStart", role="assistant")
SIGNED = base64.b64encode(b"signature").decode()
STREAM = b"".join(
    [
        BEGIN,
        thought(0, text="I need "),
        thought(0, text="it."),
        thought(0, signature=SIGNED),
        stop(0),
        thought(1, redactedContent=base64.b64encode(b"se").decode()),
        thought(1, redactedContent=base64.b64encode(b"cret").decode()),
        stop(1),
        text(2, "Grü"),
        text(2, "ße 😀"),
        stop(2),
        call(3),
        given_input(3, '{"at": "Zü'),
        given_input(3, 'rich"}'),
        stop(3),
        call(4, "now", "tooluse_2"),
        given_input(4, ""),
        stop(4),
        end("tool_use", cacheReadInputTokens=100, cacheWriteInputTokens=20),
    ]
)
ITEMS = [
    Reasoning(content=(ReasoningText("I need it."),), encrypted_content=SIGNED, provider="bedrock"),
    Reasoning(encrypted_content=base64.b64encode(b"secret").decode(), provider="bedrock"),
    Message("assistant", (OutputText("Grüße 😀"),)),
    FunctionCall("tooluse_1", "look", '{"at": "Zürich"}'),
    FunctionCall("tooluse_2", "now", "{}"),
]


def decode(*chunks: bytes, used_call_ids: tuple[str, ...] = ()) -> list[StreamEvent]:
    decoder = ConverseDecoder("bedrock", used_call_ids)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events if decoder.finished else [*events, *decoder.end()]


def failing(*chunks: bytes) -> tuple[list[StreamEvent], ModelError]:
    """The events before the error, and the error."""
    decoder = ConverseDecoder("bedrock")
    events: list[StreamEvent] = []
    with pytest.raises(ModelError) as caught:
        for chunk in chunks:
            events.extend(decoder.feed(chunk))
        events.extend(decoder.end())
    return events, caught.value


def items_of(events: list[StreamEvent]) -> list[Item]:
    finished = [event for event in events if isinstance(event, ItemFinished)]
    items = [event.item for event in sorted(finished, key=lambda event: event.index)]
    assert msgspec.json.decode(msgspec.json.encode(items), type=list[Item]) == items
    return [i if isinstance(i, ProviderItem) else msgspec.structs.replace(i, id="") for i in items]


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
    assert items_of(events) == ITEMS
    assert [e.delta for e in events if isinstance(e, TextDelta)] == ["Grü", "ße 😀"]
    assert [e.delta for e in events if isinstance(e, ReasoningDelta)] == ["I need ", "it."]
    usage = Usage(
        input_tokens=130,
        output_tokens=5,
        cached_input_tokens=100,
        requests=1,
        cache_write_tokens=20,
    )
    assert events[-1] == ResponseFinished("", "stop", usage)


def test_the_result_does_not_depend_on_the_cut() -> None:
    whole = shape(decode(STREAM))
    for cut in range(len(STREAM) + 1):
        assert shape(decode(STREAM[:cut], STREAM[cut:])) == whole
    assert shape(decode(*(STREAM[i : i + 1] for i in range(len(STREAM))))) == whole


@settings(max_examples=30)
@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_nor_on_any_set_of_cuts(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
    assert shape(decode(*chunks)) == shape(decode(STREAM))


def test_every_prefix_without_a_stop_reason_is_incomplete() -> None:
    last = STREAM.index(event("messageStop", stopReason="tool_use"))
    for cut in range(0, last + 1, 7):
        with pytest.raises(StreamIncomplete):
            decode(STREAM[:cut])


def test_a_call_is_finished_before_the_response_ends() -> None:
    decoder = ConverseDecoder("bedrock")
    upto = STREAM.index(call(4, "now", "tooluse_2"))
    assert items_of(list(decoder.feed(STREAM[:upto])))[-1] == ITEMS[3]
    assert not decoder.stopped


def test_a_response_without_counts_is_complete() -> None:
    stream = BEGIN + text(0, "So.") + stop(0) + event("messageStop", stopReason="end_turn")
    decoder = ConverseDecoder("bedrock")
    events = list(decoder.feed(stream))
    assert decoder.stopped
    events += decoder.end()
    assert items_of(events) == [Message("assistant", (OutputText("So."),))]
    assert events[-1] == ResponseFinished("", "stop", Usage(requests=1))


def test_what_follows_the_end_is_not_read() -> None:
    events = decode(text(0, "a") + end() + text(1, "b"))
    assert items_of(events) == [Message("assistant", (OutputText("a"),))]


def test_counts_without_an_end_are_not_an_end() -> None:
    _, error = failing(BEGIN + text(0, "So.") + event("metadata", usage={}))
    assert isinstance(error, StreamIncomplete)


def test_blocks_that_are_not_ended_are_finished() -> None:
    stream = thought(0, text="Hm.") + text(1, "So.") + call(2) + given_input(2, "{}") + end()
    kinds = [type(item) for item in items_of(decode(stream))]
    assert kinds == [Reasoning, Message, FunctionCall]


def test_an_index_that_is_used_twice() -> None:
    stream = text(0, "a") + stop(0) + text(0, "b") + thought(0, text="c") + stop(7) + end()
    first, second, third = items_of(decode(stream))
    assert first == Message("assistant", (OutputText("a"),))
    assert second == Message("assistant", (OutputText("b"),))
    assert isinstance(third, Reasoning)


def test_reasoning_without_a_text() -> None:
    stream = thought(0, signature=SIGNED) + stop(0) + thought(1, text="") + stop(1) + end()
    assert items_of(decode(stream)) == [
        Reasoning(content=(ReasoningText(""),), encrypted_content=SIGNED, provider="bedrock")
    ]


def test_redacted_reasoning_that_is_not_base64_is_kept() -> None:
    stream = thought(0, redactedContent="not base64!") + stop(0) + end()
    (item,) = items_of(decode(stream))
    assert isinstance(item, Reasoning)
    assert item.encrypted_content == "not base64!"


def test_halves_of_characters_are_joined() -> None:
    def half(index: int, fields: str) -> bytes:
        return message(
            "contentBlockDelta", f'{{"contentBlockIndex":{index},"delta":{fields}}}'.encode()
        )

    stream = b"".join(
        [
            half(0, r'{"reasoningContent":{"text":"\ud83d"}}'),
            half(0, r'{"reasoningContent":{"text":"\ude00!\ud83d"}}'),
            half(0, r'{"reasoningContent":{"signature":"c2ln","text":null}}'),
            stop(0),
            half(1, r'{"text":"\ud83d"}'),
            half(1, r'{"text":"\ude00 \ud83d"}'),
            stop(1),
            call(2),
            half(2, r'{"toolUse":{"input":"{\"a\":\"\ud83d"}}'),
            half(2, r'{"toolUse":{"input":"\ude00\"}"}}'),
            stop(2),
            end(),
        ]
    )
    first, second, third = items_of(decode(stream))
    assert isinstance(first, Reasoning)
    assert first.text == "😀!\ufffd"
    assert second == Message("assistant", (OutputText("😀 \ufffd"),))
    assert isinstance(third, FunctionCall)
    assert third.arguments == '{"a":"😀"}'


# Calls


def test_calls_without_ids_and_with_the_same_get_ids_of_their_own() -> None:
    ids = ["", "x", "x", "used"]
    calls = b"".join(
        call(n, "look", one) + given_input(n, '{"a":1}') + stop(n) for n, one in enumerate(ids)
    )
    items = items_of(decode(calls, end("tool_use"), used_call_ids=("used",)))
    found = [item.call_id for item in items if isinstance(item, FunctionCall)]
    assert len(set(found)) == 4
    assert found[1] == "x"
    assert "used" not in found


def test_a_call_that_the_token_limit_cut_off_is_dropped() -> None:
    stream = text(0, "So.") + stop(0) + call(1) + given_input(1, '{"at": "Zü') + stop(1)
    events = decode(stream, end("max_tokens"))
    assert items_of(events) == [Message("assistant", (OutputText("So."),))]
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].finish_reason == "length"


def test_a_call_whose_object_is_not_closed_and_not_ended() -> None:
    _, error = failing(call(0) + given_input(0, '{"at": "Zü') + end("tool_use"))
    assert isinstance(error, StreamIncomplete)
    assert "'look'" in error.message


def test_a_call_that_ended_is_kept_as_it_was_written() -> None:
    events = decode(call(0) + given_input(0, '{"at": "Zü') + stop(0) + end("tool_use"))
    (item,) = items_of(events)
    assert isinstance(item, FunctionCall)
    assert item.arguments == '{"at": "Zü'
    assert "".join(e.delta for e in events if isinstance(e, ToolArgumentsDelta)) == item.arguments


def test_a_call_without_a_name_and_input_without_a_call() -> None:
    assert isinstance(failing(call(0, ""))[1], StreamInvalid)
    assert isinstance(failing(given_input(0, "{}"))[1], StreamInvalid)
    assert isinstance(failing(text(0, "a") + given_input(0, "{}"))[1], StreamInvalid)
    assert items_of(decode(text(0, "a") + given_input(0, "  ") + end()))


# Ends and errors


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("tool_use", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
    ],
)
def test_stop_reasons(reason: str, finish: str) -> None:
    events = decode(text(0, "a") + stop(0) + end(reason))
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].finish_reason == finish
    assert items_of(events) == [Message("assistant", (OutputText("a"),))]


@pytest.mark.parametrize("reason", ["malformed_tool_use", "malformed_model_output", "new_word"])
def test_every_other_stop_reason_is_an_error(reason: str) -> None:
    events, error = failing(text(0, "half "), call(1), given_input(1, '{"a'), end(reason))
    assert isinstance(error, ServerFailed)
    assert error.provider_code == reason
    assert ("ends={" in error.message) is (reason == "new_word")
    (item,) = items_of(events)
    assert isinstance(item, Message)
    own = ConverseDecoder("bedrock", ends={"new_word": "stop"})
    assert list(own.feed(text(0, "a") + end("new_word")))


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("throttlingException", RateLimited, "Too many requests"),
        ("throttlingException", QuotaExceeded, "Too many tokens per day, please wait"),
        ("modelStreamErrorException", ServerFailed, "The model failed."),
        ("internalServerException", ServerFailed, "It broke."),
        ("serviceUnavailableException", ServerFailed, "Busy."),
        ("validationException", BadRequest, "The value is wrong."),
        ("validationException", ContextOverflow, "Input is too long for requested model."),
        ("accessDeniedException", AccessDenied, "No."),
        ("somethingNewException", BadRequest, "What?"),
    ],
)
def test_exceptions_in_the_stream(name: str, error: type[ModelError], said: str) -> None:
    frame = message(name, json.dumps({"message": said}).encode(), "exception")
    events, found = failing(text(0, "half "), frame)
    assert type(found) is error
    assert (found.message, found.provider_code) == (said, name)
    assert found.retryable is (error in {RateLimited, ServerFailed})
    assert [e.delta for e in events if isinstance(e, TextDelta)] == ["half "]


def test_exceptions_of_odd_shapes() -> None:
    frame = message("modelStreamErrorException", b"It broke", "exception")
    assert failing(frame)[1].message == "It broke"
    data = b'{"originalStatusCode":500,"originalMessage":"Deep."}'
    assert failing(message("modelStreamErrorException", data, "exception"))[1].message == "Deep."
    assert "xException" in failing(message("xException", b"{}", "exception"))[1].message


def test_an_error_without_a_type() -> None:
    from tests.streaming.test_event_stream import framed, header

    headers = header(b":message-type", 7, b"error") + header(b":error-code", 7, b"Internal_Error")
    headers += header(b":error-message", 7, b"It broke.")
    error = failing(framed(headers, b""))[1]
    assert (error.message, error.provider_code) == ("It broke.", "Internal_Error")


@pytest.mark.parametrize(
    "frame",
    [
        message("contentBlockDelta", b'{"delta":{"te'),
        message("contentBlockStart", b"[[["),
        message("metadata", b"nonsense"),
        STREAM[:-1] + bytes([STREAM[-1] ^ 1]),
    ],
)
def test_data_that_cannot_be_read(frame: bytes) -> None:
    assert isinstance(failing(frame)[1], StreamInvalid)


@pytest.mark.parametrize(
    "data", [b"{}", b"null", b"[]", b'{"delta":7}', b'{"delta":{"new":1}}', b""]
)
def test_odd_deltas_and_unknown_events_are_ignored(data: bytes) -> None:
    odd = message("contentBlockDelta", data) + message("treadleUnknown", b"what")
    starts = start(0, new={}) + event("contentBlockStart")
    events = decode(odd + starts + text(0, "a") + event("messageStop") + end())
    assert items_of(events) == [Message("assistant", (OutputText("a"),))]


@pytest.mark.parametrize(
    ("status", "kind", "body", "error", "retryable"),
    [
        (400, "ValidationException", "The value is wrong.", BadRequest, False),
        (400, "ValidationException", "Input is too long for requested model.", ContextOverflow, 0),
        (400, "ServiceQuotaExceededException", "Too many.", QuotaExceeded, False),
        (403, "AccessDeniedException", "You don't have access to the model.", AccessDenied, False),
        (403, "ExpiredTokenException", "The security token is expired", AccessDenied, False),
        (404, "ResourceNotFoundException", "The model does not exist.", BadRequest, False),
        (408, "ModelTimeoutException", "The model timed out.", ServerFailed, True),
        (424, "ModelErrorException", "The model failed.", ServerFailed, True),
        (429, "ThrottlingException", "Too many requests.", RateLimited, True),
        (429, "ThrottlingException", "Too many tokens per day, wait.", QuotaExceeded, False),
        (429, "ModelNotReadyException", "The model is not ready.", RateLimited, True),
        (500, "InternalServerException", "It broke.", ServerFailed, True),
        (503, "ServiceUnavailableException", "Busy.", ServerFailed, True),
    ],
)
def test_http_errors(
    status: int, kind: str, body: str, error: type[ModelError], retryable: bool
) -> None:
    headers = {"x-amzn-errortype": f"{kind}:http://internal.amazon.com/coral/"}
    for name in ("message", "Message"):
        failure = http_failure(status, headers, json.dumps({name: body}).encode(), 0)
        assert type(failure) is error
        assert (failure.message, failure.provider_code) == (body, kind)
        assert failure.retryable is bool(retryable)


# Citations and tools of the provider


def test_citations() -> None:
    cited = [
        {"location": {"web": {"url": "https://x", "domain": "x"}}, "title": "X"},
        {
            "title": "a",
            "sourceContent": [{"text": "said "}, {"text": "so"}],
            "location": {"documentPage": {"documentIndex": 0, "start": 3, "end": 4}},
        },
        {"source": "s", "location": {"searchResultLocation": {"searchResultIndex": 0}}},
        {"location": {"documentChar": {}}},
    ]
    stream = text(0, "So.") + b"".join(delta(0, citation=one) for one in cited) + stop(0) + end()
    (item,) = items_of(decode(stream))
    assert isinstance(item, Message)
    (part,) = item.content
    assert isinstance(part, OutputText)
    assert part.annotations == (
        UrlCitation("https://x", "X"),
        FileCitation(filename="a", cited_text="said so", page=3),
        UrlCitation("s"),
    )
    assert items_of(decode(delta(0, citation=cited[0]) + stop(0) + end())) == []


def test_tools_of_the_provider_go_back_as_they_came() -> None:
    stream = b"".join(
        [
            call(0, "nova_grounding", "tooluse_1", type="server_tool_use"),
            given_input(0, '{"q":'),
            given_input(0, '"x"}'),
            stop(0),
            start(1, toolResult={"toolUseId": "tooluse_1", "type": "nova_grounding_result"}),
            delta(1, toolResult=[{"text": "It is."}]),
            stop(1),
            start(2, image={"format": "png"}),
            delta(2, image={"source": {"bytes": "AAAA"}}),
            stop(2),
            text(3, "So."),
            stop(3),
            call(4, "nova_code", "tooluse_3", type="server_tool_use"),
            given_input(4, '{"cut'),
            end(),
        ]
    )
    items = items_of(decode(stream))
    raw = [json.loads(bytes(item.raw)) for item in items if isinstance(item, ProviderItem)]
    use = {"toolUseId": "tooluse_1", "name": "nova_grounding", "type": "server_tool_use"}
    found = {"toolUseId": "tooluse_1", "type": "nova_grounding_result"}
    assert raw == [
        {"toolUse": {**use, "input": {"q": "x"}}},
        {"toolResult": {**found, "content": [{"text": "It is."}]}},
        {"image": {"format": "png", "source": {"bytes": "AAAA"}}},
    ]
    junk = ProviderItem("bedrock", msgspec.Raw(b"[]"))
    request = ModelRequest(items=[user_message("hi"), *items, junk, user_message("on")])
    body = json.loads(ConverseWire("m").encode("m", request).body)
    check_converse(body)
    assert body["messages"][1]["content"] == [*raw[:2], {"text": "So."}]
    assert body["toolConfig"]["tools"] == [{"systemTool": {"name": "nova_grounding"}}]


# A response that is not streamed


def test_a_response_that_is_not_streamed() -> None:
    content: list[dict[str, Any]] = [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": SIGNED}}},
        {"reasoningContent": {"redactedContent": SIGNED}},
        {"text": "So."},
        {
            "citationsContent": {
                "content": [{"text": "It is."}],
                "citations": [{"title": "a", "location": {}}],
            }
        },
        {"toolUse": {"toolUseId": "t", "name": "look", "input": {"at": "x"}}},
        {"toolUse": {"toolUseId": "u", "name": "now", "input": {}}},
        {"new": {}},
    ]
    whole = {"output": {"message": {"role": "assistant", "content": content}}}
    body = json.dumps({**whole, "stopReason": "tool_use", "usage": {"inputTokens": 3}}).encode()
    events = decode(body)
    kinds = [type(item).__name__ for item in items_of(events)]
    assert kinds == ["Reasoning", "Reasoning", "Message", "Message", "FunctionCall", "FunctionCall"]
    assert events[-1] == ResponseFinished("", "stop", Usage(input_tokens=3, requests=1))
    assert isinstance(failing(json.dumps(whole).encode())[1], StreamInvalid)
    assert failing(b'{"message":"No.","code":"x"}')[1].message == "No."


# What goes back


def test_what_was_decoded_goes_back_as_it_came() -> None:
    items = items_of(decode(STREAM))
    outputs = [FunctionCallOutput(i.call_id, "ok") for i in items if isinstance(i, FunctionCall)]
    request = ModelRequest(items=[user_message("hi"), *items, *outputs])
    body = json.loads(ConverseWire("m").encode("m", request).body)
    thought = {"text": "I need it.", "signature": SIGNED}
    assert body["messages"][1]["content"] == [
        {"reasoningContent": {"reasoningText": thought}},
        {"reasoningContent": {"redactedContent": base64.b64encode(b"secret").decode()}},
        {"text": "Grüße 😀"},
        {"toolUse": {"toolUseId": "tooluse_1", "name": "look", "input": {"at": "Zürich"}}},
        {"toolUse": {"toolUseId": "tooluse_2", "name": "now", "input": {}}},
    ]
    other = ConverseWire("m", ConverseOptions(provider="bedrock:amazon"))
    assert b"reasoningContent" not in other.encode("m", request).body
