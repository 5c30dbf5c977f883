"""The openai SDK's own loop: typed events of `responses.create(stream=True)`, tools by hand."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from openai import AsyncOpenAI, AsyncStream
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputItemDoneEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
)

from benchmarks.party import MAX_ROUNDS, QUESTION, TOOL_SCHEMA, FirstDelta, note


class OpenAISdk:
    """The loop that the SDK's documentation shows."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client

    async def read(self, model: str) -> list[str]:
        deltas: list[str] = []
        stream = await self._client.responses.create(model=model, input=QUESTION, stream=True)
        async for event in stream:
            if isinstance(event, ResponseTextDeltaEvent):
                deltas.append(event.delta)  # noqa: PERF401 - as the SDK's users write it
        return deltas

    async def first_delta(self, model: str) -> FirstDelta:
        first: FirstDelta | None = None
        stream = await self._client.responses.create(model=model, input=QUESTION, stream=True)
        async for event in stream:
            if isinstance(event, ResponseTextDeltaEvent) and first is None:
                first = FirstDelta(event.delta, time.monotonic_ns())
        assert first is not None
        return first

    async def converse(self, model: str) -> str:
        items: list[Any] = [{"role": "user", "content": QUESTION}]
        for _ in range(MAX_ROUNDS):
            text, calls = await self._exchange(model, items)
            if not calls:
                return text
            for call in calls:
                output = await note(**json.loads(call.arguments))
                items += (_call(call), _output(call, output))
        raise RuntimeError("The conversation does not end.")

    async def _exchange(
        self, model: str, items: list[Any]
    ) -> tuple[str, list[ResponseFunctionToolCall]]:
        deltas: list[str] = []
        calls: list[ResponseFunctionToolCall] = []
        stream = cast(
            "AsyncStream[ResponseStreamEvent]",
            await self._client.responses.create(
                model=model, input=items, tools=cast("Any", [TOOL_SCHEMA]), stream=True
            ),
        )
        async for event in stream:
            if isinstance(event, ResponseTextDeltaEvent):
                deltas.append(event.delta)
            elif isinstance(event, ResponseOutputItemDoneEvent) and isinstance(
                event.item, ResponseFunctionToolCall
            ):
                calls.append(event.item)
        return "".join(deltas), calls


def _call(call: ResponseFunctionToolCall) -> object:
    return {
        "type": "function_call",
        "call_id": call.call_id,
        "name": call.name,
        "arguments": call.arguments,
    }


def _output(call: ResponseFunctionToolCall, output: str) -> object:
    return {"type": "function_call_output", "call_id": call.call_id, "output": output}


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[OpenAISdk]:
    """Opens a client that neither retries nor times out."""
    async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=None) as client:
        yield OpenAISdk(client)
