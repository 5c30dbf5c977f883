"""Sources of tools that are not known before a run, and how they join an agent's own."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, overload, runtime_checkable

from treadle.errors import InvalidTool, TreadleError
from treadle.logging import logger_of
from treadle.tools.callables import Now, UserFunction, name_of, user_function
from treadle.tools.context import RunContext
from treadle.tools.failure import explain_failure, reraise_interrupt
from treadle.tools.function import Tool, as_tool, with_to_user
from treadle.tools.toolset import Toolset

_LOGGER = logger_of("treadle.tools")

Given = Sequence[Tool[..., Any, Any] | Callable[..., object]]
"""Tools, and functions that become tools."""

GiveTools = Callable[[], Now[Given]] | Callable[[RunContext[Any]], Now[Given]]
"""A function that returns the tools of a step."""

# The tools of a source, or the reason that it has none.
_Answer = tuple[Tool[..., object] | Callable[..., object], ...] | str


@runtime_checkable
class ToolSource(Protocol):
    """Tools that are not known before a run: requested before each step."""

    @property
    def name(self) -> str:
        """The name of the source in messages and in the hash of an agent; not a secret."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether every call of its tools runs here, without approval; others are left out."""
        ...

    @property
    def tools(self) -> GiveTools:
        """A method that returns the current tools, plain or async; may take the `RunContext`.

        Called before every step, so it should cost nothing if nothing has changed: return the same
        tools as before. An error is logged, and reported to a model that calls an unknown tool.
        """
        ...

    async def aclose(self) -> None:
        """Releases the resources of the running event loop; a second call does nothing."""
        ...


@dataclass(frozen=True, eq=False)
class FunctionSource:
    """A function that returns the tools of a step; made by `tool_source`."""

    tools: GiveTools
    name: str
    is_local: bool

    async def aclose(self) -> None:
        """Does nothing: a function has no resources."""


@overload
def tool_source(function: GiveTools, /) -> FunctionSource: ...
@overload
def tool_source(
    *, name: str = "", is_local: bool = True
) -> Callable[[GiveTools], FunctionSource]: ...
def tool_source(
    function: GiveTools | None = None, /, *, name: str = "", is_local: bool = True
) -> FunctionSource | Callable[[GiveTools], FunctionSource]:
    """Makes a source of tools from a function that is called before each step of a run.

    The function is plain or async, may take the `RunContext` of the run, and returns a list of
    tools and functions. Use it as `@tool_source`, and put it into `tools=[…]`.

    - `name`: names the source in messages and in the hash of an agent; by default the function's.
    - `is_local`: False if a call may need an approval or an answer from outside; such tools of a
      source that is local are left out, and foreground runs refuse a source that is not.

    If the function raises, the step has none of its tools, and the reason is logged.
    """

    def make(function: GiveTools) -> FunctionSource:
        return FunctionSource(function, name or name_of(function), is_local)

    return make if function is None else make(function)


class ToolSources:
    """The sources of one agent.

    Of several tools with one name the first counts, and those of the agent come first: a source
    cannot replace a known tool. `to_user` is added to their tools as to those of the agent, except
    to tools that have such a parameter.
    """

    def __init__(self, sources: Iterable[ToolSource], *, to_user: bool | str = False) -> None:
        self._sources = tuple(sources)
        self._asked = [
            user_function(
                cast("Callable[..., Now[Given]]", one.tools),
                f"tools of {one.name}",
                passes=(Exception,),
            )
            for one in self._sources
        ]
        self._to_user = to_user
        self._last: tuple[Toolset, Sequence[_Answer], Toolset] | None = None

    def __iter__(self) -> Iterator[ToolSource]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    async def joined_to(self, known: Toolset, context: RunContext[Any] | None) -> Toolset:
        """Returns `known` and the tools that the sources have for a step of the run of `context`.

        A source that fails has none.
        """
        asked = (_ask(one, context) for one in self._asked)
        # A source that cancels its task, which is one of its own here, has failed.
        given = await asyncio.gather(*asked, return_exceptions=True)
        answers = [
            "it cancelled itself" if isinstance(one, BaseException) else one for one in given
        ]
        # Usually nothing has changed since the step before.
        if self._last is None or self._last[0] is not known or not _same(self._last[1], answers):
            self._last = (known, answers, self._join(known, answers))
        return self._last[2]

    def _join(self, known: Toolset, answers: Sequence[_Answer]) -> Toolset:
        tools = {tool.name: tool for tool in known}
        failures: list[str] = []
        for source, answer in zip(self._sources, answers, strict=True):
            if isinstance(answer, str):
                _LOGGER.warning("The tools of %s are missing: %s", source.name, answer)
                failures.append(answer)
                continue
            for given in answer:
                try:
                    tool = self._speaking(as_tool(given))
                    _require_local(tool, source)
                except InvalidTool as error:
                    _LOGGER.warning("A tool of %s is left out: %s", source.name, error)
                    failures.append(error.message)
                    continue
                if tools.setdefault(tool.name, tool) is not tool:
                    _LOGGER.warning(
                        "The tool %s of %s is left out: another tool has that name; give the "
                        "source a prefix.",
                        tool.name,
                        source.name,
                    )
        return Toolset(tools.values(), missing=failures)

    def _speaking(self, tool: Tool[..., object]) -> Tool[..., object]:
        try:
            return with_to_user(tool, self._to_user)
        except InvalidTool:
            return tool  # the parameter belongs to the server and cannot be renamed here


def _require_local(tool: Tool[..., object], source: ToolSource) -> None:
    if source.is_local and not tool.is_local:
        raise InvalidTool(
            f"{tool.name} is answered or approved from outside, but its source {source.name} is "
            "local; make it with tool_source(is_local=False)."
        )


def _same(before: Sequence[_Answer], now: Sequence[_Answer]) -> bool:
    return all(new is old or new == old for old, new in zip(before, now, strict=True))


async def _ask(tools: UserFunction[Given], context: RunContext[Any] | None) -> _Answer:
    """Returns the tools of a source, or the reason that it has none."""
    task = asyncio.current_task()
    try:
        given = cast("object", await tools.result(context))
        if not isinstance(given, Sequence) or isinstance(given, str):
            return f"{tools.subject} returned {given!r:.100}; return a list of tools."
        return tuple(cast("Given", given))
    except BaseException as error:  # noqa: BLE001 - one source that fails must not end the run
        reraise_interrupt(error, task)
        return error.message if isinstance(error, TreadleError) else explain_failure(error)
