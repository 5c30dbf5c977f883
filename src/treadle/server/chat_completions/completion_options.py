"""Parameters of a request as options of its run."""

from collections.abc import Iterator, Mapping
from typing import Any

from treadle.domain.arguments import is_list, is_mapping
from treadle.domain.settings import ModelSettings
from treadle.loop.definition import AgentDefinition
from treadle.server.chat_completions.completion_request import CreateCompletion
from treadle.server.openai.allowed_options import allowed_options
from treadle.server.openai.errors import ParameterRefused
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
    if tools := client_tools(map(_flat, body.tools or ())):
        yield "tools", {"tools": tools}
    if (choice := tool_choice(_choice(body.tool_choice))) is not None:
        yield "tool_choice", {"tool_choice": choice}
    if (schema := output_schema("response_format", _format(body.response_format))) is not None:
        yield "response_format", {"output": schema}


def _flat(given: Any) -> Any:
    """Returns a tool, or the choice of one, in the form of the Responses API."""
    match given:
        case {"type": "function", "function": function} if is_mapping(function):
            return {"type": "function", **function}
        case _:
            return given


def _choice(given: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    match given:
        case {"type": "allowed_tools", "allowed_tools": allowed} if is_mapping(allowed):
            tools = allowed.get("tools")
            flat = [_flat(one) for one in tools] if is_list(tools) else tools
            return {"type": "allowed_tools", **allowed, "tools": flat}
        case _:
            return _flat(given)


def _format(given: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    match given:
        case {"type": "json_schema", "json_schema": schema} if is_mapping(schema):
            if not is_mapping(schema.get("schema")):
                raise ParameterRefused(
                    "response_format", "response_format.json_schema needs a schema."
                )
            return {"type": "json_schema", **schema}
        case _:
            return given
