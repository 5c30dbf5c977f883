"""Turns: a conversation as alternating turns of user and assistant, for the Converse API.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Message.html
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from treadle.domain.files import InputAudio, InputFile, InputImage, Media
from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    FunctionCallOutput,
    InputText,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    Refusal,
)
from treadle.domain.media import PDF, TEXTS, Content, is_base64
from treadle.models.wire.conversation import Entry, Response, as_user, is_system
from treadle.models.wire.converse_families import ConverseFamily
from treadle.models.wire.media import MediaRules, file_name, file_text, no_media
from treadle.models.wire.sendable import (
    CONTINUE,
    NO_INPUT,
    Changes,
    call_id,
    is_json_object,
    object_arguments,
    tool_name,
    utf8,
)

Block = dict[str, object]
Role = Literal["user", "assistant"]

_AUDIO = {
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/aac": "aac",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "audio/mp4": "mp4",
}
MEDIA = MediaRules(
    # 3.75 MB, counted in base64 characters.
    max_image=5 * 1024 * 1024,
    files=frozenset({PDF}) | TEXTS,
    audio=frozenset(_AUDIO),
    loads_images=False,
    loads_files=False,
)
"""https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html"""

_CALL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9()\[\]-]+")
_LONGEST_NAME = 190
_NO_OUTPUT = "(No output.)"
_FILES_FOLLOW = "The files are in the next message."
# "If you include a ContentBlock with a document field in the array, you must also include a
# ContentBlock with a text field."
_READ_THE_FILES = "(See the files.)"
_TOOLS = {"toolUse", "toolResult"}


class ConverseTurn(Struct):
    """One turn of a side; raw blocks occur only in turns of the assistant.

    `sources` is the item that each block is made of; a block of no item has none.
    """

    role: Role
    content: list[Block | msgspec.Raw]
    sources: list[Item | None]

    def encoded(self) -> Block:
        """Returns the turn as the API reads it."""
        return {"role": self.role, "content": self.content}

    def kinds(self) -> Iterator[str]:
        """Yields the kind of each block; "" for a raw one."""
        for block in self.content:
            yield "" if isinstance(block, msgspec.Raw) else next(iter(block))


class ConverseTurns:
    """Makes the turns of one request to a model of `family`.

    Reasoning and items of others than `provider` are left out, and so is reasoning without a
    signature: "User messages cannot contain reasoning content" (can1357/oh-my-pi#9086).

    `hosted_tools` are the names of the provider's own tools that the turns mention.
    """

    def __init__(self, provider: str, family: ConverseFamily, changes: Changes) -> None:
        self._turns: list[ConverseTurn] = []
        self._provider = provider
        self._family = family
        self._changes = changes
        self._names: set[str] = set()
        self.hosted_tools: dict[str, None] = {}

    def encode(self, entries: Sequence[Entry]) -> list[ConverseTurn]:
        """Returns the turns of a conversation."""
        for entry in entries:
            if isinstance(entry, Response):
                self._response(entry)
            elif not is_system(entry):
                self._add("user", entry, self._blocks(entry.content, entry))
            elif entry.text.strip():
                # Most models take system messages only in front of the conversation.
                self._add("user", entry, self._blocks(as_user(entry).content, entry))
        if not self._turns:
            self._add("user", None, [_text(NO_INPUT)])
        elif self._turns[-1].role == "assistant":
            self._add("user", None, [_text(CONTINUE)])
        turns = [part for turn in self._turns for part in self._separated(turn)]
        for turn in turns:
            kinds = set(turn.kinds())
            if "document" in kinds and "text" not in kinds:
                turn.content.append(_text(_READ_THE_FILES))
                turn.sources.append(None)
        return turns

    def _add(self, role: Role, item: Item | None, blocks: Sequence[Block | msgspec.Raw]) -> None:
        if not blocks:
            return
        if not self._turns and role == "assistant":
            # "A conversation must start with a user message."
            self._add("user", None, [_text(NO_INPUT)])
        if not self._turns or self._turns[-1].role != role:
            self._turns.append(ConverseTurn(role, [], []))
        turn = self._turns[-1]
        turn.content += blocks
        turn.sources += [item] * len(blocks)

    def _separated(self, turn: ConverseTurn) -> Iterator[ConverseTurn]:
        """Yields a turn as several, if its model takes calls or outputs only alone.

        A turn of the other side stands between them: the API joins turns of one side.
        """
        beside = self._family.beside_outputs
        kinds = list(turn.kinds())
        tools = [kind in _TOOLS for kind in kinds]
        has_tools = any(tools)
        is_mixed = not all(
            is_tool or (kind in beside if turn.role == "user" else bool(beside) or not kind)
            for kind, is_tool in zip(kinds, tools, strict=True)
        )
        if not (has_tools and is_mixed):
            yield turn
            return
        other: Role = "assistant" if turn.role == "user" else "user"
        begins_with_tools = turn.role == "user"
        for wanted in (begins_with_tools, not begins_with_tools):
            places = [place for place, is_tool in enumerate(tools) if is_tool is wanted]
            content = [turn.content[place] for place in places]
            yield ConverseTurn(turn.role, content, [turn.sources[place] for place in places])
            if wanted is begins_with_tools:
                yield ConverseTurn(other, [_text(CONTINUE)], [None])

    def _response(self, response: Response) -> None:
        paired = _paired(response.items, self._provider)
        for item in response.items:
            self._add("assistant", item, self._written(item, paired))
        following: list[tuple[Item, list[Block]]] = []
        for output in response.outputs:
            block, rest = self._output(output)
            self._add("user", output, [block])
            following.append((output, rest))
        for output, rest in following:
            self._add("user", output, rest)

    def _written(
        self, item: Message | Reasoning | FunctionCall | ProviderItem, paired: set[str]
    ) -> Sequence[Block | msgspec.Raw]:
        match item:
            case Message():
                return self._said(item)
            case FunctionCall():
                return [self._call(item)]
            case Reasoning():
                return _thought(item) if item.provider == self._provider else []
            case ProviderItem():
                return self._hosted(item, paired) if item.provider == self._provider else []
            case _ as unreachable:
                assert_never(unreachable)

    def _said(self, message: Message) -> list[Block]:
        texts = [
            no_media(part, message, self._changes, "a message of the assistant")
            if isinstance(part, Media)
            else _text_of(part)
            for part in message.content
        ]
        return [_text(text) for text in texts if text.strip()]

    def _blocks(self, parts: Sequence[ContentPart], item: Item) -> list[Block]:
        """The parts as blocks; blank text is left out, because the API refuses it."""
        blocks: list[Block] = []
        for part in parts:
            if isinstance(part, Media):
                blocks.append(self._media(part, item)[0])
            elif (text := _text_of(part)).strip():
                blocks.append(_text(text))
        return blocks

    def _media(self, part: Media, item: Item) -> tuple[Block, str]:
        """Returns a part as a block, and its media type; "" for a text in its place."""
        found = MEDIA.checked(part, item, self._changes)
        if not isinstance(found, Content):
            return _text(str(found)), ""
        if isinstance(part, InputFile) and (text := file_text(found)) is not None:
            name = utf8(file_name(part, found))
            return _text(f'<file name="{name}">\n{text}\n</file>'), ""
        source: Block = {"source": {"bytes": found.data}}
        block: Block
        if isinstance(part, InputImage):
            block = {"image": {"format": found.media_type.partition("/")[2], **source}}
        elif isinstance(part, InputAudio):
            block = {"audio": {"format": _AUDIO[found.media_type], **source}}
        else:
            name = self._document_name(part.filename)
            block = {"document": {"format": "pdf", "name": name, **source}}
        return block, found.media_type

    def _document_name(self, name: str) -> str:
        """Returns a name that no other document of the request has, in any case.

        "Messages can't contain duplicate document names."
        """
        stem = name.rpartition(".")[0] or name
        stem = _NOT_IN_NAMES.sub(" ", stem)[:_LONGEST_NAME].strip() or "document"
        found, number = stem, 1
        while found.casefold() in self._names:
            number += 1
            found = f"{stem} ({number})"
        self._names.add(found.casefold())
        return found

    def _hosted(self, item: ProviderItem, paired: set[str]) -> Sequence[msgspec.Raw]:
        if not is_json_object(item.raw):
            text = "An item of the provider that is not a JSON object is left out."
            self._changes.note(item, "provider_item", text)
            return []
        head, is_result = _hosted_head(item)
        # A model that takes calls alone has no tools that the provider runs within its answer.
        if head.tool_use_id in paired and self._family.beside_outputs:
            if not is_result:
                self.hosted_tools[head.name] = None
            return [item.raw]
        text = "An item of a hosted tool is left out, because it is not a call with its result."
        self._changes.note(item, "pairing", text)
        return []

    def _call(self, call: FunctionCall) -> Block:
        return {
            "toolUse": {
                "toolUseId": call_id(call.call_id, _CALL_ID),
                "name": tool_name(call, self._changes),
                "input": msgspec.Raw(object_arguments(call, self._changes).encode()),
            }
        }

    def _output(self, output: FunctionCallOutput) -> tuple[Block, list[Block]]:
        """Returns the block of an output, and what has to follow it."""
        text, inside, following = output.text, list[Block](), list[Block]()
        for part in () if isinstance(output.output, str) else output.output:
            if not isinstance(part, Media):
                continue
            if output.is_error:
                where = "the output of a call that failed"
                text = f"{text}\n{no_media(part, output, self._changes, where)}".strip()
                continue
            block, media_type = self._media(part, output)
            if not media_type:
                text = f"{text}\n{block['text']}".strip()
            elif media_type in self._family.in_outputs:
                inside.append(block)
            else:
                following.append(block)
        if not text.strip():
            text = _FILES_FOLLOW if following else "" if inside else _NO_OUTPUT
        content: list[Block] = []
        if text and self._family.json_outputs:
            content = [{"json": {"error" if output.is_error else "output": text}}]
        elif text:
            content = [_text(text)]
        found: Block = {
            "toolUseId": call_id(output.call_id, _CALL_ID),
            "content": [*content, *inside],
        }
        if output.is_error and self._family.has_status:
            found["status"] = "error"
        return {"toolResult": found}, following


class _Head(Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""


class _Hosted(Struct, rename="camel"):
    """The head of a block of a tool that the provider runs itself."""

    tool_use: _Head | None = None
    tool_result: _Head | None = None


_decode_hosted = msgspec.json.Decoder(_Hosted).decode


def _hosted_head(item: ProviderItem) -> tuple[_Head, bool]:
    """Returns the head of a hosted call, or that of its result and true; empty for others."""
    with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
        hosted = _decode_hosted(item.raw)
        head = hosted.tool_use or hosted.tool_result
        if head is not None:
            return head, hosted.tool_use is None
    return _Head(), False


def _paired(items: Sequence[Item], provider: str) -> set[str]:
    """Returns the ids of the hosted calls that have one result, behind them.

    A response that broke off may contain others, and the API refuses a call without its result.
    """
    results: dict[str, list[bool]] = {}
    for item in items:
        if isinstance(item, ProviderItem) and item.provider == provider:
            head, is_result = _hosted_head(item)
            results.setdefault(head.tool_use_id, []).append(is_result)
    return {one for one, found in results.items() if one and found == [False, True]}


def _text(text: str) -> Block:
    return {"text": text}


def _text_of(part: InputText | OutputText | Refusal) -> str:
    return part.refusal if isinstance(part, Refusal) else part.text


def _thought(item: Reasoning) -> list[Block]:
    if not item.encrypted_content:
        return []
    if not item.content:
        is_data = is_base64(item.encrypted_content)
        return [{"reasoningContent": {"redactedContent": item.encrypted_content}}] * is_data
    text = "".join(part.text for part in item.content)
    thought = {"text": text, "signature": item.encrypted_content}
    return [{"reasoningContent": {"reasoningText": thought}}]
