"""Decodes responses of the Gemini API: bytes in, model events out.

https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse

Each frame has some parts of the response: pieces of text and of thoughts, and whole calls. The
frame with the finish reason is the last one with content, and the stream has no terminal event. A
signature of a thought stands in the part that it belongs to, or in an empty one at the end.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from treadle.domain.events import FinishReason
from treadle.domain.ids import new_id
from treadle.domain.items import Annotation, HostedCall, ProviderItem, Reasoning
from treadle.domain.usage import Usage
from treadle.errors import StreamInvalid
from treadle.models.wire.citations import grounding_annotations
from treadle.models.wire.ends import GEMINI_ENDS, Ends, end_of
from treadle.models.wire.frame_decoder import UNREADABLE, FrameDecoder, Frames
from treadle.models.wire.gemini_contents import SIGNATURE, SIGNATURES, WIRE_ID
from treadle.models.wire.hosted_calls import gemini_pages, gemini_part, gemini_search
from treadle.models.wire.loose_json import (
    HalfCharacters,
    count_of,
    fields_of,
    joined_all,
    list_of,
    read_json,
    string_of,
)

_HOSTED = (
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
    "inlineData",
    "fileData",
)
_NO_REASON = {"", "FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED"}


class _Call(Struct):
    name: str | None = None
    args: Raw = Raw()
    id: str | None = None


class _Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None
    executable_code: object = None
    code_execution_result: object = None
    tool_call: object = None
    tool_response: object = None
    inline_data: object = None
    file_data: object = None


class _Content(Struct):
    parts: list[_Part] | None = None


class _Candidate(Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: object = None
    index: int | None = 0
    grounding_metadata: object = None
    citation_metadata: object = None
    url_context_metadata: object = None


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: object = None


class _Usage(Struct, rename="camel"):
    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class _Chunk(Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    response_id: str | None = None
    error: object = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class GeminiDecoder(FrameDecoder):
    """Decodes one response of the Gemini API, whose good ends are `ends`.

    `names` are the names of tools by their names on the wire, where they differ. With
    `is_search_per_response`, all searches of a response are paid for as one.
    """

    api = "Gemini"

    def __init__(
        self,
        provider: str,
        used_call_ids: Iterable[str] = (),
        ends: Ends = GEMINI_ENDS,
        names: Mapping[str, str] | None = None,
        *,
        is_search_per_response: bool = False,
    ) -> None:
        super().__init__(provider, used_call_ids)
        self._ends = ends
        self._names = names or {}
        self._is_search_per_response = is_search_per_response
        self._key = 0
        self._kind = ""  # of the open item: text, thought, or none
        self._length = 0  # of its text so far
        self._signed: list[list[object]] = []  # [start, end, signature]
        self._signature = ""
        self._annotations: list[Annotation] = []
        self._hosted: dict[str, HostedCall] = {}  # calls of hosted tools by their ids
        self._code_id = new_id("call")  # of code without an id
        self._grounding: Mapping[str, object] = {}
        self._pages: Mapping[str, object] = {}
        self._end: FinishReason | None = None
        self._bad_end = ""
        self._finish_message = ""
        self._halves: HalfCharacters | None = None

    def _frames(self, frames: Frames, *, cut: bool = False) -> None:
        for name, data in frames:
            if data.startswith(b"[DONE]"):  # of gateways
                continue
            try:
                chunk = _decode_chunk(data)
            except UNREADABLE as error:
                if cut:
                    break
                chunk = self._read_loosely(name, data, error)
                if chunk is None:
                    continue
            if chunk.error or not (chunk.candidates or chunk.prompt_feedback):
                self._raise_reported(data, name)
            self._chunk(chunk)

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
        return _chunk_of(fields_of(value))

    def _whole(self, document: bytes) -> None:
        self._frames([(b"message", document)])
        self._last()

    def _last(self) -> None:
        if self.stopped:
            self._finish()

    def _chunk(self, chunk: _Chunk) -> None:
        for candidate in chunk.candidates or ():
            if candidate.index:
                continue  # only one candidate was requested
            if candidate.content is not None:
                for part in candidate.content.parts or ():
                    self._part(part)
            self._cite(candidate)
            if (word := candidate.finish_reason or "") not in _NO_REASON:
                self._note_end(word, string_of(candidate.finish_message))
        if chunk.response_id:
            self._demux.response_id = chunk.response_id
        if chunk.usage_metadata is not None:
            self._count(chunk.usage_metadata)
        feedback = chunk.prompt_feedback
        if feedback is not None and (word := feedback.block_reason or "") not in _NO_REASON:
            said = string_of(feedback.block_reason_message)
            self.stopped = True
            self._end = "content_filter"
            self._finish_message = said or f"The provider blocked the prompt: {word[:100]}."

    def _part(self, part: _Part) -> None:
        signature = part.thought_signature or ""
        if part.function_call is not None:
            self._call(part.function_call, signature)
        elif part.text or not (hosted := _hosted(part)):
            self._grow("thought" if part.thought else "text", part.text or "", signature)
        else:
            if signature:
                hosted["thoughtSignature"] = signature
            self._close()
            self._host(hosted)

    def _host(self, fields: Mapping[str, object]) -> None:
        """Adds the item of a part, or of metadata, that only the provider understands."""
        clean = fields_of(joined_all(dict(fields)))
        key, call = self._next(), gemini_part(clean, self._code_id, self._hosted)
        if call is not None:
            self._hosted[call.call_id] = call
            if call.status == "in_progress":
                self._demux.hosted(key, call)
            else:
                self._code_id = new_id("call")
        raw = Raw(msgspec.json.encode(clean))
        self._demux.finish(key, ProviderItem(self._provider, raw, call))

    def _tell(self) -> None:
        """Adds what the metadata of the response tells of searches and pages."""
        tools = {call.tool for call in self._hosted.values()}
        for name, value, read in (
            ("groundingMetadata", self._grounding, gemini_search),
            ("urlContextMetadata", self._pages, gemini_pages),
        ):
            call = read(value, new_id("call"))
            if call is not None and call.tool not in tools:
                raw = Raw(msgspec.json.encode(joined_all({name: value})))
                self._demux.finish(self._next(), ProviderItem(self._provider, raw, call))

    def _call(self, call: _Call, signature: str) -> None:
        self._close()
        if not call.name:
            raise StreamInvalid("The provider sent a call without a name; report it to Google.")
        key = self._next()
        self._demux.call(key, call.id or "", self._names.get(call.name, call.name))
        fields = {SIGNATURE: signature, WIRE_ID: call.id or ""}
        if any(fields.values()):
            self._demux.keep(key, {name: value for name, value in fields.items() if value})
        arguments = bytes(call.args).decode()
        self._demux.arguments(key, "{}" if arguments in {"", "null"} else arguments)
        self._demux.finish(key)

    def _grow(self, kind: str, text: str, signature: str) -> None:
        """Adds to the open item, or begins another one if that is of another kind."""
        if not text:
            if signature:
                self._sign(signature)
            return
        if self._kind != kind:
            self._close()
            self._kind = kind
            self._next()
        if self._halves is not None:
            text = self._halves.join(self._key, text)
        start = self._length
        self._length += len(text)
        if kind == "thought":
            self._signature = signature or self._signature
            if text:
                self._demux.reasoning(self._key, text)
            return
        if signature:
            self._signed.append([start, self._length, signature])
        if text:
            self._demux.text(self._key, text)

    def _sign(self, signature: str) -> None:
        """Keeps a signature without a text: of the open item, or on its own."""
        if self._kind == "text":
            self._signed.append([self._length, self._length, signature])
        elif self._kind == "thought":
            self._signature = signature
        else:
            self._demux.finish(self._next(), Reasoning(encrypted_content=signature))

    def _close(self) -> None:
        """Finishes the open item."""
        kind, self._kind = self._kind, ""
        if not kind:
            return
        rest = self._halves.drop(self._key) if self._halves is not None else ""
        if kind == "thought":
            if rest:
                self._demux.reasoning(self._key, rest)
            self._demux.finish(self._key, Reasoning(encrypted_content=self._signature or None))
        else:
            if rest:
                self._demux.text(self._key, rest)
            if self._signed:
                self._demux.keep(self._key, {SIGNATURES: self._signed})
            if self._annotations:
                self._demux.annotate(self._key, [self._annotations])
            self._demux.finish(self._key)
        self._length, self._signed, self._signature, self._annotations = 0, [], "", []

    def _next(self) -> int:
        self._key += 1
        return self._key

    def _cite(self, candidate: _Candidate) -> None:
        """Keeps the sources of the open text."""
        self._grounding = fields_of(candidate.grounding_metadata) or self._grounding
        self._pages = fields_of(candidate.url_context_metadata) or self._pages
        if self._kind == "text" and (candidate.grounding_metadata or candidate.citation_metadata):
            found = grounding_annotations(
                candidate.grounding_metadata,
                candidate.citation_metadata,
                self._demux.written(self._key),
            )
            self._annotations += found
            for annotation in found:
                self._demux.cite(self._key, annotation)

    def _note_end(self, word: str, message: str) -> None:
        self.stopped = True
        reason = end_of(word, self._ends)
        if reason is None:
            self._bad_end = self._bad_end or word
        else:
            self._end = reason
        self._finish_message = message or self._finish_message

    def _finish(self) -> None:
        if self._bad_end:
            self._end_badly(self._bad_end, self._close)
        reason = self._end or "stop"
        self._close()
        self._tell()
        if reason == "content_filter" and self._finish_message:
            self._demux.refusal(self._next(), self._finish_message)
        self._demux.finish_all(truncated=reason != "stop")
        if not self._demux.usage.requests:
            self._demux.usage = Usage(requests=1)
        if searches := self._searches():
            self._demux.usage = replace(self._demux.usage, web_searches=searches)
        self._demux.end(reason)
        self.finished = True

    def _searches(self) -> int:
        """Returns the searches of the web that are paid for, as calls or as metadata tell them."""
        told = ("webSearchQueries", "imageSearchQueries")
        found = sum(len(list_of(self._grounding.get(name))) for name in told)
        called = (call for call in self._hosted.values() if call.tool == "web_search")
        count = max(found, sum(len(call.arguments.splitlines()) for call in called))
        return min(count, 1) if self._is_search_per_response else count

    def _count(self, usage: _Usage) -> None:
        """Adopts the counts of `usage`, which are totals; an empty one never replaces another."""
        seen = self._demux.usage
        prompt = (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0)
        thoughts = usage.thoughts_token_count or 0
        # Thoughts are not part of the candidates, but are paid for as output.
        written = (usage.candidates_token_count or 0) + thoughts
        self._demux.usage = Usage(
            input_tokens=prompt or seen.input_tokens,
            output_tokens=written or seen.output_tokens,
            cached_input_tokens=usage.cached_content_token_count or seen.cached_input_tokens,
            reasoning_tokens=thoughts or seen.reasoning_tokens,
            requests=1,
        )


def _hosted(part: _Part) -> dict[str, object]:
    """Returns the fields of a part that only the provider understands."""
    values = (
        part.executable_code,
        part.code_execution_result,
        part.tool_call,
        part.tool_response,
        part.inline_data,
        part.file_data,
    )
    return {name: one for name, one in zip(_HOSTED, values, strict=True) if one is not None}


def _chunk_of(fields: Mapping[str, object]) -> _Chunk:
    feedback = fields_of(fields.get("promptFeedback"))
    usage = fields_of(fields.get("usageMetadata"))
    return _Chunk(
        candidates=[_candidate_of(fields_of(one)) for one in list_of(fields.get("candidates"))],
        prompt_feedback=_Feedback(
            string_of(feedback.get("blockReason")), feedback.get("blockReasonMessage")
        )
        if feedback
        else None,
        usage_metadata=_Usage(*(count_of(usage.get(name)) for name in _COUNTS)) if usage else None,
        response_id=string_of(fields.get("responseId")),
        error=fields.get("error"),
    )


_COUNTS = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "cachedContentTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
)


def _candidate_of(fields: Mapping[str, object]) -> _Candidate:
    parts: Sequence[object] = list_of(fields_of(fields.get("content")).get("parts"))
    return _Candidate(
        content=_Content([_part_of(fields_of(part)) for part in parts]),
        finish_reason=string_of(fields.get("finishReason")),
        finish_message=fields.get("finishMessage"),
        index=count_of(fields.get("index")),
        grounding_metadata=fields.get("groundingMetadata"),
        citation_metadata=fields.get("citationMetadata"),
        url_context_metadata=fields.get("urlContextMetadata"),
    )


def _part_of(fields: Mapping[str, object]) -> _Part:
    text = fields.get("text")
    call = fields_of(fields.get("functionCall"))
    arguments = msgspec.json.encode(joined_all(call.get("args"))) if call.get("args") else b""
    name, wire_id = string_of(call.get("name")), string_of(call.get("id"))
    return _Part(
        text=text if isinstance(text, str) else None,  # with halves of characters
        thought=fields.get("thought") is True,
        thought_signature=string_of(fields.get("thoughtSignature")),
        function_call=_Call(name, Raw(arguments), wire_id) if call else None,
        executable_code=fields.get("executableCode"),
        code_execution_result=fields.get("codeExecutionResult"),
        tool_call=fields.get("toolCall"),
        tool_response=fields.get("toolResponse"),
        inline_data=fields.get("inlineData"),
        file_data=fields.get("fileData"),
    )
