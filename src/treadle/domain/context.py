"""The context: the part of a thread's history that the model reads."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.events import ContextCompacted, MessagePinned
from treadle.domain.history import History
from treadle.domain.items import FunctionCallOutput, InputText, Item, Message, OutputText
from treadle.domain.removed_items import visible
from treadle.errors import InvalidTransition


class Context(Struct, frozen=True, gc=False, omit_defaults=True):
    """The part of a history that the model reads; all of it before the first compaction.

    Items before number `cut` are left out, except those `kept` (ascending). `shortened` pairs items
    with the number of characters that are read. `summary` comes between kept items and the rest.

    `pinned` holds the ids of messages that are always read. The provider counted
    `measured_tokens` in a request that was made when the history had `measured_items` items; of
    these tokens `measured_frame` were estimated to be instructions, tools and output schema.
    `removed` is set once an item was removed: nothing but its place is left of it.
    """

    cut: int = 0
    kept: tuple[int, ...] = ()
    shortened: tuple[tuple[int, int], ...] = ()
    summary: Message | None = None
    pinned: tuple[str, ...] = ()
    measured_tokens: int = 0
    measured_items: int = 0
    measured_frame: int = 0
    removed: bool = False

    def items(self, history: History) -> Sequence[Item]:
        """Returns what the model reads of a history."""
        items = self._items(history)
        return visible(items) if self.removed else items

    def _items(self, history: History) -> Sequence[Item]:
        if not self.cut and not self.shortened:
            return history
        most = dict(self.shortened)
        read = [_shortened(history[index], most.get(index)) for index in self.kept]
        if self.summary is not None:
            read.append(self.summary)
        if not most:
            return [*read, *history[self.cut :]]
        rest = enumerate(history[self.cut :], self.cut)
        return [*read, *(_shortened(item, most.get(index)) for index, item in rest)]

    def compacted(self, history: History, event: ContextCompacted) -> "Context":
        """Returns the context after `event`; raises `InvalidTransition` where it cannot follow."""
        if not self.cut <= event.cut <= len(history):
            raise InvalidTransition(f"A context that begins at {self.cut} cannot at {event.cut}.")
        if any(not 0 <= index < event.cut for index in event.kept):
            raise InvalidTransition("Kept items must come before the cut.")
        return replace(
            self,
            cut=event.cut,
            kept=event.kept,
            shortened=event.shortened,
            summary=event.summary,
            measured_tokens=0,
            measured_items=0,
            measured_frame=0,
        )

    def measured(self, tokens: int, items: int, frame: int = 0) -> "Context":
        """Returns the context with what the provider counted in a request of so many items."""
        if not tokens:
            return self  # the provider reported no usage
        return replace(self, measured_tokens=tokens, measured_items=items, measured_frame=frame)

    def with_pin(self, history: History, event: MessagePinned) -> "Context":
        """Returns the context after a message was pinned, or no longer is."""
        index = _place(history, event.message_id) if self.cut else None
        pinned = tuple(id for id in self.pinned if id != event.message_id)
        kept = self.kept
        if event.pinned:
            pinned = (*pinned, event.message_id)
            if index is not None and index < self.cut and index not in kept:
                kept = tuple(sorted((*kept, index)))
        return replace(self, pinned=pinned, kept=kept)


def _place(history: History, message_id: str) -> int | None:
    for index, item in enumerate(history):
        if isinstance(item, Message) and item.id == message_id:
            return index
    return None


def _shortened(item: Item, most: int | None) -> Item:
    """Returns the beginning of an item's text, with a note of what is missing."""
    if most is None or not isinstance(item, Message | FunctionCallOutput):
        return item
    text = item.text
    if len(text) <= most:
        return item
    read = f"{text[:most]}\n[{len(text) - most} characters are left out here]"
    if isinstance(item, FunctionCallOutput):
        return replace(item, output=read)
    part = OutputText(read) if item.role == "assistant" else InputText(read)
    return replace(item, content=(part,))


WHOLE = Context()
