"""The wire format of the Anthropic Messages API: requests to bytes, bytes to model events.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from treadle.domain.events import FinishReason
from treadle.domain.items import ProviderItem, Reasoning, ReasoningText
from treadle.domain.usage import Usage
from treadle.errors import StreamInvalid
from treadle.models.base import ModelRequest
from treadle.models.failure import ErrorBody, stream_failure
from treadle.models.wire.anthropic_request import AnthropicOptions, encode_request
from treadle.models.wire.base import Decoder
from treadle.models.wire.sendable import EncodedRequest
from treadle.models.wire.sse_decoder import SseDecoder

# The next version, 2026-10-21, refuses a temperature, which models up to 4.6 accept.
API_VERSION = "2023-06-01"


class AnthropicWire:
    """The Anthropic Messages API."""

    path = "/v1/messages"

    def __init__(self, options: AnthropicOptions | None = None) -> None:
        self._options = options or AnthropicOptions()
        self.provider = self._options.provider

    def headers(self, api_key: str) -> dict[str, str]:
        """Returns the key and the version of the API as headers."""
        key = {"x-api-key": api_key} if api_key else {}
        return {"anthropic-version": API_VERSION, **key}

    def encode(self, model: str, request: ModelRequest) -> EncodedRequest:
        """Returns the body of a streaming request."""
        return encode_request(model, request, self._options)

    def decoder(self, request: ModelRequest) -> Decoder:
        """Returns a decoder that knows the call ids used so far."""
        return AnthropicDecoder(self.provider, request.used_call_ids)


class _OutputDetails(Struct):
    thinking_tokens: int | None = None


class _Usage(Struct):
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Message(Struct):
    id: str = ""
    usage: _Usage | None = None


class _MessageStart(Struct, tag="message_start"):
    message: _Message


class _TextBlock(Struct, tag="text"):
    text: str = ""


class _ThinkingBlock(Struct, tag="thinking"):
    thinking: str = ""
    signature: str = ""


class _RedactedBlock(Struct, tag="redacted_thinking"):
    data: str


class _ToolBlock(Struct, tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw = msgspec.Raw(b"{}")


_Block = _TextBlock | _ThinkingBlock | _RedactedBlock | _ToolBlock
_BLOCKS = {"text", "thinking", "redacted_thinking", "tool_use"}


class _BlockStart(Struct, tag="content_block_start"):
    index: int
    content_block: msgspec.Raw


class _TextDelta(Struct, gc=False, tag="text_delta"):
    text: str


class _InputDelta(Struct, gc=False, tag="input_json_delta"):
    partial_json: str


class _ThinkingDelta(Struct, gc=False, tag="thinking_delta"):
    thinking: str


class _SignatureDelta(Struct, gc=False, tag="signature_delta"):
    signature: str


_DELTAS = {"text_delta", "input_json_delta", "thinking_delta", "signature_delta"}


class _BlockDelta(Struct, gc=False, tag="content_block_delta"):
    index: int
    delta: _TextDelta | _InputDelta | _ThinkingDelta | _SignatureDelta


class _BlockStop(Struct, tag="content_block_stop"):
    index: int


class _StopDetails(Struct):
    explanation: str | None = None


class _MessageChange(Struct):
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _MessageDelta(Struct, tag="message_delta"):
    delta: _MessageChange
    usage: _Usage | None = None


class _MessageStop(Struct, tag="message_stop"):
    pass


class _Error(Struct, tag="error"):
    error: ErrorBody | None = None


_WireEvent = (
    _MessageStart | _BlockStart | _BlockDelta | _BlockStop | _MessageDelta | _MessageStop | _Error
)

_HANDLED = {
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
}
_HANDLED_NAMES = {name.encode() for name in _HANDLED} | {b"message"}
_DELTA = b"content_block_delta"


class _Head(Struct):
    type: str


class _DeltaHead(Struct):
    delta: _Head


_decode_delta = msgspec.json.Decoder(_BlockDelta).decode
_decode_event = msgspec.json.Decoder(_WireEvent).decode
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_delta_head = msgspec.json.Decoder(_DeltaHead).decode
_decode_block = msgspec.json.Decoder(_Block).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_FINISH: dict[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "pause_turn": "pause",
}
_REFUSAL = "refusal"


class _Thought:
    """A thinking block being written: its text, and the signature that comes last."""

    def __init__(self, signature: str) -> None:
        self.pieces: list[str] = []
        self.signature = signature

    def item(self) -> Reasoning:
        # With content even if the text is withheld: without content it would be redacted thinking.
        content = (ReasoningText("".join(self.pieces)),)
        return Reasoning(content=content, encrypted_content=self.signature or None)


class _HostedBlock:
    """A block of a tool that the provider runs itself: kept as received, with its input added."""

    def __init__(self, start: msgspec.Raw) -> None:
        self.fields = _decode_fields(start)
        self.pieces: list[str] = []

    def raw(self) -> msgspec.Raw:
        fields = self.fields
        if self.pieces:
            text = "".join(self.pieces)
            msgspec.json.decode(text)
            fields = fields | {"input": msgspec.Raw(text.encode())}
        return msgspec.Raw(msgspec.json.encode(fields))


class AnthropicDecoder(SseDecoder):
    """Decodes one streamed response of the Messages API."""

    def __init__(self, provider: str, used_call_ids: Iterable[str] = ()) -> None:
        super().__init__(provider, used_call_ids)
        self._thoughts: dict[int, _Thought] = {}
        self._hosted: dict[int, _HostedBlock] = {}
        self._calls: dict[int, bool] = {}
        self._uncertain: list[int] = []
        self._usage = _Usage()
        self._finish: FinishReason = "stop"

    def _frames(self, frames: Sequence[tuple[bytes, bytes]], *, cut: bool = False) -> None:
        for name, data in frames:
            if self.finished:
                break
            try:
                if name == _DELTA:  # nearly all frames are
                    self._block_delta(_decode_delta(data))
                elif name in _HANDLED_NAMES:
                    self._event(_decode_event(data))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if cut or not _is_for_us(data, error):
                    continue
                raise StreamInvalid(
                    f"The provider sent an event that is not valid: {error}. Try again; if it "
                    "persists, check that the server implements the Messages API."
                ) from error

    def _event(self, event: _WireEvent) -> None:
        match event:
            case _BlockDelta():
                self._block_delta(event)
            case _BlockStart():
                self._block_start(event)
            case _BlockStop():
                self._block_stop(event.index)
            case _MessageStart():
                self._demux.response_id = event.message.id
                self._count(event.message.usage)
            case _MessageDelta():
                self._message_delta(event)
            case _MessageStop():
                self._end()
            case _Error():
                raise stream_failure(event.error or ErrorBody())
            case _ as unreachable:
                assert_never(unreachable)

    def _block_delta(self, event: _BlockDelta) -> None:
        index, delta = event.index, event.delta
        match delta:
            case _TextDelta():
                if delta.text:
                    self._demux.text(index, delta.text)
            case _InputDelta():
                self._input(index, delta.partial_json)
            case _ThinkingDelta():
                self._think(index, delta.thinking)
            case _SignatureDelta():
                self._thought(index).signature += delta.signature
            case _ as unreachable:
                assert_never(unreachable)

    def _block_start(self, event: _BlockStart) -> None:
        self._finish_uncertain()
        index = event.index
        if _decode_head(event.content_block).type not in _BLOCKS:
            self._hosted[index] = _HostedBlock(event.content_block)
            return
        block = _decode_block(event.content_block)
        match block:
            case _TextBlock():
                if block.text:
                    self._demux.text(index, block.text)
            case _ThinkingBlock():
                self._thoughts[index] = _Thought(block.signature)
                self._think(index, block.thinking)
            case _RedactedBlock():
                self._demux.finish(index, Reasoning(encrypted_content=block.data))
            case _ToolBlock():
                self._demux.call(index, block.id, block.name)
                self._calls[index] = False
                whole = bytes(block.input)
                if whole not in {b"{}", b"null"}:  # some servers send the whole input at once
                    self._input(index, whole.decode())
            case _ as unreachable:
                assert_never(unreachable)

    def _thought(self, index: int) -> _Thought:
        return self._thoughts.setdefault(index, _Thought(""))

    def _think(self, index: int, text: str) -> None:
        if text:
            self._thought(index).pieces.append(text)
            self._demux.reasoning(index, text)

    def _input(self, index: int, piece: str) -> None:
        if index in self._hosted:
            self._hosted[index].pieces.append(piece)
        elif piece and self._demux.arguments(index, piece):
            self._calls[index] = True

    def _block_stop(self, index: int) -> None:
        if index in self._thoughts:
            self._finish_thought(index)
        elif index in self._hosted:
            self._finish_hosted(index)
        elif self._calls.get(index, True):
            self._demux.finish(index)
        else:
            # The token limit may have cut it off; the stop reason that follows decides.
            self._uncertain.append(index)

    def _finish_thought(self, index: int) -> None:
        thought = self._thoughts.pop(index)
        if thought.pieces or thought.signature:
            self._demux.finish(index, thought.item())

    def _finish_hosted(self, index: int) -> None:
        try:
            raw = self._hosted.pop(index).raw()
        except msgspec.DecodeError:  # its input was cut off, so the tool never ran
            return
        self._demux.finish(index, ProviderItem(self._provider, raw))

    def _finish_uncertain(self) -> None:
        for index in self._uncertain:
            self._demux.finish(index)
        self._uncertain.clear()

    def _message_delta(self, event: _MessageDelta) -> None:
        self._count(event.usage)
        change = event.delta
        if change.stop_reason is not None:
            self._finish = _FINISH.get(change.stop_reason, "stop")
        if change.stop_details is not None and change.stop_details.explanation:
            self._demux.refusal(_REFUSAL, change.stop_details.explanation)

    def _count(self, usage: _Usage | None) -> None:
        """Adopts the counts of `usage`, which are totals; missing ones keep their value."""
        if usage is not None:
            given = {name: n for name, n in asdict(usage).items() if n is not None}
            self._usage = replace(self._usage, **given)

    def _end(self) -> None:
        self._demux.finish_all(truncated=self._finish in {"length", "content_filter"})
        self._demux.usage = _total(self._usage)
        self._demux.end(self._finish)
        self.finished = True


def _is_for_us(data: bytes, error: Exception) -> bool:
    """Whether an event that could not be decoded is one that treadle must understand."""
    if not isinstance(error, msgspec.ValidationError):
        return True
    try:
        kind = _decode_head(data).type
    except msgspec.ValidationError:  # JSON, but not an object with a type: ignored
        return False
    if kind != "content_block_delta":
        return kind in _HANDLED
    try:
        return _decode_delta_head(data).delta.type in _DELTAS
    except msgspec.ValidationError:  # it has no delta with a type, which it must have
        return True


def _total(wire: _Usage) -> Usage:
    read, written = wire.cache_read_input_tokens or 0, wire.cache_creation_input_tokens or 0
    details = wire.output_tokens_details
    return Usage(
        # The API counts only tokens that were neither read from the cache nor written to it.
        input_tokens=(wire.input_tokens or 0) + read + written,
        output_tokens=wire.output_tokens or 0,
        cached_input_tokens=read,
        reasoning_tokens=(details.thinking_tokens or 0) if details else 0,
        requests=1,
        cache_write_tokens=written,
    )
