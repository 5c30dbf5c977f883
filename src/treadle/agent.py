"""An agent: its definition, and the ways to run it."""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from treadle.domain.items import Input, Item
from treadle.domain.result import RunResult
from treadle.errors import ConfigurationError, ToolFailed
from treadle.loop.definition import AgentDefinition, Deps, Out
from treadle.runtime.foreground import Run
from treadle.tools.context import RunContext
from treadle.tools.function import Tool, tool


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

    def as_tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        needs_approval: bool = False,
    ) -> Tool[..., object]:
        """Returns a tool that has this agent work on a message, and whose output is its output.

        It works on a thread of its own, linked to the call: its events are shown as `AgentEvent`,
        what it uses counts for the run, and it is cancelled with it. `name` and `description`
        default to those of the agent; `timeout` is in seconds. Raises `InvalidTool`.
        """

        async def work(context: RunContext[object], message: str) -> object:
            """Asks the agent.

            Args:
                message: What it is to do, and all it needs to know: it knows nothing else.
            """
            result = await context.run_agent(self, message)
            if result.status != "completed":
                why = f"{self.name} stopped before its end ({result.stop_reason})"
                raise ToolFailed(f"{why}: {result.text}" if result.text else f"{why}.")
            return result.output

        made = tool(
            name=name or re.sub(r"[^a-zA-Z0-9_-]", "_", self.name)[:64],
            description=description or self.description or f"Asks the agent {self.name}.",
            timeout=timeout,
            idempotent=True,
            needs_approval=needs_approval,
        )(work)
        return replace(made, worker=self)
