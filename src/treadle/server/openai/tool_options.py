"""Tools of the client, which of them may be called, and the form of the answer."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from treadle.domain.arguments import is_list, is_mapping, shown
from treadle.domain.options import AllowedTools, ExternalTool
from treadle.domain.settings import NamedTool, ToolChoice
from treadle.server.openai.errors import ParameterRefused

LABEL = "treadle"
"""The server label of the tools that the agent runs itself."""


class _Function(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


def client_tools(tools: Iterable[Mapping[str, Any]]) -> list[ExternalTool]:
    """Returns the functions of the client.

    The MCP server `treadle` stands for the tools of the agent, which it has anyway: some clients
    refuse its calls unless they named it.
    """
    found: list[ExternalTool] = []
    for index, tool in enumerate(tools):
        kind = tool.get("type")
        if kind == "mcp" and tool.get("server_label") == LABEL:
            continue
        if kind != "function":
            raise ParameterRefused(
                f"tools[{index}].type",
                f"tools[{index}] is of the type {shown(kind)}; only functions are served.",
            )
        try:
            given = msgspec.convert(tool, _Function)
        except msgspec.ValidationError as error:
            raise ParameterRefused(
                f"tools[{index}]", f"tools[{index}] is not a function: {error}."
            ) from error
        made = ExternalTool(given.name, given.description or "", strict=bool(given.strict))
        if given.parameters:
            made = msgspec.structs.replace(made, parameters=given.parameters)
        found.append(made)
    return found


def tool_choice(given: str | Mapping[str, Any] | None) -> ToolChoice | AllowedTools | None:
    """Returns which tools may be called; None for `auto`, which changes nothing."""
    match given:
        case None | "auto":
            return None
        case "none":
            return "none"
        case "required":
            return "required"
        case {"type": "function", "name": str() as name}:
            return NamedTool(name)
        case {"type": "mcp", "server_label": label, "name": str() as name} if label == LABEL:
            return NamedTool(name)
        case {"type": "allowed_tools", "tools": tools} if is_list(tools):
            names = [_name(entry) for entry in tools]
            return AllowedTools(tuple(names), required=given.get("mode") == "required")
        case _:
            raise ParameterRefused("tool_choice", f"tool_choice={shown(given)} is not served.")


def _name(entry: object) -> str:
    match entry:
        case {"type": "function" | "mcp", "name": str() as name}:
            return name
        case _:
            raise ParameterRefused(
                "tool_choice", f"tool_choice.tools has {shown(entry)}, which names no tool."
            )


def output_schema(param: str, given: Mapping[str, Any] | None) -> Mapping[str, object] | None:
    """Returns the schema of the answer; None for a text, which changes nothing.

    `param` is the parameter of the request.
    """
    match given:
        case None | {"type": "text"}:
            return None
        case {"type": "json_schema", "schema": schema} if is_mapping(schema):
            return schema
        case {"type": "json_object"}:
            return {"type": "object"}
        case _:
            raise ParameterRefused(param, f"{param}={shown(given)} is not served.")
