"""treadle on threads: `thread.send` on a runtime, kept in memory or in SQLite."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import treadle
from benchmarks.party import MAX_ROUNDS, QUESTION, FirstDelta, note
from treadle import Agent, Limits, Runtime, TextDelta, Thread
from treadle.models.openai import OpenAIResponses


class TreadleThreads:
    """A new thread for each conversation; one agent for each plan, made when first needed."""

    def __init__(self, url: str, runtime: Runtime) -> None:
        self.runtime = runtime
        self._url = url
        self._agents: dict[str, Agent] = {}
        self._session: Thread | None = None

    async def read(self, model: str) -> list[str]:
        deltas: list[str] = []
        thread = await self.runtime.create_thread(self.agent(model))
        async for event in await thread.send(QUESTION):
            if isinstance(event, TextDelta):
                deltas.append(event.delta)  # noqa: PERF401 - as users write it
        return deltas

    async def first_delta(self, model: str) -> FirstDelta:
        first: FirstDelta | None = None
        thread = await self.runtime.create_thread(self.agent(model))
        async for event in await thread.send(QUESTION):
            if isinstance(event, TextDelta) and first is None:
                first = FirstDelta(event.delta, time.monotonic_ns())
        assert first is not None
        return first

    async def converse(self, model: str) -> str:
        thread = await self.runtime.create_thread(self.agent(model))
        return (await (await thread.send(QUESTION)).result()).text

    async def turn(self, model: str) -> str:
        """Takes a turn of the one long conversation of this process."""
        if self._session is None:
            self._session = await self.runtime.create_thread(self.agent(model))
        return (await (await self._session.send(QUESTION)).result()).text

    def agent(self, model: str) -> Agent:
        agent = self._agents.get(model)
        if agent is None:
            agent = self._agents[model] = Agent(
                OpenAIResponses(model, api_key="", base_url=self._url),
                name=f"agent {len(self._agents)}",
                tools=[note],
                limits=Limits(max_steps=MAX_ROUNDS),
            )
        return agent


@asynccontextmanager
async def threads(url: str, database: str | None) -> AsyncIterator[TreadleThreads]:
    """Opens a runtime for the time of the measurement."""
    async with treadle.open(database) as runtime:
        yield TreadleThreads(url, runtime)
