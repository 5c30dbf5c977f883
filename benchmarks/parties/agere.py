"""agere: its adapter of a model's stream, over the openai SDK's blocking client.

agere has no client and no tool calls of its own: it takes an iterable and reads it in threads. So
it takes part where text is streamed; `converse` says that it cannot.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from agere.utils.llm_async_converters import LLMAsyncAdapter  # type: ignore[import-not-found]
from openai import OpenAI
from openai.types.responses import ResponseTextDeltaEvent

from benchmarks.party import QUESTION, FirstDelta


class Agere:
    """Reads the typed events of a blocking stream through the adapter."""

    def __init__(self, client: OpenAI) -> None:
        self._client = client

    async def read(self, model: str) -> list[str]:
        adapter = LLMAsyncAdapter()
        return [text async for text in adapter.llm_to_async_iterable(self._texts(model))]

    async def first_delta(self, model: str) -> FirstDelta:
        first: FirstDelta | None = None
        async for text in LLMAsyncAdapter().llm_to_async_iterable(self._texts(model)):
            if first is None:
                first = FirstDelta(text, time.monotonic_ns())
        assert first is not None
        return first

    async def converse(self, model: str) -> str:
        raise NotImplementedError("agere runs no tool calls")

    def _texts(self, model: str) -> Iterator[str]:
        for event in self._client.responses.create(model=model, input=QUESTION, stream=True):
            if isinstance(event, ResponseTextDeltaEvent):
                yield event.delta


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Agere]:
    """Opens one blocking client."""
    with OpenAI(base_url=url, api_key="any", max_retries=0, timeout=None) as client:
        yield Agere(client)
