"""Decodes responses of the OpenAI Responses API: bytes in, model events out.

https://platform.openai.com/docs/api-reference/responses-streaming

The events of an item are redundant: its text or its arguments come as deltas, at the end of each
part, at the end of the item, and in the last event. Servers leave out any of them. What was read
counts, what was not is taken from the later ones.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Self

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from treadle.domain.events import FinishReason
from treadle.domain.hosted_tools import remote_call_name
from treadle.domain.items import (
    APPROVAL_REQUEST,
    Annotation,
    ContentPart,
    FunctionCall,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    ReasoningText,
    Refusal,
    SummaryText,
)
from treadle.domain.usage import Usage
from treadle.errors import StreamIncomplete, StreamInvalid
from treadle.models.failure import error_body, stream_failure
from treadle.models.wire.chat_calls import text_of
from treadle.models.wire.citations import annotations_of, content_annotations
from treadle.models.wire.ends import RESPONSES_ENDS, Ends, end_of
from treadle.models.wire.frame_decoder import UNREADABLE, FrameDecoder, Frames
from treadle.models.wire.hosted_calls import bounded, responses_call
from treadle.models.wire.hosted_code import HostedCode
from treadle.models.wire.loose_json import (
    HalfCharacters,
    count_of,
    fields_of,
    joined_all,
    list_of,
    read_json,
    string_of,
)
from treadle.models.wire.output_items import (
    CALL,
    MESSAGE,
    NO_INDEX,
    REASONING,
    Grow,
    OutputItem,
    OutputItems,
)
from treadle.streaming.jsonfields import is_begun_object

_TEXT_DELTA = b"response.output_text.delta"
_ARGUMENTS_DELTA = b"response.function_call_arguments.delta"
_CODE_DELTA = b"response.code_interpreter_call_code.delta"
_CODE_CALL = "code_interpreter_call"
_MAX_PENDING = 8 * 1024 * 1024


class _TextDelta(Struct, gc=False, tag="response.output_text.delta"):
    """The usual text delta; which message it grows is known from its index.

    The other fields are not read: msgspec decodes a known field faster than it skips another.
    """

    delta: str
    output_index: int = NO_INDEX
    item_id: str = ""


class _ArgumentsDelta(Struct, gc=False, tag="response.function_call_arguments.delta"):
    """The usual delta of arguments; which call it grows is known from its id."""

    delta: str
    item_id: str
    output_index: int = NO_INDEX


class _Event(Struct):
    """Any event; a field may have any type, because not every field of an event is needed."""

    type: object = None
    output_index: object = None
    item_id: object = None
    delta: object = None
    text: object = None
    refusal: object = None
    arguments: object = None
    code: object = None
    annotation: object = None
    name: object = None
    part: object = None
    content_index: object = None
    summary_index: object = None
    item: Raw = Raw()
    response: Raw = Raw()
    error: object = None

    @property
    def index(self) -> int:
        """The index of the item, `NO_INDEX` without one."""
        index = self.output_index
        return index if type(index) is int and index >= 0 else _index(index)


class _Response(Struct):
    id: object = None
    status: object = None
    incomplete_details: object = None
    error: object = None
    usage: object = None
    output: Raw = Raw()


class _Head(Struct):
    """The fields of an item that tell which one it is, and those of a call."""

    type: str = ""
    id: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    status: str = ""


class _Whole(Struct):
    """An item as the provider shows it when it has ended.

    `is_cut`: the provider says that it is incomplete. `own`: the fields that only the provider
    understands. `annotations`: the sources of each text.
    """

    kind: str
    id: str
    item: Item
    is_cut: bool = False
    own: Mapping[str, object] = {}
    annotations: Sequence[Sequence[Annotation]] = ()


_decode_text = msgspec.json.Decoder(_TextDelta).decode
_decode_arguments = msgspec.json.Decoder(_ArgumentsDelta).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_any = msgspec.json.Decoder().decode


class ResponsesDecoder(FrameDecoder):
    """Decodes one response of the Responses API, whose good ends are `ends`."""

    api = "Responses"

    def __init__(
        self,
        provider: str,
        used_call_ids: Iterable[str] = (),
        ends: Ends = RESPONSES_ENDS,
        used_containers: Iterable[str] = (),
    ) -> None:
        super().__init__(provider, used_call_ids)
        self._ends = ends
        self._items = OutputItems()
        self._ended: list[Raw] = []
        self._halves: HalfCharacters | None = None
        self._pending = 0
        self._searches = self._file_searches = 0
        self._used_containers = used_containers
        self._containers: set[str] = set()  # in which code of this response ran

    def _frames(self, frames: Frames, *, cut: bool = False) -> None:
        grow, texts = self._demux.text, self._items.texts
        extend, calls = self._demux.more_arguments, self._items.calls
        for name, data in frames:
            if self.finished:
                break
            if name == _TEXT_DELTA:  # nearly all frames are
                try:
                    delta = _decode_text(data)
                    grow(texts[delta.output_index], delta.delta)
                except (KeyError, *UNREADABLE):
                    self._frame(name, data, cut=cut)
            elif name == _ARGUMENTS_DELTA:
                try:
                    piece = _decode_arguments(data)
                    key = calls[piece.item_id]
                    if piece.delta:
                        extend(key, piece.delta)
                except (KeyError, *UNREADABLE):
                    self._frame(name, data, cut=cut)
            elif name in _HANDLED_NAMES or not name.startswith(b"response."):
                self._frame(name, data, cut=cut)

    def _whole(self, document: bytes) -> None:
        response = _response(Raw(document))
        if _list(response.output) is not None and response.status is not None:
            self._complete(response, "completed")

    def _frame(self, name: bytes, data: bytes, *, cut: bool) -> None:
        if data == b"[DONE]":
            return
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
                self._items.texts.clear()
                self._items.calls.clear()
            return event

    def _text(self, event: _Event) -> None:
        item = self._grow(MESSAGE, event, self._demux.text)
        if item is not None and self._halves is None and self._items.is_alone(item, event.index):
            self._items.texts[event.index] = item.key

    def _refusal(self, event: _Event) -> None:
        self._grow(MESSAGE, event, self._demux.refusal)

    def _reasoning(self, event: _Event) -> None:
        self._grow(REASONING, event, self._demux.reasoning)

    def _summary(self, event: _Event) -> None:
        item = self._growing(REASONING, event)
        number = _index(event.summary_index)
        if item is not None and number > item.summary_index:
            item.summary_index = number
            if self._demux.is_open(item.key):
                self._demux.reasoning(item.key, "\n\n")
        self._grow(REASONING, event, self._demux.reasoning)

    def _grow(self, kind: str, event: _Event, grow: Grow) -> OutputItem | None:
        """Reports a delta; returns its item."""
        delta = _delta(event)
        item = self._growing(kind, event) or self._add(kind, event)
        if not delta:
            return None
        if self._halves is not None:
            item.grow = grow
            delta = self._halves.join(item.key, delta)
        grow(item.key, delta, item.item_id)
        return item

    def _growing(self, kind: str, event: _Event) -> OutputItem | None:
        item = self._items.growing(kind, event.index, string_of(event.item_id))
        # What comes after the end of an item begins another one.
        return item if item is not None and item.is_growing else None

    def _add(self, kind: str, event: _Event) -> OutputItem:
        return self._placed(self._items.add(kind, event.index, string_of(event.item_id)))

    def _placed(self, item: OutputItem) -> OutputItem:
        """Returns `item`, which has its place in the response from its first event on."""
        if not item.is_placed:
            item.is_placed = True
            self._demux.reserve(item.key)
        return item

    def _arguments(self, event: _Event) -> None:
        delta = _delta(event)
        item = self._items.growing(CALL, event.index, string_of(event.item_id))
        item = item or self._add(CALL, event)
        if not delta:
            return
        if not item.is_growing:
            if delta.strip():
                raise StreamInvalid(
                    f"The provider sent more arguments for the call of {item.name!r} after its "
                    "end; report it to the provider."
                )
            return
        if self._halves is not None:
            delta = self._halves.join(item.key, delta)
        if self._demux.is_open(item.key):
            self._demux.more_arguments(item.key, delta)
            if self._halves is None and item.item_id and item.item_id == event.item_id:
                self._items.calls[item.item_id] = item.key
            return
        item.pending.append(delta)
        self._pending += len(delta)
        if self._pending > _MAX_PENDING:
            raise StreamInvalid(
                f"The provider sent {_MAX_PENDING} characters of arguments for calls that it did "
                "not name; report it to the provider."
            )

    def _arguments_done(self, event: _Event) -> None:
        arguments, item_id = text_of(event.arguments), string_of(event.item_id)
        item = self._items.growing(CALL, event.index, item_id)
        if item is None and arguments:
            item = self._add(CALL, event)
        if item is not None:
            item.arguments = arguments or item.arguments
            item.name = item.name or string_of(event.name)

    def _annotation(self, event: _Event) -> None:
        item = self._items.growing(MESSAGE, event.index, string_of(event.item_id))
        if item is None or not item.is_growing:
            return
        number = _index(event.content_index)
        before = [t for (kind, n), t in item.parts.items() if kind == "output_text" and n < number]
        for annotation in annotations_of([event.annotation], sum(map(len, before))):
            self._demux.cite(item.key, annotation)

    def _code_delta(self, event: _Event) -> None:
        delta = _delta(event)
        item = self._items.growing(_CODE_CALL, event.index, string_of(event.item_id))
        if item is None or not item.is_growing or item.hosted is None:
            return
        if self._halves is not None:
            delta = self._halves.join(item.key, delta)
        if item.code is None:
            item.code = HostedCode()
        if code := item.code.feed(delta):
            call = replace(item.hosted, arguments=code)
            self._demux.hosted(item.key, call, is_partial=True)

    def _hosted_code(self, event: _Event) -> None:
        self._hosted_arguments(_CODE_CALL, event, string_of(event.code))

    def _remote_arguments(self, event: _Event) -> None:
        self._hosted_arguments("mcp_call", event, text_of(event.arguments))

    def _hosted_arguments(self, kind: str, event: _Event, arguments: str) -> None:
        item = self._items.growing(kind, event.index, string_of(event.item_id))
        if item is not None and item.is_growing and item.hosted is not None:
            item.hosted = bounded(replace(item.hosted, arguments=arguments))
            self._demux.hosted(item.key, item.hosted)

    def _text_done(self, event: _Event) -> None:
        self._part(MESSAGE, event, "output_text", event.content_index, event.text)

    def _refusal_done(self, event: _Event) -> None:
        self._part(MESSAGE, event, "refusal", event.content_index, event.refusal)

    def _content_part_done(self, event: _Event) -> None:
        part = fields_of(event.part)
        kind = string_of(part.get("type"))
        if kind == "refusal":
            self._part(MESSAGE, event, kind, event.content_index, part.get("refusal"))
        elif kind == "output_text":
            self._part(MESSAGE, event, kind, event.content_index, part.get("text"))

    def _reasoning_done(self, event: _Event) -> None:
        self._part(REASONING, event, "reasoning_text", event.content_index, event.text)

    def _summary_done(self, event: _Event) -> None:
        text = event.text or fields_of(event.part).get("text")
        self._part(REASONING, event, "summary_text", event.summary_index, text)

    def _part(self, kind: str, event: _Event, part: str, number: object, value: object) -> None:
        """Keeps the whole text of a part, in case that its deltas were left out."""
        text, item_id = string_of(value), string_of(event.item_id)
        if not text:
            return
        item = self._items.growing(kind, event.index, item_id)
        item = item or self._add(kind, event)
        item.parts[part, max(0, _index(number))] = text

    def _item_added(self, event: _Event) -> None:
        head = _head(event.item)
        item = self._items.announced(head.type, event.index, head.id, head.call_id)
        item = self._placed(item)
        if not item.is_growing:
            return
        if head.type == CALL:
            item.name = item.name or head.name
            item.arguments = item.arguments or head.arguments
            if item.name and not self._demux.is_open(item.key):
                self._demux.call(item.key, item.call_id, item.name, item.item_id)
                if item.pending:
                    self._demux.more_arguments(item.key, "".join(item.pending))
        elif (hosted := responses_call(_fields(event.item)[0])) is not None:
            item.hosted = hosted
            self._demux.hosted(item.key, hosted)

    def _item_done(self, event: _Event) -> None:
        whole = self._read(event.item)
        item = self._placed(self._items.ended(event.index, whole.id, whole.item, whole.kind))
        if item.is_open:
            self._merge(item, whole)
            item.is_done = True
            self._ended.append(event.item)

    def _completed(self, event: _Event) -> None:
        self._complete(_response(event.response), "completed")

    def _incomplete(self, event: _Event) -> None:
        self._complete(_response(event.response), "incomplete")

    def _failed(self, event: _Event) -> None:
        self._complete(_response(event.response), "failed")

    def _merge(self, item: OutputItem, whole: _Whole) -> None:
        """Finishes `item` with the whole of it, unless it lacks something that may still come."""
        final = whole.item
        if whole.own:
            self._demux.keep(item.key, whole.own)
        if any(whole.annotations):
            self._demux.annotate(item.key, whole.annotations)
        match final:
            case Message():
                if not final.content:
                    final = replace(final, content=item.message().content)
                if not final.content and not self._demux.is_open(item.key):
                    return
            case Reasoning():
                if not final.text:
                    written = item.reasoning()
                    final = replace(final, summary=written.summary, content=written.content)
            case FunctionCall():
                final = self._merged_call(item, final, is_cut=whole.is_cut)
                if final is None:
                    return
            case _:
                pass
        self._finish(item, final)

    def _merged_call(
        self, item: OutputItem, final: FunctionCall, *, is_cut: bool
    ) -> FunctionCall | None:
        """Returns the whole call; None if it is cut off, or lacks its name or its arguments."""
        item.name = item.name or final.name
        item.call_id = item.call_id or final.call_id
        item.arguments = final.arguments or self._read_arguments(item)
        # llama.cpp calls a call complete that the token limit has cut off.
        item.is_cut = is_cut or is_begun_object(item.arguments)
        if item.is_cut or not item.name or not item.arguments:
            return None
        return replace(final, call_id=item.call_id, name=item.name, arguments=item.arguments)

    def _read_arguments(self, item: OutputItem) -> str:
        """Returns the arguments of a call as far as they were read."""
        return item.arguments or self._demux.written(item.key) or "".join(item.pending)

    def _finish(self, item: OutputItem, final: Item) -> None:
        rest = self._halves.drop(item.key) if self._halves is not None else ""
        is_written = isinstance(final, Message) and final.content
        if rest and item.grow is not None and not is_written:
            item.grow(item.key, rest, item.item_id)
        if isinstance(final, ProviderItem):
            self._count_use(final)
        self._demux.finish(item.key, final)
        self._items.close(item, final)

    def _count_use(self, item: ProviderItem) -> None:
        """Counts what is paid for each use of a hosted tool."""
        call = item.call
        if call is None:
            return
        if call.tool == "code_interpreter":
            fields = fields_of(_decode_any(item.raw))
            self._containers.add(string_of(fields.get("container_id")))
        elif call.status != "failed":
            self._searches += _is_search(item)
            self._file_searches += call.tool == "file_search"

    def _new_containers(self) -> int:
        """Returns how many containers this response began; one is used again in a conversation."""
        if not self._containers:
            return 0
        return len(self._containers.difference(self._used_containers, ("",)))

    def _complete(self, response: _Response, status: str) -> None:
        """Ends the response: fills gaps from its output, and checks that its end is a good one."""
        error = response.error
        if error and any(fields_of(error).values() or [error]):  # some servers send `{}`
            raise stream_failure(error_body(error))
        if status == "completed":
            status = string_of(response.status) or status
        reason, word = self._reason(response, status)
        self._fill(response)
        self._demux.usage = replace(
            _usage(response.usage),
            web_searches=self._searches,
            file_searches=self._file_searches,
            code_containers=self._new_containers(),
        )
        self._demux.response_id = string_of(response.id)
        self.stopped = True
        if reason is None:
            self._end_badly(word, self._finish_open)
        self._finish_open(reason)
        self._demux.end(reason)
        self.finished = True

    def _reason(self, response: _Response, status: str) -> tuple[FinishReason | None, str]:
        """Returns what the end means, None if it is not a good one, and the provider's word."""
        if status != "incomplete":
            return end_of(status, self._ends), status
        word = string_of(fields_of(response.incomplete_details).get("reason"))
        return (end_of(word, self._ends) if word else "length"), word

    def _fill(self, response: _Response) -> None:
        """Compares the output of the last event with what was read, and adds what was not."""
        output = _list(response.output) or []
        if output == self._ended and not any(item.is_open for item in self._items.all):
            return  # each item is what its own end contained
        wholes = [self._read(raw) for raw in output]
        before: int | None = None
        for item in self._items.all:
            item.written = self._written(item)
        pairs = self._items.paired([(whole.kind, whole.id, whole.item) for whole in wholes])
        for item, whole in zip(pairs, wholes, strict=False):
            if item is None:
                item = self._items.add(whole.kind, NO_INDEX, whole.id)
            if item.is_open:
                with self._demux.inserting(before):
                    self._merge(item, whole)
            if not item.is_open or self._demux.is_open(item.key):
                before = item.key

    def _written(self, item: OutputItem) -> str:
        """Returns the text or the arguments of an item as far as they were read."""
        if item.kind == CALL:
            return self._read_arguments(item)
        shown = item.final
        if not isinstance(shown, Message | Reasoning):
            shown = item.message() if item.kind == MESSAGE else item.reasoning()
        refusal = shown.refusal if isinstance(shown, Message) else ""
        return shown.text + refusal or self._demux.written(item.key)

    def _finish_open(self, reason: FinishReason | None = None) -> None:
        """Finishes what the provider did not; a call that breaks off is an error, unless all is."""
        half: OutputItem | None = None
        for item in self._items.all:
            if not item.is_open:
                continue
            if item.kind in {MESSAGE, REASONING}:
                if self._demux.is_open(item.key) or item.parts:
                    whole = item.message() if item.kind == MESSAGE else item.reasoning()
                    self._finish(item, whole)
            elif item.kind == CALL:
                item.arguments = self._read_arguments(item)
                if reason == "stop" and _may_be_made(item):
                    call = FunctionCall(item.call_id, item.name, item.arguments, item.item_id)
                    self._finish(item, call)
                else:
                    half = half or item
        if reason == "stop" and half is not None:
            raise StreamIncomplete(
                f"The provider ended the response in the middle of a call of {half.name!r}. Try "
                "again, or raise max_output_tokens."
            )
        self._demux.finish_all(truncated=True)

    def _read(self, raw: Raw) -> _Whole:
        head = _head(raw)
        kind, item_id = head.type, head.id
        if kind == CALL:
            call = FunctionCall(head.call_id, head.name, head.arguments, item_id)
            return _Whole(kind, item_id, call, head.status == "incomplete")
        fields, raw = _fields(raw)
        match kind:
            case "message":
                content = tuple(_content(fields.get("content")))
                message = Message("assistant", content, item_id)
                parts = list(map(fields_of, list_of(fields.get("content"))))
                sources = content_annotations(parts)
                return _Whole(kind, item_id, message, own=_own_fields(fields), annotations=sources)
            case "reasoning":
                return _Whole(kind, item_id, _thought(fields))
            case "mcp_approval_request":
                return _Whole(kind, item_id, _asked(fields), own={APPROVAL_REQUEST: fields})
            case "":
                raise ValueError("an item has no type")
            case _:
                item = ProviderItem(self._provider, Raw(bytes(raw)), responses_call(fields))
                return _Whole(kind, item_id, item)

    HANDLERS: ClassVar[Mapping[str, Callable[[Self, _Event], None]]] = {
        "response.output_text.delta": _text,
        "response.refusal.delta": _refusal,
        "response.reasoning_text.delta": _reasoning,
        "response.reasoning_summary_text.delta": _summary,
        "response.function_call_arguments.delta": _arguments,
        "response.function_call_arguments.done": _arguments_done,
        "response.output_text.annotation.added": _annotation,
        "response.code_interpreter_call_code.delta": _code_delta,
        "response.code_interpreter_call_code.done": _hosted_code,
        "response.mcp_call_arguments.done": _remote_arguments,
        "response.output_text.done": _text_done,
        "response.refusal.done": _refusal_done,
        "response.content_part.done": _content_part_done,
        "response.reasoning_text.done": _reasoning_done,
        "response.reasoning_summary_text.done": _summary_done,
        "response.reasoning_summary_part.done": _summary_done,
        "response.output_item.added": _item_added,
        "response.output_item.done": _item_done,
        "response.completed": _completed,
        "response.incomplete": _incomplete,
        "response.failed": _failed,
    }
    """What reads the events of each type."""


