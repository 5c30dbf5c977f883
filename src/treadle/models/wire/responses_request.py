"""Requests of the OpenAI Responses API.

https://platform.openai.com/docs/api-reference/responses/create
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import assert_never, cast

import msgspec
from msgspec import Struct

from treadle.domain.files import Media
from treadle.domain.hosted_tools import RemoteMCP
from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputFile,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    Refusal,
)
from treadle.domain.media import OFFICE, PDF, TEXTS
from treadle.domain.schema import ToolSchema
from treadle.domain.settings import NamedTool
from treadle.models.base import ModelRequest
from treadle.models.wire.conversation import Response, arrange
from treadle.models.wire.media import MediaRules, WebContent, file_name, no_media
from treadle.models.wire.prompt_cache import cache_key
from treadle.models.wire.reasoning import effort_of
from treadle.models.wire.remote_approvals import request_of
from treadle.models.wire.responses_tools import hosted_entries, included
from treadle.models.wire.sendable import (
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

MEDIA = MediaRules(files=frozenset({PDF}) | TEXTS | OFFICE)
"""https://platform.openai.com/docs/guides/pdf-files; audio is input of Chat Completions only."""

PROVIDER = "openai"
"""The mark of what OpenAI's models write."""

_REASONING_MODELS = re.compile(r"(o\d|gpt-[5-9]|codex)")
# "Invalid 'input[2].call_id': string too long. Expected a string with maximum length 64".
_CALL_ID = re.compile(r"[!-~]{1,64}")
# "Invalid 'input[1].id': 'abc'. Expected an ID that begins with 'msg'", and at most 64 characters.
_MESSAGE_ID = re.compile(r"msg_[!-~]{1,60}")
_LONGEST_REASON = 2_000
_REASONING_ID = re.compile(r"rs_[!-~]{1,61}")
# Calls that the caller must answer, in a form that treadle does not have: "No tool output found for
# computer call …".
_NEED_OUTPUT = {
    "apply_patch_call",
    "computer_call",
    "custom_tool_call",
    "local_shell_call",
    "shell_call",
}


class _Head(Struct):
    type: str


_decode_head = msgspec.json.Decoder(_Head).decode


class ResponsesOptions(Struct, frozen=True, kw_only=True):
    """Options of this API in addition to `ModelSettings`; see `OpenAIResponses`.

    `named_choice`: the server can be asked for a call of one tool by name. llama.cpp takes such a
    choice as "auto"; for servers other than OpenAI's any call is required, of that tool alone.
    `has_cache_key`: requests of one conversation get the same `prompt_cache_key`.
    """

    provider: str = PROVIDER
    named_choice: bool = True
    has_cache_key: bool = False
    strict: bool = False


def encode_request(
    model: str, request: ModelRequest, options: ResponsesOptions | None = None
) -> EncodedRequest:
    """Returns the body of a streaming request; raises `ItemRefused` if the options are strict."""
    options = options or ResponsesOptions()
    settings, changes = request.settings, Changes(strict=options.strict)
    approving = {tool.name for tool in request.hosted if isinstance(tool, RemoteMCP)}
    encoder = _Encoder(options.provider, changes, approving)
    entries, sources = encoder.encode(request.items)
    body: Object = {"model": model, "input": entries, "stream": True, "store": False}
    functions, choice = _tools(request, options)
    tools = [*map(_tool, functions), *hosted_entries(request.hosted)]
    optional = {
        "instructions": request.instructions or None,
        # OpenAI refuses the settings of tools in a request without tools.
        "tools": tools or None,
        "tool_choice": choice if tools else None,
        "parallel_tool_calls": settings.parallel_tool_calls if tools else None,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_output_tokens": settings.max_output_tokens,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    wanted = {
        "effort": effort_of(settings.reasoning_effort),
        "summary": settings.reasoning_summary,
    }
    if reasoning := {name: value for name, value in wanted.items() if value is not None}:
        body["reasoning"] = reasoning
    include = included(request.hosted)
    if reasoning or _REASONING_MODELS.match(model):
        # Unstored reasoning can be sent back only encrypted; other models refuse the option.
        include.append("reasoning.encrypted_content")
    if include:
        body["include"] = include
    if request.output is not None:
        output = request.output
        body["text"] = {
            "format": {
                "type": "json_schema",
                "name": output.name,
                "schema": output.schema,
                "strict": output.strict,
            }
        }
    if options.has_cache_key and (key := cache_key(model, request)):
        body["prompt_cache_key"] = key
    body.update(settings.extra_body)
    return EncodedRequest(json_body(body), tuple(changes.made), sources)


