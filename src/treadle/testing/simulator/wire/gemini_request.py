"""Decodes the body of `POST /v1beta/models/NAME:streamGenerateContent`.

https://ai.google.dev/api/generate-content
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec
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

SIGNATURE = "c2lt"
"""The beginning of a signature: base64 of "sim"."""
UNCHECKED = {"skip_thought_signature_validator", "context_engineering_is_the_way_to_go"}

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_METHODS = {"streamGenerateContent": True, "generateContent": False}


class _Blob(Struct, rename="camel"):
    mime_type: str
    data: str = ""
    file_uri: str = ""


class _Call(Struct):
    name: str
    args: Object = {}
    id: str = ""


class _Response(Struct):
    name: str
    response: Object
    id: str = ""
    parts: list[Object] = []


class _Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: str = ""
    inline_data: _Blob | None = None
    file_data: _Blob | None = None
    function_call: _Call | None = None
    function_response: _Response | None = None


class _Content(Struct):
    parts: list[_Part]
    role: Literal["user", "model"] = "user"


class _Declaration(Struct, rename="camel"):
    name: str
    description: str = ""
    parameters: Object | None = None
    parameters_json_schema: Object | None = None


class _Tool(Struct, rename="camel"):
    function_declarations: list[_Declaration] = []


class _CallingConfig(Struct, frozen=True, rename="camel"):
    mode: Literal["AUTO", "ANY", "NONE", "VALIDATED"] = "AUTO"
    allowed_function_names: list[str] = []


class _ToolConfig(Struct, frozen=True, rename="camel"):
    function_calling_config: _CallingConfig = _CallingConfig()


class _GenerationConfig(Struct, frozen=True, rename="camel"):
    response_mime_type: str = ""
    response_schema: Object | None = None
    response_json_schema: Object | None = None


class _Body(Struct, rename="camel"):
    contents: list[_Content]
    system_instruction: _Content | None = None
    tools: list[_Tool] = []
    tool_config: _ToolConfig = _ToolConfig()
    generation_config: _GenerationConfig = _GenerationConfig()


def decode_gemini(body: Mapping[str, object], size: int, path: str) -> ProviderRequest:
    """Decodes and checks a request. Raises `Rejected` (400) as the provider would."""
    model, stream = _target(path)
    wire = decode(body, _Body)
    _check(wire.contents)
    history = tuple(_entries(wire.contents))
    config = wire.generation_config
    schema = config.response_json_schema or config.response_schema
    if schema is not None and config.response_mime_type != "application/json":
        raise Rejected(400, "A schema needs the response mime type application/json.")
    return ProviderRequest(
        format="gemini",
        model=model,
        stream=stream,
        instructions="\n\n".join(_texts(wire.system_instruction)),
        history=history,
        tools=tuple(_tool(one) for tool in wire.tools for one in tool.function_declarations),
        tool_choice=_choice(wire.tool_config.function_calling_config),
        output_schema=None if schema is None else OutputSchema("output", schema, strict=True),
        include_usage=True,
        rounds=count_rounds(history),
        body=body,
        size=size,
    )


def _target(path: str) -> tuple[str, bool]:
    """Returns the model that a path names, and whether its method streams."""
    model, _, method = path.partition("/models/")[2].rpartition(":")
    if not model or method not in _METHODS:
        raise Rejected(404, f"There is no method {method[:64]!r}.")
    return model, _METHODS[method]


def _check(contents: Sequence[_Content]) -> None:
    """Raises `Rejected` for an order of contents that the API refuses."""
    if not contents:
        raise Rejected(400, "GenerateContentRequest.contents: contents is not specified")
    turn = max((n for n, content in enumerate(contents) if _is_asked(content)), default=0)
    called: list[str] = []
    for number, content in enumerate(contents):
        if not content.parts:
            raise Rejected(400, f"contents[{number}].parts must not be empty.")
        answered = [part.function_response.name for part in content.parts if part.function_response]
        if len(answered) != len(called):
            message = "Please ensure that the number of function response parts is equal to the "
            raise Rejected(
                400, f"{message}number of function call parts of the function call turn."
            )
        if answered != called:
            raise Rejected(400, f"Function responses {answered} do not match the calls {called}.")
        calls = [part for part in content.parts if part.function_call]
        called = [part.function_call.name for part in calls if part.function_call]
        if called and (not number or contents[number - 1].role != "user"):
            message = "Please ensure that function call turn comes immediately after a user turn "
            raise Rejected(400, f"{message}or after a function response turn.")
        for name in called:
            if not _NAME.fullmatch(name):
                raise Rejected(400, f"contents[{number}]: invalid function name {name[:64]!r}.")
        if calls and number >= turn and not _is_signed(calls[0]):
            message = f"Function call `{called[0]}` in the `{number}.` content block is missing a "
            raise Rejected(400, f"{message}`thought_signature`.")
    if called:
        message = "Please ensure that the number of function response parts is equal to the "
        raise Rejected(400, f"{message}number of function call parts of the function call turn.")


def _is_asked(content: _Content) -> bool:
    """Whether a content is one of a person, which begins a turn."""
    return content.role == "user" and not any(part.function_response for part in content.parts)


def _is_signed(part: _Part) -> bool:
    signature = part.thought_signature
    return signature.startswith(SIGNATURE) or signature in UNCHECKED


def _texts(content: _Content | None) -> list[str]:
    return [part.text for part in content.parts if part.text] if content is not None else []


def _entries(contents: Sequence[_Content]) -> Iterator[Entry]:
    calls: list[str] = []
    for number, content in enumerate(contents):
        parts: list[ContentPart] = []
        called: list[str] = []
        for part in content.parts:
            if (call := part.function_call) is not None:
                if parts:
                    yield Message("assistant", tuple(parts))
                    parts = []
                called.append(call.id or f"call_{number}_{len(called)}")
                arguments = msgspec.json.encode(call.args).decode()
                yield FunctionCall(called[-1], call.name, arguments)
            elif (response := part.function_response) is not None:
                # Calls without ids are told apart by their order.
                yield FunctionCallOutput(response.id or calls.pop(0), _output(response.response))
            elif part.text and not part.thought:
                is_model = content.role == "model"
                parts.append(OutputText(part.text) if is_model else InputText(part.text))
            elif blob := part.inline_data or part.file_data:
                parts.append(_media(blob))
        if parts:
            yield Message("assistant" if content.role == "model" else "user", tuple(parts))
        calls = called


def _output(response: Object) -> str:
    text = response.get("output", response.get("error"))
    return text if isinstance(text, str) else msgspec.json.encode(response).decode()


def _media(blob: _Blob) -> ContentPart:
    url = blob.file_uri or f"data:{blob.mime_type};base64,{blob.data}"
    if blob.mime_type.startswith("image/"):
        return InputImage(url)
    if blob.mime_type.startswith("audio/"):
        return InputAudio(url)
    return InputFile(file_url=url) if blob.file_uri else InputFile(url)


def _tool(tool: _Declaration) -> ToolSchema:
    parameters = tool.parameters_json_schema or tool.parameters or {"type": "object"}
    return ToolSchema(tool.name, tool.description, parameters, strict=False)


def _choice(config: _CallingConfig) -> ToolChoice:
    match config.mode:
        case "NONE":
            return ToolChoice("none")
        case "ANY":
            names = config.allowed_function_names
            return ToolChoice("named", names[0]) if len(names) == 1 else ToolChoice("required")
        case _:
            return ToolChoice()