_HANDLED_NAMES = {name.encode() for name in ResponsesDecoder.HANDLERS} | {b"response.error"}


def _is_for_us(name: bytes, data: bytes) -> bool:
    """Whether an event that could not be read is one that treadle must understand."""
    if name == _CODE_DELTA:  # the event at the end of the code contains all of it
        return False
    if name in _HANDLED_NAMES or name == b"error":
        return True
    try:
        value = read_json(data)
    except UNREADABLE:
        return name == b"message"
    return fields_of(value).get("type") in ResponsesDecoder.HANDLERS


def _head(raw: Raw) -> _Head:
    try:
        return _decode_head(raw)
    except UNREADABLE:  # another form, such as null for an id, or halves of characters
        fields, _ = _fields(raw)
        names = ("type", "id", "call_id", "name", "status")
        texts = {name: string_of(fields.get(name)) for name in names}
        return _Head(**texts, arguments=text_of(fields.get("arguments")))


def _fields(raw: Raw) -> tuple[Mapping[str, object], Raw]:
    """Returns the fields of an item, and its JSON without halves of characters."""
    try:
        return fields_of(_decode_any(raw)), raw
    except UNREADABLE:
        value = joined_all(read_json(bytes(raw)))
        return fields_of(value), Raw(msgspec.json.encode(value))


