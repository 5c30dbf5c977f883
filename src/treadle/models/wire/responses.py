"""The wire format of the OpenAI Responses API: requests to bytes, bytes to model events.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

import msgspec
from msgspec import Struct

from treadle.domain.events import FinishReason
from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    ReasoningText,
    Refusal,
    SummaryText,
)
from treadle.domain.usage import Usage
from treadle.errors import StreamInvalid
from treadle.models.base import ModelRequest
from treadle.models.failure import ErrorBody, stream_failure
from treadle.models.wire.base import Decoder
from treadle.models.wire.responses_request import ResponsesOptions, encode_request
from treadle.models.wire.sendable import EncodedRequest
from treadle.models.wire.sse_decoder import SseDecoder


class ResponsesWire:
    """The OpenAI Responses API; responses are not stored at the provider."""

    path = "/responses"

    def __init__(self, options: ResponsesOptions | None = None) -> None:
        self._options = options or ResponsesOptions()
        self.provider = self._options.provider

    def headers(self, api_key: str) -> dict[str, str]:
        """Returns the bearer token as a header."""
        return {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def encode(self, model: str, request: ModelRequest) -> EncodedRequest:
        """Returns the body of a streaming request."""
        return encode_request(model, request, self._options)

    def decoder(self, request: ModelRequest) -> Decoder:
        """Returns a decoder that knows the call ids used so far."""
        return ResponsesDecoder(self.provider, request.used_call_ids)


class _TextDelta(Struct, gc=False, tag="response.output_text.delta"):
    delta: str
    output_index: int
    item_id: str = ""


class _RefusalDelta(Struct, gc=False, tag="response.refusal.delta"):
    delta: str
    output_index: int
    item_id: str = ""


class _ArgumentsDelta(Struct, gc=False, tag="response.function_call_arguments.delta"):
    delta: str
    output_index: int


class _SummaryDelta(Struct, gc=False, tag="response.reasoning_summary_text.delta"):
    delta: str
    output_index: int
    item_id: str = ""
    summary_index: int = 0


class _ReasoningDelta(Struct, gc=False, tag="response.reasoning_text.delta"):
    delta: str
    output_index: int
    item_id: str = ""


class _WirePart(Struct):
    type: str = ""
    text: str = ""
    refusal: str = ""


class _WireItem(Struct):
    id: str | None = None
    content: list[_WirePart] | None = None
    summary: list[_WirePart] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str = ""
    arguments: str = ""
    status: str | None = None


class _ItemHead(Struct):
    type: str


class _ItemAdded(Struct, tag="response.output_item.added"):
    output_index: int
    item: msgspec.Raw


class _ItemDone(Struct, tag="response.output_item.done"):
    output_index: int
    item: msgspec.Raw


class _InputDetails(Struct):
    cached_tokens: int | None = None


class _OutputDetails(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _IncompleteDetails(Struct):
    reason: str | None = None


class _Response(Struct):
    id: str = ""
    usage: _Usage | None = None
    error: ErrorBody | None = None
    incomplete_details: _IncompleteDetails | None = None


class _Completed(Struct, tag="response.completed"):
    response: _Response


class _Incomplete(Struct, tag="response.incomplete"):
    response: _Response


class _Failed(Struct, tag="response.failed"):
    response: _Response


class _Error(Struct, tag="error"):
    message: str | None = None
    code: str | None = None
    error: ErrorBody | None = None


_WireEvent = (
    _TextDelta
    | _RefusalDelta
    | _ArgumentsDelta
    | _SummaryDelta
    | _ReasoningDelta
    | _ItemAdded
    | _ItemDone
    | _Completed
    | _Incomplete
    | _Failed
    | _Error
)

_HANDLED = {
    "response.output_text.delta",
    "response.refusal.delta",
    "response.function_call_arguments.delta",
    "response.reasoning_summary_text.delta",
    "response.reasoning_text.delta",
    "response.output_item.added",
    "response.output_item.done",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "error",
}
_HANDLED_NAMES = {name.encode() for name in _HANDLED} | {b"message"}

_TEXT_DELTA = b"response.output_text.delta"
_decode_text = msgspec.json.Decoder(_TextDelta).decode
_decode_event = msgspec.json.Decoder(_WireEvent).decode
_decode_head = msgspec.json.Decoder(_ItemHead).decode
_decode_item = msgspec.json.Decoder(_WireItem).decode


class ResponsesDecoder(SseDecoder):
    """Decodes one streamed response of the Responses API."""

    def __init__(self, provider: str, used_call_ids: Iterable[str] = ()) -> None:
        super().__init__(provider, used_call_ids)
        self._summaries: dict[int, int] = {}

    def _frames(self, frames: Sequence[tuple[bytes, bytes]], *, cut: bool = False) -> None:
        text = self._demux.text
        for name, data in frames:
            if self.finished:
                break
            try:
                if name == _TEXT_DELTA:  # nearly all frames are, so the tag is not decoded again
                    delta = _decode_text(data)
                    text(delta.output_index, delta.delta, delta.item_id)
                elif name in _HANDLED_NAMES and data != b"[DONE]":
                    self._event(_decode_event(data))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if cut or not _is_for_us(data, error):
                    continue
                raise StreamInvalid(
                    f"The provider sent an event that is not valid: {error}. Try again; if it "
                    "persists, check that the server implements the Responses API."
                ) from error

    def _event(self, event: _WireEvent) -> None:
        match event:
            case _TextDelta():
                self._demux.text(event.output_index, event.delta, event.item_id)
            case _ArgumentsDelta():
                self._demux.arguments(event.output_index, event.delta)
            case _ReasoningDelta():
                self._demux.reasoning(event.output_index, event.delta, event.item_id)
            case _SummaryDelta():
                self._summary(event)
            case _RefusalDelta():
                self._demux.refusal(event.output_index, event.delta, event.item_id)
            case _ItemAdded():
                self._item_added(event)
            case _ItemDone():
                self._item_done(event)
            case _Completed():
                self._end(event.response, "stop")
            case _Incomplete():
                self._end(event.response, _incomplete_reason(event.response))
            case _Failed():
                raise stream_failure(event.response.error or ErrorBody())
            case _Error():
                raise stream_failure(event.error or ErrorBody(event.message, event.code))
            case _ as unreachable:
                assert_never(unreachable)

    def _summary(self, event: _SummaryDelta) -> None:
        index = event.output_index
        if event.summary_index > self._summaries.get(index, 0):
            self._demux.reasoning(index, "\n\n", event.item_id)
        self._summaries[index] = event.summary_index
        self._demux.reasoning(index, event.delta, event.item_id)

    def _item_added(self, event: _ItemAdded) -> None:
        if _decode_head(event.item).type == "function_call":
            item = _decode_item(event.item)
            self._demux.call(event.output_index, item.call_id or "", item.name, item.id or "")

    def _item_done(self, event: _ItemDone) -> None:
        kind = _decode_head(event.item).type
        if kind not in {"message", "reasoning", "function_call"}:
            copy = msgspec.Raw(bytes(event.item))
            self._demux.finish(event.output_index, ProviderItem(self._provider, copy))
            return
        wire = _decode_item(event.item)
        if kind == "message":
            self._demux.finish(event.output_index, _message(wire))
        elif kind == "reasoning":
            self._demux.finish(event.output_index, _reasoning(wire))
        elif wire.status == "incomplete":
            self._demux.drop(event.output_index)
        else:
            call = FunctionCall(wire.call_id or "", wire.name, wire.arguments, wire.id or "")
            self._demux.finish(event.output_index, call)

    def _end(self, response: _Response, reason: FinishReason) -> None:
        self._demux.finish_all(truncated=True)
        self._demux.usage = _usage(response.usage)
        self._demux.response_id = response.id
        self._demux.end(reason)
        self.finished = True


def _is_for_us(data: bytes, error: Exception) -> bool:
    """Whether an event that could not be decoded is one that treadle must understand."""
    if not isinstance(error, msgspec.ValidationError):
        return True
    try:
        return _decode_head(data).type in _HANDLED
    except msgspec.ValidationError:  # JSON, but not an object with a type: ignored
        return False


def _incomplete_reason(response: _Response) -> FinishReason:
    details = response.incomplete_details
    filtered = details is not None and details.reason == "content_filter"
    return "content_filter" if filtered else "length"


def _message(wire: _WireItem) -> Message:
    parts: list[ContentPart] = []
    for part in wire.content or ():
        if part.type == "output_text":
            parts.append(OutputText(part.text))
        if part.type == "refusal":
            parts.append(Refusal(part.refusal))
    return Message("assistant", tuple(parts), wire.id or "")


def _reasoning(wire: _WireItem) -> Reasoning:
    return Reasoning(
        id=wire.id or "",
        summary=tuple(SummaryText(part.text) for part in wire.summary or ()),
        content=tuple(ReasoningText(part.text) for part in wire.content or ()),
        encrypted_content=wire.encrypted_content,
    )


def _usage(wire: _Usage | None) -> Usage:
    if wire is None:
        return Usage(requests=1)
    cached, reasoning = wire.input_tokens_details, wire.output_tokens_details
    return Usage(
        input_tokens=wire.input_tokens,
        output_tokens=wire.output_tokens,
        cached_input_tokens=(cached.cached_tokens or 0) if cached else 0,
        reasoning_tokens=(reasoning.reasoning_tokens or 0) if reasoning else 0,
        requests=1,
    )
