"""Decodes responses of OpenAI Chat Completions and of the many servers compatible with it.

https://platform.openai.com/docs/api-reference/chat-streaming

A chunk is read into structs. One that does not fit, because a server sends another type in some
field, is read again field by field (`loose_json`); what the answer can do without is left out.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from treadle.domain.events import FinishReason
from treadle.domain.items import Annotation
from treadle.domain.usage import Usage
from treadle.errors import StreamIncomplete
from treadle.models.failure import error_body, stream_failure
from treadle.models.wire.chat_calls import ChatCalls, text_of
from treadle.models.wire.chat_fields import ReasoningFields
from treadle.models.wire.chat_request import THINKING_PART
from treadle.models.wire.citations import annotations_of
from treadle.models.wire.ends import CHAT_ENDS, Ends, end_of, is_failure
from treadle.models.wire.frame_decoder import UNREADABLE, FrameDecoder, Frames
from treadle.models.wire.loose_json import (
    HalfCharacters,
    count_of,
    fields_of,
    list_of,
    read_json,
    string_of,
)

_TEXT = "text"
_REASONING = "reasoning"
_REFUSAL = "refusal"
_EXTRA = "extra_content"


class _Function(Struct):
    name: str | None = None
    arguments: str | dict[str, object] | None = None


class _ToolCall(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: object = None


class _ContentPart(Struct):
    type: str = ""
    text: str | None = None
    thinking: "str | list[_ContentPart] | None" = None


class _Delta(Struct):
    content: str | list[_ContentPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: object = None
    thinking_blocks: object = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    extra_content: object = None
    annotations: object = None


class _PromptDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _CompletionDetails(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek
    cached_tokens: int | None = None  # Moonshot
    num_cached_tokens: int | None = None  # Mistral
    cache_creation_input_tokens: int | None = None  # LiteLLM


class _Groq(Struct):
    usage: _Usage | None = None
    error: object = None


class _Choice(Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    index: int | None = 0
    usage: _Usage | None = None
    error: object = None


class _Chunk(Struct):
    id: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: object = None
    x_groq: _Groq | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class ChatDecoder(FrameDecoder):
    """Decodes one response of the Chat Completions API, whose good ends are `ends`."""

    api = "Chat Completions"

    def __init__(
        self, provider: str, used_call_ids: Iterable[str] = (), ends: Ends = CHAT_ENDS
    ) -> None:
        super().__init__(provider, used_call_ids)
        self._ends = ends
        self._calls = ChatCalls(self._demux)
        self._thought = ReasoningFields(self._demux, _REASONING, provider)
        self._choice: int | None = None
        self._end: FinishReason | None = None
        self._bad_end = ""
        self._halves: HalfCharacters | None = None
        self._annotations: list[Annotation] = []

    def _frames(self, frames: Frames, *, cut: bool = False) -> None:
        for name, data in frames:
            if self.finished:
                break
            if data.startswith(b"[DONE]"):
                self._done()
                break
            try:
                chunk = _decode_chunk(data)
            except UNREADABLE as error:
                if cut:
                    break
                chunk = self._read_loosely(name, data, error)
                if chunk is None:
                    continue
            self._chunk(chunk)
            if not chunk.choices and chunk.usage is None:
                self._raise_reported(data, name)

    def _read_loosely(self, name: bytes, data: bytes, error: Exception) -> _Chunk | None:
        """Returns what can be used of a chunk that the structs refuse; None if it is empty."""
        try:
            value = read_json(data)
        except UNREADABLE:
            value = None
        if not fields_of(value):
            self._unreadable(data, error, name)
            return None
        if self._halves is None:
            self._halves = HalfCharacters()
        return _chunk_of(value)

    def _whole(self, document: bytes) -> None:
        self._frames([(b"message", document)])
        if not self._demux.is_empty or self.stopped:
            self._finish(self._end or "stop")

    def _last(self) -> None:
        # A `finish_reason` without `[DONE]` is an end as well: some servers omit `[DONE]`.
        if self.stopped:
            self._finish(self._end or "stop")

    def _done(self) -> None:
        """Ends the response at `[DONE]`, before which some servers send no `finish_reason`."""
        if not self.stopped:
            if self._demux.is_empty:
                raise StreamIncomplete(
                    "The provider ended the stream without an answer; try again."
                )
            if self._calls.has_half_call:
                raise StreamIncomplete(
                    "The provider ended the stream in the middle of a tool call; try again."
                )
        self._finish(self._end or "stop")

    def _chunk(self, chunk: _Chunk) -> None:
        if chunk.error:
            _raise_error(chunk.error)
        for choice in chunk.choices or ():
            if choice.index != self._choice and not self._is_ours(choice.index):
                continue  # only one choice was requested
            if choice.error:
                _raise_error(choice.error)
            if choice.delta is not None:
                self._delta(choice.delta)
            elif choice.message is not None and self._demux.is_empty:
                self._delta(choice.message, is_whole=True)
            if choice.finish_reason:
                self._note_end(choice.finish_reason, choice.native_finish_reason or "")
                if choice.usage is not None:
                    self._count(choice.usage)
        if chunk.id:
            self._demux.response_id = chunk.id
        if chunk.x_groq is not None:
            self._groq(chunk.x_groq)
        if chunk.usage is not None:
            self._count(chunk.usage)

    def _groq(self, more: _Groq) -> None:
        """Reads what Groq adds to the first and the last chunk: counts, or an error."""
        if more.error:
            _raise_error({"message": more.error} if isinstance(more.error, str) else more.error)
        if more.usage is not None:
            self._count(more.usage)

    def _is_ours(self, index: int | None) -> bool:
        """Whether a choice is the one that came first; some servers do not number it 0."""
        if self._choice is None:
            self._choice = index or 0
        return (index or 0) == self._choice

    def _delta(self, delta: _Delta, *, is_whole: bool = False) -> None:
        if delta.content:
            if isinstance(delta.content, str):
                if self._halves is None:
                    self._demux.text(_TEXT, delta.content)
                else:
                    self._grow(_TEXT, delta.content)
            else:
                self._content_parts(delta.content)
        if reasoning := delta.reasoning_content or delta.reasoning:
            self._grow(_REASONING, reasoning)
            if not delta.reasoning_content:
                self._thought.came_in("reasoning")
        if delta.reasoning_details:
            self._thought.add("reasoning_details", delta.reasoning_details)
        if delta.thinking_blocks:
            self._thought.add("thinking_blocks", delta.thinking_blocks)
        if delta.refusal:
            self._grow(_REFUSAL, delta.refusal)
        for call in delta.tool_calls or ():
            self._tool_call(call, is_whole=is_whole)
        if delta.extra_content:  # the signature of a thought of Gemini
            self._demux.keep(_TEXT, {_EXTRA: delta.extra_content})
        if delta.annotations:
            self._annotations += annotations_of(delta.annotations)
            self._demux.annotate(_TEXT, [self._annotations])
        if delta.function_call is not None:  # the API before there were parallel calls
            self._tool_call(_ToolCall(function=delta.function_call), is_whole=is_whole)

    def _grow(self, kind: str, piece: str) -> None:
        if self._halves is not None:
            piece = self._halves.join(kind, piece)
        if not piece:
            return
        if kind == _TEXT:
            self._demux.text(_TEXT, piece)
        elif kind == _REASONING:
            self._demux.reasoning(_REASONING, piece)
        else:
            self._demux.refusal(_TEXT, piece)

    def _content_parts(self, parts: Sequence[_ContentPart]) -> None:
        for part in parts:
            if part.text:
                self._grow(_TEXT, part.text)
            thought = part.thinking or ""
            if not isinstance(thought, str):
                thought = "".join(piece.text or "" for piece in thought)
            if thought:
                self._grow(_REASONING, thought)
                self._thought.came_in(THINKING_PART)

    def _tool_call(self, call: _ToolCall, *, is_whole: bool) -> None:
        function = call.function or _Function()
        arguments = function.arguments
        if not isinstance(arguments, str):
            arguments = text_of(arguments)
        if self._halves is not None:
            arguments = self._halves.join(("call", call.index), arguments)
        self._calls.add(
            call.index,
            call.id or "",
            function.name or "",
            arguments,
            is_whole=is_whole,
            fields={_EXTRA: call.extra_content} if call.extra_content else None,
        )

    def _note_end(self, word: str, native: str) -> None:
        """Keeps the first end that is not "stop"; what still comes is read all the same."""
        self.stopped = True
        reason = end_of(word, self._ends)
        # OpenRouter and others translate the word of the provider behind them, failures to "stop".
        if reason == "stop" and is_failure(native) and end_of(native, self._ends) is None:
            reason, word = None, native
        if reason is None:
            self._bad_end = self._bad_end or word
        elif self._end in {None, "stop"}:
            self._end = reason

    def _finish(self, reason: FinishReason) -> None:
        for key, rest in self._halves.rest() if self._halves is not None else ():
            self._grow_by_rest(key, rest)
        if self._bad_end:
            self._end_badly(self._bad_end)
        self._calls.require_complete()
        self._thought.finish()
        self._demux.finish_all(truncated=reason != "stop")
        if not self._demux.usage.requests:
            self._demux.usage = Usage(requests=1)
        self._demux.end(reason)
        self.finished = True

    def _grow_by_rest(self, key: Hashable, rest: str) -> None:
        """Replaces half a character at the end of a text; arguments that end in one are invalid."""
        if isinstance(key, str):
            self._halves = None
            self._grow(key, rest)

    def _count(self, usage: _Usage) -> None:
        """Adopts the counts of `usage`, which are totals; an empty one never replaces another."""
        seen = self._demux.usage
        prompt = usage.prompt_tokens_details or _PromptDetails()
        completion = usage.completion_tokens_details or _CompletionDetails()
        elsewhere = usage.prompt_cache_hit_tokens or usage.cached_tokens or usage.num_cached_tokens
        written = prompt.cache_write_tokens or usage.cache_creation_input_tokens
        reasoning = count_of(completion.reasoning_tokens) or 0
        given, wrote = count_of(usage.prompt_tokens) or 0, count_of(usage.completion_tokens) or 0
        if reasoning and given + wrote + reasoning == usage.total_tokens:
            wrote += reasoning  # xAI counts them beside the answer: vercel/ai#12425
        self._demux.usage = Usage(
            input_tokens=given or seen.input_tokens,
            output_tokens=wrote or seen.output_tokens,
            cached_input_tokens=(
                count_of(prompt.cached_tokens) or count_of(elsewhere) or seen.cached_input_tokens
            ),
            reasoning_tokens=reasoning or seen.reasoning_tokens,
            requests=1,
            cache_write_tokens=count_of(written) or seen.cache_write_tokens,
        )


def _raise_error(error: object) -> None:
    """Raises the error that `error` stands for, unless it says nothing, as `{}` does."""
    fields = fields_of(error)
    if not fields or any(fields.values()):
        raise stream_failure(error_body(error))


def _chunk_of(value: object) -> _Chunk:
    fields = fields_of(value)
    groq = fields_of(fields.get("x_groq"))
    return _Chunk(
        id=string_of(fields.get("id")),
        choices=[_choice_of(fields_of(one)) for one in list_of(fields.get("choices"))],
        usage=_usage_of(fields.get("usage")),
        error=fields.get("error"),
        x_groq=_Groq(usage=_usage_of(groq.get("usage")), error=groq.get("error")),
    )


def _choice_of(fields: Mapping[str, object]) -> _Choice:
    return _Choice(
        delta=_delta_of(fields.get("delta")),
        message=_delta_of(fields.get("message")),
        finish_reason=string_of(fields.get("finish_reason")),
        native_finish_reason=string_of(fields.get("native_finish_reason")),
        index=count_of(fields.get("index")),
        usage=_usage_of(fields.get("usage")),
        error=fields.get("error"),
    )


def _delta_of(value: object) -> _Delta | None:
    fields = fields_of(value)
    if not fields:
        return None
    return _Delta(
        content=_content_of(fields.get("content")),
        reasoning_content=_raw_text(fields.get("reasoning_content")),
        reasoning=_raw_text(fields.get("reasoning")),
        reasoning_details=fields.get("reasoning_details"),
        thinking_blocks=fields.get("thinking_blocks"),
        extra_content=fields.get(_EXTRA),
        refusal=_raw_text(fields.get("refusal")),
        tool_calls=[_call_of(fields_of(one)) for one in list_of(fields.get("tool_calls"))],
        function_call=_function_of(fields.get("function_call")),
        annotations=fields.get("annotations"),
    )


def _content_of(value: object) -> str | list[_ContentPart]:
    if isinstance(value, str):
        return value
    parts: list[_ContentPart] = []
    for one in list_of(value):
        fields = fields_of(one)
        thinking = "".join(map(_raw_text, list_of(fields.get("thinking"))))
        parts.append(_ContentPart(text=_raw_text(one), thinking=thinking))
    return parts


def _raw_text(value: object) -> str:
    """Returns a text, or the text in an object; with half characters, which are joined later."""
    if isinstance(value, str):
        return value
    text = fields_of(value).get("text")
    return text if isinstance(text, str) else ""


def _call_of(fields: Mapping[str, object]) -> _ToolCall:
    return _ToolCall(
        index=count_of(fields.get("index")),
        id=string_of(fields.get("id")),
        function=_function_of(fields.get("function")),
        extra_content=fields.get(_EXTRA),
    )


def _function_of(value: object) -> _Function | None:
    fields = fields_of(value)
    if not fields:
        return None
    arguments = fields.get("arguments")
    return _Function(name=string_of(fields.get("name")), arguments=text_of(arguments))


def _usage_of(value: object) -> _Usage | None:
    fields = fields_of(value)
    if not fields:
        return None
    prompt = fields_of(fields.get("prompt_tokens_details"))
    reasoning = fields_of(fields.get("completion_tokens_details")).get("reasoning_tokens")
    return _Usage(
        **{name: count_of(fields.get(name)) for name in _COUNTS},
        prompt_tokens_details=_PromptDetails(
            count_of(prompt.get("cached_tokens")), count_of(prompt.get("cache_write_tokens"))
        ),
        completion_tokens_details=_CompletionDetails(count_of(reasoning)),
    )


_COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_cache_hit_tokens",
    "cached_tokens",
    "num_cached_tokens",
    "cache_creation_input_tokens",
)
