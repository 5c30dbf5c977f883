"""Requests of the OpenAI Responses API.

https://platform.openai.com/docs/api-reference/responses/create
"""

import re
from collections.abc import Sequence
from typing import assert_never

import msgspec

from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    Refusal,
)
from treadle.models.base import ModelRequest, NamedTool

PROVIDER = "openai"
"""The mark of what OpenAI's models write."""

_REASONING_MODELS = re.compile(r"(o\d|gpt-[5-9]|codex)")


def encode_request(model: str, request: ModelRequest) -> bytes:
    """Returns the JSON body of a streaming request."""
    settings = request.settings
    body: dict[str, object] = {
        "model": model,
        "input": _input(request.items),
        "stream": True,
        "store": False,
    }
    if request.instructions:
        body["instructions"] = request.instructions
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if isinstance(settings.tool_choice, NamedTool):
        body["tool_choice"] = {"type": "function", "name": settings.tool_choice.name}
    optional = {
        "tool_choice": settings.tool_choice,
        "parallel_tool_calls": settings.parallel_tool_calls,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_output_tokens": settings.max_output_tokens,
    }
    for name, value in optional.items():
        if value is not None:
            body.setdefault(name, value)
    if settings.reasoning_effort is not None:
        body["reasoning"] = {"effort": settings.reasoning_effort}
    if settings.reasoning_effort is not None or _REASONING_MODELS.match(model):
        # Unstored reasoning can be sent back only encrypted; other models refuse the option.
        body["include"] = ["reasoning.encrypted_content"]
    if request.output is not None:
        output = request.output
        body["text"] = {
            "format": {
                "type": "json_schema",
                "name": output.name,
                "schema": output.schema,
                "strict": output.strict,
            }
        }
    body.update(settings.extra_body)
    return msgspec.json.encode(body)


def _tool(tool: object) -> dict[str, object]:
    return {"type": "function", **msgspec.structs.asdict(tool)}  # type: ignore[arg-type]


def _input(items: Sequence[Item]) -> list[object]:
    return [encoded for item in items if (encoded := _encode_item(item)) is not None]


def _encode_item(item: Item) -> object | None:
    match item:
        case Message():
            content = [_encode_part(part) for part in item.content]
            return {"type": "message", "role": item.role, "content": content}
        case FunctionCall():
            return {
                "type": "function_call",
                "call_id": item.call_id,
                "name": item.name,
                "arguments": item.arguments,
            }
        case FunctionCallOutput():
            output = item.output
            if not isinstance(output, str):
                output = [_encode_part(part) for part in output]
            return {"type": "function_call_output", "call_id": item.call_id, "output": output}
        case Reasoning():
            return _encode_reasoning(item)
        case ProviderItem():
            return item.raw if item.provider == PROVIDER else None
        case _ as unreachable:
            assert_never(unreachable)


def _encode_reasoning(item: Reasoning) -> dict[str, object] | None:
    if item.provider != PROVIDER or item.encrypted_content is None:
        return None
    return {
        "type": "reasoning",
        "id": item.id,
        "summary": [{"type": "summary_text", "text": part.text} for part in item.summary],
        "encrypted_content": item.encrypted_content,
    }


def _encode_part(part: ContentPart) -> dict[str, object]:
    match part:
        case InputText():
            return {"type": "input_text", "text": part.text}
        case OutputText():
            return {"type": "output_text", "text": part.text}
        case Refusal():
            return {"type": "refusal", "refusal": part.refusal}
        case InputImage():
            return {"type": "input_image", "image_url": part.image_url, "detail": part.detail}
        case _ as unreachable:
            assert_never(unreachable)