def _tools(request: ModelRequest, options: ResponsesOptions) -> tuple[Sequence[ToolSchema], object]:
    """Returns the tools of a request and its tool choice."""
    choice = request.settings.tool_choice
    if not isinstance(choice, NamedTool):
        return request.tools, choice
    named = [tool for tool in request.tools if tool.name == choice.name]
    if not named:
        return request.tools, None
    if not options.named_choice:
        return named, "required"
    return request.tools, {"type": "function", "name": choice.name}


def _tool(tool: ToolSchema) -> Object:
    fields = msgspec.structs.asdict(tool) | {"parameters": accepted_parameters(tool)}
    return {"type": "function", **fields}


class _Encoder:
    """Makes the input of one request."""

    def __init__(self, provider: str, changes: Changes, approving: Collection[str]) -> None:
        self._provider = provider
        self._changes = changes
        self._approving = approving
        self._entries: list[object] = []
        self._sources: list[list[Item]] = []

    def encode(self, items: Sequence[Item]) -> tuple[list[object], list[list[Item]]]:
        """Returns the entries of the input, and the items of each."""
        for entry in arrange(items, self._changes, self._provider, self._approving):
            if isinstance(entry, Response):
                self._response(entry)
                calls = {one.call_id: one for one in entry.items if isinstance(one, FunctionCall)}
                for output in entry.outputs:
                    asked = request_of(calls[output.call_id], self._provider, self._approving)
                    sent = self._output(output) if asked is None else _approval(asked, output)
                    self._append(output, sent)
            elif content := self._input_parts(entry):
                self._append(entry, {"type": "message", "role": entry.role, "content": content})
        if not self._entries:
            content = [_input_text(NO_INPUT)]
            self._entries.append({"type": "message", "role": "user", "content": content})
            self._sources.append([])
        return self._entries, self._sources

    def _append(self, item: Item, entry: object) -> None:
        self._entries.append(entry)
        self._sources.append([item])

    def _response(self, response: Response) -> None:
        # Reasoning is held back until what it led to: "Item 'rs_…' of type 'reasoning' was provided
        # without its required following item" (openai/openai-agents-python#2503).
        held: list[tuple[Reasoning, Object]] = []
        has_reasoning = False
        for item in response.items:
            if isinstance(item, Reasoning):
                if (thought := self._reasoning(item)) is not None:
                    held.append((item, thought))
                continue
            has_reasoning = has_reasoning or bool(held)
            entry = self._written(item, with_id=has_reasoning)
            if entry is None:
                continue
            for reasoning, thought in held:
                self._append(reasoning, thought)
            held = []
            self._append(item, entry)

    def _written(
        self, item: Message | FunctionCall | ProviderItem, *, with_id: bool
    ) -> object | None:
        match item:
            case Message():
                return self._said(item, with_id=with_id)
            case FunctionCall():
                if (asked := request_of(item, self._provider, self._approving)) is not None:
                    return asked
                return {
                    "type": "function_call",
                    "call_id": call_id(item.call_id, _CALL_ID),
                    "name": tool_name(item, self._changes),
                    "arguments": object_arguments(item, self._changes),
                }
            case ProviderItem():
                return self._hosted(item) if item.provider == self._provider else None
            case _ as unreachable:
                assert_never(unreachable)

    def _hosted(self, item: ProviderItem) -> msgspec.Raw | None:
        try:
            kind = _decode_head(item.raw).type
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            text = "An item of the provider that is not a JSON object is left out."
            self._changes.note(item, "provider_item", text)
            return None
        if kind in _NEED_OUTPUT:
            text = f"A {kind} is left out, because it has no output."
            self._changes.note(item, "pairing", text)
            return None
        return item.raw

    def _said(self, message: Message, *, with_id: bool) -> Object | None:
        """Returns a message of the assistant, with what its provider added to it; None if empty.

        Its id goes with the reasoning that led to it: the API looks for the message by its id, and
        without it refuses the reasoning (OpenHands/software-agent-sdk#1754).
        """
        fields = message.provider_fields
        own: Mapping[str, object] = {} if fields is None else fields.of(self._provider)
        annotations = own.get("annotations")
        content: list[Object] = []
        for index, part in enumerate(message.content):
            encoded = self._output_part(part, message)
            if isinstance(part, OutputText) and isinstance(annotations, list):
                given = cast("list[object]", annotations)[index : index + 1]
                encoded["annotations"] = given[0] if given else []
            if encoded.get("text") or encoded.get("refusal"):
                content.append(encoded)
        if not content:
            return None
        found: Object = {"type": "message", "role": "assistant", "content": content}
        if "phase" in own:
            found["phase"] = own["phase"]
        if with_id and _MESSAGE_ID.fullmatch(message.id):
            found |= {"id": message.id, "status": "completed"}
        return found

    def _output_part(self, part: ContentPart, message: Message) -> Object:
        match part:
            case InputText() | OutputText():
                return {"type": "output_text", "text": limited(message, part.text, self._changes)}
            case Refusal():
                return {"type": "refusal", "refusal": part.refusal}
            case InputImage() | InputFile() | InputAudio():
                where = "a message of the assistant"
                text = no_media(part, message, self._changes, where)
                return {"type": "output_text", "text": text}
            case _ as unreachable:
                assert_never(unreachable)

    def _input_parts(self, message: Message) -> list[Object]:
        """Returns the parts of a message that is not the assistant's; empty text is left out."""
        found: list[Object] = []
        for part in message.content:
            match part:
                case InputText() | OutputText():
                    text = part.text
                case Refusal():
                    text = part.refusal
                case InputImage() | InputFile() | InputAudio():
                    found.append(self._media(part, message))
                    continue
                case _ as unreachable:
                    assert_never(unreachable)
            if text.strip():
                found.append(_input_text(limited(message, text, self._changes)))
        return found

    def _media(self, part: Media, item: Item) -> Object:
        if isinstance(item, Message) and item.role != "user":
            return _input_text(no_media(part, item, self._changes, "a system message"))
        found = MEDIA.checked(part, item, self._changes)
        if isinstance(found, str):
            return _input_text(found)
        if isinstance(part, InputImage):
            return {"type": "input_image", "image_url": found.url, "detail": part.detail}
        assert isinstance(part, InputFile)
        if isinstance(found, WebContent):
            return {"type": "input_file", "file_url": found.url}
        return {"type": "input_file", "filename": file_name(part, found), "file_data": found.url}

    def _output(self, output: FunctionCallOutput) -> Object:
        sent: str | list[Object]
        if isinstance(output.output, str):
            sent = limited(output, output.output, self._changes)
        else:
            sent = [
                _input_text(limited(output, part.text, self._changes))
                if isinstance(part, InputText)
                else self._media(part, output)
                for part in output.output
            ]
        wire_id = call_id(output.call_id, _CALL_ID)
        return {"type": "function_call_output", "call_id": wire_id, "output": sent or ""}

    def _reasoning(self, item: Reasoning) -> Object | None:
        # Servers such as llama.cpp send an empty text, which they do not accept back.
        if item.provider != self._provider or not item.encrypted_content:
            return None
        found: Object = {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": part.text} for part in item.summary],
            "encrypted_content": item.encrypted_content,
        }
        return found | ({"id": item.id} if _REASONING_ID.fullmatch(item.id) else {})


def _approval(asked: Mapping[str, object], output: FunctionCallOutput) -> Object:
    """Returns the answer to a request for an approval; an error denies it."""
    answer: Object = {
        "type": "mcp_approval_response",
        "approval_request_id": asked.get("id"),
        "approve": not output.is_error,
    }
    return answer | ({"reason": output.text[:_LONGEST_REASON]} if output.is_error else {})


def _input_text(text: str) -> Object:
    return {"type": "input_text", "text": text}
