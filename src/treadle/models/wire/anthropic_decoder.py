"""Decodes responses of the Anthropic Messages API: bytes in, model events out.

https://platform.claude.com/docs/en/build-with-claude/streaming

Blocks follow each other, and each event contains the index of its block. Servers leave out the
index or number all blocks 0, send a whole block at its start, end no block, or send no
`message_stop`. A call is finished when its object has closed, or when the response continues or
ends well: the API ends the block of a call even if the tokens ran out in the middle of it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal, Self, assert_never

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from treadle.domain.events import FinishReason
from treadle.domain.items import HostedCall, ProviderItem, Reasoning, ReasoningText
from treadle.domain.usage import Usage
from treadle.errors import StreamIncomplete, StreamInvalid
from treadle.models.wire.chat_calls import text_of
from treadle.models.wire.citations import annotation_of, annotations_of
from treadle.models.wire.ends import MESSAGES_ENDS, Ends, end_of
from treadle.models.wire.frame_decoder import UNREADABLE, FrameDecoder, Frames
from treadle.models.wire.hosted_calls import messages_result, messages_use
from treadle.models.wire.hosted_code import HostedCode, messages_code
from treadle.models.wire.loose_json import (
    HalfCharacters,
    count_of,
    fields_of,
    joined,
    joined_all,
    list_of,
    read_json,
    string_of,
)
from treadle.streaming.jsonfields import is_begun_object

_DELTA = b"content_block_delta"
_NO_INDEX = -1
_Kind = Literal["text", "thinking", "redacted_thinking", "tool_use", "hosted"]
_KINDS: dict[str, _Kind] = {
    "text": "text",
    "thinking": "thinking",
    "redacted_thinking": "redacted_thinking",
    "tool_use": "tool_use",
}
_REFUSAL = "refusal"
_COUNTS = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
)


class _TextDelta(Struct, gc=False, tag="text_delta"):
    text: str


class _InputDelta(Struct, gc=False, tag="input_json_delta"):
    partial_json: str


class _ThinkingDelta(Struct, gc=False, tag="thinking_delta"):
    thinking: str


class _SignatureDelta(Struct, gc=False, tag="signature_delta"):
    signature: str


class _CitationsDelta(Struct, gc=False, tag="citations_delta"):
    citation: object


_Delta = _TextDelta | _InputDelta | _ThinkingDelta | _SignatureDelta | _CitationsDelta


class _BlockDelta(Struct, gc=False):
    """The usual delta."""

    delta: _Delta
    index: int = _NO_INDEX


class _Event(Struct):
    """Any event; a field may have any type, because not every field of an event is needed."""

    type: object = None
    index: object = None
    delta: object = None
    content_block: Raw = Raw()
    message: object = None
    usage: object = None
    error: object = None


class _Message(Struct):
    id: object = None
    content: list[Raw] | None = None
    stop_reason: object = None
    stop_details: object = None
    usage: object = None


_decode_delta = msgspec.json.Decoder(_BlockDelta).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_any = msgspec.json.Decoder().decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode

# The field of each kind of delta with text, and what it brings.
_DELTAS: dict[str, tuple[str, Callable[[str], _Delta]]] = {
    "text_delta": ("text", _TextDelta),
    "input_json_delta": ("partial_json", _InputDelta),
    "thinking_delta": ("thinking", _ThinkingDelta),
    "signature_delta": ("signature", _SignatureDelta),
}


class _Block:
    """A block being written; `key` names it in the demux.

    - `whole`: the input of a call as it came at the start. `has_closed`: its object has closed.
    - `pieces`: the text of a thought, or the input of a tool that the provider runs.
    - `fields`: the start of a block that is kept as received.
    - `call`: what is known of a call of a hosted tool; `code`: what it runs, being written.
    - `citations`: the sources of a text.
    - `has_stopped`: its end was read; whether a call was cut off there, the end of the response
      tells.
    """

    def __init__(self, key: int, kind: _Kind, index: int) -> None:
        self.key = key
        self.kind = kind
        self.index = index
        self.name = ""
        self.whole = ""
        self.has_closed = False
        self.has_stopped = False
        self.pieces: list[str] = []
        self.call = HostedCall("", "")
        self.code: HostedCode | None = None
        self.signature = ""
        self.citations: list[object] = []
        self.fields: Mapping[str, object] = {}

    def thought(self) -> Reasoning:
        # With content even if the text is withheld: without content it would be redacted thinking.
        content = (ReasoningText(joined("".join(self.pieces))),)
        return Reasoning(content=content, encrypted_content=self.signature or None)

    def hosted(self) -> Raw:
        """Returns the block with its input; raises `msgspec.DecodeError` if that was cut off."""
        fields = dict(self.fields)
        if self.pieces:
            text = joined("".join(self.pieces))
            _decode_any(text)
            fields["input"] = Raw(text.encode())
        return Raw(msgspec.json.encode(fields))


class AnthropicDecoder(FrameDecoder):
    """Decodes one response of the Messages API, whose good ends are `ends`."""

    api = "Messages"

    def __init__(
        self, provider: str, used_call_ids: Iterable[str] = (), ends: Ends = MESSAGES_ENDS
    ) -> None:
        super().__init__(provider, used_call_ids)
        self._ends = ends
        self._blocks = 0
        self._open: list[_Block] = []
        self._texts: dict[int, int] = {}  # the keys of open blocks of text, by index
        self._halves: HalfCharacters | None = None
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._thinking_tokens = self._searches = 0
        self._hosted: dict[str, HostedCall] = {}  # calls of hosted tools by their ids
        self._stop_reason = ""
        self._begun: list[Raw] = []

    def _frames(self, frames: Frames, *, cut: bool = False) -> None:
        grow, texts = self._demux.text, self._texts
        for name, data in frames:
            if self.finished:
                break
            if name == _DELTA:  # nearly all frames are
                try:
                    event = _decode_delta(data)
                except UNREADABLE:
                    self._frame(name, data, cut=cut)
                    continue
                delta = event.delta
                if type(delta) is _TextDelta and event.index in texts:
                    if delta.text:
                        grow(texts[event.index], delta.text)
                else:
                    self._delta(event.index, delta)
            else:
                self._frame(name, data, cut=cut)

    def _last(self) -> None:
        # A stop reason without `message_stop` is an end as well: some gateways omit it.
        if self._stop_reason:
            self._end()

    def _whole(self, document: bytes) -> None:
        message = _message(document)
        if message.content is None or message.stop_reason is None:
            return
        self._begin(message)
        self._read_begun()
        self._stop(message.stop_reason, message.stop_details)
        self._end()

    def _frame(self, name: bytes, data: bytes, *, cut: bool) -> None:
        try:
            event = self._decode(data)
            kind = event.type if isinstance(event.type, str) else name.decode()
            handle = self.HANDLERS.get(kind)
            if handle is not None:
                handle(self, event)
            elif kind.endswith("error"):
                self._raise_reported(data, b"error")
            elif event.error or event.type is None:
                self._raise_reported(data, name)
        except UNREADABLE as error:
            if not cut and _is_for_us(name, data):
                self._unreadable(data, error, name)

    def _decode(self, data: bytes) -> _Event:
        try:
            return _decode_event(data)
        except UNREADABLE:
            value = read_json(data)
            # With halves of characters, which are joined once their texts are known.
            event = _decode_event(msgspec.json.encode(joined_all(value)))
            event.delta = fields_of(value).get("delta")
            if self._halves is None:
                self._halves = HalfCharacters()
                self._texts.clear()
            return event

    def _message_start(self, event: _Event) -> None:
        if event.message is not None:
            self._begin(_message(msgspec.json.encode(event.message)))

    def _begin(self, message: _Message) -> None:
        self._demux.response_id = string_of(message.id)
        self._count(message.usage)
        self._begun = message.content or []

    def _block_start(self, event: _Event) -> None:
        self._start(_index(event.index), event.content_block)

    def _start(self, index: int, start: Raw) -> None:
        self._finish_stopped()
        for block in [block for block in self._open if block.index == index]:
            self._stop_block(block)  # blocks follow each other: that one ended without an event
        fields, start = _fields(start)
        wire_kind = fields.get("type")
        if not isinstance(wire_kind, str):
            raise ValueError("a block has no type")
        kind = _KINDS.get(wire_kind, "hosted")
        block = self._add(kind, index)
        self._demux.reserve(block.key)
        if kind == "text":
            block.citations += list_of(fields.get("citations"))
            self._grow(block, string_of(fields.get("text")))
        elif kind == "thinking":
            block.signature = string_of(fields.get("signature"))
            self._grow(block, string_of(fields.get("thinking")))
        elif kind == "redacted_thinking":
            data = fields.get("data")
            if not isinstance(data, str):
                raise ValueError("redacted thinking has no data")
            block.fields = {"data": data}
        elif kind == "tool_use":
            block.name = string_of(fields.get("name"))
            if not block.name:
                raise ValueError("a call has no name")
            self._demux.call(block.key, string_of(fields.get("id")), block.name)
            whole = text_of(fields.get("input"))
            block.whole = "" if whole in {"{}", "[]"} else whole
        else:
            block.fields = _decode_fields(start)  # each as received
            if (call := messages_use(fields)) is not None:
                block.call, block.code = call, messages_code(string_of(fields.get("name")))
                self._demux.hosted(block.key, call)

    def _block_delta(self, event: _Event) -> None:
        """Reads a delta that is not of the usual form."""
        fields = fields_of(event.delta)
        if not fields:
            raise ValueError("an event has no delta")
        kind = fields.get("type")
        if not isinstance(kind, str):
            kind = next((kind for kind, (name, _) in _DELTAS.items() if name in fields), None)
            if kind is None:
                raise ValueError("a delta has no type")
        if kind == "citations_delta":
            self._delta(_index(event.index), _CitationsDelta(fields.get("citation")))
        if kind not in _DELTAS:
            return
        name, make = _DELTAS[kind]
        text = fields.get(name)
        if text is None:
            return
        if not isinstance(text, str):
            raise ValueError(f"the {name} of a delta is a {type(text).__name__}")
        self._delta(_index(event.index), make(text))

    def _delta(self, index: int, delta: _Delta) -> None:
        match delta:
            case _TextDelta(text):
                if text:
                    self._grow(self._growing("text", index) or self._add("text", index), text)
            case _ThinkingDelta(text):
                if text:
                    block = self._growing("thinking", index) or self._add("thinking", index)
                    self._grow(block, text)
            case _SignatureDelta(signature):
                block = self._growing("thinking", index) or self._add("thinking", index)
                block.signature += signature
            case _InputDelta(piece):
                self._input(index, piece)
            case _CitationsDelta(citation):
                block = self._growing("text", index) or self._add("text", index)
                block.citations.append(citation)
                if (annotation := annotation_of(citation)) is not None:
                    self._demux.cite(block.key, annotation)
            case _ as unreachable:
                assert_never(unreachable)

    def _grow(self, block: _Block, text: str) -> None:
        """Adds to a block of text or of thinking."""
        if not text:
            return
        if self._halves is not None:
            text = self._halves.join(block.key, text)
        if block.kind == "text":
            self._demux.text(block.key, text)
            if self._halves is None:
                self._texts[block.index] = block.key
        else:
            block.pieces.append(text)
            self._demux.reasoning(block.key, text)

    def _input(self, index: int, piece: str) -> None:
        if not piece:
            return
        block = self._growing("tool_use", index) or self._growing("hosted", index)
        if block is None:
            if piece.strip():
                raise StreamInvalid(
                    "The provider sent the input of a tool call that is not open; report it to "
                    "the provider."
                )
            return
        if self._halves is not None:
            piece = self._halves.join(block.key, piece)
        if block.kind == "hosted":
            block.pieces.append(piece)
            if block.code is not None and (code := block.code.feed(piece)):
                call = replace(block.call, arguments=code)
                self._demux.hosted(block.key, call, is_partial=True)
        elif self._demux.arguments(block.key, piece):
            block.has_closed = True

    def _growing(self, kind: _Kind, index: int) -> _Block | None:
        """Returns the newest open block of a kind with that index, or with none."""
        near: _Block | None = None
        for block in reversed(self._open):
            if block.kind != kind or block.has_stopped:
                continue
            if block.index == index:
                return block
            if near is None and _NO_INDEX in {block.index, index}:
                near = block
        return near

    def _add(self, kind: _Kind, index: int) -> _Block:
        block = _Block(self._blocks, kind, index)
        self._blocks += 1
        self._open.append(block)
        self._texts.pop(index, None)
        return block

    def _block_stop(self, event: _Event) -> None:
        index = _index(event.index)
        growing = [block for block in reversed(self._open) if not block.has_stopped]
        same = [block for block in growing if block.index == index]
        near = [block for block in growing if _NO_INDEX in {block.index, index}]
        for block in (same or near)[:1]:
            self._stop_block(block)

    def _stop_block(self, block: _Block) -> None:
        block.has_stopped = True
        if self._texts.get(block.index) == block.key:
            del self._texts[block.index]
        if block.kind != "tool_use":
            self._finish(block)
            return
        self._complete_input(block)
        if block.has_closed:
            self._finish(block)

    def _complete_input(self, block: _Block) -> None:
        """Takes the input of a call from its start, if no delta brought it."""
        if block.whole and not self._demux.written(block.key):
            block.has_closed = self._demux.arguments(block.key, block.whole)
        block.whole = ""

    def _finish(self, block: _Block) -> None:
        self._open.remove(block)
        rest = self._halves.drop(block.key) if self._halves is not None else ""
        if rest and block.kind in {"text", "thinking"}:
            self._grow(block, rest)
        match block.kind:
            case "thinking":
                if block.pieces or block.signature:
                    self._demux.finish(block.key, block.thought())
            case "redacted_thinking":
                data = string_of(block.fields.get("data"))
                self._demux.finish(block.key, Reasoning(encrypted_content=data))
            case "hosted":
                try:
                    raw = block.hosted()
                except UNREADABLE:  # its input was cut off, so the tool never ran
                    return
                fields, _ = _fields(raw)
                if (call := messages_use(fields)) is not None:
                    self._hosted[call.call_id] = call
                    self._demux.hosted(block.key, call)
                else:
                    call = messages_result(fields, self._hosted)
                self._demux.finish(block.key, ProviderItem(self._provider, raw, call))
            case _:
                if block.citations:
                    self._demux.keep(block.key, {"citations": block.citations})
                    self._demux.annotate(block.key, [annotations_of(block.citations)])
                if self._demux.is_open(block.key):
                    self._demux.finish(block.key)

    def _finish_stopped(self) -> None:
        """Finishes the calls whose blocks have ended: the response continues, so they are whole."""
        for block in [block for block in self._open if block.has_stopped]:
            self._finish(block)

    def _message_delta(self, event: _Event) -> None:
        self._count(event.usage)
        change = fields_of(event.delta)
        self._stop(change.get("stop_reason"), change.get("stop_details"))

    def _stop(self, reason: object, details: object) -> None:
        if word := string_of(reason):
            self._stop_reason = word
            self.stopped = True
        if explanation := string_of(fields_of(details).get("explanation")):
            self._demux.refusal(_REFUSAL, explanation)

    def _message_stop(self, event: _Event) -> None:
        self._end()

    def _end(self) -> None:
        self._demux.usage = self._usage()
        if not self._blocks:
            self._read_begun()
        word = self._stop_reason
        if not word and not self._blocks:
            raise StreamIncomplete("The provider ended the stream without an answer; try again.")
        reason: FinishReason | None = end_of(word, self._ends) if word else "stop"
        if reason is None:
            self._end_badly(word, self._finish_open)
        self._finish_open(reason, is_said=bool(word))
        self._demux.finish_all(truncated=True)
        self._demux.end(reason)
        self.finished = True

    def _read_begun(self) -> None:
        """Reads the blocks of `message_start`, which are all if no other block came."""
        for number, start in enumerate(self._begun):
            self._start(number, start)
            self._block_stop(_Event(index=number))
        self._begun = []

    def _finish_open(self, reason: FinishReason | None = None, *, is_said: bool = True) -> None:
        """Finishes what has not ended; calls only if nothing of them can be missing."""
        half = ""
        for block in list(self._open):
            if block.kind != "tool_use":
                self._finish(block)
                continue
            self._complete_input(block)
            if reason not in {"stop", "pause"}:
                continue  # the token limit may have cut it off
            is_whole = not is_begun_object(self._demux.written(block.key))
            # With a good stop reason the model has finished what it wrote, valid or not.
            if is_whole or (block.has_stopped and is_said):
                self._finish(block)
            else:
                half = half or block.name
        if half:
            raise StreamIncomplete(
                f"The provider ended the response in the middle of a call of {half!r}. Try again, "
                "or raise max_output_tokens."
            )

    def _count(self, value: object) -> None:
        """Adopts counts, which are totals; an empty one never replaces another."""
        usage = fields_of(value)
        for name in _COUNTS:
            self._counts[name] = count_of(usage.get(name)) or self._counts[name]
        thinking = fields_of(usage.get("output_tokens_details")).get("thinking_tokens")
        self._thinking_tokens = count_of(thinking) or self._thinking_tokens
        searches = fields_of(usage.get("server_tool_use")).get("web_search_requests")
        self._searches = count_of(searches) or self._searches

    def _usage(self) -> Usage:
        read, written = (
            self._counts["cache_read_input_tokens"],
            self._counts["cache_creation_input_tokens"],
        )
        return Usage(
            # The API counts only tokens that were neither read from the cache nor written to it.
            input_tokens=self._counts["input_tokens"] + read + written,
            output_tokens=self._counts["output_tokens"],
            cached_input_tokens=read,
            reasoning_tokens=self._thinking_tokens,
            requests=1,
            cache_write_tokens=written,
            web_searches=self._searches,
        )

    HANDLERS: ClassVar[Mapping[str, Callable[[Self, _Event], None]]] = {
        "message_start": _message_start,
        "content_block_start": _block_start,
        "content_block_delta": _block_delta,
        "content_block_stop": _block_stop,
        "message_delta": _message_delta,
        "message_stop": _message_stop,
    }
    """What reads the events of each type."""


_HANDLED_NAMES = {name.encode() for name in AnthropicDecoder.HANDLERS} | {b"error"}


def _is_for_us(name: bytes, data: bytes) -> bool:
    """Whether an event that could not be read is one that treadle must understand."""
    if name in _HANDLED_NAMES:
        return True
    try:
        value = read_json(data)
    except UNREADABLE:
        return name == b"message" and data != b"[DONE]"
    return fields_of(value).get("type") in AnthropicDecoder.HANDLERS


def _fields(raw: Raw) -> tuple[Mapping[str, object], Raw]:
    """Returns the fields of a block, and its JSON without halves of characters."""
    try:
        return fields_of(_decode_any(raw)), raw
    except UNREADABLE:
        value = joined_all(read_json(bytes(raw)))
        return fields_of(value), Raw(msgspec.json.encode(value))


def _message(document: bytes) -> _Message:
    try:
        return _decode_message(document)
    except UNREADABLE:
        fields = fields_of(joined_all(read_json(document)))
        content = fields.get("content")
        return _Message(
            id=fields.get("id"),
            content=None if content is None else _blocks(content),
            stop_reason=fields.get("stop_reason"),
            stop_details=fields.get("stop_details"),
            usage=fields.get("usage"),
        )


def _blocks(content: object) -> list[Raw]:
    return [Raw(msgspec.json.encode(block)) for block in list_of(content)]


def _index(value: object) -> int:
    count = count_of(value)
    return _NO_INDEX if count is None else count