def _response(raw: Raw) -> _Response:
    try:
        return _decode_response(raw)
    except UNREADABLE:
        value = read_json(bytes(raw)) if raw else None
        return _decode_response(msgspec.json.encode(joined_all(fields_of(value))))


def _list(raw: Raw) -> list[Raw] | None:
    try:
        return _decode_list(raw)
    except UNREADABLE:  # missing, or not a list
        return None


def _delta(event: _Event) -> str:
    delta = event.delta
    if delta is None:
        return ""
    if not isinstance(delta, str):
        raise ValueError(f"the delta is a {type(delta).__name__} instead of a text")
    return delta


def _index(value: object) -> int:
    count = count_of(value)
    return NO_INDEX if count is None else count


def _may_be_made(item: OutputItem) -> bool:
    """Whether a call that the provider did not finish has all that it needs."""
    if item.is_cut or not item.name or is_begun_object(item.arguments):
        return False
    return item.is_done or bool(item.arguments.strip())


def _content(value: object) -> Iterator[ContentPart]:
    for part in list_of(value):
        fields = fields_of(part)
        if fields.get("type") == "refusal":
            if refusal := string_of(fields.get("refusal")):
                yield Refusal(refusal)
        elif text := string_of(fields.get("text") if fields else part):
            yield OutputText(text)


