"""pydantic-ai: `run_stream` for text, and for tools `run` with an event handler.

Without a handler `run` does not stream.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from pydantic_ai import Agent, UsageLimits  # type: ignore[import-not-found]
from pydantic_ai.models.openai import OpenAIResponsesModel  # type: ignore[import-not-found]
from pydantic_ai.providers.openai import OpenAIProvider  # type: ignore[import-not-found]

from benchmarks.party import MAX_ROUNDS, QUESTION, FirstDelta, note


class PydanticAI:
    """An agent for each plan."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._provider = OpenAIProvider(openai_client=client)
        self._agents: dict[tuple[str, bool], Any] = {}

    async def read(self, model: str) -> list[str]:
        async with self._agent(model, tools=False).run_stream(QUESTION) as result:
            return [delta async for delta in result.stream_text(delta=True, debounce_by=None)]

    async def first_delta(self, model: str) -> FirstDelta:
        first: FirstDelta | None = None
        async with self._agent(model, tools=False).run_stream(QUESTION) as result:
            async for delta in result.stream_text(delta=True, debounce_by=None):
                if first is None:
                    first = FirstDelta(delta, time.monotonic_ns())
        assert first is not None
        return first

    async def converse(self, model: str) -> str:
        agent = self._agent(model, tools=True)
        limits = UsageLimits(request_limit=MAX_ROUNDS)
        result = await agent.run(QUESTION, event_stream_handler=_drain, usage_limits=limits)
        return str(result.output)

    def _agent(self, model: str, *, tools: bool) -> Any:
        agent = self._agents.get((model, tools))
        if agent is None:
            agent = self._agents[model, tools] = Agent(
                OpenAIResponsesModel(model, provider=self._provider), tools=[note] if tools else []
            )
        return agent


async def _drain(_: object, events: AsyncIterator[object]) -> None:
    async for _event in events:
        pass


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[PydanticAI]:
    """Opens one client for all agents."""
    async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=None) as client:
        yield PydanticAI(client)
