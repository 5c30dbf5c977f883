"""Requests of the Anthropic Messages API.

https://platform.claude.com/docs/en/api/messages/create
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from treadle.domain.schema import JsonSchema, OutputSchema, ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic_schema import supported_schema
from treadle.models.wire.anthropic_tools import (
    container_of,
    hosted_entries,
    hosted_headers,
    remote_servers,
)
from treadle.models.wire.anthropic_turns import (
    Block,
    Turn,
    Turns,
    thinks_before_calls,
    without_servers,
)
from treadle.models.wire.conversation import arrange, split_system
from treadle.models.wire.loose_json import fields_of, list_of, string_of
from treadle.models.wire.reasoning import budget_of, effort_of
from treadle.models.wire.sendable import Changes, EncodedRequest, json_body
from treadle.models.wire.tool_schema import accepted_parameters

PromptCache = Literal["5m", "1h"]

# These think within a budget of tokens; later models decide themselves, guided by an effort.
_THINKS_WITH_BUDGET = re.compile(
    r"claude-(?:3-7|4-|(?:opus|sonnet|haiku)-4(?!-(?:[6-9]|[1-9]\d)(?!\d)))"
)
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}
_MIN_BUDGET = 1_024
_CACHED_TURNS = 2


class AnthropicOptions(Struct, frozen=True, kw_only=True):
    """Options of this API in addition to `ModelSettings`; see `AnthropicMessages`."""

    provider: str = "anthropic"
    max_tokens: int = 32_000
    prompt_cache: PromptCache | None = "5m"
    eager_input_streaming: bool = True
    named_choice: bool = True
    strict: bool = False


def encode_request(model: str, request: ModelRequest, options: AnthropicOptions) -> EncodedRequest:
    """Returns the body of a streaming request; raises `ItemRefused` if the options are strict."""
    settings, changes = request.settings, Changes(strict=options.strict)
    servers = settings.extra_body.get("mcp_servers") or remote_servers(request.hosted)
    names = {string_of(fields_of(server).get("name")) for server in list_of(servers)}
    items = without_servers(request.items, options.provider, names)
    first, entries = split_system(arrange(items, changes, options.provider))
    texts = [message.text for message in first]
    schema = format_schema(request.output)
    if request.output is not None and schema is None:
        texts.append(asks_for_json(request.output))
    system: list[Block] = [
        {"type": "text", "text": text}
        for text in (*instruction_parts(request), *texts)
        if text.strip()
    ]
    turns = Turns(options.provider, changes).encode(entries)
    offered = _offered(request, options)
    hosted = hosted_entries(request.hosted)
    tools = [*_tools(offered, options), *hosted] or _tools_mentioned(turns)
    max_tokens = settings.max_output_tokens or options.max_tokens
    if options.prompt_cache is not None:
        first_changed = 1 if request.stable_chars and system else 0
        _mark_cached(tools, system, turns, options.prompt_cache, first_changed)
    optional = {
        "system": system,
        "tools": tools,
        "tool_choice": _tool_choice(settings, offered, options, bool(hosted)) if tools else None,
        "mcp_servers": remote_servers(request.hosted),
        "container": container_of(request.hosted),
        "thinking": thinking(
            model, settings, max_tokens, can_think=lambda: thinks_before_calls(turns)
        ),
        "output_config": _output_config(model, settings, schema),
        "temperature": settings.temperature,
        "top_p": settings.top_p,
    }
    body: Block = {
        "model": model,
        "max_tokens": max_tokens,
        "messages": [turn.encoded() for turn in turns],
        "stream": True,
    }
    body |= {name: value for name, value in optional.items() if value not in (None, [], {})}
    body.update(settings.extra_body)
    sources = [turn.sources for turn in turns]
    return EncodedRequest(
        json_body(body),
        tuple(changes.made),
        sources,
        hosted_headers(request.hosted, settings.extra_headers),
    )


def _offered(request: ModelRequest, options: AnthropicOptions) -> Sequence[ToolSchema]:
    """Returns the tools of a request; at other servers the one that is forced, alone.

    llama.cpp treats a named tool as "any", so the model might call another one.
    """
    choice = request.settings.tool_choice
    if options.named_choice or not isinstance(choice, NamedTool):
        return request.tools
    return [tool for tool in request.tools if tool.name == choice.name] or request.tools


def _tools(tools: Sequence[ToolSchema], options: AnthropicOptions) -> list[Block]:
    eager: Block = {"eager_input_streaming": True} if options.eager_input_streaming else {}
    # `strict` is not passed on: the API enforces it for few tools with few optional fields, and
    # refuses the whole request beyond that. treadle validates the arguments in any case.
    return [
        {
            "name": tool.name,
            **({"description": tool.description} if tool.description else {}),
            "input_schema": accepted_parameters(tool),
            **eager,
        }
        for tool in tools
    ]


def _tools_mentioned(turns: Sequence[Turn]) -> list[Block]:
    """Declares the tools of past calls: a history with calls needs declared tools."""
    blocks = [block for turn in turns for block in turn.content if isinstance(block, dict)]
    names = dict.fromkeys(block["name"] for block in blocks if block["type"] == "tool_use")
    return [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in names]


def _tool_choice(
    settings: ModelSettings,
    tools: Sequence[ToolSchema],
    options: AnthropicOptions,
    has_hosted: bool,
) -> Block | None:
    choice = settings.tool_choice if tools or has_hosted else "none"
    if isinstance(choice, NamedTool):
        if choice.name not in {tool.name for tool in tools}:
            choice = None
        elif not options.named_choice:
            choice = "required"
    alone: Block = (
        {"disable_parallel_tool_use": True} if settings.parallel_tool_calls is False else {}
    )
    match choice:
        case NamedTool():
            return {"type": "tool", "name": choice.name, **alone}
        case "required":
            return {"type": "any", **alone}
        case "none":
            return {"type": "none"}
        case "auto" | None:
            return {"type": "auto", **alone} if alone or choice else None
        case _ as unreachable:
            assert_never(unreachable)


def thinking(
    model: str, settings: ModelSettings, max_tokens: int, *, can_think: Callable[[], bool]
) -> Block | None:
    """Returns the field `thinking` of a model of Anthropic; None if there is nothing to say.

    `can_think` returns whether the calls that are answered last were preceded by thinking.
    """
    setting = settings.reasoning_effort
    effort = effort_of(setting)
    if effort == "none":
        return {"type": "disabled"}
    # The API refuses thinking in a request that forces a tool call.
    forced = settings.tool_choice == "required" or isinstance(settings.tool_choice, NamedTool)
    if setting is None or forced:
        return None
    if not _THINKS_WITH_BUDGET.search(model):
        return {"type": "adaptive", "display": "summarized"}
    if not can_think():
        return None
    budget = min(budget_of(setting), max_tokens * 3 // 4)
    return {"type": "enabled", "budget_tokens": budget} if budget >= _MIN_BUDGET else None


def thinking_effort(model: str, settings: ModelSettings) -> str | None:
    """Returns the effort of a model of Anthropic; None for one that thinks within a budget."""
    effort = effort_of(settings.reasoning_effort)
    if effort is None or _THINKS_WITH_BUDGET.search(model):
        return None
    return _EFFORTS.get(effort)


def _output_config(model: str, settings: ModelSettings, schema: JsonSchema | None) -> Block:
    config: Block = {}
    if effort := thinking_effort(model, settings):
        config["effort"] = effort
    if schema is not None:
        config["format"] = {"type": "json_schema", "schema": schema}
    return config


def format_schema(output: OutputSchema | None) -> JsonSchema | None:
    """Returns the schema that a model can be held to; None if it has to be asked."""
    return supported_schema(output.schema) if output is not None and output.strict else None


def asks_for_json(output: OutputSchema) -> str:
    """Returns the text that asks for an output in place of a field."""
    schema = msgspec.json.encode(output.schema).decode()
    return f"Your final answer is JSON only, without any other text, and fits this schema: {schema}"


def instruction_parts(request: ModelRequest) -> tuple[str, str]:
    """Returns the instructions, and the memory blocks that follow them."""
    end = request.stable_chars
    if not end:
        return request.instructions, ""
    return request.instructions[:end], request.instructions[end:].lstrip("\n")


def _mark_cached(
    tools: Sequence[Block],
    system: Sequence[Block],
    turns: Sequence[Turn],
    cache: PromptCache,
    stable: int,
) -> None:
    """Marks the parts that later requests share: four breakpoints, the maximum of the API.

    A prefix is tools, then system, then turns. If the first `stable` blocks of the system stay when
    the others change, their mark stands for the tools as well, so that an edit of memory leaves
    both in the cache. The user's turn before the last is marked again, because the API looks back
    only twenty blocks for the cache entry of an earlier request.
    https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    """
    mark: Block = {"type": "ephemeral", "ttl": cache}
    users = [turn.content for turn in turns if turn.role == "user"][-_CACHED_TURNS:]
    first = system[:stable] or tools
    for blocks in (first, system[stable:], *users):
        if blocks and isinstance(last := blocks[-1], dict):
            last["cache_control"] = mark
