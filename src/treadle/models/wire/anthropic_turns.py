"""Turns: a conversation as alternating turns of user and assistant, for the Messages API.

https://platform.claude.com/docs/en/api/messages/create
"""

import re
from collections.abc import Sequence, Set
from contextlib import suppress
from typing import Literal, assert_never, cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace

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
    Refusal,
)
from treadle.domain.media import PDF, TEXTS
from treadle.models.wire.conversation import Entry, Response, as_user, is_system
from treadle.models.wire.media import MediaRules, WebContent, file_name, file_text, no_media
from treadle.models.wire.sendable import (
    CONTINUE,
    NO_INPUT,
    Changes,
    call_id,
    is_json_object,
    object_arguments,
    tool_name,
)

Block = dict[str, object]

_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_THINKING = {"thinking", "redacted_thinking"}
_USE = "tool_use"
_MCP_USE, _MCP_RESULT = "mcp_tool_use", "mcp_tool_result"
MEDIA = MediaRules(
    # "image exceeds 5 MB maximum", counted in base64 characters.
    # https://platform.claude.com/docs/en/build-with-claude/vision
    max_image=5 * 1024 * 1024,
    https=True,
    files=frozenset({PDF}) | TEXTS,
)
"""https://platform.claude.com/docs/en/build-with-claude/pdf-support"""
# "content cannot be empty if `is_error` is true"
_FAILED = "The call failed."


class Turn(Struct):
    """One turn of a side; raw blocks occur only in turns of the assistant.

    `sources` is the item that each block is made of; a block of no item has none.
    """

    role: Literal["user", "assistant"]
    content: list[Block | msgspec.Raw]
    sources: list[Item | None]

    def encoded(self) -> Block:
        """Returns the turn as the API reads it."""
        return {"role": self.role, "content": self.content}


