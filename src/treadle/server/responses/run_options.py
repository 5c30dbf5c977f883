"""Parameters of a request as options of its run, and what its response repeats of them."""

from collections.abc import Iterator
from typing import Any

from treadle.domain.limits import Limits
from treadle.domain.settings import ModelSettings
from treadle.loop.definition import AgentDefinition
from treadle.server.openai.allowed_options import allowed_options
from treadle.server.openai.tool_options import client_tools, output_schema, tool_choice
from treadle.server.responses.create_request import CreateResponse
from treadle.server.responses.response_object import ECHO, Json

_REPEATED = (
    "background",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "safety_identifier",
    "store",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
    "truncation",
    "user",
)

_FUNCTION: Json = {"description": None, "parameters": None, "strict": None}


def run_options(
    agent: AgentDefinition[Any, Any], body: CreateResponse, thread_id: str = ""
) -> dict[str, Any]:
    """Returns the options of the run; raises 400 for a parameter that the agent does not allow.

    `thread_id` is that of the conversation which the request names.
    """
    options = allowed_options(agent, _options(body))
    # Not an option of the client: a label, which the model does not read.
    options["metadata"] = {ECHO: _echo(body, thread_id)}
    return options


def _options(body: CreateResponse) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the parameters that change the result, as options; values of the API's default do not.

    Clients send such values without being asked to.
    """
    if body.instructions:
        yield "instructions", {"extra_instructions": body.instructions}
    if body.temperature not in {None, 1.0}:
        yield "temperature", {"settings": ModelSettings(temperature=body.temperature)}
    if body.top_p not in {None, 1.0}:
        yield "top_p", {"settings": ModelSettings(top_p=body.top_p)}
    if (most := body.max_output_tokens) is not None:
        yield "max_output_tokens", {"settings": ModelSettings(max_output_tokens=most)}
    if body.parallel_tool_calls is False:
        yield "parallel_tool_calls", {"settings": ModelSettings(parallel_tool_calls=False)}
    if body.reasoning is not None and (effort := body.reasoning.effort) is not None:
        yield "reasoning", {"settings": ModelSettings(reasoning_effort=effort)}
    if (calls := body.max_tool_calls) is not None:
        yield "max_tool_calls", {"limits": Limits(max_tool_calls=calls)}
    if tools := client_tools(body.tools or []):
        yield "tools", {"tools": tools}
    if (choice := tool_choice(body.tool_choice)) is not None:
        yield "tool_choice", {"tool_choice": choice}
    text = None if body.text is None else body.text.format
    if (schema := output_schema("text.format", text)) is not None:
        yield "text", {"output": schema}


def _echo(body: CreateResponse, thread_id: str) -> Json:
    echo: Json = {name: value for name in _REPEATED if (value := getattr(body, name)) is not None}
    if thread_id and body.conversation is not None:
        echo["conversation"] = {"id": thread_id}
    if body.text is not None and body.text.format is not None:
        is_schema = body.text.format.get("type") == "json_schema"
        defaults = {"description": None, "strict": False} if is_schema else {}
        echo["text"] = {"format": {**defaults, **body.text.format}}
    if body.tools:
        echo["tools"] = [
            _FUNCTION | one if one["type"] == "function" else one for one in body.tools
        ]
    if body.reasoning is not None:
        echo["reasoning"] = {
            "effort": body.reasoning.effort,
            "summary": body.reasoning.summary or body.reasoning.generate_summary,
        }
    if body.service_tier not in {None, "auto"}:
        echo["service_tier"] = body.service_tier
    return echo
