"""What every API requires of the items of a request, and what stands in place of the rest.

A history may contain whatever models, tools, people and other providers wrote. Each function here
is total: it returns what can be sent, and notes what it left out or replaced.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
from msgspec import Struct

from treadle.domain.events import ChangeReason
from treadle.domain.items import FunctionCall, Item
from treadle.errors import ItemRefused
from treadle.models.base import ItemChange

INVALID_ARGUMENTS = "INVALID_JSON"
"""The member that holds arguments that are not a JSON object, as Anthropic proposes.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
"""
MAX_TEXT = 10_485_760
"""The most characters of a text at OpenAI, beyond which the request is refused.

"string too long. Expected a string with maximum length 10485760": Shopify/roast#52.
"""
NO_INPUT = "(The conversation begins.)"
"""The user's message in a request that would have none, or would begin with the assistant."""
CONTINUE = "(Continue.)"
"""The user's message after an assistant that spoke last, for APIs that would refuse that."""

# OpenAI and Anthropic refuse other names, in the history as well as in the tools:
# mastra-ai/mastra#13632, anomalyco/opencode#48750.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]+")
_MAX_NAME = 64
_UNNAMED = "unnamed_tool"
# The parsers of many servers give up at 128 levels, such as serde_json by default:
# https://docs.rs/serde_json/latest/serde_json/struct.Deserializer.html
_MAX_DEPTH = 100
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_values = msgspec.json.Decoder(dict[str, object]).decode


class EncodedRequest(Struct, frozen=True):
    """The body of a request, and how it differs from its items.

    `sources` are the items that each entry of the conversation in the body is made of, in the order
    of its parts; None for a part of no item. `headers` are sent with the body; they
    replace those of the settings, which the encoding has taken into account.
    """

    body: bytes
    changes: tuple[ItemChange, ...] = ()
    sources: Sequence[Sequence[Item | None]] = ()
    headers: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])


class Changes:
    """Notes what one request leaves out or replaces; a strict one raises `ItemRefused` instead."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self.made: list[ItemChange] = []

    def note(self, item: Item, reason: ChangeReason, text: str) -> None:
        """Notes a change of `item`; `text` describes it in a sentence."""
        if self._strict:
            raise ItemRefused(f"{text} The model is strict, so the request was not sent.", item)
        self.made.append(ItemChange(item, reason, text))


def tool_name(call: FunctionCall, changes: Changes) -> str:
    """Returns the name of a call, with other characters than letters, digits, _ and - replaced."""
    if _NAME.fullmatch(call.name):
        return call.name
    name = _NOT_IN_NAMES.sub("_", call.name)[:_MAX_NAME] or _UNNAMED
    changes.note(call, "tool_name", f"The tool name {call.name[:100]!r} is sent as {name!r}.")
    return name


def object_arguments(call: FunctionCall, changes: Changes) -> str:
    """Returns the arguments of a call as the text of a JSON object.

    Servers of Chat Completions parse what is sent back, and answer 400 or 500 to other text, such
    as the call that the model is to correct (NousResearch/hermes-agent#4724, llama.cpp, LiteLLM).
    """
    text = call.arguments
    if text.strip() in ("", "{}", "null"):
        return "{}"  # a tool without parameters, at servers that send nothing for them
    if _is_object(text):
        return text
    note = "The arguments of a call are not a JSON object and are sent inside one."
    changes.note(call, "arguments", note)
    return msgspec.json.encode({INVALID_ARGUMENTS: utf8(text)}).decode()


def _is_object(text: str) -> bool:
    try:
        # Without the values, which is faster; only escapes may hide half a surrogate pair, which
        # no parser accepts in a request.
        if "\\u" in text:
            _decode_values(text)
        else:
            _decode_members(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return text.count("{") + text.count("[") <= _MAX_DEPTH or _depth(text) <= _MAX_DEPTH


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in _STRINGS.sub("", text):
        if mark in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "}]":
            depth -= 1
    return deepest


def call_id(wire_id: str, accepted: re.Pattern[str]) -> str:
    """Returns the id of a call, or one made of it if the API does not accept it."""
    if accepted.fullmatch(wire_id):
        return wire_id
    return f"call_{hashlib.sha256(wire_id.encode(errors='replace')).hexdigest()[:32]}"


def limited(item: Item, text: str, changes: Changes) -> str:
    """Returns a text, cut to `MAX_TEXT` characters with a mark of what is missing."""
    if len(text) <= MAX_TEXT:
        return text
    mark = f"\n[{len(text) - MAX_TEXT + 100} characters are left out here]"
    changes.note(item, "too_long", f"A text of {len(text)} characters is cut to {MAX_TEXT}.")
    return text[: MAX_TEXT - 100] + mark


def utf8(text: str) -> str:
    """Returns a text with halves of surrogate pairs replaced, which UTF-8 cannot represent."""
    return text.encode(errors="replace").decode()


def json_body(body: Mapping[str, object]) -> bytes:
    """Returns `body` as JSON."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return msgspec.json.encode(_clean(body))


def _clean(value: object) -> object:
    if isinstance(value, str):
        return utf8(value)
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, object]", value)
        return {utf8(key): _clean(inner) for key, inner in fields.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in cast("Sequence[object]", value)]
    return value


def merged(value: object, more: object) -> object:
    """Returns a field of the body with what the settings add: to objects, and to lists."""
    if isinstance(value, dict) and isinstance(more, Mapping):
        fields = cast("dict[str, object]", value)
        given = cast("Mapping[str, object]", more)
        return {**fields, **{name: merged(fields.get(name), one) for name, one in given.items()}}
    if isinstance(value, list) and isinstance(more, list):
        return [*cast("list[object]", value), *cast("list[object]", more)]
    return more


def is_json_object(raw: msgspec.Raw) -> bool:
    """Whether `raw` can be put into a request as it is."""
    try:
        _decode_members(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
