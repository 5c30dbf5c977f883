"""Parameters of a request as options of its run."""

from collections.abc import Iterator
from typing import Any

from treadle.domain.settings import ModelSettings
from treadle.loop.definition import AgentDefinition
from treadle.server.chat_completions.completion_request import CreateCompletion
from treadle.server.openai.allowed_options import allowed_options
from treadle.server.openai.nested_forms import flat_choice, flat_format, flat_function
from treadle.server.openai.tool_options import client_tools, output_schema, tool_choice

LABELS = "chat_completion"
"""The key in the metadata of a run with the labels of its request."""


def completion_options(
    agent: AgentDefinition[Any, Any], body: CreateCompletion, instructions: str
) -> dict[str, Any]:
    """Returns the options of the run; raises 400 for a parameter that the agent does not allow.

    `instructions` are those at the beginning of the messages.
    """
    options = allowed_options(agent, _options(body, instructions))
    labels = {
        name: value
        for name in ("metadata", "user", "safety_identifier")
        if (value := getattr(body, name))
    }
    if labels:  # not an option of the client: the model does not read them
        options["metadata"] = {LABELS: labels}
    return options


def _options(body: CreateCompletion, instructions: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the parameters that change the result; values of the API's default do not."""
    if instructions:
        yield "messages[0]", {"extra_instructions": instructions}
    if body.temperature not in {None, 1.0}:
        yield "temperature", {"settings": ModelSettings(temperature=body.temperature)}
    if body.top_p not in {None, 1.0}:
        yield "top_p", {"settings": ModelSettings(top_p=body.top_p)}
    for name in ("max_tokens", "max_completion_tokens"):
        if (most := getattr(body, name)) is not None:
            yield name, {"settings": ModelSettings(max_output_tokens=most)}
    if body.parallel_tool_calls is False:
        yield "parallel_tool_calls", {"settings": ModelSettings(parallel_tool_calls=False)}
    if (effort := body.reasoning_effort) is not None:
        yield "reasoning_effort", {"settings": ModelSettings(reasoning_effort=effort)}
    if tools := client_tools(map(flat_function, body.tools or ())):
        yield "tools", {"tools": tools}
    if (choice := tool_choice(flat_choice(body.tool_choice))) is not None:
        yield "tool_choice", {"tool_choice": choice}
    if (schema := output_schema("response_format", flat_format(body.response_format))) is not None:
        yield "response_format", {"output": schema}
