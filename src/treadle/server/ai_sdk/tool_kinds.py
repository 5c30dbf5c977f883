"""What is known of a tool when the model begins to call it."""

from typing import Any

from treadle.domain.options import ExternalTool, RunOptions
from treadle.errors import UnknownAgent
from treadle.loop.definition import AgentDefinition, reachable_from
from treadle.runtime.runtime import Runtime


class ToolKinds:
    """Which tools the client answers, and which calls are shown only once they are complete.

    The part of a call follows its announcement (`to_user`), whose end is known with the call. So a
    call with one is held back, and so is that of a tool of a source, of which nothing is known.
    """

    def __init__(self, agent: AgentDefinition[Any, Any] | None) -> None:
        self._client: set[str] = set()
        self._plain: set[str] = set()
        for one in reachable_from(agent).values() if agent is not None else ():
            for tool in one.tools:
                if tool.external:
                    self._client.add(tool.name)
                if not tool.to_user:
                    self._plain.add(tool.name)

    def add_options(self, options: RunOptions | None) -> None:
        """Adds the tools that a run brings."""
        for tool in options.tools if options is not None else ():
            if isinstance(tool, ExternalTool):
                self._client.add(tool.name)
                self._plain.add(tool.name)

    def is_of_client(self, name: str) -> bool:
        """Whether the client answers the calls of a tool."""
        return name in self._client

    def is_held(self, name: str) -> bool:
        """Whether a call of a tool is shown once it is complete."""
        return name not in self._plain


def tool_kinds(runtime: Runtime, agent: str) -> ToolKinds:
    """Returns what is known of the tools of a run; this process may not have its agent."""
    try:
        return ToolKinds(runtime.agent(agent))
    except UnknownAgent:
        return ToolKinds(None)
