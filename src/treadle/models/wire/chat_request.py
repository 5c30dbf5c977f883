"""Requests of OpenAI Chat Completions and of the many servers compatible with it.

https://platform.openai.com/docs/api-reference/chat/create
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import assert_never, cast

import msgspec
from msgspec import Struct

from treadle.domain.files import InputAudio, InputFile, Media
from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
)
from treadle.domain.schema import ToolSchema
from treadle.domain.settings import NamedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.chat_dialects import OPENAI, ChatDialect
from treadle.models.wire.conversation import Response, arrange, as_user, is_system, split_system
from treadle.models.wire.media import WebContent, file_name, file_text, no_media
from treadle.models.wire.prompt_cache import cache_key
from treadle.models.wire.reasoning import reasoning_fields
from treadle.models.wire.sendable import (
    CONTINUE,
    NO_INPUT,
    Changes,
    EncodedRequest,
    call_id,
    json_body,
    limited,
    object_arguments,
    tool_name,
)
from treadle.models.wire.tool_schema import accepted_parameters

Object = dict[str, object]

_AUDIO_FORMATS = {"audio/wav": "wav", "audio/mpeg": "mp3"}

DETAILS = ("reasoning_details", "thinking_blocks")
"""Fields of reasoning that hold signatures: those of OpenRouter and of LiteLLM."""
TEXT_FIELD = "text_field"
"""In the provider fields of reasoning: the field of a message that contained its text."""
THINKING_PART = "thinking"
"""The text field of Mistral, which sends reasoning as a part of the content."""
_REASONING_CONTENT = "reasoning_content"
_EXTRA = "extra_content"
_UNCHECKED = {"google": {"thought_signature": "skip_thought_signature_validator"}}

# Printable characters without spaces; servers of compatible APIs compare ids and pass them on.
_IDS = {"short": re.compile(r"[!-~]{1,40}"), "any": re.compile(r"[!-~]{1,4096}")}
_NINE = re.compile(r"[a-zA-Z0-9]{9}")
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
# Moonshot refuses an empty message of any role ("message at position 3 must not be empty").
_NO_OUTPUT = "(No output.)"
_IMAGES_FOLLOW = "The images are in the next message."
_FILES_FOLLOW = "The files are in the next message."
# Mistral: "Unexpected role 'user' after role 'tool'"; chat templates do not count calls and outputs
# as turns, so that two user's turns would meet.
_AFTER_OUTPUTS = "(The tools have answered.)"


class ChatOptions(Struct, frozen=True, kw_only=True):
    """Options of this API in addition to `ModelSettings`; see `OpenAIChat`."""

    provider: str = "chat"
    dialect: ChatDialect = OPENAI
    strict: bool = False


def encode_request(
    model: str, request: ModelRequest, options: ChatOptions | None = None
) -> EncodedRequest:
    """Returns the body of a streaming request; raises `ItemRefused` if the options are strict."""
    options = options or ChatOptions()
    settings, changes = request.settings, Changes(strict=options.strict)
    encoder = _Encoder(request, options, changes)
    dialect = options.dialect
    body: Object = {"model": model, "messages": encoder.messages, "stream": True}
    if dialect.counts_when_asked:
        body["stream_options"] = {"include_usage": True}
    tools, choice = _tools(request, dialect)
    optional = {
        # OpenAI refuses the settings of tools in a request without tools.
        "tools": [_tool(tool, dialect) for tool in tools] or None,
        "tool_choice": choice if tools else None,
        "parallel_tool_calls": settings.parallel_tool_calls
        if tools and dialect.parallel_tool_calls
        else None,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        dialect.max_tokens_field: settings.max_output_tokens,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    body |= reasoning_fields(dialect.reasoning, model, settings.reasoning_effort)
    if tools:
        body |= dialect.with_tools
    if request.output is not None:
        schema = msgspec.structs.asdict(request.output)
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    headers: dict[str, str] = {}
    if dialect.cache_key and (key := cache_key(model, request)):
        if dialect.cache_key.startswith("x-"):
            if dialect.cache_key not in map(str.lower, settings.extra_headers):
                headers[dialect.cache_key] = key
        else:
            body[dialect.cache_key] = key
    body.update(settings.extra_body)
    return EncodedRequest(json_body(body), tuple(changes.made), encoder.sources, headers)


def _tools(request: ModelRequest, dialect: ChatDialect) -> tuple[Sequence[ToolSchema], object]:
    """Returns the tools of a request and its tool choice."""
    choice = request.settings.tool_choice
    if not isinstance(choice, NamedTool):
        if dialect.tool_choice:
            return request.tools, choice
        return () if choice == "none" else request.tools, None
    named = [tool for tool in request.tools if tool.name == choice.name]
    if not named:
        return request.tools, None
    if not dialect.named_choice:
        return named, "required" if dialect.tool_choice else None
    return request.tools, {"type": "function", "function": {"name": choice.name}}


def _tool(tool: ToolSchema, dialect: ChatDialect) -> Object:
    function = msgspec.structs.asdict(tool) | {"parameters": accepted_parameters(tool)}
    if not dialect.strict_tools:
        del function["strict"]
    return {"type": "function", "function": function}


class _Encoder:
    """Makes the messages of one request, and notes the items each of them is made of."""

    def __init__(self, request: ModelRequest, options: ChatOptions, changes: Changes) -> None:
        self.messages: list[Object] = []
        self.sources: list[list[Item | None]] = []
        self._provider = options.provider
        self._dialect = options.dialect
        self._changes = changes
        entries = arrange(request.items, changes)
        self._needs_reasoning = options.dialect.needs_reasoning or any(
            self._writes_reasoning_content(item)
            for entry in entries
            if isinstance(entry, Response)
            for item in entry.items
        )
        system, entries = split_system(entries)
        texts = [request.instructions, *(self._system_text(message) for message in system)]
        text = "\n\n".join(text for text in texts if text.strip())
        if text:
            self._append({"role": "system", "content": text}, *system)
        for entry in entries:
            if isinstance(entry, Response):
                self._response(entry)
            elif is_system(entry):
                self._system(entry)
            else:
                self._user(entry, self._content(entry))
        self._finish()

    def _finish(self) -> None:
        last = self.messages[-1]["role"] if self.messages else "system"
        # "Expected last role User or Tool […] but got assistant" (Mistral, vLLM); "No user query
        # found in messages" (the chat template of Qwen).
        if last == "system":
            self._append({"role": "user", "content": NO_INPUT})
        elif last == "assistant" and self._dialect.alternates:
            self._append({"role": "user", "content": CONTINUE})

    def _append(self, message: Object, *items: Item) -> None:
        self.messages.append(message)
        self.sources.append(list(items))

    def _is_last(self, *roles: str) -> bool:
        return bool(self.messages) and self.messages[-1]["role"] in roles

    def _system(self, message: Message) -> None:
        if not message.text.strip():
            return
        if self._dialect.alternates:
            # "System message must be at the beginning" (the chat template of Qwen).
            self._user(message, limited(message, as_user(message).text, self._changes))
        else:
            self._append({"role": "system", "content": self._system_text(message)}, message)

    def _system_text(self, message: Message) -> str:
        texts = [message.text, *self._no_media(message, "a system message")]
        return limited(message, "\n".join(text for text in texts if text.strip()), self._changes)

    def _user(self, item: Item, content: str | list[Object]) -> None:
        """Adds what the user said, unless it is blank."""
        if not content or (isinstance(content, str) and not content.strip()):
            return
        items = [item] * (1 if isinstance(content, str) else len(content))
        if self._dialect.alternates:
            if self._is_last("tool"):
                self._append({"role": "assistant", "content": _AFTER_OUTPUTS})
            if self._is_last("user"):
                self.messages[-1]["content"] = _joined(self.messages[-1]["content"], content)
                self.sources[-1] += items
                return
        self._append({"role": "user", "content": content}, *items)

    def _content(self, message: Message) -> str | list[Object]:
        parts = message.content
        if (text := _only_text(parts)) is not None:
            return limited(message, text, self._changes)
        if not any(isinstance(part, Media) for part in parts):
            text = message.text or message.refusal
            return limited(message, text, self._changes)
        content: list[Object] = []
        for part in parts:
            if isinstance(part, Media):
                content.append(self._media(part, message))
            elif isinstance(part, InputText | OutputText) and part.text.strip():
                content.append(_text_part(limited(message, part.text, self._changes)))
        return content

    def _media(self, part: Media, item: Item) -> Object:
        found = self._dialect.media.checked(part, item, self._changes)
        if isinstance(found, str):
            return _text_part(found)
        match part:
            case InputImage():
                image = {"url": found.url, "detail": part.detail}
                return {"type": "image_url", "image_url": image}
            case InputFile():
                assert not isinstance(found, WebContent)
                name, text = file_name(part, found), file_text(found)
                if text is not None:
                    text = f'<file name="{name}">\n{text}\n</file>'
                    return _text_part(limited(item, text, self._changes))
                return {"type": "file", "file": {"filename": name, "file_data": found.url}}
            case InputAudio():
                assert not isinstance(found, WebContent)
                audio = {"data": found.data, "format": _AUDIO_FORMATS[found.media_type]}
                return {"type": "input_audio", "input_audio": audio}

    def _response(self, response: Response) -> None:
        message, items = self._assistant(response)
        if "content" in message or "tool_calls" in message:
            if self._dialect.alternates and (not self.messages or self._is_last("system")):
                self._append({"role": "user", "content": NO_INPUT})
            if self._is_last("assistant"):
                _merge(self.messages[-1], message)
                self.sources[-1] += items
            else:
                self._append(message, *items)
        media: list[tuple[FunctionCallOutput, Media]] = []
        for output in response.outputs:
            media += self._output(output)
        if media:
            # Outputs are texts in this API.
            content = [self._media(part, output) for output, part in media]
            self._user(media[0][0], content)
            self.sources[-1][-len(media) :] = [output for output, _ in media]

    def _assistant(self, response: Response) -> tuple[Object, list[Item]]:
        message: Object = {"role": "assistant"}
        texts: list[str] = []
        calls: list[Object] = []
        thoughts: list[Reasoning] = []
        extra: Object = {}
        for item in response.items:
            match item:
                case Message():
                    texts += self._said(item)
                    if item.provider_fields is not None:
                        extra = {**self._fields(item), **extra}
                case FunctionCall():
                    calls.append(self._call(item))
                case Reasoning():
                    if item.provider == self._provider:
                        thoughts.append(item)
                case ProviderItem():
                    pass  # this API has none
                case _ as unreachable:
                    assert_never(unreachable)
        if text := "\n\n".join([text for text in texts if text.strip()]):
            message["content"] = text
        if calls:
            message["tool_calls"] = calls
            if self._dialect.needs_signature and not any(_EXTRA in call for call in calls):
                calls[0][_EXTRA] = _UNCHECKED
        if thoughts or self._needs_reasoning:
            self._add_reasoning(message, thoughts)
        items = list[Item](response.items)
        return ({**extra, **message} if extra else message), items

    def _said(self, message: Message) -> list[str]:
        if (text := _only_text(message.content)) is not None:
            return [limited(message, text, self._changes)]
        where = "a message of the assistant"
        texts = [message.text or message.refusal, *self._no_media(message, where)]
        return [limited(message, text, self._changes) for text in texts]

    def _no_media(self, message: Message, where: str) -> list[str]:
        parts = message.content
        return [
            no_media(part, message, self._changes, where)
            for part in parts
            if isinstance(part, Media)
        ]

    def _call(self, call: FunctionCall) -> Object:
        function = {
            "name": tool_name(call, self._changes),
            "arguments": object_arguments(call, self._changes),
        }
        sent: Object = {"id": self._call_id(call.call_id), "type": "function", "function": function}
        return sent if call.provider_fields is None else {**self._fields(call), **sent}

    def _output(self, output: FunctionCallOutput) -> list[tuple[FunctionCallOutput, Media]]:
        text, media = output.text, list[tuple[FunctionCallOutput, Media]]()
        if not isinstance(output.output, str):
            media = [(output, part) for part in output.output if isinstance(part, Media)]
        if not text.strip():
            has_files = any(not isinstance(part, InputImage) for _, part in media)
            text = _NO_OUTPUT
            if media:
                text = _FILES_FOLLOW if has_files else _IMAGES_FOLLOW
        text = limited(output, text, self._changes)
        called = self._call_id(output.call_id)
        self._append({"role": "tool", "tool_call_id": called, "content": text}, output)
        return media

    def _call_id(self, wire_id: str) -> str:
        if self._dialect.call_ids != "nine":
            return call_id(wire_id, _IDS[self._dialect.call_ids])
        return wire_id if _NINE.fullmatch(wire_id) else _nine(wire_id)

    def _fields(self, item: Message | FunctionCall) -> Mapping[str, object]:
        fields = item.provider_fields
        return {} if fields is None else fields.of(self._provider)

    def _writes_reasoning_content(self, item: Item) -> bool:
        if not isinstance(item, Reasoning) or item.provider != self._provider:
            return False
        return _text_field(item) == _REASONING_CONTENT

    def _add_reasoning(self, message: Object, thoughts: Sequence[Reasoning]) -> None:
        """Adds the server's own reasoning to the message it led to, in the fields it came in.

        Servers that think between calls need it: the tool loop of DeepSeek fails without
        (NousResearch/hermes-agent#14938), and OpenRouter carries signatures of the models behind
        it in `reasoning_details` (pydantic/pydantic-ai#3658).
        """
        kept: dict[str, list[object]] = {}
        for thought in thoughts:
            field, text = _text_field(thought), thought.text
            if text and field == THINKING_PART:
                part = {"type": "thinking", "thinking": [_text_part(text)]}
                said = message.get("content", [])
                given = [_text_part(said)] if isinstance(said, str) else said
                message["content"] = [part, *given]  # type: ignore[misc]
            elif text:
                message[field] = f"{message[field]}\n\n{text}" if field in message else text
            if thought.provider_fields is None:
                continue
            for name in DETAILS:
                more = thought.provider_fields.fields.get(name)
                if isinstance(more, list):
                    kept.setdefault(name, []).extend(cast("list[object]", more))
        message.update(kept)
        if self._needs_reasoning and "tool_calls" in message:
            message.setdefault(_REASONING_CONTENT, "")


def _text_field(thought: Reasoning) -> str:
    fields = thought.provider_fields
    found = None if fields is None else fields.fields.get(TEXT_FIELD)
    return found if isinstance(found, str) else _REASONING_CONTENT


def _only_text(parts: Sequence[ContentPart]) -> str | None:
    """Returns the text of a message that consists of one text, as most do."""
    if len(parts) == 1 and isinstance(parts[0], InputText | OutputText):
        return parts[0].text
    return None


def _text_part(text: str) -> Object:
    return {"type": "text", "text": text}


def _parts(content: object) -> list[Object]:
    return [_text_part(content)] if isinstance(content, str) else list(content)  # type: ignore[call-overload]


def _joined(first: object, second: object) -> str | list[Object]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _merge(message: Object, more: Object) -> None:
    """Adds a response without calls in between to the one before: one turn of the assistant."""
    for name, value in more.items():
        if name == "content" and "content" in message:
            message["content"] = _joined(message["content"], value)
        else:
            message.setdefault(name, value)


def _nine(wire_id: str) -> str:
    number = int.from_bytes(hashlib.sha256(wire_id.encode(errors="replace")).digest()[:8], "big")
    found = ""
    for _ in range(9):
        number, digit = divmod(number, 36)
        found += _BASE36[digit]
    return found
