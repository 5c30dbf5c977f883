"""The objects of the Responses API as JSON values."""

from collections.abc import Mapping, Sequence

from treadle.domain.usage import Usage
from treadle.server.openai.tool_options import LABEL

Json = dict[str, object]

ECHO = "openai_response"
"""The key in the metadata of a run with the parameters that its response repeats."""

_DEFAULTS: Json = {
    "background": False,
    "conversation": None,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def response_object(
    id: str,
    agent: str,
    echo: Mapping[str, object],
    *,
    status: str,
    created_at: float,
    completed_at: float | None = None,
    output: Sequence[Json] = (),
    usage: Usage | None = None,
    error: Json | None = None,
    incomplete: str = "",
) -> Json:
    """Returns a response; `echo` are the parameters of its request that it repeats."""
    return {
        "id": id,
        "object": "response",
        "created_at": int(created_at),
        "status": status,
        "completed_at": None if completed_at is None else int(completed_at),
        "error": error,
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        "model": agent,
        "output": list(output),
        "usage": None if usage is None else usage_object(usage),
        **_DEFAULTS,
        **echo,
    }


def usage_object(usage: Usage) -> Json:
    """Returns token counts."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def text_part(text: str, annotations: Sequence[Json] = ()) -> Json:
    """Returns a text that the model wrote."""
    return {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": []}


def message_item(id: str, status: str, content: Sequence[Json], phase: str = "") -> Json:
    """Returns a message of the model; `phase` is `commentary` or `final_answer`, if it is known."""
    item: Json = {
        "id": id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": list(content),
    }
    return {**item, "phase": phase} if phase else item


def reasoning_item(id: str, text: str) -> Json:
    """Returns the reasoning of the model."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"id": id, "type": "reasoning", "summary": summary}


def function_item(id: str, call_id: str, name: str, arguments: str, status: str) -> Json:
    """Returns a call that the client answers."""
    return {
        "id": id,
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def tool_item(
    id: str, name: str, arguments: str, status: str, approval_id: str | None = None
) -> Json:
    """Returns a call that the agent runs itself, after the approval `approval_id` if it has one."""
    return {
        "id": id,
        "type": "mcp_call",
        "server_label": LABEL,
        "name": name,
        "arguments": arguments,
        "status": status,
        "output": None,
        "error": None,
        "approval_request_id": approval_id,
    }


def approval_item(id: str, name: str, arguments: str) -> Json:
    """Returns a call that waits for an approval."""
    return {
        "id": id,
        "type": "mcp_approval_request",
        "server_label": LABEL,
        "name": name,
        "arguments": arguments,
    }