class Turns:
    """Makes the turns of one request to `provider`.

    Reasoning and items of other providers are left out, and so is reasoning without a signature:
    the API would refuse both.
    """

    def __init__(self, provider: str, changes: Changes) -> None:
        self.turns: list[Turn] = []
        self._provider = provider
        self._changes = changes

    def encode(self, entries: Sequence[Entry]) -> list[Turn]:
        """Returns the turns of a conversation."""
        for entry in entries:
            if isinstance(entry, Response):
                is_last = entry is entries[-1] and not entry.outputs
                alone = _unpaired(entry.items, self._provider, is_last=is_last)
                for item in entry.items:
                    if item in alone:
                        text = "A call of a hosted tool is left out, because it has no result."
                        self._changes.note(item, "pairing", text)
                    else:
                        self._add("assistant", item, self._written(item))
                for output in entry.outputs:
                    self._add("user", output, [self._tool_result(output)])
            elif not is_system(entry):
                self._add("user", entry, self._blocks(entry.content, entry))
            elif entry.text.strip():
                # Only some models take system messages between turns: the user's turn carries it.
                self._add("user", entry, self._blocks(as_user(entry).content, entry))
        self._end()
        return self.turns

    def _add(
        self,
        role: Literal["user", "assistant"],
        item: Item | None,
        blocks: Sequence[Block | msgspec.Raw],
    ) -> None:
        if not blocks:
            return
        if not self.turns and role == "assistant":
            # The API requires the first turn to be the user's, but a history may begin with a
            # greeting.
            self._add("user", None, [_text(NO_INPUT)])
        if not self.turns or self.turns[-1].role != role:
            self.turns.append(Turn(role, [], []))
        turn = self.turns[-1]
        turn.content += blocks
        turn.sources += [item] * len(blocks)

    def _end(self) -> None:
        """Ends the conversation with the user, as newer models require."""
        turns = self.turns
        while turns and turns[-1].role == "assistant" and _is_thought(turns[-1].content[-1]):
            # "The final block in an assistant message cannot be `thinking`":
            # router-for-me/CLIProxyAPI#5321.
            turns[-1].content.pop()
            turns[-1].sources.pop()
            if not turns[-1].content:
                turns.pop()
        if not turns:
            self._add("user", None, [_text(NO_INPUT)])
        elif turns[-1].role == "assistant" and isinstance(turns[-1].content[-1], dict):
            # "This model does not support assistant message prefill. The conversation must end with
            # a user message." A response that was paused ends with a block of the provider's own
            # tools, and must be sent back as it is.
            self._add("user", None, [_text(CONTINUE)])

    def _written(
        self, item: Message | Reasoning | FunctionCall | ProviderItem
    ) -> Sequence[Block | msgspec.Raw]:
        match item:
            case Message():
                return self._said(item)
            case FunctionCall():
                return [self._tool_use(item)]
            case Reasoning():
                return _thinking(item) if item.provider == self._provider else []
            case ProviderItem():
                return self._hosted(item) if item.provider == self._provider else []
            case _ as unreachable:
                assert_never(unreachable)

    def _said(self, message: Message) -> list[Block]:
        fields = message.provider_fields
        citations = None if fields is None else fields.of(self._provider).get("citations")
        blocks: list[Block] = []
        for part in message.content:
            if isinstance(part, Media):
                note = no_media(part, message, self._changes, "a message of the assistant")
                blocks.append(_text(note))
            else:
                blocks += self._blocks((part,), message)
        if citations and len(blocks) == 1:
            # The text of one block, as it was written.
            blocks[0]["citations"] = citations
        return blocks

    def _blocks(self, parts: Sequence[ContentPart], item: Item) -> list[Block]:
        """The parts as blocks; blank text is left out, because the API refuses it."""
        blocks: list[Block] = []
        for part in parts:
            match part:
                case InputText() | OutputText():
                    text = part.text
                case Refusal():
                    text = part.refusal
                case InputImage() | InputFile() | InputAudio():
                    blocks.append(self._media(part, item))
                    continue
                case _ as unreachable:
                    assert_never(unreachable)
            if text.strip():
                blocks.append(_text(text))
        return blocks

    def _media(self, part: Media, item: Item) -> Block:
        found = MEDIA.checked(part, item, self._changes)
        if isinstance(found, str):
            return _text(found)
        source: Block
        if isinstance(found, WebContent):
            source = {"type": "url", "url": found.url}
        elif (text := file_text(found)) is not None:
            source = {"type": "text", "media_type": "text/plain", "data": text}
        else:
            source = {"type": "base64", "media_type": found.media_type, "data": found.data}
        if isinstance(part, InputImage):
            return {"type": "image", "source": source}
        assert isinstance(part, InputFile)
        title = part.filename if isinstance(found, WebContent) else file_name(part, found)
        return {"type": "document", "source": source, **({"title": title} if title else {})}

    def _hosted(self, item: ProviderItem) -> Sequence[msgspec.Raw]:
        if is_json_object(item.raw):
            return [item.raw]
        text = "An item of the provider that is not a JSON object is left out."
        self._changes.note(item, "provider_item", text)
        return []

    def _tool_use(self, call: FunctionCall) -> Block:
        return {
            "type": "tool_use",
            "id": call_id(call.call_id, _TOOL_ID),
            "name": tool_name(call, self._changes),
            "input": msgspec.Raw(object_arguments(call, self._changes).encode()),
        }

    def _tool_result(self, output: FunctionCallOutput) -> Block:
        wire_id = call_id(output.call_id, _TOOL_ID)
        block: Block = {"type": "tool_result", "tool_use_id": wire_id}
        if output.is_error:
            # The API requires content in an error, and only text.
            texts = [output.text, *self._media_of_failure(output)]
            text = "\n".join(text for text in texts if text.strip())
            return block | {"content": text or _FAILED, "is_error": True}
        if isinstance(output.output, str):
            return block | ({"content": output.output} if output.output.strip() else {})
        content = self._blocks(output.output, output)
        return block | ({"content": content} if content else {})

    def _media_of_failure(self, output: FunctionCallOutput) -> list[str]:
        parts = () if isinstance(output.output, str) else output.output
        where = "the output of a call that failed"
        return [
            no_media(part, output, self._changes, where)
            for part in parts
            if isinstance(part, Media)
        ]


