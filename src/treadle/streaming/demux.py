"""Splits a response into its items: text, reasoning, refusal and tool calls.

A provider's decoder calls a `Demux` for everything that arrives; the demux returns model events:
deltas as they come, and each item once, when it is finished. It assembles the items of providers
that send only deltas, detects when the arguments of a call are complete, and repairs call ids that
are missing or used twice.
"""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from treadle.domain.events import (
    FinishReason,
    LiveEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallStarted,
)
from treadle.domain.ids import new_id
from treadle.domain.items import (
    ContentPart,
    FunctionCall,
    Item,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    Refusal,
)
from treadle.domain.usage import Usage
from treadle.errors import StreamInvalid
from treadle.streaming.jsonfields import JsonFieldScanner

Key = int | str

_MAX_ITEMS = 1024
_MAX_CHARS = 64 * 1024 * 1024


class ItemFinished(Struct, frozen=True):
    """An item is complete; `index` is its place in the response."""

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
    """A tool call being written."""

    def __init__(self, index: int, item_id: str, call_id: str, name: str) -> None:
        self.index = index
        self.item_id = item_id
        self.call_id = call_id
        self.name = name
        self.pieces: list[str] = []
        self.scanner = JsonFieldScanner()

    def item(self) -> FunctionCall:
        return FunctionCall(self.call_id, self.name, "".join(self.pieces), self.item_id)


class Demux:
    """Assembles one response of `provider`.

    `used_call_ids` are those of the conversation so far: a call that repeats one gets a new id.
    Keys name the items of the response in the decoder's own terms, such as an output index.
    Events collect in `events` until the decoder takes them with `take`.
    Raises `StreamInvalid` beyond 1,024 items or 64 Mi characters.
    """

    def __init__(self, provider: str, used_call_ids: Iterable[str] = ()) -> None:
        self._provider = provider
        self._used_before = used_call_ids
        self._used: set[str] | None = None  # computed at the first call: most responses have none
        self._open: dict[Key, _OpenMessage | _OpenReasoning | _OpenCall] = {}
        self._closed: set[Key] = set()
        self._indices = 0
        self._chars = 0
        self.usage = Usage()
        self.response_id = ""
        self.events: list[StreamEvent] = []

    def take(self) -> list[StreamEvent]:
        """Returns the events collected since the last call."""
        events, self.events = self.events, []
        return events

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
        entry = self._open.get(key)
        if not isinstance(entry, _OpenCall):
            if key in self._closed and not delta.strip():
                return False
            raise StreamInvalid(
                "The provider sent arguments for a call that is not open; this response was "
                "dropped. Report it to the provider."
            )
        entry.pieces.append(delta)
        self._count(delta)
        entry.scanner.feed(delta)
        self.events.append(ToolArgumentsDelta(entry.item_id, entry.call_id, delta))
        return entry.scanner.complete and not entry.scanner.empty

    def finish(self, key: Key, final: Item | None = None) -> None:
        """The item `key` is complete; `final` is the provider's own version of it, if it sends one.

        Streamed deltas are never taken back. If `final` continues after them, the rest is sent as
        one more delta; if it differs, the deltas are kept, because a person has read them.
        """
        if key in self._closed:
            return
        match final:
            case Message():
                item = self._final_message(key, final)
            case FunctionCall():
                item = self._final_call(key, final)
            case Reasoning():
                item = self._final_reasoning(key, final)
            case _:
                item = final
        entry = self._open.pop(key, None)
        index = entry.index if entry is not None else self._new_index(key)
        if item is None and entry is not None:
            item = entry.item(self._provider) if isinstance(entry, _OpenReasoning) else entry.item()
        self._closed.add(key)
        if item is not None:
            self.events.append(ItemFinished(index, item))

    def finish_all(self, *, truncated: bool) -> None:
        """Finishes every open item; a truncated response drops the calls still open."""
        for key, entry in list(self._open.items()):
            if truncated and isinstance(entry, _OpenCall):
                self.drop(key)
            else:
                self.finish(key)

    def drop(self, key: Key) -> None:
        """Forgets the item `key`, which will never be complete."""
        self._open.pop(key, None)
        self._closed.add(key)

    def end(self, finish_reason: FinishReason) -> None:
        """The response is complete."""
        self.events.append(ResponseFinished(self.response_id, finish_reason, self.usage))

    def is_open(self, key: Key) -> bool:
        """Whether item `key` has begun and not ended."""
        return key in self._open

    def _open_message(self, key: Key, item_id: str) -> _OpenMessage:
        entry = self._open.get(key)
        if isinstance(entry, _OpenMessage):
            return entry
        message = _OpenMessage(self._new_index(key), item_id or new_id("msg"))
        self._open[key] = message
        return message

    def _final_message(self, key: Key, final: Message) -> Message:
        message = self._open_message(key, final.id)
        streamed = message.item()
        for kind, seen, full in (
            ("text", streamed.text, final.text),
            ("refusal", streamed.refusal, final.refusal),
        ):
            if len(full) > len(seen) and full.startswith(seen):
                grow = self.text if kind == "text" else self.refusal
                grow(key, full[len(seen) :])
        return message.item()

    def _final_call(self, key: Key, final: FunctionCall) -> FunctionCall:
        entry = self._open.get(key)
        if not isinstance(entry, _OpenCall):
            self.call(key, final.call_id, final.name, final.id)
            entry = self._open[key]
            assert isinstance(entry, _OpenCall)
        seen = "".join(entry.pieces)
        if final.arguments.startswith(seen) and len(final.arguments) > len(seen):
            self.arguments(key, final.arguments[len(seen) :])
        return FunctionCall(entry.call_id, entry.name, final.arguments or seen, entry.item_id)

    def _final_reasoning(self, key: Key, final: Reasoning) -> Reasoning:
        entry = self._open.get(key)
        seen = "".join(entry.pieces) if isinstance(entry, _OpenReasoning) else ""
        if not seen and final.text:
            self.reasoning(key, final.text, final.id)
            entry = self._open[key]
        item_id = entry.item_id if isinstance(entry, _OpenReasoning) else new_id("rs")
        return Reasoning(
            id=final.id or item_id,
            summary=final.summary,
            content=final.content,
            encrypted_content=final.encrypted_content,
            provider=self._provider,
        )

    def _unused(self, call_id: str) -> str:
        if self._used is None:
            self._used = set(self._used_before)
        if not call_id or call_id in self._used:
            call_id = new_id("call")
        self._used.add(call_id)
        return call_id

    def _new_index(self, key: Key) -> int:
        if key in self._closed or self._indices >= _MAX_ITEMS:
            raise StreamInvalid(
                f"The provider wrote an item of the response twice, or more than {_MAX_ITEMS} "
                "items; this response was dropped. Report it to the provider."
            )
        self._indices += 1
        return self._indices - 1

    def _count(self, delta: str) -> None:
        self._chars += len(delta)
        if self._chars > _MAX_CHARS:
            raise _too_long()


def _too_long() -> StreamInvalid:
    return StreamInvalid(
        f"The response exceeds {_MAX_CHARS} characters; limit it with max_output_tokens."
    )
