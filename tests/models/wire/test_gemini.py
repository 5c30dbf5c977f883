"""Bytes of the Gemini API in, model events out; the result must not depend on the cuts."""

import itertools
import json
import re
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.events import ReasoningDelta, RefusalDelta, TextDelta, ToolArgumentsDelta
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    ProviderFields,
    ProviderItem,
    Reasoning,
    ReasoningText,
    Refusal,
    UrlCitation,
    user_message,
)
from treadle.domain.schema import ToolSchema
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
from treadle.models.wire.gemini import GeminiWire
from treadle.models.wire.gemini_decoder import GeminiDecoder
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent


def frame(**fields: object) -> bytes:
    return f"data: {json.dumps(fields, ensure_ascii=False)}\r\n\r\n".encode()


def parts(*given: dict[str, Any], finish: str = "", **more: object) -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": list(given), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": 100}
    return frame(candidates=[candidate | more], usageMetadata=usage, responseId="r1")


def text(text: str, **more: object) -> dict[str, Any]:
    return {"text": text, **more}


def thought(text: str, **more: object) -> dict[str, Any]:
    return {"text": text, "thought": True, **more}


def call(name: str, args: object, id: str = "", **more: object) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": args, **({"id": id} if id else {})}, **more}


STREAM = b"".join(
    [
        parts(thought("**Planning**\n\n")),
        parts(thought("I need it.")),
        parts(text("Grü")),
        parts(text("ße 😀", thoughtSignature="dGV4dA==")),
        parts({"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "Yw=="}),
        parts(
            call("look", {"at": "Zürich"}, "fc_1", thoughtSignature="c2ln"),
            call("now", {}),
        ),
        frame(
            candidates=[{"content": {"role": "model"}, "finishReason": "STOP", "index": 0}],
            usageMetadata={
                "promptTokenCount": 120,
                "toolUsePromptTokenCount": 5,
                "cachedContentTokenCount": 100,
                "candidatesTokenCount": 40,
                "thoughtsTokenCount": 12,
                "totalTokenCount": 177,
            },
            modelVersion="gemini-3.8-flash",
            responseId="r1",
        ),
    ]
)
THOUGHT = Reasoning(content=(ReasoningText("**Planning**\n\nI need it."),), provider="gemini")
SAID = Message(
    "assistant",
    (OutputText("Grüße 😀"),),
    provider_fields=ProviderFields("gemini", {"thought_signatures": [[3, 7, "dGV4dA=="]]}),
)
LOOK = FunctionCall(
    "fc_1",
    "look",
    '{"at": "Zürich"}',
    provider_fields=ProviderFields("gemini", {"thought_signature": "c2ln", "id": "fc_1"}),
)


def decode(*chunks: bytes, used_call_ids: tuple[str, ...] = ()) -> list[StreamEvent]:
    decoder = GeminiDecoder("gemini", used_call_ids)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return [*events, *decoder.end()]


def failing(*chunks: bytes) -> tuple[list[StreamEvent], ModelError]:
    """The events before the error, and the error."""
    decoder = GeminiDecoder("gemini")
    events: list[StreamEvent] = []
    with pytest.raises(ModelError) as caught:
        for chunk in chunks:
            events.extend(decoder.feed(chunk))
        events.extend(decoder.end())
    return events, caught.value


def bare(item: Item) -> Item:
    """The item without its id, which is made up."""
    return item if isinstance(item, ProviderItem) else msgspec.structs.replace(item, id="")


def items_of(events: list[StreamEvent]) -> list[Item]:
    finished = [event for event in events if isinstance(event, ItemFinished)]
    items = [bare(event.item) for event in sorted(finished, key=lambda event: event.index)]
    # As they come out of the journal.
    assert msgspec.json.decode(msgspec.json.encode(items), type=list[Item]) == items
    return items


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
    first, second, code, look, now = items_of(events)
    assert (first, second, look) == (THOUGHT, SAID, LOOK)
    assert isinstance(code, ProviderItem)
    assert json.loads(bytes(code.raw)) == {
        "executableCode": {"language": "PYTHON", "code": "1"},
        "thoughtSignature": "Yw==",
    }
    assert isinstance(now, FunctionCall)
    assert (now.name, now.arguments, now.provider_fields) == ("now", "{}", None)
    assert now.call_id.startswith("call_")
    assert [e.delta for e in events if isinstance(e, TextDelta)] == ["Grü", "ße 😀"]
    assert len([e for e in events if isinstance(e, ReasoningDelta)]) == 2
    usage = Usage(
        input_tokens=125,
        output_tokens=52,
        cached_input_tokens=100,
        reasoning_tokens=12,
        requests=1,
    )
    assert events[-1] == ResponseFinished("r1", "stop", usage)


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


def test_every_prefix_without_a_finish_reason_is_incomplete() -> None:
    last = STREAM.rindex(b"data: ")
    for cut in range(last + 1):
        with pytest.raises(StreamIncomplete):
            decode(STREAM[:cut])


def test_a_call_is_finished_before_the_response_ends() -> None:
    decoder = GeminiDecoder("gemini")
    events = list(decoder.feed(STREAM[: STREAM.rindex(b"data: ")]))
    assert items_of(events)[3] == LOOK
    assert not decoder.stopped
    decoder.feed(STREAM[STREAM.rindex(b"data: ") :])
    assert decoder.stopped


def test_a_response_that_is_not_streamed() -> None:
    candidate = {"content": {"parts": [text("So.")]}, "finishReason": "STOP"}
    body = json.dumps({"candidates": [candidate], "responseId": "r1"}, indent=2).encode()
    events = decode(body)
    assert items_of(events) == [Message("assistant", (OutputText("So."),))]
    assert events[-1] == ResponseFinished("r1", "stop", Usage(requests=1))


pieces = st.lists(
    st.tuples(st.sampled_from(["text", "thought"]), st.text(min_size=1, max_size=8))
    | st.tuples(st.just("call"), st.dictionaries(st.text(max_size=4), st.integers(), max_size=3)),
    max_size=8,
)


@given(pieces)
def test_any_response_is_put_together_again(response: list[tuple[str, Any]]) -> None:
    stream: list[bytes] = []
    expected: list[Item] = []
    for kind, group in itertools.groupby(response, key=lambda piece: piece[0]):
        values = [value for _, value in group]
        if kind == "call":
            for number, value in enumerate(values):
                stream.append(parts(call("look", value)))
                expected.append(FunctionCall(f"{number}", "look", json.dumps(value)))
            continue
        make = text if kind == "text" else thought
        stream += [parts(make(value)) for value in values]
        whole = "".join(values)
        expected.append(
            Message("assistant", (OutputText(whole),))
            if kind == "text"
            else Reasoning(content=(ReasoningText(whole),), provider="gemini")
        )
    events = decode(*stream, parts(finish="STOP"))
    found = items_of(events)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, FunctionCall):
            assert isinstance(other, FunctionCall)
            assert json.loads(one.arguments) == json.loads(other.arguments)
        else:
            assert one == other


# Signatures of thoughts


def sent_back(*items: Item, provider: str = "gemini") -> list[dict[str, Any]]:
    """The parts of the model in the next request."""
    outputs = [FunctionCallOutput(i.call_id, "x") for i in items if isinstance(i, FunctionCall)]
    request = ModelRequest(items=[user_message("hi"), *items, *outputs, user_message("on")])
    body = json.loads(GeminiWire("gemini-3.8-flash").encode("gemini-3.8-flash", request).body)
    return [
        part
        for content in body["contents"]
        if content["role"] == "model"
        for part in content["parts"]
    ]


@pytest.mark.parametrize(
    "given",
    [
        # Gemini 3: on the first call, or in an empty part at the end.
        [call("look", {"a": 1}, "f1", thoughtSignature="c2ln"), call("look", {"a": 2}, "f2")],
        [text("So."), text("", thoughtSignature="c2ln")],
        [text("So "), text("it is.", thoughtSignature="c2ln")],
        [text("", thoughtSignature="c2ln")],
        # Gemini 2.5: in the first part, whatever it is.
        [text("So ", thoughtSignature="c2ln"), text("it is.")],
        [thought("Hm.", thoughtSignature="c2ln"), text("So.")],
        [text("a", thoughtSignature="MQ=="), text("b"), text("c", thoughtSignature="Mg==")],
    ],
)
def test_signatures_go_back_in_their_parts(given: list[dict[str, Any]]) -> None:
    items = items_of(decode(*(parts(one) for one in given), parts(finish="STOP")))
    assert sent_back(*items) == given
    foreign = [
        msgspec.structs.replace(item, provider="other")
        if isinstance(item, Reasoning)
        else msgspec.structs.replace(item, provider_fields=None)
        for item in items
        if not isinstance(item, ProviderItem | FunctionCallOutput)
    ]
    assert "c2ln" not in json.dumps(sent_back(*foreign))


def test_a_thought_without_a_signature_is_not_sent() -> None:
    items = items_of(decode(parts(thought("Hm."), text("So.")), parts(finish="STOP")))
    assert sent_back(*items) == [text("So.")]


def test_a_thought_and_a_signature_behind_it() -> None:
    stream = (parts(thought("Hm.")), parts(text("", thoughtSignature="c2ln"), finish="MAX_TOKENS"))
    (item,) = items_of(decode(*stream))
    assert item == Reasoning(
        content=(ReasoningText("Hm."),), encrypted_content="c2ln", provider="gemini"
    )


# Calls


def test_calls_without_ids_and_with_the_same_get_ids_of_their_own() -> None:
    stream = parts(call("a", {}), call("b", {}, "x"), call("c", {}, "x"), call("d", {}, "used"))
    events = decode(stream, parts(finish="STOP"), used_call_ids=("used",))
    ids = [item.call_id for item in items_of(events) if isinstance(item, FunctionCall)]
    assert len(set(ids)) == 4
    assert ids[1] == "x"
    assert "used" not in ids


@pytest.mark.parametrize("args", [None, {}, ...])
def test_a_call_without_arguments(args: object) -> None:
    given = call("look", args)
    if args is ...:
        del given["functionCall"]["args"]
    (item,) = items_of(decode(parts(given), parts(finish="STOP")))
    assert isinstance(item, FunctionCall)
    assert item.arguments == "{}"


def test_arguments_that_are_not_an_object_are_kept_as_text() -> None:
    events = decode(parts(call("look", [1, "x"])), parts(finish="STOP"))
    (item,) = items_of(events)
    assert isinstance(item, FunctionCall)
    assert item.arguments == '[1, "x"]'
    assert "".join(e.delta for e in events if isinstance(e, ToolArgumentsDelta)) == '[1, "x"]'


def test_a_call_without_a_name_is_an_error() -> None:
    events, error = failing(parts(text("So.")), parts(call("", {})))
    assert isinstance(error, StreamInvalid)
    assert items_of(events) == [Message("assistant", (OutputText("So."),))]


def test_the_name_of_a_tool_that_the_api_does_not_take() -> None:
    tool = ToolSchema("1st", "", {"type": "object"}, strict=False)
    request = ModelRequest(items=[user_message("hi")], tools=(tool,))
    wire = GeminiWire("gemini-3.8-flash")
    body = json.loads(wire.encode("gemini-3.8-flash", request).body)
    (declared,) = body["tools"][0]["functionDeclarations"]
    assert declared["name"] == "_1st"
    events = list(wire.decoder(request).feed(parts(call("_1st", {}))))
    (item,) = items_of(events)
    assert isinstance(item, FunctionCall)
    assert item.name == "1st"


# Errors in the middle


RAW = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("around", ["{}", "[{}]", "[{}]\n\n", ",\n{}]", ",{}\n]", "{}\n\n"])
def test_an_error_without_the_format_of_the_stream(
    around: str, line_end: str, indent: int | None
) -> None:
    raw = around.replace("{}", json.dumps(RAW, indent=indent)).replace("\n", line_end).encode()
    events, error = failing(parts(text("half ")), raw)
    assert isinstance(error, ServerFailed)
    assert (error.message, error.provider_code) == ("The model is overloaded.", "UNAVAILABLE")
    assert [e.delta for e in events if isinstance(e, TextDelta)] == ["half "]
    assert isinstance(failing(raw)[1], ServerFailed | StreamIncomplete)


def test_other_text_in_the_middle_is_not_an_error_of_its_own() -> None:
    for raw in (b"<html>502</html>", b"upstream error", b"[1, 2]", b"[{", b',{"a": 1}'):
        assert isinstance(failing(parts(text("half ")), raw)[1], StreamIncomplete)


# Ends


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("stop", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("LANGUAGE", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("ESCALATION", "content_filter"),
    ],
)
def test_finish_reasons(reason: str, finish: str) -> None:
    events = decode(parts(text("a")), parts(finish=reason))
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].finish_reason == finish
    assert items_of(events) == [Message("assistant", (OutputText("a"),))]


