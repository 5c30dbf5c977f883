"""What a client asks of a run, as options of it."""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from treadle.domain.options import ExternalTool
from treadle.errors import OptionNotAllowed
from treadle.loop.definition import AgentDefinition
from treadle.server.ag_ui.run_input import RunAgentInput
from treadle.server.problems import RequestRefused

METADATA = "ag_ui"
"""The key in the metadata of a run under which a request is noted."""


def run_options(agent: AgentDefinition[Any, Any], given: RunAgentInput) -> dict[str, Any]:
    """Returns the options of the run; raises 400 for one that the agent does not allow."""
    options: dict[str, Any] = {}
    for field, option in _options(agent, given):
        try:
            agent.check_options(**option)
        except OptionNotAllowed as error:
            raise RequestRefused(
                400,
                "option_not_allowed",
                f"The agent {agent.name!r} does not take {field}: {error.message}",
            ) from error
        options |= option
    # Not an option of the client: a label, which the model does not read.
    noted: dict[str, Any] = {"thread_id": given.thread_id, "run_id": given.run_id}
    if given.forwarded_props:
        noted["forwarded_props"] = given.forwarded_props
    options["metadata"] = {METADATA: noted}
    return options


def _options(
    agent: AgentDefinition[Any, Any], given: RunAgentInput
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the fields that change the result, as options."""
    # A tool that the agent leaves to its clients is one of theirs already.
    own = {tool.name for tool in agent.tools if tool.external}
    tools: list[ExternalTool] = []
    for tool in given.tools or ():
        made = ExternalTool(tool.name, tool.description)
        if tool.parameters:
            made = replace(made, parameters=tool.parameters)
        if tool.name not in own:
            tools.append(made)
    if tools:
        yield "tools", {"tools": tools}
    if given.context:
        lines = [f"{one.description}: {one.value}" for one in given.context]
        yield "context", {"extra_instructions": "\n".join(lines)}
