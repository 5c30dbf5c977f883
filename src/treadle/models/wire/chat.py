"""The wire format of OpenAI Chat Completions and of the many servers compatible with it.

https://platform.openai.com/docs/api-reference/chat-streaming

The decoder accepts the quirks of vLLM, Ollama, llama.cpp, Groq, Mistral, DeepSeek and OpenRouter:
ids missing or repeated, whole arguments in one chunk (also as an object), two calls in one chunk,
`reasoning_content` or `reasoning`, chunks with usage only, empty `choices`, no `finish_reason`.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from treadle.domain.events import FinishReason
from treadle.domain.usage import Usage
from treadle.errors import StreamInvalid
from treadle.models.base import ModelRequest
from treadle.models.failure import ErrorBody, stream_failure
from treadle.models.wire.base import Decoder
from treadle.models.wire.chat_request import ChatOptions, encode_request
from treadle.models.wire.sendable import EncodedRequest
from treadle.models.wire.sse_decoder import SseDecoder
from treadle.streaming.demux import StreamEvent

_TEXT = "text"
_REASONING = "reasoning"


class ChatWire:
    """The Chat Completions API."""

    path = "/chat/completions"

    def __init__(self, options: ChatOptions | None = None) -> None:
        self._options = options or ChatOptions()
        self.provider = self._options.provider

    def headers(self, api_key: str) -> dict[str, str]:
        """Returns the bearer token as a header."""
        return {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def encode(self, model: str, request: ModelRequest) -> EncodedRequest:
        """Returns the body of a streaming request."""
        return encode_request(model, request, self._options)

    def decoder(self, request: ModelRequest) -> Decoder:
        """Returns a decoder that knows the call ids used so far."""
        return ChatDecoder(self.provider, request.used_call_ids)


class _Function(Struct):
    name: str | None = None
    arguments: str | dict[str, object] | None = None


class _ToolCall(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _ContentPart(Struct):
    type: str = ""
    text: str | None = None
    thinking: "list[_ContentPart] | None" = None


class _Delta(Struct):
    content: str | list[_ContentPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None
    index: int | None = 0


class _PromptDetails(Struct):
    cached_tokens: int | None = None


class _CompletionDetails(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Chunk(Struct):
    id: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: ErrorBody | str | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class ChatDecoder(SseDecoder):
    """Decodes one streamed response of the Chat Completions API."""

    def __init__(self, provider: str, used_call_ids: Iterable[str] = ()) -> None:
        super().__init__(provider, used_call_ids)
        self._calls: list[str | None] = []
        self._places: dict[int, int] = {}
        self._finish: FinishReason | None = None

    def _last(self) -> Sequence[StreamEvent]:
        # A `finish_reason` without `[DONE]` is an end as well: some servers omit `[DONE]`.
        if self.finished or self._finish is None:
            return ()
        self._end(self._finish)
        return self._demux.take()

    def _frames(
        self, frames: Sequence[tuple[bytes, bytes]], *, cut: bool = False
    ) -> list[StreamEvent]:
        for _, data in frames:
            if self.finished:
                break
            if data.startswith(b"[DONE]"):
                self._end(self._finish or "stop")
                break
            try:
                chunk = _decode_chunk(data)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if cut:
                    break
                raise StreamInvalid(
                    f"The provider sent a chunk that is not valid: {error}. Try again; if it "
                    "persists, check that the server implements Chat Completions."
                ) from error
            self._chunk(chunk)
        return self._demux.take()

    def _chunk(self, chunk: _Chunk) -> None:
        if chunk.error is not None:
            error = chunk.error
            raise stream_failure(ErrorBody(error) if isinstance(error, str) else error)
        for choice in chunk.choices or ():
            if choice.index:
                continue  # only one choice was requested
            if choice.delta is not None:
                self._delta(choice.delta)
            if choice.finish_reason and self._finish is None:
                self._finish_items(_finish_reason(choice.finish_reason))
        if chunk.id:
            self._demux.response_id = chunk.id
        if chunk.usage is not None:
            self._demux.usage = _usage(chunk.usage)

    def _delta(self, delta: _Delta) -> None:
        if self._finish is not None:
            return  # a server that repeats itself after the end
        if delta.content:
            if isinstance(delta.content, str):
                self._demux.text(_TEXT, delta.content)
            else:
                self._content_parts(delta.content)
        if reasoning := delta.reasoning_content or delta.reasoning:
            self._demux.reasoning(_REASONING, reasoning)
        if delta.refusal:
            self._demux.refusal(_TEXT, delta.refusal)
        for call in delta.tool_calls or ():
            self._tool_call(call)

    def _content_parts(self, parts: Sequence[_ContentPart]) -> None:
        for part in parts:
            if part.text:
                self._demux.text(_TEXT, part.text)
            thought = "".join(piece.text or "" for piece in part.thinking or ())
            if thought:
                self._demux.reasoning(_REASONING, thought)

    def _tool_call(self, call: _ToolCall) -> None:
        function = call.function or _Function()
        place = self._place(call, function)
        arguments = function.arguments
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        if arguments and self._demux.arguments(place, arguments):
            self._demux.finish(place)

    def _place(self, call: _ToolCall, function: _Function) -> int:
        """Returns the key of the call a chunk belongs to; opens a new call where it begins one."""
        place = self._current_place(call)
        begins = place is None or (
            bool(function.name)
            and bool(call.id)
            and call.id != self._calls[place]
            and self._calls[place] is not None
        )
        if place is None or begins or self._is_next_unnumbered(call, function, place):
            place = len(self._calls)
            self._calls.append(call.id)
            self._demux.call(place, call.id or "", function.name or "")
            if call.index is not None:
                self._places[call.index] = place
        return place

    def _current_place(self, call: _ToolCall) -> int | None:
        if call.index is not None:
            return self._places.get(call.index)
        if call.id:
            known = [place for place, wire_id in enumerate(self._calls) if wire_id == call.id]
            return known[-1] if known else None
        return len(self._calls) - 1 if self._calls else None

    def _is_next_unnumbered(self, call: _ToolCall, function: _Function, place: int) -> bool:
        # Without index and id, a name after complete arguments can only be the next call.
        return bool(call.index is None and function.name and not self._demux.is_open(place))

    def _finish_items(self, reason: FinishReason) -> None:
        self._demux.finish_all(truncated=reason != "stop")
        self._finish = reason

    def _end(self, reason: FinishReason) -> None:
        if self._finish is None:
            self._finish_items(reason)
        usage = self._demux.usage
        if not usage.requests:
            self._demux.usage = Usage(requests=1)
        self._demux.end(reason)
        self.finished = True


def _finish_reason(reason: str) -> FinishReason:
    if reason in {"length", "max_tokens", "model_length"}:
        return "length"
    if reason == "content_filter":
        return "content_filter"
    return "stop"


def _usage(wire: _Usage) -> Usage:
    cached, reasoning = wire.prompt_tokens_details, wire.completion_tokens_details
    return Usage(
        input_tokens=wire.prompt_tokens or 0,
        output_tokens=wire.completion_tokens or 0,
        cached_input_tokens=(cached.cached_tokens or 0) if cached else 0,
        reasoning_tokens=(reasoning.reasoning_tokens or 0) if reasoning else 0,
        requests=1,
    )
