"""Requests of Bedrock's Converse API.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic_request import (
    asks_for_json,
    format_schema,
    instruction_parts,
    thinking,
    thinking_effort,
)
from treadle.models.wire.conversation import arrange, split_system
from treadle.models.wire.converse_families import OTHER, ConverseFamily
from treadle.models.wire.converse_turns import Block, ConverseTurn, ConverseTurns
from treadle.models.wire.loose_json import fields_of
from treadle.models.wire.reasoning import effort_of, reasoning_fields
from treadle.models.wire.sendable import Changes, EncodedRequest, json_body, merged
from treadle.models.wire.tool_schema import accepted_parameters

CachePoints = Literal["5m", "1h"]

# The default of the API is the maximum of the model, which may be less than the budget of the
# thinking asked for; every model that thinks within a budget can write as much.
_MAX_TOKENS_TO_THINK = 32_000
_CACHED_TURNS = 2
_CLAUDE = "anthropic.claude"
_NOVA = "reasoningConfig"


class ConverseOptions(Struct, frozen=True, kw_only=True):
    """Options of this API in addition to `ModelSettings`; see `Bedrock`.

    `model` is the id that tells what is behind the name, which may be an ARN.
    """

    provider: str = "bedrock"
    model: str = ""
    family: ConverseFamily = OTHER
    prompt_cache: CachePoints | None = "5m"
    strict: bool = False


def encode_request(request: ModelRequest, options: ConverseOptions) -> EncodedRequest:
    """Returns the body of a request; raises `ItemRefused` if the options are strict."""
    settings, changes = request.settings, Changes(strict=options.strict)
    first, entries = split_system(arrange(request.items, changes, options.provider))
    texts = [message.text for message in first]
    schema = format_schema(request.output)
    if request.output is not None and schema is None:
        texts.append(asks_for_json(request.output))
    system: list[Block] = [
        {"text": text} for text in (*instruction_parts(request), *texts) if text.strip()
    ]
    conversation = ConverseTurns(options.provider, options.family, changes)
    turns = conversation.encode(entries)
    offered, choice = _offered(request, options.family)
    hosted: list[Block] = [{"systemTool": {"name": name}} for name in conversation.hosted_tools]
    tools = [*([_tool(tool) for tool in offered] or _tools_mentioned(turns)), *hosted]
    inference = _inference(settings)
    additional = _additional(settings, options, turns, inference)
    if options.prompt_cache is not None and options.family.has_cache:
        first_changed = 1 if request.stable_chars and system else 0
        _mark_cached(tools, system, turns, options.prompt_cache, first_changed)
    optional = {
        "system": system,
        "inferenceConfig": inference,
        "toolConfig": {"tools": tools, **choice} if tools else None,
        "additionalModelRequestFields": additional,
        "outputConfig": None if schema is None else _output(request.output, schema),
    }
    body: Block = {"messages": [turn.encoded() for turn in turns]}
    body |= {name: value for name, value in optional.items() if value}
    for name, value in settings.extra_body.items():
        body[name] = merged(body.get(name), value)
    sources = [turn.sources for turn in turns]
    return EncodedRequest(json_body(body), tuple(changes.made), sources)


def _offered(
    request: ModelRequest, family: ConverseFamily
) -> tuple[Sequence[ToolSchema], Mapping[str, object]]:
    """Returns the tools of a request, and its tool choice.

    The API has no choice "none", so no tools are offered then. A tool that cannot be named is the
    only one.
    """
    choice = request.settings.tool_choice
    if choice == "none":
        return (), {}
    any_tool: Mapping[str, object] = {"toolChoice": {"any": {}}} if family.choice else {}
    if isinstance(choice, NamedTool):
        named = [tool for tool in request.tools if tool.name == choice.name]
        if not named:
            return request.tools, {}
        if family.choice == "named":
            return request.tools, {"toolChoice": {"tool": {"name": choice.name}}}
        return named, any_tool
    return request.tools, any_tool if choice == "required" and request.tools else {}


def _tool(tool: ToolSchema) -> Block:
    # `strict` is not passed on: the API enforces it for few models and few tools, and refuses the
    # whole request beyond that. treadle validates the arguments in any case.
    said = {"description": tool.description} if tool.description.strip() else {}
    return {
        "toolSpec": {
            "name": tool.name,
            **said,
            "inputSchema": {"json": accepted_parameters(tool)},
        }
    }


def _tools_mentioned(turns: Sequence[ConverseTurn]) -> list[Block]:
    """Declares the tools of past calls.

    "The toolConfig field must be defined when using toolUse and toolResult content blocks."
    """
    blocks = [block for turn in turns for block in turn.content if isinstance(block, dict)]
    calls = [fields_of(block["toolUse"]) for block in blocks if "toolUse" in block]
    names = dict.fromkeys(call["name"] for call in calls)
    schema: Block = {"json": {"type": "object", "properties": {}}}
    return [{"toolSpec": {"name": name, "inputSchema": schema}} for name in names]


def _inference(settings: ModelSettings) -> Block:
    found = {
        "maxTokens": settings.max_output_tokens,
        "temperature": settings.temperature,
        "topP": settings.top_p,
    }
    return {name: value for name, value in found.items() if value is not None}


def _additional(
    settings: ModelSettings,
    options: ConverseOptions,
    turns: Sequence[ConverseTurn],
    inference: Block,
) -> Mapping[str, object]:
    """Returns the fields that only the model itself knows: how much it reasons.

    Sets the token limit in `inference` that a budget for thinking needs.
    """
    setting = settings.reasoning_effort
    if _CLAUDE not in options.model:
        rules = options.family.reasoning
        if inference and _NOVA in reasoning_fields(rules, options.model, setting):
            # The effort "high" takes no temperature, no `topP` and no `maxTokens`.
            setting = "medium" if effort_of(setting) in {"high", "xhigh"} else setting
        return reasoning_fields(rules, options.model, setting) if rules else {}
    max_tokens = settings.max_output_tokens or _MAX_TOKENS_TO_THINK
    thought = thinking(
        options.model, settings, max_tokens, can_think=lambda: _thinks_before_calls(turns)
    )
    found: Block = {} if thought is None else {"thinking": thought}
    if thought is not None and "budget_tokens" in thought:
        inference["maxTokens"] = max_tokens
    if effort := thinking_effort(options.model, settings):
        found["output_config"] = {"effort": effort}
    return found


def _thinks_before_calls(turns: Sequence[ConverseTurn]) -> bool:
    """Whether the calls that are answered last were preceded by thinking, as models require.

    "Expected `thinking` or `redacted_thinking`, but found `tool_use`": RooCodeInc/Roo-Code#11238.
    """
    if len(turns) < 2 or "toolResult" not in turns[-1].kinds():
        return True
    return next(turns[-2].kinds()) == "reasoningContent"


def _output(output: OutputSchema | None, schema: object) -> Block:
    name = "output" if output is None else output.name
    text = msgspec.json.encode(schema).decode()
    structure = {"jsonSchema": {"name": name, "schema": text}}
    return {"textFormat": {"type": "json_schema", "structure": structure}}


def _mark_cached(
    tools: list[Block],
    system: list[Block],
    turns: Sequence[ConverseTurn],
    cache: CachePoints,
    stable: int,
) -> None:
    """Adds cache points behind the parts that later requests share: four, the maximum of the API.

    They stand where the marks of the Messages API stand.
    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
    """
    point: Block = {"type": "default"} if cache == "5m" else {"type": "default", "ttl": cache}
    mark: Block = {"cachePoint": point}
    if len(system) > stable:
        system.append(mark)
    if stable:
        system.insert(stable, mark)
    elif tools:
        tools.append(mark)
    for turn in [turn for turn in turns if turn.role == "user"][-_CACHED_TURNS:]:
        turn.content.append(mark)
        turn.sources.append(None)
