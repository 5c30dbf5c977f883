"""The tools of one agent, by name."""

from collections.abc import Callable, Iterable, Iterator

from weft.errors import DuplicateTool
from weft.schema import ToolSchema
from weft.tools.function import Tool, as_tool


class Toolset:
    """Tools by name, in the order given. Raises `DuplicateTool` for two of one name.

    `missing` says why tools that should be here are not.
    """

    def __init__(
        self,
        tools: Iterable[Tool[..., object] | Callable[..., object]] = (),
        *,
        missing: Iterable[str] = (),
    ) -> None:
        self.missing = tuple(missing)
        self._tools: dict[str, Tool[..., object]] = {}
        for entry in tools:
            tool = as_tool(entry)
            if tool.name in self._tools:
                raise DuplicateTool(
                    f"Two tools are called {tool.name!r}; rename one with tool(name=…)."
                )
            self._tools[tool.name] = tool
        self.schemas: tuple[ToolSchema, ...] = tuple(t.schema for t in self._tools.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(self._tools)

    def __iter__(self) -> Iterator[Tool[..., object]]:
        return iter(self._tools.values())

    def get(self, name: str) -> Tool[..., object] | None:
        """Returns the tool of that name, or None."""
        return self._tools.get(name)
