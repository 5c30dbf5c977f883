"""Decodes the body of `POST /v1/messages`.

https://platform.claude.com/docs/en/api/messages/create
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta, Struct

from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
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

SIGNATURE = "sim_"
MAX_BREAKPOINTS = 4
MIN_BUDGET = 1024

_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_HOSTED = ("server_tool_use", "mcp_tool_use", "_tool_result")


class _Source(Struct):
    type: Literal["base64", "url", "file", "text"]
    url: str = ""
    media_type: str = ""
    data: str = ""


class _Block(Struct):
    type: str
    text: str = ""
    source: _Source | None = None
    title: str = ""
    id: str = ""
    name: str = ""
    input: Object = {}
    tool_use_id: str = ""
    content: "str | list[_Block] | None" = None
    is_error: bool = False
    thinking: str = ""
    signature: str = ""
    data: str = ""


class _Turn(Struct):
    role: Role
    content: str | list[Object]


class _Tool(Struct):
    name: str
    input_schema: Object
    description: str | None = None


class _Choice(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""


class _Thinking(Struct):
    type: Literal["adaptive", "enabled", "disabled", "between_tools"]
    budget_tokens: int | None = None


class _Format(Struct):
    type: Literal["json_schema"]
    schema: Object


class _OutputConfig(Struct):
    format: _Format | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class _SystemText(Struct):
    type: Literal["text"]
    text: str


class _Body(Struct):
    model: str
    messages: list[_Turn]
    max_tokens: Annotated[int, Meta(ge=1)]
    system: str | list[_SystemText] | None = None
    stream: bool | None = None
    tools: list[Object] | None = None
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None


def decode_messages(body: Mapping[str, object], size: int) -> ProviderRequest:
    """Decodes and checks a request. Raises `Rejected` (400) as the provider would."""
    wire = decode(body, _Body)
    turns: list[tuple[Role, list[_Block]]] = [(t.role, _blocks(t)) for t in wire.messages]
    _check_turns(turns)
    _check_thinking(wire)
    _check_breakpoints(body)
    history = tuple(entry for role, blocks in turns for entry in _entries(role, blocks))
    return ProviderRequest(
        format="messages",
        model=wire.model,
        stream=bool(wire.stream),
        instructions=_system(wire.system),
        history=history,
        tools=tuple(_tool(decode(t, _Tool)) for t in wire.tools or () if "input_schema" in t),
        tool_choice=_choice(wire.tool_choice),
        output_schema=_schema(wire.output_config),
        include_usage=True,
        rounds=count_rounds(history),
        body=body,
        size=size,
    )


def _blocks(turn: _Turn) -> list[_Block]:
    if isinstance(turn.content, str):
        return [_Block("text", text=turn.content)]
    return [decode(_known(block), _Block) for block in turn.content]


def _known(block: Object) -> Object:
    """Returns a block without the content of a hosted tool, which has many forms."""
    kind = str(block.get("type"))
    if kind == "tool_result" or not kind.endswith(_HOSTED):
        return block
    return {name: value for name, value in block.items() if name != "content"}


def _check_turns(turns: Sequence[tuple[Role, Sequence[_Block]]]) -> None:
    if not turns:
        raise Rejected(400, "messages: at least one message is required")
    if turns[0][0] != "user":
        raise Rejected(400, 'messages: first message must use the "user" role')
    called: set[str] = set()
    answers: set[str] = set()
    for role, blocks in _joined(turns):
        for block in blocks:
            _check_block(role, block)
        answers = {block.tool_use_id for block in blocks if block.type == "tool_result"}
        if unexpected := answers - called:
            _refuse("unexpected `tool_use_id` found in `tool_result` blocks", unexpected)
        if unanswered := called - answers:
            _refuse("`tool_use` ids were found without `tool_result` blocks after", unanswered)
        called = _called(blocks)
    if called:
        _refuse("`tool_use` ids were found without `tool_result` blocks after", called)


def _joined(
    turns: Sequence[tuple[Role, Sequence[_Block]]],
) -> Iterator[tuple[Role, Sequence[_Block]]]:
    """Returns the turns as the provider reads them: consecutive ones of a role are joined."""
    role, blocks = turns[0][0], list[_Block]()
    for next_role, more in turns:
        if next_role != role:
            yield role, blocks
            role, blocks = next_role, []
        blocks += more
    yield role, blocks


def _called(blocks: Sequence[_Block]) -> set[str]:
    ids = [block.id for block in blocks if block.type == "tool_use"]
    if len(set(ids)) < len(ids):
        raise Rejected(400, "messages: `tool_use` ids must be unique")
    return set(ids)


def _check_block(role: Role, block: _Block) -> None:
    kind = block.type
    if kind == "text" and not block.text.strip():
        raise Rejected(400, "messages: text content blocks must contain non-whitespace text")
    if kind == "thinking" and not block.signature.startswith(SIGNATURE):
        raise Rejected(400, "messages: Invalid `signature` in `thinking` block")
    if kind == "redacted_thinking" and not block.data.startswith(SIGNATURE):
        raise Rejected(400, "messages: Invalid `data` in `redacted_thinking` block")
    if kind == "tool_use" and not _TOOL_ID.fullmatch(block.id):
        raise Rejected(400, f"messages: tool_use.id: {block.id[:64]!r} is not of the pattern")
    if kind == "tool_result" and block.is_error and not block.content:
        raise Rejected(400, "messages: content cannot be empty if `is_error` is true")
    allowed = (
        ("text", "image", "document", "tool_result")
        if role == "user"
        else ("text", "thinking", "redacted_thinking", "tool_use")
    )
    if kind not in allowed and not (role == "assistant" and kind.endswith(_HOSTED)):
        raise Rejected(400, f"messages: {kind[:64]!r} blocks are not allowed in {role} turns")


def _check_thinking(wire: _Body) -> None:
    thinking = wire.thinking
    if thinking is None or thinking.type == "disabled":
        return
    if wire.tool_choice is not None and wire.tool_choice.type in ("any", "tool"):
        message = "Thinking may not be enabled when tool_choice forces tool use."
        raise Rejected(400, message)
    budget = thinking.budget_tokens
    if thinking.type == "enabled" and not (budget and MIN_BUDGET <= budget < wire.max_tokens):
        message = f"thinking.budget_tokens must be at least {MIN_BUDGET} and below max_tokens"
        raise Rejected(400, message)


def _check_breakpoints(body: Mapping[str, object]) -> None:
    if _breakpoints(body) > MAX_BREAKPOINTS:
        message = f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided."
        raise Rejected(400, message)


def _breakpoints(value: object) -> int:
    if isinstance(value, dict):
        fields = cast("Object", value)
        return ("cache_control" in fields) + sum(_breakpoints(v) for v in fields.values())
    if isinstance(value, list):
        return sum(_breakpoints(entry) for entry in cast("list[object]", value))
    return 0


def _refuse(problem: str, ids: set[str]) -> None:
    raise Rejected(400, f"messages: {problem}: {', '.join(sorted(ids))}.")


def _entries(role: Role, blocks: Sequence[_Block]) -> Iterator[Entry]:
    parts: list[ContentPart] = []
    for block in blocks:
        match block.type:
            case "text":
                text = block.text
                parts.append(OutputText(text) if role == "assistant" else InputText(text))
            case "image":
                parts.append(InputImage(_url(block.source)))
            case "document":
                url = _url(block.source)
                is_data = url.startswith("data:")
                file = InputFile(url, block.title) if is_data else InputFile("", block.title, url)
                parts.append(file)
            case "tool_use":
                arguments = msgspec.json.encode(block.input).decode()
                if parts:
                    yield Message(role, tuple(parts))
                    parts = []
                yield FunctionCall(block.id, block.name, arguments)
            case "tool_result":
                yield FunctionCallOutput(block.tool_use_id, _output(block.content))
            case _:
                pass  # thinking, and tools that the provider runs
    if parts:
        yield Message(role, tuple(parts))


def _url(source: _Source | None) -> str:
    if source is None:
        raise Rejected(400, "messages: source: Field required")
    data = source.data
    if source.type == "text":
        data = base64.b64encode(data.encode()).decode()
    return source.url or f"data:{source.media_type};base64,{data}"


def _output(content: str | list[_Block] | None) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.text for block in content or ())


def _system(system: str | list[_SystemText] | None) -> str:
    if isinstance(system, str):
        return system
    return "\n\n".join(block.text for block in system or ())


def _tool(tool: _Tool) -> ToolSchema:
    return ToolSchema(tool.name, tool.description or "", tool.input_schema, strict=False)


def _choice(choice: _Choice | None) -> ToolChoice:
    if choice is None:
        return ToolChoice()
    if choice.type == "tool":
        return ToolChoice("named", choice.name)
    return ToolChoice("required" if choice.type == "any" else choice.type)


def _schema(config: _OutputConfig | None) -> OutputSchema | None:
    if config is None or config.format is None:
        return None
    return OutputSchema("output", config.format.schema, strict=True)
