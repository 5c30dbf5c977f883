"""Sources of texts: each wire puts them on the text, and its provider gets them back."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle import FileCitation, Message, OutputText, UrlCitation
from treadle.domain.inputs import as_history
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic import AnthropicWire
from treadle.models.wire.anthropic_request import AnthropicOptions
from treadle.models.wire.base import Wire
from treadle.models.wire.chat import ChatWire
from treadle.models.wire.citations import annotation_of, content_annotations
from treadle.models.wire.responses import ResponsesWire
from treadle.streaming.demux import ItemFinished

URL = {
    "type": "url_citation",
    "url": "https://x/y",
    "title": "Y",
    "start_index": 1,
    "end_index": 3,
}
QUOTE = {
    "type": "page_location",
    "cited_text": "oil",
    "document_title": "r.pdf",
    "start_page_number": 2,
    "end_page_number": 3,
}


def message_of(wire: Wire, *events: dict[str, Any]) -> Message:
    decoder = wire.decoder(ModelRequest(items=[]))
    data = b"".join(
        b"event: %s\ndata: %s\n\n" % (event.get("type", "").encode(), msgspec.json.encode(event))
        for event in events
    )
    found = [*decoder.feed(data), *decoder.end()] if not decoder.finished else []
    items = [event.item for event in found if isinstance(event, ItemFinished)]
    (message,) = [item for item in items if isinstance(item, Message)]
    return message


def test_annotations_of_responses_are_on_their_texts() -> None:
    wire = ResponsesWire()
    part = {"type": "output_text", "text": "Look.", "annotations": [URL]}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}
    message = message_of(
        wire,
        {
            "type": "response.output_text.delta",
            "output_index": 0,
            "item_id": "msg_1",
            "delta": "Look.",
        },
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"status": "completed", "output": [item]}},
    )
    assert message.content == (OutputText("Look.", (UrlCitation("https://x/y", "Y", 1, 3),)),)
    body = wire.encode("gpt-5", ModelRequest(items=[message])).body
    assert msgspec.json.decode(body)["input"][0]["content"][0]["annotations"] == [URL]


def test_citations_of_anthropic_are_on_their_texts() -> None:
    wire = AnthropicWire(AnthropicOptions())
    message = message_of(
        wire,
        {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "citations_delta", "citation": QUOTE},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "It needs oil."},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    )
    source = FileCitation(filename="r.pdf", cited_text="oil", page=2)
    assert message.content == (OutputText("It needs oil.", (source,)),)
    body = msgspec.json.decode(wire.encode("claude", ModelRequest(items=[message])).body)
    said = next(turn for turn in body["messages"] if turn["role"] == "assistant")
    assert said["content"][0]["citations"] == [QUOTE]


def test_annotations_of_chat_completions_are_on_their_texts() -> None:
    nested = {"type": "url_citation", "url_citation": {"url": "https://x/y", "title": "Y"}}
    message = message_of(
        ChatWire(),
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Look."}}]},
        {"choices": [{"index": 0, "delta": {"annotations": [nested]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    )
    assert message.content == (OutputText("Look.", (UrlCitation("https://x/y", "Y"),)),)


def test_texts_that_follow_one_another_are_one() -> None:
    text = {"type": "output_text", "text": "abc", "annotations": [URL]}
    refusal = {"type": "refusal", "refusal": "no"}
    first, moved = UrlCitation("https://x/y", "Y", 1, 3), UrlCitation("https://x/y", "Y", 4, 6)
    assert content_annotations([text, text, refusal, text]) == [[first, moved], [first]]


@pytest.mark.parametrize("kind", [UrlCitation, FileCitation])
def test_sources_are_journaled_and_passed_as_a_history(kind: type) -> None:
    source = kind(**({"url": "https://x"} if kind is UrlCitation else {"filename": "a"}))
    message = Message("assistant", (OutputText("x", (source,)),), "m")
    encoded = msgspec.json.encode(message)
    assert msgspec.json.decode(encoded, type=Message) == message
    assert list(as_history([message])) == [message]
    assert list(as_history([msgspec.json.decode(encoded)])) == [message]


@given(
    st.dictionaries(
        st.sampled_from(["url", "title", "start_index", "end_index", "url_citation", "index"]),
        st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    ),
    st.sampled_from(["url_citation", "file_citation", "char_location", "page_location", "x", 7]),
)
def test_any_annotation_is_read_or_left_out(fields: dict[str, Any], kind: object) -> None:
    found = annotation_of({**fields, "type": kind})
    if found is not None:
        assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


@given(st.text(max_size=5), st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9))
def test_places_are_within_the_text(text: str, start: int | None, end: int | None) -> None:
    for one in (UrlCitation("https://x", "", start, end), FileCitation("f", "", start, end)):
        stored = msgspec.json.encode({"type": "output_text", "text": text, "annotations": [one]})
        decoded = msgspec.json.decode(stored, type=OutputText)
        for part in (OutputText(text, (one,)), decoded):
            (kept,) = part.annotations
            first, last = kept.start_index, kept.end_index
            assert [first is None, last is None] == [start is None, end is None]
            assert 0 <= (first or 0) <= len(text)
            assert last is None or (first or 0) <= last <= len(text)
            if 0 <= (start or 0) <= (len(text) if end is None else end) <= len(text):
                assert kept == one
