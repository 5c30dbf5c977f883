"""Splits a response into its items: text, reasoning, refusal and tool calls.

A provider's decoder calls a `Demux` for everything that arrives; the demux returns model events:
deltas as they come, and each item once, when it is finished. It assembles the items of providers
that send only deltas, detects when the arguments of a call are complete, and repairs call ids that
are missing or used twice.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.events import (
    CitationAdded,
    FinishReason,
    HostedCallProgress,
    LiveEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStarted,
)
from treadle.domain.ids import new_id
from treadle.domain.items import (
    Annotation,
    ContentPart,
    FunctionCall,
    HostedCall,
    Item,
    Message,
    OutputText,
    ProviderFields,
    ProviderItem,
    Reasoning,
    ReasoningText,
    Refusal,
    within,
)
from treadle.domain.usage import Usage
from treadle.errors import StreamInvalid
from treadle.streaming.jsonfields import JsonFieldScanner

Key = int | str

MAX_CALLS = 1024
"""The most calls of one response that are made."""

_MAX_ITEMS = 4 * MAX_CALLS
_MAX_CHARS = 64 * 1024 * 1024


class ItemFinished(Struct, frozen=True):
    """An item is complete; `index` orders it in the response.

    An item that was inserted behind another has the same index as that one, and is finished later.
    """

    index: int
    item: Item


class ResponseFinished(Struct, frozen=True):
    """The response is complete."""

    response_id: str
    finish_reason: FinishReason
    usage: Usage


StreamEvent = LiveEvent | ItemFinished | ResponseFinished


class _OpenMessage:
    """A message being written: its parts in order, each a kind and its pieces."""

    def __init__(self, index: int, item_id: str) -> None:
        self.index = index
        self.item_id = item_id
        self.kind = ""
        self.pieces: list[str] = []
        self._parts: list[tuple[str, list[str]]] = []

    def begin(self, kind: Literal["text", "refusal"]) -> None:
        self.kind, self.pieces = kind, []
        self._parts.append((kind, self.pieces))

    def item(self) -> Message:
        content: list[ContentPart] = [
            OutputText("".join(pieces)) if kind == "text" else Refusal("".join(pieces))
            for kind, pieces in self._parts
        ]
        return Message("assistant", tuple(content), self.item_id)


class _OpenReasoning:
    """Reasoning being written: its text, or the paragraphs of its summary."""

    def __init__(self, index: int, item_id: str) -> None:
        self.index = index
        self.item_id = item_id
        self.pieces: list[str] = []

    def item(self, provider: str) -> Reasoning:
        return Reasoning(
            id=self.item_id, content=(ReasoningText("".join(self.pieces)),), provider=provider
        )


class _OpenCall:
    """A tool call being written; most APIs say when it ends, so it is scanned only when asked."""

    def __init__(self, index: int, item_id: str, call_id: str, name: str) -> None:
        self.index = index
        self.item_id = item_id
        self.call_id = call_id
        self.name = name
        self.pieces: list[str] = []
        self._scanner: JsonFieldScanner | None = None
        self._scanned = 0
        self._is_too_much = False

    def is_whole(self) -> bool:
        """Whether the JSON object of the arguments has closed and has members."""
        if self._is_too_much:
            return False
        scanner = self._scanner = self._scanner or JsonFieldScanner()
        pieces, self._scanned = self.pieces[self._scanned :], len(self.pieces)
        try:
            for piece in pieces:
                scanner.feed(piece)
        except StreamInvalid:
            # Too long, or nested too deeply: the model reads that as the output of the call.
            self._is_too_much = True
            return False
        return scanner.complete and not scanner.empty

    def item(self) -> FunctionCall:
        return FunctionCall(self.call_id, self.name, "".join(self.pieces), self.item_id)

    def merged(self, final: FunctionCall) -> FunctionCall:
        """Returns `final` with what the events before it said, where they said more."""
        arguments = final.arguments
        if not arguments or (arguments == "{}" and (self.is_whole() or self._is_too_much)):
            arguments = "".join(self.pieces)
        name = self.name or final.name
        return replace(final, call_id=self.call_id, name=name, arguments=arguments, id=self.item_id)


class _ExtraCall:
    """A call beyond the most that are kept; nothing of it is."""


_Open = _OpenMessage | _OpenReasoning | _OpenCall | _ExtraCall
_OPEN_AS: dict[type[object], tuple[type[_Open], ...]] = {
    Message: (_OpenMessage,),
    Reasoning: (_OpenReasoning,),
    FunctionCall: (_OpenCall, _ExtraCall),
}


class Demux:
    """Assembles one response of `provider`.

    `used_call_ids` are those of the conversation so far: a call that repeats one gets a new id.
    Keys name the items of the response in the decoder's own terms, such as an output index. What
    arrives for the key of a finished item begins another item, and what is of another kind than
    the open item of its key finishes that one: nothing that was read is overwritten.

    Of more than `MAX_CALLS` calls only one more is kept, which the loop refuses. Events collect in
    `events` until the decoder takes them with `take`. Raises `StreamInvalid` beyond 4,096 items or
    64 Mi characters.
    """

    def __init__(self, provider: str, used_call_ids: Iterable[str] = ()) -> None:
        self._provider = provider
        self._used_before = used_call_ids
        self._used: set[str] | None = None  # computed at the first call: most responses have none
        self._open: dict[Key, _Open] = {}
        self._closed: dict[Key, int] = {}
        self._reserved: dict[Key, int] = {}
        self._indices = 0
        self._inserted_at: int | None = None
        self._calls = 0
        self._chars = 0
        self._fields: dict[Key, dict[str, object]] = {}
        self._annotations: dict[Key, Sequence[Sequence[Annotation]]] = {}
        self._hosted: dict[Key, HostedCallProgress] = {}
        self._hosted_ids: dict[Key, str] = {}  # by the id of the provider, or the key without one
        self.usage = Usage()
        self.response_id = ""
        self.events: list[StreamEvent] = []

    def take(self) -> list[StreamEvent]:
        """Returns the events collected since the last call."""
        events, self.events = self.events, []
        return events

    def reserve(self, key: Key) -> None:
        """The item `key` was announced: what comes of it is placed before what is announced later.

        Without it, an item is placed where its first delta comes.
        """
        self._reserved[key] = self._new_index(key)

    def text(self, key: Key, delta: str, item_id: str = "") -> None:
        """The text of message `key` grows by `delta`."""
        message = self._open.get(key)
        if type(message) is not _OpenMessage:
            message = self._open_message(key, item_id)
        if message.kind != "text":
            message.begin("text")
        message.pieces.append(delta)
        self._chars += len(delta)
        if self._chars > _MAX_CHARS:
            raise _too_long()
        self.events.append(TextDelta(message.item_id, delta))

    def refusal(self, key: Key, delta: str, item_id: str = "") -> None:
        """The refusal in message `key` grows by `delta`."""
        message = self._open_message(key, item_id)
        if message.kind != "refusal":
            message.begin("refusal")
        message.pieces.append(delta)
        self._count(delta)
        self.events.append(RefusalDelta(message.item_id, delta))

    def reasoning(self, key: Key, delta: str, item_id: str = "") -> None:
        """The reasoning `key` grows by `delta`."""
        entry = self._open.get(key)
        if not isinstance(entry, _OpenReasoning):
            entry = _OpenReasoning(self._new_index(key), item_id or new_id("rs"))
            self._open[key] = entry
        entry.pieces.append(delta)
        self._count(delta)
        self.events.append(ReasoningDelta(entry.item_id, delta))

    def call(self, key: Key, call_id: str, name: str, item_id: str = "") -> None:
        """The tool call `key` begins."""
        self._calls += 1
        if self._calls > MAX_CALLS + 1:
            self._finish_open(key)
            self._closed.pop(key, None)
            self._open[key] = _ExtraCall()
            self._count(name)
            return
        entry = _OpenCall(
            self._new_index(key), item_id or new_id("fc"), self._unused(call_id), name
        )
        self._open[key] = entry
        self.events.append(ToolCallStarted(entry.item_id, entry.call_id, name))

    def arguments(self, key: Key, delta: str) -> bool:
        """The arguments of call `key` grow by `delta`.

        Returns whether they are complete now: a JSON object with members has closed. An empty
        object does not count as complete, because some servers send `{}` before the real one.
        """
        self.more_arguments(key, delta)
        entry = self._open.get(key)
        return type(entry) is _OpenCall and entry.is_whole()

    def more_arguments(self, key: Key, delta: str) -> None:
        """The same for an API that says when a call ends: the arguments are not scanned."""
        entry = self._open.get(key)
        if type(entry) is not _OpenCall:
            self._other_arguments(key, delta)
            return
        entry.pieces.append(delta)
        self._chars += len(delta)
        if self._chars > _MAX_CHARS:
            raise _too_long()
        self.events.append(ToolArgumentsDelta(entry.item_id, entry.call_id, delta))

    def written(self, key: Key) -> str:
        """Returns what was read of the open item `key`: its text and refusal, or its arguments."""
        entry = self._open.get(key)
        if isinstance(entry, _OpenMessage):
            message = entry.item()
            return message.text + message.refusal
        return "" if entry is None or isinstance(entry, _ExtraCall) else "".join(entry.pieces)

    def keep(self, key: Key, fields: Mapping[str, object]) -> None:
        """Keeps fields of item `key` that only its provider understands; see `ProviderFields`."""
        self._fields.setdefault(key, {}).update(fields)

    def hosted(self, key: Key, call: HostedCall, *, is_partial: bool = False) -> None:
        """The hosted call `key` began, or more of it is known than in the event before.

        With `is_partial`, the model still writes its arguments.

        A call without an id, or with one that was used, gets a new one; a call and its result have
        the same.
        """
        call = self._identified(key, call)
        event = HostedCallProgress(call, is_partial)
        before = self._hosted.get(key)
        if before == event or key in self._closed:
            return
        self._hosted[key] = event
        known = 0 if before is None else len(before.call.arguments)
        self._count(call.arguments[known:])
        self.events.append(event)

    def cite(self, key: Key, annotation: Annotation) -> None:
        """The text of message `key` has a source; `annotate` keeps all of them.

        Its places are moved into the text that was sent so far, unless it comes before the text.
        """
        message = self._open_message(key, "")
        if message.kind == "text":
            annotation = within(annotation, sum(map(len, message.pieces)))
        self.events.append(CitationAdded(message.item_id, annotation))

    def annotate(self, key: Key, texts: Sequence[Sequence[Annotation]]) -> None:
        """Keeps the sources of the texts of message `key`, in their order."""
        self._annotations[key] = texts

    def finish(self, key: Key, final: Item | None = None) -> None:
        """The item `key` is complete; `final` is the provider's own version of it, if it sends one.

        Streamed deltas are never taken back. If `final` continues after them, the rest is sent as
        one more delta; if it differs, the deltas are kept, because a person has read them.
        """
        if key in self._closed:
            return
        self._make_room(key, final)
        match final:
            case Message():
                item = self._final_message(key, final)
            case FunctionCall():
                item = self._final_call(key, final)
            case Reasoning():
                item = self._final_reasoning(key, final)
            case ProviderItem(call=HostedCall() as call):
                call = self._identified(key, call)
                if call.status != "in_progress":
                    self._hosted_ids.pop(final.id or key, None)
                item = replace(final, call=call)
                self._chars += len(bytes(final.raw))
                self._count("")
            case ProviderItem():
                item = final
                self._chars += len(bytes(final.raw))
                self._count("")
            case _:
                item = final
        entry = self._open.get(key)
        if isinstance(entry, _ExtraCall):
            self.drop(key)
            return
        if item is None and entry is not None:
            item = entry.item(self._provider) if isinstance(entry, _OpenReasoning) else entry.item()
        index = entry.index if entry is not None else self._new_index(key)
        self._open.pop(key, None)
        self._closed[key] = index
        if item is not None and not (isinstance(item, Message) and not item.content):
            if key in self._fields and isinstance(item, Message | Reasoning | FunctionCall):
                fields = ProviderFields(self._provider, self._fields.pop(key))
                item = replace(item, provider_fields=fields)
            if key in self._annotations and isinstance(item, Message):
                item = _annotated(item, self._annotations.pop(key))
            self.events.append(ItemFinished(index, item))

    @contextmanager
    def inserting(self, after: Key | None) -> Generator[None]:
        """Items that begin in this context are placed behind item `after`, first if it is None."""
        place = -1 if after is None else self._place(after)
        # What follows the last item needs no place of its own.
        self._inserted_at = None if place == self._indices - 1 else place
        try:
            yield
        finally:
            self._inserted_at = None

    def finish_all(self, *, truncated: bool) -> None:
        """Finishes every open item; a truncated response drops the calls still open."""
        for key, entry in list(self._open.items()):
            if truncated and isinstance(entry, _OpenCall):
                self.drop(key)
            else:
                self.finish(key)

    def drop(self, key: Key) -> None:
        """Forgets the item `key`, which will never be complete."""
        self._closed[key] = self._place(key)
        self._open.pop(key, None)

    def end(self, finish_reason: FinishReason) -> None:
        """The response is complete."""
        self.events.append(ResponseFinished(self.response_id, finish_reason, self.usage))

    @property
    def is_empty(self) -> bool:
        """Whether the response has no item so far."""
        return not self._indices

    def is_open(self, key: Key) -> bool:
        """Whether item `key` has begun and not ended."""
        return key in self._open

    def _place(self, key: Key) -> int:
        """Returns the index of item `key`, or that of the last item if it has none."""
        entry = self._open.get(key)
        if entry is None or isinstance(entry, _ExtraCall):
            return self._closed.get(key, self._reserved.get(key, self._indices - 1))
        return entry.index

    def _open_message(self, key: Key, item_id: str) -> _OpenMessage:
        entry = self._open.get(key)
        if isinstance(entry, _OpenMessage):
            return entry
        message = _OpenMessage(self._new_index(key), item_id or new_id("msg"))
        self._open[key] = message
        return message

    def _final_message(self, key: Key, final: Message) -> Message:
        if not final.content and key not in self._open:
            return final
        message = self._open_message(key, final.id)
        streamed = message.item()
        for kind, seen, full in (
            ("text", streamed.text, final.text),
            ("refusal", streamed.refusal, final.refusal),
        ):
            if len(full) > len(seen) and full.startswith(seen):
                grow = self.text if kind == "text" else self.refusal
                grow(key, full[len(seen) :])
        written = message.item()
        return replace(final, content=written.content, id=written.id)

    def _final_call(self, key: Key, final: FunctionCall) -> FunctionCall | None:
        entry = self._open.get(key)
        if not isinstance(entry, _OpenCall | _ExtraCall):
            self.call(key, final.call_id, final.name, final.id)
            entry = self._open[key]
        if not isinstance(entry, _OpenCall):
            return None
        seen = "".join(entry.pieces)
        if final.arguments.startswith(seen) and len(final.arguments) > len(seen):
            self.more_arguments(key, final.arguments[len(seen) :])
        return entry.merged(final)

    def _final_reasoning(self, key: Key, final: Reasoning) -> Reasoning:
        entry = self._open.get(key)
        if not isinstance(entry, _OpenReasoning):
            entry = None
        seen = "".join(entry.pieces) if entry is not None else ""
        if len(final.text) > len(seen) and final.text.startswith(seen):
            self.reasoning(key, final.text[len(seen) :], final.id)
        entry = self._open.get(key)
        if not isinstance(entry, _OpenReasoning):
            return replace(final, id=final.id or new_id("rs"), provider=self._provider)
        content = final.content if final.text else (ReasoningText("".join(entry.pieces)),)
        return replace(
            final, id=final.id or entry.item_id, content=content, provider=self._provider
        )

    def _other_arguments(self, key: Key, delta: str) -> None:
        """Handles arguments of a call that is finished, was not kept, or never began."""
        if isinstance(self._open.get(key), _ExtraCall):
            self._count(delta)
            return
        if key in self._closed and not delta.strip():
            return
        raise StreamInvalid(
            "The provider sent arguments for a call that is not open, so the rest of the response "
            "was not read. Report it to the provider."
        )

    def _unused(self, call_id: str) -> str:
        if self._used is None:
            self._used = set(self._used_before)
        if not call_id or call_id in self._used:
            call_id = new_id("call")
        self._used.add(call_id)
        return call_id

    def _identified(self, key: Key, call: HostedCall) -> HostedCall:
        name = call.call_id or key
        id = self._hosted_ids.get(name)
        if id is None:
            id = self._hosted_ids[name] = self._unused(call.call_id)
        return call if id == call.call_id else replace(call, call_id=id)

    def _new_index(self, key: Key) -> int:
        """Returns the index of a new item at `key`; an item that is open there is finished."""
        self._finish_open(key)
        self._closed.pop(key, None)
        if key in self._reserved:
            return self._reserved.pop(key)
        if self._inserted_at is not None:
            return self._inserted_at
        if self._indices >= _MAX_ITEMS:
            raise StreamInvalid(
                f"The response has more than {_MAX_ITEMS} items, so the rest of it was not read. "
                "Limit it with max_output_tokens, or report it to the provider."
            )
        self._indices += 1
        return self._indices - 1

    def _finish_open(self, key: Key) -> None:
        if key in self._open:
            self.finish(key)

    def _make_room(self, key: Key, final: Item | None) -> None:
        """Finishes what is open at `key` if it is of another kind than `final`."""
        entry = self._open.get(key)
        if entry is None or final is None or isinstance(entry, _OPEN_AS.get(type(final), ())):
            return
        self.finish(key)
        del self._closed[key]

    def _count(self, delta: str) -> None:
        self._chars += len(delta)
        if self._chars > _MAX_CHARS:
            raise _too_long()


def _annotated(message: Message, texts: Sequence[Sequence[Annotation]]) -> Message:
    left = iter(texts)
    content = [
        OutputText(part.text, tuple(next(left, ()))) if isinstance(part, OutputText) else part
        for part in message.content
    ]
    return replace(message, content=tuple(content))


def _too_long() -> StreamInvalid:
    return StreamInvalid(
        f"The response exceeds {_MAX_CHARS} characters; limit it with max_output_tokens."
    )