class _Hosted(Struct):
    """The head of a block of a tool that the provider runs itself."""

    type: str = ""
    id: str = ""
    tool_use_id: str = ""
    server_name: str = ""


_decode_hosted = msgspec.json.Decoder(_Hosted).decode


def without_servers(items: Sequence[Item], provider: str, servers: Set[str]) -> Sequence[Item]:
    """Returns the items with the MCP calls of other servers than `servers` as another provider's.

    The API reads the blocks of such calls only in a request that declares servers, so the others
    are sent as calls of tools, as those of other providers are.
    """
    heads: dict[int, _Hosted] = {}
    for place, item in enumerate(items):
        if isinstance(item, ProviderItem) and item.provider == provider:
            with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
                head = _decode_hosted(item.raw)
                if head.type in {_MCP_USE, _MCP_RESULT}:
                    heads[place] = head
    declared = {head.id for head in heads.values() if head.server_name in servers}
    foreign = [
        place for place, head in heads.items() if (head.id or head.tool_use_id) not in declared
    ]
    if not foreign:
        return items
    found = list(items)
    for place in foreign:
        found[place] = replace(cast("ProviderItem", items[place]), provider="")
    return found


def _unpaired(items: Sequence[Item], provider: str, *, is_last: bool) -> Sequence[Item]:
    """Returns the calls of hosted tools without a result, and results without a call.

    A response that broke off may contain them, and the API refuses both ("`web_search` tool use
    with id … was found without a corresponding `web_search_tool_result` block"). A call at the end
    of a conversation is one of a response that was paused: its tool still runs.
    """
    heads: list[tuple[ProviderItem, _Hosted]] = []
    for item in items:
        if isinstance(item, ProviderItem) and item.provider == provider:
            with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
                heads.append((item, _decode_hosted(item.raw)))
    called = {head.id for _, head in heads if head.type.endswith(_USE)}
    answered = {head.tool_use_id for _, head in heads if head.tool_use_id}
    without_call = [
        item for item, head in heads if head.tool_use_id and head.tool_use_id not in called
    ]
    if is_last and heads and heads[-1][0] is items[-1] and items[-1] not in without_call:
        return without_call
    open_calls = [
        item for item, head in heads if head.type.endswith(_USE) and head.id not in answered
    ]
    return [*without_call, *open_calls]


def thinks_before_calls(turns: Sequence[Turn]) -> bool:
    """Whether the calls that are answered last were preceded by thinking, as the API requires.

    "When `thinking` is enabled, a final `assistant` message must start with a thinking block
    (preceding the lastmost set of `tool_use` and `tool_result` blocks)": n8n-io/n8n#22550. A
    conversation that comes from another model in the middle of its calls has none.
    """
    if not turns or turns[-1].role != "user" or not _has(turns[-1], "tool_result"):
        return True
    return len(turns) > 1 and _is_thought(turns[-2].content[0])


def _has(turn: Turn, kind: str) -> bool:
    return any(isinstance(block, dict) and block["type"] == kind for block in turn.content)


def _is_thought(block: Block | msgspec.Raw) -> bool:
    return isinstance(block, dict) and block["type"] in _THINKING


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _thinking(item: Reasoning) -> list[Block]:
    if not item.encrypted_content:
        return []
    if not item.content:
        return [{"type": "redacted_thinking", "data": item.encrypted_content}]
    text = "".join(part.text for part in item.content)
    return [{"type": "thinking", "thinking": text, "signature": item.encrypted_content}]
