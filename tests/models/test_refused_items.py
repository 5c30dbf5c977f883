"""Requests that differ from their items, and refusals that name an item, through HTTP models."""

import json
from collections.abc import Callable, Mapping

import pytest

from treadle.domain.items import FunctionCall, FunctionCallOutput, message, user_message
from treadle.errors import BadRequest, ItemRefused
from treadle.models.anthropic import AnthropicMessages
from treadle.models.base import ItemsAdapted, ModelRequest
from treadle.models.gemini import Gemini
from treadle.models.http import HttpModel
from treadle.models.openai import OpenAIChat, OpenAIResponses
from treadle.models.transport import HttpRequest

pytestmark = pytest.mark.anyio


class Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, n: int, /) -> bytes:
        data, self._data = self._data[:n], self._data[n:]
        return data

    async def readany(self) -> bytes:
        return await self.read(1 << 20)

    def at_eof(self) -> bool:
        return not self._data


class Answer:
    """A transport whose every response is the same."""

    def __init__(self, status: int, data: bytes, kind: str = "text/event-stream") -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": kind}
        self.content_type = kind
        self._data = data
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> "Answer":
        self.requests.append(request)
        self.content = Body(self._data)
        return self

    def release(self) -> None: ...

    def close(self) -> None: ...


def refusal(text: str) -> Answer:
    body = json.dumps({"error": {"message": text, "type": "invalid_request_error"}})
    return Answer(400, body.encode(), "application/json")


CALL = FunctionCall("call_12345", "look up", "{}")
REQUEST = ModelRequest(
    items=[user_message("hi"), CALL, FunctionCallOutput("call_12345", "x"), user_message("on")]
)
Kind = Callable[..., HttpModel]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (OpenAIResponses, "Invalid 'input[1].name': string does not match pattern."),
        (OpenAIChat, "Invalid 'messages[1].tool_calls[0].function.name': no."),
        (AnthropicMessages, "messages.1.content.0.tool_use.name: String should match pattern"),
        (Gemini, "GenerateContentRequest.contents[1].parts[0].function_call.name: no."),
    ],
)
async def test_a_refusal_that_names_an_item(kind: Kind, text: str) -> None:
    model = kind("m", api_key="k", transport=refusal(text))
    with pytest.raises(ItemRefused) as caught:
        _ = [event async for event in model.stream(REQUEST)]
    assert caught.value.item is CALL
    assert (caught.value.message, caught.value.status, caught.value.retryable) == (text, 400, False)
    assert caught.value.seq == 0


async def test_other_refusals_stay_what_they_are() -> None:
    model = OpenAIChat("m", api_key="k", transport=refusal("Unknown parameter: 'seed'."))
    with pytest.raises(BadRequest) as caught:
        _ = [event async for event in model.stream(REQUEST)]
    assert type(caught.value) is BadRequest


async def test_a_refusal_inside_the_stream() -> None:
    error = {"type": "error", "code": "invalid_value", "message": "Invalid 'input[1].name'."}
    stream = Answer(200, f"event: error\ndata: {json.dumps(error)}\n\n".encode())
    model = OpenAIResponses("m", api_key="k", transport=stream)
    with pytest.raises(ItemRefused) as caught:
        _ = [event async for event in model.stream(REQUEST)]
    assert caught.value.item is CALL


async def test_changes_are_reported_before_the_answer() -> None:
    end = {
        "id": "c",
        "choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}],
    }
    done = Answer(200, f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode())
    model = OpenAIChat("m", api_key="k", transport=done)
    first, *_ = [event async for event in model.stream(REQUEST)]
    assert isinstance(first, ItemsAdapted)
    assert [(one.item, one.reason) for one in first.changes] == [(CALL, "tool_name")]
    plain = ModelRequest(items=[user_message("hi"), message("assistant", "ho"), user_message("on")])
    events = [event async for event in model.stream(plain)]
    assert not any(isinstance(event, ItemsAdapted) for event in events)


@pytest.mark.parametrize("kind", [OpenAIResponses, OpenAIChat, AnthropicMessages, Gemini])
async def test_a_strict_model_sends_nothing_it_would_have_to_change(kind: Kind) -> None:
    transport = refusal("never sent")
    model = kind("m", api_key="k", strict=True, transport=transport)
    with pytest.raises(ItemRefused, match="look up") as caught:
        _ = [event async for event in model.stream(REQUEST)]
    assert caught.value.item is CALL
    assert not transport.requests
