"""Fields that only their provider understands: read with their item, and sent back with it."""

import json
from typing import Any

import msgspec
import pytest

from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Message, Reasoning
from treadle.domain.items import user_message as said
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic import AnthropicWire
from treadle.models.wire.base import Wire
from treadle.models.wire.chat import ChatWire
from treadle.models.wire.chat_request import ChatOptions
from treadle.models.wire.responses import ResponsesWire
from treadle.streaming.demux import ItemFinished

WEATHER = {"name": "weather", "arguments": '{"city": "Oslo"}'}
CALL = {"index": 0, "id": "c1", "type": "function", "function": WEATHER}


def chat_items(*deltas: dict[str, Any], provider: str = "chat:x") -> list[Item]:
    """The items of a streamed response, as they come out of the journal."""
    decoder = ChatWire(ChatOptions(provider=provider)).decoder(ModelRequest(items=[]))
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    events = [*decoder.feed(data.encode()), *([] if decoder.finished else decoder.end())]
    finished = sorted(
        (event for event in events if isinstance(event, ItemFinished)), key=lambda e: e.index
    )
    items = [event.item for event in finished]
    assert msgspec.json.decode(msgspec.json.encode(items), type=list[Item]) == items
    return items


def chat_sent(items: list[Item], provider: str = "chat:x") -> list[Any]:
    """What the messages of the assistant become in the next request."""
    outputs = [FunctionCallOutput(i.call_id, "x") for i in items if isinstance(i, FunctionCall)]
    request = ModelRequest(items=[said("hi"), *items, *outputs, said("on")])
    body = json.loads(ChatWire(ChatOptions(provider=provider)).encode("m", request).body)
    return [message for message in body["messages"] if message["role"] == "assistant"]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_of_chat_goes_back_in_its_field(field: str) -> None:
    items = chat_items({field: "I need "}, {field: "it."}, {"tool_calls": [CALL]})
    (sent,) = chat_sent(items)
    assert sent[field] == "I need it."
    assert len(sent.keys() & {"reasoning_content", "reasoning"}) == 1
    (elsewhere,) = chat_sent(items, "chat:y")
    assert not elsewhere.keys() & {"reasoning_content", "reasoning"}


def test_thinking_parts_of_mistral_go_back_as_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    items = chat_items({"content": [thinking]}, {"content": [{"type": "text", "text": "So."}]})
    (sent,) = chat_sent(items)
    assert sent["content"] == [thinking, {"type": "text", "text": "So."}]


def test_details_of_reasoning_are_joined_and_go_back() -> None:
    pieces: list[Any] = [
        {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0, "text": "I need"},
        {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0, "text": " it."},
        {"type": "reasoning.text", "index": 0, "text": None, "signature": "c2ln"},
        {"type": "reasoning.encrypted", "index": 1, "data": "ZGF0YQ==", "id": "c1"},
        {"type": "reasoning.encrypted", "index": 1, "data": "bW9yZQ==", "id": "c2"},
        {"type": "reasoning.summary", "summary": None},
        {"type": {"odd": 1}},
        "odd",
    ]
    deltas = [{"content": "", "reasoning_details": [piece]} for piece in pieces]
    items = chat_items(*deltas, {"reasoning_details": "odd"}, {"tool_calls": [CALL]})
    reasoning = [item for item in items if isinstance(item, Reasoning)]
    assert [item.text for item in reasoning] == [""]
    (sent,) = chat_sent(items)
    assert sent["reasoning_details"] == [
        {
            "type": "reasoning.text",
            "format": "anthropic-claude-v1",
            "index": 0,
            "text": "I need it.",
            "signature": "c2ln",
        },
        {"type": "reasoning.encrypted", "index": 1, "data": "ZGF0YQ==", "id": "c1"},
        {"type": "reasoning.encrypted", "index": 1, "data": "bW9yZQ==", "id": "c2"},
        {"type": "reasoning.summary", "summary": None},
        {"type": {"odd": 1}},
    ]


def test_signatures_of_gemini_stay_with_their_call_and_text() -> None:
    signature = {"google": {"thought_signature": "c2ln"}}
    other = {"index": 1, "id": "c2", "function": WEATHER}
    items = chat_items(
        {"content": "So.", "extra_content": {"google": {"thought_signature": "dGV4dA=="}}},
        {"tool_calls": [CALL | {"extra_content": signature}]},
        {"tool_calls": [other]},
    )
    text, first, second = items
    assert isinstance(text, Message)
    assert text.provider_fields is not None
    assert isinstance(first, FunctionCall)
    assert isinstance(second, FunctionCall)
    assert second.provider_fields is None
    (sent,) = chat_sent(items)
    assert sent["extra_content"] == {"google": {"thought_signature": "dGV4dA=="}}
    assert [call.get("extra_content") for call in sent["tool_calls"]] == [signature, None]
    (elsewhere,) = chat_sent(items, "chat:y")
    assert "extra_content" not in json.dumps(elsewhere)


def frames(*events: dict[str, Any]) -> bytes:
    lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return "".join(lines).encode()


def there_and_back(wire: Wire, body: bytes) -> list[Any]:
    """What a response becomes in the next request."""
    events = wire.decoder(ModelRequest(items=[])).feed(body)
    items = [event.item for event in events if isinstance(event, ItemFinished)]
    request = ModelRequest(items=[said("hi"), *items, said("on")])
    sent = json.loads(wire.encode("m", request).body)
    return sent.get("input", sent.get("messages"))[1:-1]


def test_phase_and_annotations_go_back_to_responses() -> None:
    cited = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    part = {"type": "output_text", "text": "So.", "annotations": [cited]}
    item = {"type": "message", "id": "msg_1", "phase": "commentary", "content": [part]}
    done = {"type": "response.output_item.done", "output_index": 0, "item": item}
    end = {"type": "response.completed", "response": {"id": "r", "status": "completed"}}
    (sent,) = there_and_back(ResponsesWire(), frames(done, end))
    assert sent["phase"] == "commentary"
    assert sent["content"] == [part]


def test_citations_go_back_to_messages() -> None:
    cited = {"type": "char_location", "cited_text": "x", "document_index": 0}
    text = {"type": "text", "text": ""}
    body = frames(
        {"type": "message_start", "message": {"id": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": text},
        *(
            {"type": "content_block_delta", "index": 0, "delta": delta}
            for delta in (
                {"type": "citations_delta", "citation": cited},
                {"type": "text_delta", "text": "So."},
            )
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    )
    (sent,) = there_and_back(AnthropicWire(), body)
    assert sent["content"] == [{"type": "text", "text": "So.", "citations": [cited]}]
