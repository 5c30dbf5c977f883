"""An agent: its definition, and the ways to run it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from weft.definition import AgentDefinition, Deps, Out
from weft.errors import ConfigurationError
from weft.items import Input, Item
from weft.runtime.foreground import Run
from weft.runtime.result import RunResult


class Agent(AgentDefinition[Deps, Out]):
    """An agent; see `AgentDefinition` for what it is made of.

        agent = Agent("openai:gpt-5", instructions="Be brief.", tools=[get_weather])
        result = await agent.run("What is the weather in Paris?")

    An agent holds no conversation and may be used by any number of runs at the same time.
    """

    async def run(
        self, input: Input, *, deps: Deps = None, history: Sequence[Item] = ()
    ) -> RunResult[Out]:
        """Runs the agent to its end and returns what came of it.

        `deps` reaches tools through their `RunContext`; `history` is the conversation so far, such
        as the `history` of an earlier result. Raises `InvalidInput` for an empty message or an
        invalid history, and the error of a run that failed.
        """
        run = Run(self, input, deps=deps, history=history, watched=False)
        await run.drive()
        return await run.result()

    @asynccontextmanager
    async def stream(
        self, input: Input, *, deps: Deps = None, history: Sequence[Item] = ()
    ) -> AsyncGenerator[Run[Out]]:
        """Starts a run and yields it; leaving the context cancels a run that has not ended.

        Parameters and errors are those of `run`, which come with the events and `result()`.
        """
        run = Run(self, input, deps=deps, history=history)
        run.start()
        try:
            yield run
        finally:
            await run.stop()

    def run_sync(
        self, input: Input, *, deps: Deps = None, history: Sequence[Item] = ()
    ) -> RunResult[Out]:
        """Runs the agent from code that is not async; see `run`.

        Raises `ConfigurationError` inside a running event loop.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.run(input, deps=deps, history=history))
        raise ConfigurationError("run_sync() cannot be called from async code; await run().")
