"""Requests of the Gemini API, at Google AI and at Vertex AI.

https://ai.google.dev/api/generate-content
"""

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import assert_never, cast

from msgspec import Struct

from treadle.domain.items import Message
from treadle.domain.schema import ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.conversation import arrange, is_system, split_system
from treadle.models.wire.gemini_contents import Contents, Part, function_name
from treadle.models.wire.gemini_schema import readable_schema
from treadle.models.wire.gemini_tools import hosted_entries
from treadle.models.wire.reasoning import budget_of, effort_of
from treadle.models.wire.sendable import Changes, EncodedRequest, json_body, merged
from treadle.models.wire.tool_schema import accepted_parameters

CACHE = "cachedContent"
"""The field of a request that names an explicit cache."""
# "Tool config, tools and system instruction should not be set in the request when using cached
# content": they are in the cache, which was made with them.
_IN_CACHE = ("systemInstruction", "tools", "toolConfig")
_OLD = re.compile(r"gemini-[12]\b")
# These think within a budget of tokens; later models at a level, earlier ones not at all.
# https://ai.google.dev/gemini-api/docs/thinking
_THINKS_WITH_BUDGET = re.compile(r"gemini-2\.5")
_ALWAYS_THINKS = re.compile(r"gemini-2\.5-pro")
_LEAST_BUDGET = 128
_LARGEST_BUDGET = 24_576
# Models from 3 on always think; only these know the level "minimal", which others refuse.
_KNOWS_MINIMAL = re.compile(r"gemini-3(?:\.[1-5])?-flash")
_LEVELS = {
    "none": "minimal",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}


class GeminiOptions(Struct, frozen=True, kw_only=True):
    """Options of this API in addition to `ModelSettings`; see `Gemini`."""

    provider: str = "gemini"
    strict: bool = False


def is_old(model: str) -> bool:
    """Whether a model is of a generation before Gemini 3."""
    return _OLD.search(model) is not None


def encode_request(model: str, request: ModelRequest, options: GeminiOptions) -> EncodedRequest:
    """Returns the body of a request; raises `ItemRefused` if the options are strict."""
    settings, changes = request.settings, Changes(strict=options.strict)
    first, entries = split_system(arrange(request.items, changes, options.provider))
    contents = Contents(options.provider, changes, is_old=is_old(model)).encode(entries)
    body: Part = {"contents": [content.encoded() for content in contents]}
    is_cached = CACHE in settings.extra_body
    if not is_cached:
        body |= _beginning(request, first)
    if config := _config(model, request):
        body["generationConfig"] = config
    for name, value in settings.extra_body.items():
        if not (is_cached and name in _IN_CACHE):
            body[name] = merged(body.get(name), value)
    sources = [content.sources for content in contents]
    return EncodedRequest(json_body(body), tuple(changes.made), sources)


def cached_part(request: ModelRequest) -> Part:
    """Returns the part of a request that stands in an explicit cache, if there is one."""
    first = takewhile(is_system, cast("Iterable[Message]", request.items))
    found = _beginning(request, first)
    for name, value in request.settings.extra_body.items():
        if name in _IN_CACHE:
            found[name] = merged(found.get(name), value)
    return found


def _beginning(request: ModelRequest, first: Iterable[Message]) -> Part:
    """Returns the system instruction, with the messages that come `first`, and the tools."""
    texts = (request.instructions, *(message.text for message in first))
    body: Part = {}
    if system := [{"text": text} for text in texts if text.strip()]:
        body["systemInstruction"] = {"parts": system}
    tools = hosted_entries(request.hosted)
    tool_config: Part = {}
    if request.tools:
        if tools:
            # Without it: "Built-in tools and Function Calling cannot be combined in the same
            # request." Models before Gemini 3 cannot.
            tool_config["includeServerSideToolInvocations"] = True
        tools.insert(0, {"functionDeclarations": [_declaration(t) for t in request.tools]})
        if choice := _choice(request.settings, request.tools):
            tool_config["functionCallingConfig"] = choice
    optional = {"tools": tools, "toolConfig": tool_config}
    return body | {name: value for name, value in optional.items() if value}


def _declaration(tool: ToolSchema) -> Part:
    return {
        "name": function_name(tool.name),
        "description": tool.description,
        "parametersJsonSchema": readable_schema(accepted_parameters(tool)),
    }


def _choice(settings: ModelSettings, tools: Sequence[ToolSchema]) -> Part | None:
    match settings.tool_choice:
        case None:
            return None
        case "auto":
            return {"mode": "AUTO"}
        case "none":
            return {"mode": "NONE"}
        case "required":
            return {"mode": "ANY"}
        case NamedTool(name):
            if name not in {tool.name for tool in tools}:
                return None
            return {"mode": "ANY", "allowedFunctionNames": [function_name(name)]}
        case _ as unreachable:
            assert_never(unreachable)


def _config(model: str, request: ModelRequest) -> Part:
    settings, output = request.settings, request.output
    optional = {
        "temperature": settings.temperature,
        "topP": settings.top_p,
        "maxOutputTokens": settings.max_output_tokens,
        "thinkingConfig": _thinking(model, settings),
        "responseMimeType": None if output is None else "application/json",
        "responseJsonSchema": None if output is None else readable_schema(output.schema),
    }
    return {name: value for name, value in optional.items() if value is not None}


def _thinking(model: str, settings: ModelSettings) -> Part | None:
    setting = settings.reasoning_effort
    effort = effort_of(setting)
    if setting is None or effort is None:
        return None
    shown: Part = {"includeThoughts": effort != "none"}
    if not is_old(model):
        level = _LEVELS[effort]
        is_known = level != "minimal" or _KNOWS_MINIMAL.search(model)
        return {**shown, "thinkingLevel": level if is_known else "low"}
    if not _THINKS_WITH_BUDGET.search(model):
        return None
    budget = min(budget_of(setting), _LARGEST_BUDGET)
    if settings.max_output_tokens is not None:
        # Thoughts count as output: without a rest, the answer would be empty.
        budget = min(budget, settings.max_output_tokens * 3 // 4)
    if _ALWAYS_THINKS.search(model):
        budget = max(budget, _LEAST_BUDGET)
    return {**shown, "thinkingBudget": budget}
