"""Decodes the body of `POST /v1/responses`.

https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputText,
    Message,
    OutputText,
    Refusal,
)
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.testing.simulator.rejection import Rejected
from treadle.testing.simulator.request import (
    Entry,
    ProviderRequest,
    ToolChoice,
    check_pairs,
    count_rounds,
    decode,
)

Object = dict[str, object]


class _Part(Struct):
    type: Literal["input_text", "output_text", "refusal", "input_image", "input_file"]
    text: str = ""
    refusal: str = ""
    image_url: str | None = None
    file_data: str = ""
    file_url: str = ""
    filename: str = ""


class _Message(Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[_Part]


class _Call(Struct):
    call_id: str
    name: str
    arguments: str
    id: str | None = None


class _Output(Struct):
    call_id: str
    output: str | list[_Part]


class _Asked(Struct):
    id: str
    name: str
    arguments: str
    server_label: str


class _Answer(Struct):
    approval_request_id: str
    approve: bool
    reason: str | None = None


class _Tool(Struct):
    name: str
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class _Choice(Struct):
    type: str
    name: str = ""


class _Format(Struct):
    type: Literal["text", "json_object", "json_schema"]
    name: str = "output"
    schema: Object = {}
    strict: bool | None = None


class _Text(Struct):
    format: _Format | None = None


class _Body(Struct):
    model: str
    input: str | list[Object]
    instructions: str | None = None
    stream: bool | None = None
    tools: list[Object] | None = None
    tool_choice: Literal["auto", "none", "required"] | _Choice | None = None
    text: _Text | None = None


def decode_responses(body: Mapping[str, object], size: int) -> ProviderRequest:
    """Decodes and checks a request. Raises `Rejected` (400) as the provider would."""
    wire = decode(body, _Body)
    history = _history(wire.input)
    check_pairs(history, adjacent=False)
    return ProviderRequest(
        format="responses",
        model=wire.model,
        stream=bool(wire.stream),
        instructions=wire.instructions or "",
        history=history,
        tools=tuple(_tool(decode(t, _Tool)) for t in wire.tools or () if _is_function(t)),
        tool_choice=_choice(wire.tool_choice),
        output_schema=_schema(wire.text),
        include_usage=True,
        rounds=count_rounds(history),
        body=body,
        size=size,
    )


def _history(given: str | list[Object]) -> tuple[Entry, ...]:
    if isinstance(given, str):
        return (Message("user", (InputText(given),)),)
    entries = (_entry(item) for item in given)
    return tuple(entry for entry in entries if entry is not None)


def _entry(item: Object) -> Entry | None:
    kind = item.get("type", "message")
    if kind == "message":
        message = decode(item, _Message)
        return Message(message.role, _content(message))
    if kind == "function_call":
        call = decode(item, _Call)
        return FunctionCall(call.call_id, call.name, call.arguments, call.id or "")
    if kind == "function_call_output":
        output = decode(item, _Output)
        return FunctionCallOutput(output.call_id, _output(output.output))
    if kind == "mcp_approval_request":
        asked = decode(item, _Asked)
        return FunctionCall(asked.id, asked.name, asked.arguments, asked.id)
    if kind == "mcp_approval_response":
        answer = decode(item, _Answer)
        output = "" if answer.approve else answer.reason or ""
        return FunctionCallOutput(answer.approval_request_id, output, is_error=not answer.approve)
    if _is_other_item(str(kind)):
        return None
    raise Rejected(400, f"Invalid value: {str(kind)[:64]!r} is not a type of input item.")


def _is_other_item(kind: str) -> bool:
    return kind in ("reasoning", "item_reference", "mcp_list_tools") or kind.endswith(
        ("_call", "_output")
    )


def _is_function(tool: Mapping[str, object]) -> bool:
    return tool.get("type") == "function"


def _content(message: _Message) -> tuple[ContentPart, ...]:
    if isinstance(message.content, str):
        text = message.content
        return (OutputText(text) if message.role == "assistant" else InputText(text),)
    return tuple(_part(part) for part in message.content)


def _part(part: _Part) -> ContentPart:
    match part.type:
        case "output_text":
            return OutputText(part.text)
        case "refusal":
            return Refusal(part.refusal)
        case "input_image":
            return InputImage(part.image_url or "")
        case "input_file":
            return InputFile(part.file_data, part.filename, part.file_url)
        case _:
            return InputText(part.text)


def _output(output: str | list[_Part]) -> str:
    if isinstance(output, str):
        return output
    return "".join(part.text for part in output)


def _tool(tool: _Tool) -> ToolSchema:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return ToolSchema(tool.name, tool.description or "", parameters, bool(tool.strict))


def _choice(choice: Literal["auto", "none", "required"] | _Choice | None) -> ToolChoice:
    if isinstance(choice, _Choice):
        return ToolChoice("named", choice.name) if choice.type == "function" else ToolChoice()
    return ToolChoice(choice or "auto")


def _schema(text: _Text | None) -> OutputSchema | None:
    if text is None or text.format is None or text.format.type == "text":
        return None
    form = text.format
    return OutputSchema(form.name, form.schema, bool(form.strict))


def echo(body: Mapping[str, object]) -> dict[str, object]:
    """Returns the fields of a request that the provider repeats in its response object."""
    defaults: dict[str, object] = {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": None,
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
    }
    given = {key: body[key] for key in defaults if body.get(key) is not None}
    # Encoded once here, since three events of a stream repeat it.
    return {k: msgspec.Raw(msgspec.json.encode(v)) for k, v in (defaults | given).items()}
