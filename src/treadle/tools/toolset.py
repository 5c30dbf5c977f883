"""The tools of one agent, by name."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from treadle.domain.items import FunctionCall
from treadle.domain.schema import ToolSchema
from treadle.errors import ConfigurationError, DuplicateTool
from treadle.streaming.streamed_fields import StreamedParameters
from treadle.tools.function import Tool, as_tool, with_to_user
from treadle.tools.remote_call import remote_tool


class Toolset:
    """Tools by name, in the order given. Raises `DuplicateTool` for two with one name.

    `to_user` is added to tools that have no such parameter. `streamed` maps the names of tools to
    their streamed parameters. `missing` holds the reasons that tools of sources are missing.
    """

    def __init__(
        self,
        tools: Iterable[Tool[..., object] | Callable[..., object]] = (),
        *,
        to_user: bool | str = False,
        missing: Iterable[str] = (),
    ) -> None:
        self.missing = tuple(missing)
        self._joined: tuple[Tool[..., object], Toolset] | None = None
        self._tools: dict[str, Tool[..., object]] = {}
        for entry in tools:
            tool = with_to_user(as_tool(entry), to_user)
            if tool.name in self._tools:
                raise DuplicateTool(
                    f"Two tools are called {tool.name!r}; rename one with tool(name=…)."
                )
            self._tools[tool.name] = tool
        self.schemas: tuple[ToolSchema, ...] = tuple(t.schema for t in self._tools.values())
        self.streamed: Mapping[str, StreamedParameters] = {
            tool.name: StreamedParameters(tool.to_user, tool.stream_fields)
            for tool in self
            if tool.to_user or tool.stream_fields
        }

    def require_deps(self) -> None:
        """Raises `ConfigurationError` for a tool that cannot be called without deps."""
        for tool in self:
            if tool.deps:
                raise ConfigurationError(
                    f"The tool {tool.name} needs deps of the type {tool.deps}, but this run has "
                    "none; pass deps=… to run() or stream(), or to treadle.open() for threads."
                )

    def with_output(self, tool: Tool[..., object]) -> "Toolset":
        """Returns these tools and the one that takes the output, the same object each time."""
        if self._joined is None or self._joined[0] is not tool:
            others = (one for one in self if one.name != tool.name)
            self._joined = (tool, Toolset((*others, tool), missing=self.missing))
        return self._joined[1]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(self._tools)

    def __iter__(self) -> Iterator[Tool[..., object]]:
        return iter(self._tools.values())

    def of(self, call: FunctionCall) -> Tool[..., object] | None:
        """Returns the tool of a call, or None."""
        return remote_tool(call.name) if call.runs_at_provider else self.get(call.name)

    def get(self, name: str) -> Tool[..., object] | None:
        """Returns the tool of that name, or None."""
        return self._tools.get(name)