@pytest.mark.parametrize("reason", ["", "FINISH_REASON_UNSPECIFIED"])
def test_a_response_without_a_finish_reason_is_incomplete(reason: str) -> None:
    events, error = failing(parts(text("a")), parts(finish=reason))
    assert isinstance(error, StreamIncomplete)
    assert items_of(events) == []


@pytest.mark.parametrize(
    "reason",
    [
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "MISSING_THOUGHT_SIGNATURE",
        "TOO_MANY_TOOL_CALLS",
        "MALFORMED_RESPONSE",
        "OTHER",
        "SOMETHING_NEW",
    ],
)
def test_every_other_finish_reason_is_an_error(reason: str) -> None:
    events, error = failing(parts(text("half ")), parts(finish=reason))
    assert isinstance(error, ServerFailed)
    assert error.provider_code == reason
    assert reason in error.message
    assert ("ends={" in error.message) is (reason in {"OTHER", "SOMETHING_NEW"})
    (item,) = items_of(events)
    assert isinstance(item, Message)
    assert item.unknown_end == reason


def test_a_response_that_was_stopped_says_why() -> None:
    events = decode(parts(text("I ")), parts(finish="SAFETY", finishMessage="Not this."))
    refusal = Message("assistant", (Refusal("Not this."),))
    assert items_of(events) == [Message("assistant", (OutputText("I "),)), refusal]
    assert any(isinstance(event, RefusalDelta) for event in events)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "The provider blocked the prompt: PROHIBITED_CONTENT."),
        ({"blockReasonMessage": "Not this."}, "Not this."),
    ],
)
def test_a_prompt_that_was_blocked_is_a_refusal(more: dict[str, str], said: str) -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", **more}
    events = decode(frame(promptFeedback=feedback, usageMetadata={"promptTokenCount": 9}))
    assert items_of(events) == [Message("assistant", (Refusal(said),))]
    usage = Usage(input_tokens=9, requests=1)
    assert events[-1] == ResponseFinished("", "content_filter", usage)


