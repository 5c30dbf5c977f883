"""Functions and forms of answers as Chat Completions and Assistants nest them, made flat.

The Responses API has the same without the nesting; `tool_options` reads that.
"""

from collections.abc import Mapping
from typing import Any

from treadle.domain.arguments import is_list, is_mapping
from treadle.server.openai.errors import ParameterRefused


def flat_function(given: Any) -> Any:
    """Returns a tool, or the choice of one."""
    match given:
        case {"type": "function", "function": function} if is_mapping(function):
            return {"type": "function", **function}
        case _:
            return given


def flat_choice(given: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    """Returns which tools may be called."""
    match given:
        case {"type": "allowed_tools", "allowed_tools": allowed} if is_mapping(allowed):
            tools = allowed.get("tools")
            flat = [flat_function(one) for one in tools] if is_list(tools) else tools
            return {"type": "allowed_tools", **allowed, "tools": flat}
        case _:
            return flat_function(given)


def flat_format(given: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Returns the form of the answer."""
    match given:
        case {"type": "json_schema", "json_schema": schema} if is_mapping(schema):
            if not is_mapping(schema.get("schema")):
                raise ParameterRefused(
                    "response_format", "response_format.json_schema needs a schema."
                )
            return {"type": "json_schema", **schema}
        case _:
            return given
