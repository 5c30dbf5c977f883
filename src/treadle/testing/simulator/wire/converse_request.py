"""Decodes the body of `POST /model/NAME/converse-stream`.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

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
)
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.testing.simulator.rejection import Rejected
from treadle.testing.simulator.request import (
    Entry,
    ProviderRequest,
    ToolChoice,
    count_rounds,
    decode,
)

Object = dict[str, object]
Role = Literal["user", "assistant"]

SIGNATURE = "c2lt"
"""The beginning of a signature: base64 of "sim"."""
MAX_CACHE_POINTS = 4

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_METHODS = {"converse-stream": True, "converse": False}


class _Source(Struct):
    bytes: Annotated[str, Meta(min_length=1)]


class _File(Struct):
    source: _Source
    format: str = ""
    name: str = ""


class _ToolUse(Struct, rename="camel"):
    tool_use_id: str
    name: str
    input: Object


class _ResultBlock(Struct):
    text: str | None = None
    json: Object | None = None
    image: _File | None = None
    document: _File | None = None


class _ToolResult(Struct, rename="camel"):
    tool_use_id: str
    content: list[_ResultBlock]
    status: Literal["success", "error"] = "success"


class _Thought(Struct):
    text: str
    signature: str = ""


class _Reasoning(Struct, rename="camel"):
    reasoning_text: _Thought | None = None
    redacted_content: str | None = None


class _CachePoint(Struct):
    type: Literal["default"]


class _Block(Struct, rename="camel"):
    text: str | None = None
    image: _File | None = None
    document: _File | None = None
    audio: _File | None = None
    tool_use: _ToolUse | None = None
    tool_result: _ToolResult | None = None
    reasoning_content: _Reasoning | None = None
    cache_point: _CachePoint | None = None


class _Message(Struct):
    role: Role
    content: list[_Block]


class _SystemBlock(Struct, rename="camel"):
    text: str | None = None
    cache_point: _CachePoint | None = None


class _InputSchema(Struct):
    json: Object


class _ToolSpec(Struct, rename="camel"):
    name: str
    input_schema: _InputSchema
    description: Annotated[str, Meta(min_length=1)] | None = None


class _Tool(Struct, rename="camel"):
    tool_spec: _ToolSpec | None = None
    cache_point: _CachePoint | None = None


class _Named(Struct):
    name: str


class _Choice(Struct):
    auto: Object | None = None
    any: Object | None = None
    tool: _Named | None = None


class _ToolConfig(Struct, rename="camel"):
    tools: Annotated[list[_Tool], Meta(min_length=1)]
    tool_choice: _Choice | None = None


class _JsonSchema(Struct):
    schema: str


class _Structure(Struct, rename="camel"):
    json_schema: _JsonSchema


class _TextFormat(Struct):
    type: Literal["json_schema"]
    structure: _Structure


class _OutputConfig(Struct, rename="camel"):
    text_format: _TextFormat | None = None


class _Body(Struct, rename="camel"):
    messages: list[_Message]
    system: list[_SystemBlock] = []
    tool_config: _ToolConfig | None = None
    output_config: _OutputConfig | None = None


def decode_converse(body: Mapping[str, object], size: int, path: str) -> ProviderRequest:
    """Decodes and checks a request. Raises `Rejected` (400) as the provider would."""
    model, stream = _target(path)
    wire = decode(body, _Body)
    _check(wire)
    history = tuple(entry for message in wire.messages for entry in _entries(message))
    config = wire.tool_config
    return ProviderRequest(
        format="converse",
        model=model,
        stream=stream,
        instructions="\n\n".join(block.text for block in wire.system if block.text),
        history=history,
        tools=tuple(_tools(config)),
        tool_choice=_choice(config),
        output_schema=_schema(wire.output_config),
        include_usage=True,
        rounds=count_rounds(history),
        body=body,
        size=size,
    )


def _target(path: str) -> tuple[str, bool]:
    """Returns the model that a path names, and whether its method streams."""
    model, _, method = path.partition("/model/")[2].rpartition("/")
    if not model or method not in _METHODS:
        raise Rejected(404, f"There is no operation {method[:64]!r}.")
    return model, _METHODS[method]


def _check(wire: _Body) -> None:
    """Raises `Rejected` for messages that the API refuses."""
    if not wire.messages or wire.messages[0].role != "user":
        message = "A conversation must start with a user message. Try again with a conversation "
        raise Rejected(400, f"{message}that starts with a user message.")
    has_tools, points, called = False, 0, list[str]()
    names: set[str] = set()
    for number, message in enumerate(wire.messages):
        where = f"messages.{number}.content"
        if number and message.role == wire.messages[number - 1].role:
            raise Rejected(400, "A conversation must alternate between user and assistant roles.")
        if not message.content:
            raise Rejected(400, f"The content field in the Message object at {where} is empty.")
        blocks = message.content
        for place, block in enumerate(blocks):
            _check_block(block, message.role, f"{where}.{place}")
        answered = [b.tool_result.tool_use_id for b in blocks if b.tool_result]
        if missing := set(called) - set(answered):
            ids = ", ".join(sorted(missing))
            raise Rejected(400, f"Expected toolResult blocks at {where} for the Ids: {ids}")
        if len(answered) != len(called):
            message_text = "The number of toolResult blocks exceeds the number of toolUse blocks"
            raise Rejected(400, f"{message_text} of the previous turn at {where}.")
        called = [block.tool_use.tool_use_id for block in blocks if block.tool_use]
        documents = [block.document.name for block in blocks if block.document]
        if documents and not any(block.text for block in blocks):
            raise Rejected(400, f"Add a text block next to the document at {where}.")
        if len({*names, *documents}) < len(names) + len(documents):
            raise Rejected(400, "Messages can't contain duplicate document names.")
        names |= set(documents)
        has_tools = has_tools or bool(called or answered)
        points += sum(block.cache_point is not None for block in blocks)
    if called:
        raise Rejected(400, f"Expected toolResult blocks for the Ids: {', '.join(called)}")
    if has_tools and wire.tool_config is None:
        message = "The toolConfig field must be defined when using toolUse and toolResult content "
        raise Rejected(400, f"{message}blocks.")
    points += sum(block.cache_point is not None for block in wire.system)
    tools = wire.tool_config.tools if wire.tool_config else []
    points += sum(tool.cache_point is not None for tool in tools)
    if points > MAX_CACHE_POINTS:
        raise Rejected(400, f"A maximum of {MAX_CACHE_POINTS} cache points may be provided.")


def _check_block(block: _Block, role: Role, where: str) -> None:
    set_fields = [name for name in block.__struct_fields__ if getattr(block, name) is not None]
    if len(set_fields) != 1:
        raise Rejected(400, f"ContentBlock object at {where} must set one key, not {set_fields}.")
    if block.text is not None and not block.text.strip():
        message = f"The text field in the ContentBlock object at {where} is blank."
        raise Rejected(400, f"{message} Add text to the text field, and try again.")
    wrong = (
        (block.tool_use or block.reasoning_content)
        if role == "user"
        else (block.tool_result or block.image or block.document or block.audio)
    )
    if wrong:
        raise Rejected(400, f"{where}: {set_fields[0]} is not allowed in a {role} message.")
    thought = block.reasoning_content and block.reasoning_content.reasoning_text
    if thought and not thought.signature.startswith(SIGNATURE):
        raise Rejected(400, f"{where}: Invalid `signature` in `thinking` block")
    if (call := block.tool_use) and not (
        _NAME.fullmatch(call.name) and _NAME.fullmatch(call.tool_use_id)
    ):
        raise Rejected(400, f"{where}.toolUse: {call.name!r}, {call.tool_use_id!r}: no such name")
    result = block.tool_result
    if result and result.status == "error" and not result.content:
        message = f"The content field at {where}.toolResult cannot be empty when status value is "
        raise Rejected(400, f"{message}error.")


def _entries(message: _Message) -> Iterator[Entry]:
    parts: list[ContentPart] = []
    is_user = message.role == "user"
    for block in message.content:
        if block.text:
            parts.append(InputText(block.text) if is_user else OutputText(block.text))
        elif (file := block.image or block.document or block.audio) is not None:
            parts.append(_media(block, file))
        elif (call := block.tool_use) is not None:
            if parts:
                yield Message(message.role, tuple(parts))
                parts = []
            arguments = msgspec.json.encode(call.input).decode()
            yield FunctionCall(call.tool_use_id, call.name, arguments)
        elif (result := block.tool_result) is not None:
            yield FunctionCallOutput(result.tool_use_id, _output(result.content))
    if parts:
        yield Message(message.role, tuple(parts))


def _media(block: _Block, file: _File) -> ContentPart:
    if block.image:
        return InputImage(f"data:image/{file.format};base64,{file.source.bytes}")
    if block.audio:
        return InputAudio(f"data:audio/{file.format};base64,{file.source.bytes}")
    return InputFile(f"data:application/{file.format};base64,{file.source.bytes}", file.name)


def _output(content: Sequence[_ResultBlock]) -> str:
    texts = [
        msgspec.json.encode(block.json).decode() if block.json is not None else block.text or ""
        for block in content
    ]
    return "".join(texts)


def _tools(config: _ToolConfig | None) -> Iterator[ToolSchema]:
    for tool in config.tools if config else ():
        if (spec := tool.tool_spec) is not None:
            schema = spec.input_schema.json
            yield ToolSchema(spec.name, spec.description or "", schema, strict=False)


def _choice(config: _ToolConfig | None) -> ToolChoice:
    choice = config.tool_choice if config else None
    if choice is None or choice.auto is not None:
        return ToolChoice()
    return ToolChoice("named", choice.tool.name) if choice.tool else ToolChoice("required")


def _schema(config: _OutputConfig | None) -> OutputSchema | None:
    if config is None or config.text_format is None:
        return None
    text = config.text_format.structure.json_schema.schema
    try:
        schema = msgspec.json.decode(text, type=Object)
    except msgspec.DecodeError as error:
        raise Rejected(400, f"The schema of the output is not JSON: {error}") from error
    return OutputSchema("output", schema, strict=True)
