"""Decodes responses of Bedrock's Converse API: bytes in, model events out.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html

Blocks follow each other, and each event contains the index of its block; only a call is announced.
The stop reason comes before the counts, which end the stream. The block of a call ends even if the
tokens ran out in the middle of it, so a call is finished when its object has closed, or when the
response continues or ends well.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Self

import msgspec
from msgspec import Raw, Struct

from treadle.domain.events import FinishReason
from treadle.domain.items import Annotation, ProviderItem, Reasoning, ReasoningText
from treadle.domain.usage import Usage
from treadle.errors import StreamIncomplete, StreamInvalid
from treadle.models.failure import ErrorBody, stream_failure
from treadle.models.wire.citations import converse_annotation
from treadle.models.wire.ends import CONVERSE_ENDS, Ends, end_of
from treadle.models.wire.frame_decoder import UNREADABLE, FrameDecoder, Frames
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
from treadle.streaming.event_stream import EventStreamParser
from treadle.streaming.jsonfields import is_begun_object

_DELTA = b"contentBlockDelta"
_EXCEPTION = b"Exception"


class _ToolDelta(Struct, gc=False):
    input: str


class _ReasoningDelta(Struct, gc=False, rename="camel"):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _Delta(Struct, gc=False, rename="camel"):
    text: str | None = None
    tool_use: _ToolDelta | None = None
    reasoning_content: _ReasoningDelta | None = None
    citation: object = None
    tool_result: object = None
    image: object = None


class _BlockDelta(Struct, gc=False, rename="camel"):
    delta: _Delta
    content_block_index: int = 0


_decode_delta = msgspec.json.Decoder(_BlockDelta).decode


class _Block:
    """A block being written; `key` names it in the demux.

    - `kind`: `text`, `reasoning`, `toolUse`, or the kind of a block that is kept as received.
    - `fields`: of a block that is kept as received; `pieces`: its texts.
    - `grows`: a text without halves of characters, to which the usual delta is added as it is.
    - `has_stopped`: its end was read; whether a call was cut off there, the rest tells.
    """

    def __init__(self, key: int, kind: str) -> None:
        self.key = key
        self.kind = kind
        self.name = ""
        self.fields: dict[str, object] = {}
        self.pieces: list[str] = []
        self.results: list[object] = []
        self.signature = ""
        self.redacted: list[str] = []
        self.annotations: list[Annotation] = []
        self.grows = kind == "text"
        self.has_closed = False
        self.has_stopped = False

    def hosted(self) -> Raw:
        """Returns the block as the API sent it; raises `DecodeError` if its input was cut off."""
        fields = dict(self.fields)
        if self.kind == "serverToolUse":
            text = joined("".join(self.pieces)) or "{}"
            msgspec.json.decode(text)
            fields["input"] = Raw(text.encode())
            return Raw(msgspec.json.encode({"toolUse": fields}))
        if self.kind == "toolResult":
            fields["content"] = joined_all(self.results)
        else:
            fields["source"] = {"bytes": _whole_base64(self.pieces)}
        return Raw(msgspec.json.encode({self.kind: fields}))


class ConverseDecoder(FrameDecoder):
    """Decodes one response of the Converse API, whose good ends are `ends`."""

    api = "Converse"

    def __init__(
        self, provider: str, used_call_ids: Iterable[str] = (), ends: Ends = CONVERSE_ENDS
    ) -> None:
        super().__init__(provider, used_call_ids, EventStreamParser())
        self._ends = ends
        self._keys = 0
        self._open: dict[int, _Block] = {}
        self._stop_reason = ""
        self._halves: HalfCharacters | None = None

    def _frames(self, frames: Frames, *, cut: bool = False) -> None:
        for name, data in frames:
            if self.finished:
                break
            if name == _DELTA:  # nearly all frames are
                try:
                    event = _decode_delta(data)
                except UNREADABLE as error:
                    self._read_loosely(data, error)
                    continue
                delta, block = event.delta, self._open.get(event.content_block_index)
                if delta.text and block is not None and block.grows:
                    self._demux.text(block.key, delta.text)
                else:
                    self._delta(event.content_block_index, delta)
            elif (handle := self.HANDLERS.get(name)) is not None:
                try:
                    handle(self, fields_of(joined_all(read_json(data))))
                except UNREADABLE as error:
                    self._unreadable(data, error, name)
            elif name.endswith(_EXCEPTION):
                raise stream_failure(_exception(name, data))
            elif name == b"error":
                self._raise_reported(data, name)

    def _read_loosely(self, data: bytes, error: Exception) -> None:
        """Reads a delta that the structs refuse: with half a character, or an odd value."""
        try:
            fields = fields_of(read_json(data))
        except UNREADABLE:
            self._unreadable(data, error, _DELTA)
            return
        if self._halves is None:
            self._halves = HalfCharacters()
        for block in self._open.values():
            block.grows = False
        delta = fields_of(fields.get("delta"))
        tool, thought = fields_of(delta.get("toolUse")), fields_of(delta.get("reasoningContent"))
        self._delta(
            count_of(fields.get("contentBlockIndex")) or 0,
            _Delta(
                text=_text(delta.get("text")),
                tool_use=_ToolDelta(_text(tool.get("input")) or "") if tool else None,
                reasoning_content=_ReasoningDelta(
                    _text(thought.get("text")),
                    string_of(thought.get("signature")),
                    string_of(thought.get("redactedContent")),
                )
                if thought
                else None,
                citation=delta.get("citation"),
                tool_result=delta.get("toolResult"),
                image=delta.get("image"),
            ),
        )

    def _delta(self, index: int, delta: _Delta) -> None:
        if delta.text is not None:
            block = self._block(index, "text")
            if text := self._join(block, delta.text):
                self._demux.text(block.key, text)
        elif delta.tool_use is not None:
            self._input(index, delta.tool_use.input)
        elif (thought := delta.reasoning_content) is not None:
            block = self._block(index, "reasoning")
            block.signature += thought.signature or ""
            if thought.redacted_content:
                block.redacted.append(thought.redacted_content)
            if text := self._join(block, thought.text or ""):
                block.pieces.append(text)
                self._demux.reasoning(block.key, text)
        elif delta.citation is not None:
            if (found := converse_annotation(delta.citation)) is not None:
                block = self._block(index, "text")
                block.annotations.append(found)
                self._demux.cite(block.key, found)
        elif delta.tool_result is not None:
            self._block(index, "toolResult").results += list_of(delta.tool_result)
        elif delta.image is not None:
            source = fields_of(fields_of(delta.image).get("source"))
            self._block(index, "image").pieces.append(string_of(source.get("bytes")))

    def _join(self, block: _Block, text: str) -> str:
        return text if self._halves is None else self._halves.join(block.key, text)

    def _input(self, index: int, piece: str) -> None:
        if not piece:
            return
        block = self._open.get(index)
        if block is None or block.has_stopped or block.kind not in {"toolUse", "serverToolUse"}:
            if piece.strip():
                raise StreamInvalid(
                    "The provider sent the input of a tool call that is not open; report it to "
                    "the provider."
                )
            return
        piece = self._join(block, piece)
        if block.kind == "serverToolUse":
            block.pieces.append(piece)
        elif self._demux.arguments(block.key, piece):
            block.has_closed = True

    def _block(self, index: int, kind: str) -> _Block:
        """Returns the open block of that index, or begins it: most blocks are not announced."""
        block = self._open.get(index)
        if block is not None and block.kind == kind and not block.has_stopped:
            return block
        return self._begin(index, kind)

    def _begin(self, index: int, kind: str) -> _Block:
        for other in list(self._open):  # blocks follow each other: the others are whole
            self._finish(other)
        block = self._open[index] = _Block(self._keys, kind)
        block.grows = block.grows and self._halves is None
        self._keys += 1
        return block

    def _start(self, fields: Mapping[str, object]) -> None:
        index = count_of(fields.get("contentBlockIndex")) or 0
        start = fields_of(fields.get("start"))
        tool = fields_of(start.get("toolUse"))
        if tool and not tool.get("type"):
            block = self._begin(index, "toolUse")
            block.name = string_of(tool.get("name"))
            if not block.name:
                raise ValueError("a call has no name")
            self._demux.call(block.key, string_of(tool.get("toolUseId")), block.name)
        elif tool:
            self._begin(index, "serverToolUse").fields = dict(tool)
        else:
            for kind in ("toolResult", "image"):
                if kind in start:
                    self._begin(index, kind).fields = dict(fields_of(start[kind]))

    def _stop_block(self, fields: Mapping[str, object]) -> None:
        index = count_of(fields.get("contentBlockIndex")) or 0
        block = self._open.get(index)
        if block is None:
            return
        block.has_stopped = True
        if block.kind != "toolUse" or block.has_closed:
            self._finish(index)

    def _finish(self, index: int) -> None:
        block = self._open.pop(index)
        key, demux = block.key, self._demux
        rest = self._halves.drop(key) if self._halves is not None else ""
        match block.kind:
            case "text":
                if rest:
                    demux.text(key, rest)
                if block.annotations:
                    demux.annotate(key, [block.annotations])
                demux.finish(key)
            case "reasoning":
                self._finish_thought(block, rest)
            case "toolUse":
                if not demux.written(key):
                    demux.arguments(key, "{}")
                demux.finish(key)
            case _:
                try:
                    raw = block.hosted()
                except UNREADABLE:  # its input was cut off, so the tool never ran
                    return
                demux.finish(key, ProviderItem(self._provider, raw))

    def _finish_thought(self, block: _Block, rest: str) -> None:
        if rest:
            block.pieces.append(rest)
            self._demux.reasoning(block.key, rest)
        if block.pieces or block.signature:
            # With content even if the text is withheld: without content it would be redacted.
            content = (ReasoningText("".join(block.pieces)),)
            thought = Reasoning(content=content, encrypted_content=block.signature or None)
            self._demux.finish(block.key, thought)
        if block.redacted:
            data = _whole_base64(block.redacted)
            self._demux.finish(f"redacted {block.key}", Reasoning(encrypted_content=data))

    def _message_stop(self, fields: Mapping[str, object]) -> None:
        if word := string_of(fields.get("stopReason")):
            self._stop_reason = word
            self.stopped = True

    def _metadata(self, fields: Mapping[str, object]) -> None:
        self._count(fields.get("usage"))
        if self._stop_reason:
            self._end()

    def _last(self) -> None:
        if self._stop_reason:  # without the counts
            self._end()

    def _whole(self, document: bytes) -> None:
        fields = fields_of(joined_all(read_json(document)))
        message = fields_of(fields_of(fields.get("output")).get("message"))
        if not message or not fields.get("stopReason"):
            return
        for index, block in enumerate(map(fields_of, list_of(message.get("content")))):
            self._whole_block(index, block)
        self._message_stop(fields)
        self._count(fields.get("usage"))
        self._end()

    def _whole_block(self, index: int, block: Mapping[str, object]) -> None:
        tool = fields_of(block.get("toolUse"))
        thought = fields_of(block.get("reasoningContent"))
        said = fields_of(thought.get("reasoningText"))
        if tool:
            self._start({"contentBlockIndex": index, "start": {"toolUse": tool}})
            self._input(index, msgspec.json.encode(tool.get("input")).decode())
        elif thought:
            delta = _ReasoningDelta(
                string_of(said.get("text")),
                string_of(said.get("signature")),
                string_of(thought.get("redactedContent")),
            )
            self._delta(index, _Delta(reasoning_content=delta))
        elif "text" in block:
            self._delta(index, _Delta(text=string_of(block["text"])))
        elif cited := fields_of(block.get("citationsContent")):
            texts = [string_of(fields_of(one).get("text")) for one in list_of(cited.get("content"))]
            self._delta(index, _Delta(text="".join(texts)))
            for citation in list_of(cited.get("citations")):
                self._delta(index, _Delta(citation=citation))
        self._stop_block({"contentBlockIndex": index})

    def _end(self) -> None:
        if not self._demux.usage.requests:
            self._demux.usage = Usage(requests=1)
        word = self._stop_reason
        reason = end_of(word, self._ends)
        if reason is None:
            self._end_badly(word, self._finish_open)
        self._finish_open(reason)
        self._demux.finish_all(truncated=True)
        self._demux.end(reason)
        self.finished = True

    def _finish_open(self, reason: FinishReason | None = None) -> None:
        """Finishes what has not ended; calls only if nothing of them can be missing."""
        half = ""
        for index, block in list(self._open.items()):
            if block.kind == "toolUse":
                if reason != "stop":
                    continue  # the token limit may have cut it off
                if not block.has_stopped and is_begun_object(self._demux.written(block.key)):
                    half = half or block.name
                    continue
            self._finish(index)
        if half:
            raise StreamIncomplete(
                f"The provider ended the response in the middle of a call of {half!r}. Try again, "
                "or raise max_output_tokens."
            )

    def _count(self, value: object) -> None:
        usage = fields_of(value)
        read = count_of(usage.get("cacheReadInputTokens")) or 0
        written = count_of(usage.get("cacheWriteInputTokens")) or 0
        self._demux.usage = Usage(
            # The API counts only tokens that were neither read from the cache nor written to it.
            input_tokens=(count_of(usage.get("inputTokens")) or 0) + read + written,
            output_tokens=count_of(usage.get("outputTokens")) or 0,
            cached_input_tokens=read,
            requests=1,
            cache_write_tokens=written,
        )

    HANDLERS: ClassVar[Mapping[bytes, Callable[[Self, Mapping[str, object]], None]]] = {
        b"contentBlockStart": _start,
        b"contentBlockStop": _stop_block,
        b"messageStop": _message_stop,
        b"metadata": _metadata,
    }
    """What reads the events of each type."""


def _exception(name: bytes, data: bytes) -> ErrorBody:
    """Returns what an exception in the stream reports."""
    try:
        fields = fields_of(joined_all(read_json(data)))
    except UNREADABLE:
        fields = {"message": data.decode(errors="replace")}
    said = string_of(fields.get("message")) or string_of(fields.get("originalMessage"))
    return ErrorBody(said or None, name.decode(errors="replace"))


def _text(value: object) -> str | None:
    """Returns a string as it is, which may end in half a character."""
    return value if isinstance(value, str) else None


def _whole_base64(pieces: list[str]) -> str:
    """Returns base64 of the data in all pieces, each of which may be padded."""
    try:
        data = b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
    except (binascii.Error, ValueError):
        return "".join(pieces)
    return base64.b64encode(data).decode()
