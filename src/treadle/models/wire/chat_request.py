"""Requests of OpenAI Chat Completions and of the many servers compatible with it.

https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

import msgspec

from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputPart,
    OutputText,
    ProviderItem,
    Reasoning,
)
from treadle.models.base import ModelRequest, NamedTool


def encode_request(
    model: str, request: ModelRequest, max_tokens_field: str = "max_tokens"
) -> bytes:
    """Returns the JSON body of a streaming request."""
    settings = request.settings
    body: dict[str, object] = {
        "model": model,
        "messages": _messages(request),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        body["tools"] = [
            {"type": "function", "function": msgspec.structs.asdict(tool)} for tool in request.tools
        ]
    if isinstance(settings.tool_choice, NamedTool):
        function = {"name": settings.tool_choice.name}
        body["tool_choice"] = {"type": "function", "function": function}
    optional = {
        "tool_choice": settings.tool_choice,
        "parallel_tool_calls": settings.parallel_tool_calls,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        max_tokens_field: settings.max_output_tokens,
        "reasoning_effort": settings.reasoning_effort,
    }
    for name, value in optional.items():
        if value is not None:
            body.setdefault(name, value)
    if request.output is not None:
        schema = msgspec.structs.asdict(request.output)
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    body.update(settings.extra_body)
    return msgspec.json.encode(body)


def _messages(request: ModelRequest) -> list[dict[str, object]]:
    messages: list[dict[str, object]] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    images: list[OutputPart] = []
    for item in request.items:
        if images and not isinstance(item, FunctionCallOutput):
            messages.append(_image_message(images))
            images = []
        images += _append_item(messages, item)
    if images:
        messages.append(_image_message(images))
    return messages


def _append_item(messages: list[dict[str, object]], item: Item) -> Iterable[OutputPart]:
    """Appends `item`; returns the images of a tool output, which go into a message of their own."""
    match item:
        case Message(role="assistant"):
            # Some servers refuse a message without text, such as a refusal.
            _assistant(messages)["content"] = item.text or item.refusal
        case Message():
            role = "system" if item.role == "developer" else item.role
            messages.append({"role": role, "content": _content(item)})
        case FunctionCall():
            function = {"name": item.name, "arguments": item.arguments or "{}"}
            call = {"id": item.call_id, "type": "function", "function": function}
            calls = _assistant(messages, joins_calls=True).setdefault("tool_calls", [])
            assert isinstance(calls, list)
            calls.append(call)  # type: ignore[reportUnknownMemberType]
        case FunctionCallOutput():
            text = item.text
            images = [] if isinstance(item.output, str) else _images(item.output)
            if images and not text:
                text = "The images are in the next message."
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": text})
            return images
        case Reasoning() | ProviderItem():
            pass  # this API cannot represent them
        case _ as unreachable:
            assert_never(unreachable)
    return ()


def _assistant(
    messages: list[dict[str, object]], *, joins_calls: bool = False
) -> dict[str, object]:
    """Returns the open assistant message; items of one response share one message."""
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant" and (joins_calls or "content" not in last):
        return last
    message: dict[str, object] = {"role": "assistant"}
    messages.append(message)
    return message


def _content(message: Message) -> str | list[dict[str, object]]:
    if not any(isinstance(part, InputImage) for part in message.content):
        return message.text
    return [
        _image_part(part) if isinstance(part, InputImage) else {"type": "text", "text": part.text}
        for part in message.content
        if isinstance(part, InputImage | InputText | OutputText)
    ]


def _images(parts: Sequence[OutputPart]) -> list[OutputPart]:
    return [part for part in parts if isinstance(part, InputImage)]


def _image_message(images: Sequence[OutputPart]) -> dict[str, object]:
    content = [_image_part(part) for part in images if isinstance(part, InputImage)]
    return {"role": "user", "content": content}


def _image_part(part: InputImage) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": part.image_url, "detail": part.detail}}
