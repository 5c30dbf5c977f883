"""Decodes the body of `POST /v1/chat/completions`.

https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
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
    decode,
)

Object = dict[str, object]


class _ImageUrl(Struct):
    url: str


class _File(Struct):
    file_data: str = ""
    filename: str = ""


class _Audio(Struct):
    data: str
    format: Literal["wav", "mp3"]


class _Part(Struct):
    type: Literal["text", "refusal", "image_url", "input_audio", "file"]
    text: str = ""
    refusal: str = ""
    image_url: _ImageUrl | None = None
    file: _File | None = None
    input_audio: _Audio | None = None


class _Function(Struct):
    name: str
    arguments: str


class _Call(Struct):
    id: str
    function: _Function


class _Message(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _FunctionTool(Struct):
    name: str
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class _Tool(Struct):
    type: str
    function: _FunctionTool | None = None


class _ChosenFunction(Struct):
    name: str


class _Choice(Struct):
    type: str
    function: _ChosenFunction | None = None


class _JsonSchema(Struct):
    name: str = "output"
    schema: Object = {}
    strict: bool | None = None


class _Format(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Body(Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _Choice | None = None
    response_format: _Format | None = None


def decode_chat(body: Mapping[str, object], size: int) -> ProviderRequest:
    """Decodes and checks a request. Raises `Rejected` (400) as the provider would."""
    wire = decode(body, _Body)
    if not wire.messages:
        raise Rejected(400, "Invalid 'messages': empty array.", param="messages")
    history = tuple(entry for message in wire.messages for entry in _entries(message))
    check_pairs(history, adjacent=True)
    options = wire.stream_options
    return ProviderRequest(
        format="chat",
        model=wire.model,
        stream=bool(wire.stream),
        instructions=_instructions(history),
        history=history,
        tools=tuple(_tool(t.function) for t in wire.tools or () if t.function is not None),
        tool_choice=_choice(wire.tool_choice),
        output_schema=_schema(wire.response_format),
        include_usage=bool(options and options.include_usage),
        rounds=_rounds(wire.messages),
        body=body,
        size=size,
    )


def _entries(message: _Message) -> Iterator[Entry]:
    if message.role == "tool":
        if message.tool_call_id is None:
            raise Rejected(400, "Missing parameter 'tool_call_id'.", param="messages")
        yield FunctionCallOutput(message.tool_call_id, _text(message.content))
        return
    content = _content(message) if message.content or message.refusal else ()
    if content or not message.tool_calls:
        yield Message(message.role, content)
    for call in message.tool_calls or ():
        yield FunctionCall(call.id, call.function.name, call.function.arguments)


def _content(message: _Message) -> tuple[ContentPart, ...]:
    given = message.content
    parts = [_Part("text", text=given)] if isinstance(given, str) else given or []
    content = [_part(part, message.role) for part in parts]
    if message.refusal:
        content.append(Refusal(message.refusal))
    return tuple(content)


def _part(part: _Part, role: str) -> ContentPart:
    if part.type == "refusal":
        return Refusal(part.refusal)
    if part.type == "image_url" and part.image_url is not None:
        return InputImage(part.image_url.url)
    if part.type == "file" and part.file is not None:
        return InputFile(part.file.file_data, part.file.filename)
    if part.type == "input_audio" and part.input_audio is not None:
        audio = part.input_audio
        return InputAudio(f"data:audio/{audio.format};base64,{audio.data}")
    return OutputText(part.text) if role == "assistant" else InputText(part.text)


def _text(content: str | list[_Part] | None) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content or ())


def _instructions(history: tuple[Entry, ...]) -> str:
    roles = ("system", "developer")
    return "\n\n".join(e.text for e in history if isinstance(e, Message) and e.role in roles)


def _tool(tool: _FunctionTool) -> ToolSchema:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return ToolSchema(tool.name, tool.description or "", parameters, bool(tool.strict))


def _choice(choice: Literal["auto", "none", "required"] | _Choice | None) -> ToolChoice:
    if isinstance(choice, _Choice):
        return ToolChoice("named", choice.function.name) if choice.function else ToolChoice()
    return ToolChoice(choice or "auto")


def _schema(form: _Format | None) -> OutputSchema | None:
    if form is None or form.type == "text":
        return None
    wire = form.json_schema or _JsonSchema()
    return OutputSchema(wire.name, wire.schema, bool(wire.strict))


def _rounds(messages: list[_Message]) -> int:
    rounds = 0
    for message in messages:
        if message.role == "user":
            rounds = 0
        elif message.tool_calls:
            rounds += 1
    return rounds
