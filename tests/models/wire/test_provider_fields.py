"""Fields that only their provider understands: read with their item, and sent back with it."""

import json
from typing import Any

import msgspec
import pytest

from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Message, Reasoning
from treadle.domain.items import user_message as said
from treadle.models.base import ModelRequest
from treadle.models.wire.chat import ChatWire
from treadle.models.wire.chat_request import ChatOptions
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