def test_an_empty_answer_is_a_response() -> None:
    assert items_of(decode(parts(finish="STOP"))) == []


# What servers send otherwise


def test_odd_chunks_destroy_no_answer() -> None:
    odd = [
        b"data: [DONE]\r\n\r\n",
        b": keep-alive\r\n\r\n",
        frame(candidates=[]),
        frame(candidates=[{"content": {"parts": "odd"}, "index": "0"}]),
        frame(candidates=[{"content": {"parts": [{"text": "So."}, 7]}, "finishMessage": {}}]),
        frame(candidates=[{"content": {"parts": [text("other")]}, "index": 1}]),
        frame(usageMetadata={"promptTokenCount": "12", "candidatesTokenCount": 3.0}, candidates=7),
    ]
    events = decode(*odd, frame(candidates=[{"finishReason": "STOP", "safetyRatings": 7}]))
    assert items_of(events) == [Message("assistant", (OutputText("So."),))]
    usage = Usage(input_tokens=12, output_tokens=3, requests=1)
    assert events[-1] == ResponseFinished("", "stop", usage)


def test_halves_of_characters_are_joined() -> None:
    halves = [
        b'data: {"candidates":[{"content":{"parts":[{"text":"a\\ud83d"}]}}]}\r\n\r\n',
        b'data: {"candidates":[{"content":{"parts":[{"text":"\\ude00b\\ud83d"}]}}]}\r\n\r\n',
    ]
    events = decode(*halves, parts(finish="STOP"))
    assert items_of(events) == [Message("assistant", (OutputText("a😀b\ufffd"),))]


