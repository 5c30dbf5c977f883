"""openai-agents: `Runner.run_streamed` on the Responses model."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents import (
    Agent,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from benchmarks.party import MAX_ROUNDS, QUESTION, FirstDelta, note

TEXT_DELTA = "response.output_text.delta"


class OpenAIAgents:
    """An agent for each plan."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self._tools = [function_tool(note)]
        self._agents: dict[tuple[str, bool], Agent] = {}

    async def read(self, model: str) -> list[str]:
        deltas: list[str] = []
        result = Runner.run_streamed(self._agent(model, tools=False), QUESTION)
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == TEXT_DELTA:
                deltas.append(event.data.delta)  # noqa: PERF401 - as its users write it
        return deltas

    async def first_delta(self, model: str) -> FirstDelta:
        first: FirstDelta | None = None
        result = Runner.run_streamed(self._agent(model, tools=False), QUESTION)
        async for event in result.stream_events():
            if (
                event.type == "raw_response_event"
                and event.data.type == TEXT_DELTA
                and first is None
            ):
                first = FirstDelta(event.data.delta, time.monotonic_ns())
        assert first is not None
        return first

    async def converse(self, model: str) -> str:
        agent = self._agent(model, tools=True)
        result = Runner.run_streamed(agent, QUESTION, max_turns=MAX_ROUNDS)
        async for _ in result.stream_events():
            pass
        return str(result.final_output)

    def _agent(self, model: str, *, tools: bool) -> Agent:
        agent = self._agents.get((model, tools))
        if agent is None:
            agent = self._agents[model, tools] = Agent(
                name="bench",
                model=OpenAIResponsesModel(model=model, openai_client=self._client),
                tools=list(self._tools) if tools else [],
            )
        return agent


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[OpenAIAgents]:
    """Opens one client for all agents; tracing, which would go to the network, is off."""
    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=None) as client:
        yield OpenAIAgents(client)
