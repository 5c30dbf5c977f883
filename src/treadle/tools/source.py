"""Sources of tools that are not known before a run, and how they join an agent's own."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from treadle.errors import InvalidTool, TreadleError
from treadle.logging import logger_of
from treadle.tools.failure import explain_failure, reraise_interrupt
from treadle.tools.function import Tool, with_to_user
from treadle.tools.toolset import Toolset

_LOGGER = logger_of("treadle.tools")

# The tools of a source, or the reason that it has none.
_Answer = Sequence[Tool[..., object]] | str


@runtime_checkable
class ToolSource(Protocol):
    """Tools that are not known before a run: requested before each step."""

    @property
    def name(self) -> str:
        """The name of the source in messages and in the hash of an agent; not a secret."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether every call of its tools runs here, without approval."""
        ...

    async def tools(self) -> Sequence[Tool[..., object]]:
        """Returns the current tools: the same object as before if nothing has changed.

        Called before every step, so it should cost nothing if nothing has changed. An error is
        logged, and reported to a model that calls an unknown tool.
        """
        ...

    async def aclose(self) -> None:
        """Releases the resources of the running event loop; a second call does nothing."""
        ...


class ToolSources:
    """The sources of one agent.

    Of several tools with one name the first counts, and those of the agent come first: a source
    cannot replace a known tool. `to_user` is added to their tools as to those of the agent, except
    to tools that have such a parameter.
    """

    def __init__(self, sources: Iterable[ToolSource], *, to_user: bool | str = False) -> None:
        self._sources = tuple(sources)
        self._to_user = to_user
        self._last: tuple[Toolset, Sequence[_Answer], Toolset] | None = None

    def __iter__(self) -> Iterator[ToolSource]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    async def joined_to(self, known: Toolset) -> Toolset:
        """Returns `known` and the current tools of the sources; a source that fails has none."""
        asked = (_ask(source) for source in self._sources)
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
                tool = self._speaking(given)
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


def _same(before: Sequence[_Answer], now: Sequence[_Answer]) -> bool:
    return all(new is old or new == old for old, new in zip(before, now, strict=True))


async def _ask(source: ToolSource) -> _Answer:
    """Returns the tools of a source, or the reason that it has none."""
    task = asyncio.current_task()
    try:
        return await source.tools()
    except BaseException as error:  # noqa: BLE001 - one source that fails must not end the run
        reraise_interrupt(error, task)
        return error.message if isinstance(error, TreadleError) else explain_failure(error)