def test_a_call_with_half_a_character() -> None:
    given = b'{"functionCall":{"name":"look","args":{"at":"\\ud83d"}}}'
    data = b'data: {"candidates":[{"content":{"parts":[%b]}}]}\r\n\r\n' % given
    (item,) = items_of(decode(data, parts(finish="STOP")))
    assert isinstance(item, FunctionCall)
    assert json.loads(item.arguments) == {"at": "\ufffd"}


@given(st.binary(max_size=200), st.integers(0, len(STREAM)))
def test_any_bytes_are_read_or_refused(junk: bytes, at: int) -> None:
    with suppress(ModelError):
        decode(STREAM[:at], junk, STREAM[at:])


# Sources


def test_the_sources_of_a_text() -> None:
    grounding = {
        "webSearchQueries": ["q"],
        "groundingChunks": [
            {"web": {"uri": "https://a", "title": "A"}},
            {"retrievedContext": {"uri": "https://b"}},
            {"maps": {}},
        ],
        "groundingSupports": [
            {"segment": {"endIndex": 8, "text": "Grüße"}, "groundingChunkIndices": [0, 1]},
            {"segment": {"startIndex": 9, "endIndex": 11}, "groundingChunkIndices": [2, 9, "x"]},
        ],
    }
    last = parts(finish="STOP", groundingMetadata=grounding)
    item, search = items_of(decode(parts(text("Grüße ")), parts(text("So.")), last))
    assert isinstance(search, ProviderItem)
    assert search.call is not None
    assert search.call.sources == (UrlCitation("https://a", "A"),)
    assert isinstance(item, Message)
    assert item.content == (
        OutputText(
            "Grüße So.",
            (UrlCitation("https://a", "A", 0, 6), UrlCitation("https://b", "", 0, 6)),
        ),
    )