def _own_fields(fields: Mapping[str, object]) -> Mapping[str, object]:
    """Returns the phase of a message, and a list with the annotations of each part."""
    own: dict[str, object] = {}
    if phase := fields.get("phase"):
        own["phase"] = phase
    parts = list(map(fields_of, list_of(fields.get("content"))))
    kinds = [part.get("type") for part in parts]
    if len(set(kinds)) == len(kinds) and any(part.get("annotations") for part in parts):
        own["annotations"] = [list_of(part.get("annotations")) for part in parts]
    return own


def _thought(fields: Mapping[str, object]) -> Reasoning:
    summary, content = (
        [text for part in list_of(fields.get(name)) if (text := string_of(_text_of(part)))]
        for name in ("summary", "content")
    )
    return Reasoning(
        id=string_of(fields.get("id")),
        summary=tuple(map(SummaryText, summary)),
        content=tuple(map(ReasoningText, content)),
        encrypted_content=string_of(fields.get("encrypted_content")) or None,
    )


def _asked(fields: Mapping[str, object]) -> FunctionCall:
    """Returns the call of an MCP server's tool for which the provider asks for an approval."""
    id = string_of(fields.get("id"))
    server, name = string_of(fields.get("server_label")), string_of(fields.get("name"))
    return FunctionCall(
        id, remote_call_name(server, name), text_of(fields.get("arguments")) or "{}", id
    )


def _is_search(item: ProviderItem) -> bool:
    """Whether an item is a search of the web, which is paid for, and not the reading of a page."""
    if item.call is None or item.call.tool != "web_search":
        return False
    action = fields_of(fields_of(_decode_any(item.raw)).get("action"))
    return action.get("type") in {None, "search"}


def _text_of(part: object) -> object:
    fields = fields_of(part)
    return fields.get("text") if fields else part


def _usage(value: object) -> Usage:
    usage = fields_of(value)
    details = fields_of(usage.get("input_tokens_details"))
    reasoning = fields_of(usage.get("output_tokens_details")).get("reasoning_tokens")
    return Usage(
        input_tokens=count_of(usage.get("input_tokens")) or 0,
        output_tokens=count_of(usage.get("output_tokens")) or 0,
        cached_input_tokens=count_of(details.get("cached_tokens")) or 0,
        reasoning_tokens=count_of(reasoning) or 0,
        requests=1,
        cache_write_tokens=count_of(details.get("cache_write_tokens")) or 0,
    )
