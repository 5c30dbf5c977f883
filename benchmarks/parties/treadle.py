"""treadle, as its users run it: `agent.stream` for text, `agent.run` for conversations."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.party import MAX_ROUNDS, QUESTION, FirstDelta, note
from treadle import Agent, Limits, TextDelta
from treadle.models.openai import OpenAIResponses


class Treadle:
    """One agent for each plan, made when it is first needed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._readers: dict[str, Agent] = {}
        self._callers: dict[str, Agent] = {}

    async def read(self, model: str) -> list[str]:
        deltas: list[str] = []
        async with self._reader(model).stream(QUESTION) as run:
            async for event in run:
                if isinstance(event, TextDelta):
                    deltas.append(event.delta)  # noqa: PERF401 - as users write it
        return deltas

    async def first_delta(self, model: str) -> FirstDelta:
        first: FirstDelta | None = None
        async with self._reader(model).stream(QUESTION) as run:
            async for event in run:
                if isinstance(event, TextDelta) and first is None:
                    first = FirstDelta(event.delta, time.monotonic_ns())
        assert first is not None
        return first

    async def converse(self, model: str) -> str:
        agent = self._callers.get(model)
        if agent is None:
            agent = self._callers[model] = Agent(
                self._model(model), tools=[note], limits=Limits(max_steps=MAX_ROUNDS)
            )
        return (await agent.run(QUESTION)).text

    def _reader(self, model: str) -> Agent:
        agent = self._readers.get(model)
        if agent is None:
            agent = self._readers[model] = Agent(self._model(model))
        return agent

    def _model(self, model: str) -> OpenAIResponses:
        return OpenAIResponses(model, api_key="", base_url=self._url)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Treadle]:
    """treadle opens its session by itself, and closes it with the event loop."""
    yield Treadle(url)
