"""An agent: its definition, and the ways to run it."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast, overload

from typing_extensions import Unpack

from treadle.domain.items import Input, Item
from treadle.domain.result import RunResult
from treadle.errors import ConfigurationError, InvalidInput, ToolFailed
from treadle.loop.catalog import Catalog
from treadle.loop.definition import AgentDefinition, Deps, Out
from treadle.loop.options import OptionArguments, Output, make_options
from treadle.runtime.foreground import Run, drive_run, start_run, stop_run
from treadle.tools.async_only import AsyncOnly
from treadle.tools.context import RunContext
from treadle.tools.function import Tool, tool

T = TypeVar("T")


class Agent(AgentDefinition[Deps, Out]):
    """An agent: a model with instructions, tools, an output type, limits and hooks.

        agent = Agent("openai:gpt-5", instructions="Be brief.", tools=[get_weather])
        result = await agent.run("What is the weather in Paris?")

    An agent holds no conversation, so any number of runs can use it at the same time. Its
    parameters are documented at `Agent.__init__`.
    """

    @overload
    async def run(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: None = None,
        raise_on_incomplete: Literal[True] = True,
        **options: Unpack[OptionArguments],
    ) -> RunResult[Out]: ...

    @overload
    async def run(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: None = None,
        raise_on_incomplete: bool,
        **options: Unpack[OptionArguments],
    ) -> RunResult[Out | None]: ...

    @overload
    async def run(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: type[T],
        raise_on_incomplete: Literal[True] = True,
        **options: Unpack[OptionArguments],
    ) -> RunResult[T]: ...

    @overload
    async def run(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: type[T],
        raise_on_incomplete: bool,
        **options: Unpack[OptionArguments],
    ) -> RunResult[T | None]: ...

    @overload
    async def run(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: Mapping[str, object],
        raise_on_incomplete: bool = True,
        **options: Unpack[OptionArguments],
    ) -> RunResult[Any]: ...

    async def run(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: Output | None = None,
        raise_on_incomplete: bool = True,
        **options: Unpack[OptionArguments],
    ) -> RunResult[Any]:
        """Runs the agent on a message, and returns the result.

        - `input`: the message: a text, a `Message`, or parts of text and images.
        - `deps`: is passed to tools and hooks as the `deps` of their context.
        - `history`: the conversation so far, for example the `history` of an earlier result.
        - `output`: the type of the result, or its JSON Schema, in place of the agent's.
        - `raise_on_incomplete`: False returns the result of a run that a limit or a filter stopped.
        - `model`, `settings`, `instructions`, `extra_instructions`, `tools`, `tool_choice`,
          `limits`, `metadata`: options of this run.

        Raises `InvalidInput` for an empty message or an invalid history, `ConfigurationError` for
        options that cannot work together, the error of a failed run, and a kind of `RunStopped`,
        such as `LimitReached`, for a run without an output.
        """
        run = self._run(input, deps, history, output, options, watched=False)
        await drive_run(run)
        return await run.result(raise_on_incomplete=raise_on_incomplete)

    @overload
    def stream(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: None = None,
        **options: Unpack[OptionArguments],
    ) -> AbstractAsyncContextManager[Run[Out]]: ...

    @overload
    def stream(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: type[T],
        **options: Unpack[OptionArguments],
    ) -> AbstractAsyncContextManager[Run[T]]: ...

    @overload
    def stream(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: Mapping[str, object],
        **options: Unpack[OptionArguments],
    ) -> AbstractAsyncContextManager[Run[Any]]: ...

    def stream(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: Output | None = None,
        **options: Unpack[OptionArguments],
    ) -> AbstractAsyncContextManager[Run[Any]]:
        """Starts a run and yields it; leaving the block cancels a run that has not ended.

        The parameters are those of `run`. Its errors are raised by the iteration of the events and
        by `result()`. Use it with `async with`.
        """
        return _Stream(lambda: self._run(input, deps, history, output, options, function="stream"))

    @overload
    def run_sync(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: None = None,
        raise_on_incomplete: Literal[True] = True,
        **options: Unpack[OptionArguments],
    ) -> RunResult[Out]: ...

    @overload
    def run_sync(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: None = None,
        raise_on_incomplete: bool,
        **options: Unpack[OptionArguments],
    ) -> RunResult[Out | None]: ...

    @overload
    def run_sync(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: type[T],
        raise_on_incomplete: Literal[True] = True,
        **options: Unpack[OptionArguments],
    ) -> RunResult[T]: ...

    @overload
    def run_sync(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: type[T],
        raise_on_incomplete: bool,
        **options: Unpack[OptionArguments],
    ) -> RunResult[T | None]: ...

    @overload
    def run_sync(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: Mapping[str, object],
        raise_on_incomplete: bool = True,
        **options: Unpack[OptionArguments],
    ) -> RunResult[Any]: ...

    def run_sync(
        self,
        input: Input,
        *,
        deps: Deps = None,
        history: Sequence[Item] = (),
        output: Output | None = None,
        raise_on_incomplete: bool = True,
        **options: Unpack[OptionArguments],
    ) -> RunResult[Any]:
        """Runs the agent from synchronous code; see `run`.

        Raises `ConfigurationError` if an event loop is running.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            run = self._run(
                input, deps, history, output, options, function="run_sync", watched=False
            )
            return asyncio.run(_driven(run, raise_on_incomplete=raise_on_incomplete))
        raise ConfigurationError(
            "run_sync() cannot be called while an event loop is running; use `await agent.run(…)`."
        )

    def _run(
        self,
        input: Input,
        deps: Deps,
        history: Sequence[Item],
        output: Output | None,
        options: OptionArguments,
        *,
        function: str = "run",
        watched: bool = True,
    ) -> Run[Any]:
        catalog = Catalog()
        given = make_options(catalog, options, output, function=function, is_kept=False)
        return Run(
            self,
            input,
            deps=deps,
            history=history,
            watched=watched,
            options=given,
            catalog=catalog,
        )

    def as_tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        needs_approval: bool = False,
    ) -> Tool[..., object]:
        """Returns a tool that runs this agent on a message, and returns the agent's output.

        The agent works on a separate thread linked to the call. Its events are published as
        `AgentEvent`, its usage counts for the calling run, and it is cancelled with that run.

        - `name`, `description`: default to those of the agent.
        - `timeout`: in seconds; None for no limit.
        - `needs_approval`: whether a person must approve each call.

        Raises `InvalidTool` if the name is not a valid tool name.
        """

        async def work(context: RunContext[object], message: str) -> object:
            """Asks the agent.

            Args:
                message: The task, with everything the agent must know. It sees nothing else.
            """
            result = await context.run_agent(self, message, raise_on_incomplete=False)
            if not result.is_complete:
                why = f"{self.name} stopped early ({result.stop_reason})"
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


class _Stream(AbstractAsyncContextManager[Run[Any]], AsyncOnly):
    """Starts a run where it is entered, and stops it where it is left."""

    _usage = "async with agent.stream(…) as run:"

    def __init__(self, make: Callable[[], Run[Any]]) -> None:
        self._make = make
        self._run: Run[Any] | None = None

    async def __aenter__(self) -> Run[Any]:
        if self._run is not None:
            raise InvalidInput("This run was started already; call stream() for another one.")
        run = self._run = self._make()
        start_run(run)
        return run

    async def __aexit__(self, *_: object) -> None:
        await stop_run(cast("Run[Any]", self._run))


async def _driven(run: Run[Any], *, raise_on_incomplete: bool) -> RunResult[Any]:
    await drive_run(run)
    return await run.result(raise_on_incomplete=raise_on_incomplete)