def test_what_a_text_recites() -> None:
    sources = {"citationSources": [{"startIndex": 2, "endIndex": 4, "uri": "https://a"}]}
    (item,) = items_of(decode(parts(text("Grüße"), finish="STOP", citationMetadata=sources)))
    assert isinstance(item, Message)
    (part,) = item.content
    assert isinstance(part, OutputText)
    assert part.annotations == (UrlCitation("https://a", "", 2, 3),)


# Errors


def error(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"code": code, "message": message, "status": status, "details": list(details)}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}
PER_MINUTE = {"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]}
PER_DAY = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
INVALID_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
TOO_LONG = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."


@pytest.mark.parametrize(
    ("given", "kind", "wait"),
    [
        (error(429, "RESOURCE_EXHAUSTED", "Quota.", RETRY, PER_MINUTE), RateLimited, 34.07),
        (error(429, "RESOURCE_EXHAUSTED", "Quota.", PER_DAY, RETRY), QuotaExceeded, None),
        (error(429, "RESOURCE_EXHAUSTED", "Resource exhausted."), RateLimited, None),
        (error(400, "INVALID_ARGUMENT", "API key not valid.", INVALID_KEY), AccessDenied, None),
        (error(403, "PERMISSION_DENIED", "No."), AccessDenied, None),
        (error(401, "UNAUTHENTICATED", "No."), AccessDenied, None),
        (error(400, "INVALID_ARGUMENT", TOO_LONG), ContextOverflow, None),
        (error(400, "FAILED_PRECONDITION", "Billing."), BadRequest, None),
        (error(404, "NOT_FOUND", "models/x is not found."), BadRequest, None),
        (error(500, "INTERNAL", "An internal error has occurred."), ServerFailed, None),
        (error(503, "UNAVAILABLE", "The model is overloaded."), ServerFailed, None),
        (error(504, "DEADLINE_EXCEEDED", "Too late."), ServerFailed, None),
    ],
)
def test_errors(given: dict[str, Any], kind: type[ModelError], wait: float | None) -> None:
    body = json.dumps([{"error": given}]).encode()
    in_response = http_failure(given["code"], {}, body, 0.0)
    _, in_stream = failing(parts(text("So.")), frame(error=given))
    for found in (in_response, in_stream):
        assert type(found) is kind
        assert found.provider_code == given["status"]
        assert getattr(found, "retry_after", None) == wait
        assert found.message == given["message"]


def test_an_error_instead_of_a_stream() -> None:
    body = json.dumps({"error": error(503, "UNAVAILABLE", "Overloaded.")}, indent=2).encode()
    _, found = failing(body)
    assert isinstance(found, ServerFailed)
