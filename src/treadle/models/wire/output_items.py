"""Tells which item of a response an event of the Responses API belongs to.

At OpenAI each event contains the place of its item in the output (`output_index`) and the id of the
item (`item_id`). Servers leave out either (llama.cpp: the index), number all items 0 or begin at 1,
give a new id to each event, announce no item, or repeat events. An id that came twice for one item
tells items apart; until then the index and the kind do.
"""

from collections.abc import Callable, Iterator, Sequence

from treadle.domain.items import (
    FunctionCall,
    HostedCall,
    Item,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    Refusal,
    SummaryText,
)
from treadle.models.wire.hosted_code import HostedCode

NO_INDEX = -1
"""The index of an event that has none."""

MESSAGE, REASONING, CALL = "message", "reasoning", "function_call"


Grow = Callable[[int, str, str], None]
"""Adds a delta to the item of a key and an id."""


class OutputItem:
    """An item as far as it was read; `key` names it in the demux.

    - `is_open`: it is not finished yet.
    - `is_done`: its end was read, but it lacks something that a later event may bring.
    - `is_placed`: the demux has a place for it.
    - `is_cut`: the provider says that it is incomplete, or its arguments break off.
    - `parts`: its whole texts, by type and number, from the events that end a part.
    - `grow`: what adds a delta to it.
    - `written`: what was read of it before the output of the response was.
    - `final`: the provider's own version of it, once it is finished.
    - `arguments`: the whole arguments of a call; `pending`: deltas that came before its name.
    - `hosted`: what is known of a call of a hosted tool; `code`: what it runs, being written.
    """

    def __init__(self, key: int, kind: str, index: int, item_id: str, call_id: str) -> None:
        self.key = key
        self.kind = kind
        self.index = index
        self.item_id = item_id
        self.call_id = call_id
        self.name = ""
        self.arguments = ""
        self.pending: list[str] = []
        self.hosted: HostedCall | None = None
        self.code: HostedCode | None = None
        self.grow: Grow | None = None
        self.parts: dict[tuple[str, int], str] = {}
        self.summary_index = 0
        self.written = ""
        self.final: Item | None = None
        self.is_announced = False
        self.is_placed = False
        self.is_stable = False
        self.is_open = True
        self.is_done = False
        self.is_cut = False

    @property
    def is_growing(self) -> bool:
        """Whether more of the item may come."""
        return self.is_open and not self.is_done

    def is_called(self, item_id: str) -> bool:
        """Whether `item_id` is the id of the item, or of the call that it is."""
        return bool(item_id) and item_id in {self.item_id, self.call_id}

    def message(self) -> Message:
        """Returns the message that the ends of its parts contain."""
        parts = (Refusal(t) if kind == "refusal" else OutputText(t) for kind, t in self._texts())
        return Message("assistant", tuple(parts), self.item_id)

    def reasoning(self) -> Reasoning:
        """Returns the reasoning that the ends of its parts contain."""
        texts = self._texts()
        return Reasoning(
            id=self.item_id,
            summary=tuple(SummaryText(text) for kind, text in texts if kind == "summary_text"),
            content=tuple(ReasoningText(text) for kind, text in texts if kind == "reasoning_text"),
        )

    def _texts(self) -> list[tuple[str, str]]:
        return [(kind, text) for (kind, _), text in sorted(self.parts.items(), key=_number)]


class OutputItems:
    """The items of one response.

    `texts` has, for each index that stands for one open message alone, the key of that message;
    `calls` has, for each id that stands for a call that grows, the key of that call.
    """

    def __init__(self) -> None:
        self.all: list[OutputItem] = []
        self.texts: dict[int, int] = {}
        self.calls: dict[str, int] = {}
        self._by_id: dict[tuple[str, str], OutputItem] = {}

    def add(self, kind: str, index: int, item_id: str, call_id: str = "") -> OutputItem:
        """Returns a new item."""
        item = OutputItem(len(self.all), kind, index, item_id, call_id)
        self.all.append(item)
        for name in (item_id, call_id):
            if name:
                self._by_id[kind, name] = item
        if kind == MESSAGE:
            self.texts.clear()
        self.calls.clear()  # an id may name the new item from now on
        return item

    def close(self, item: OutputItem, final: Item | None) -> None:
        """Notes that `item` is finished."""
        item.is_open, item.final = False, final
        for index in [index for index, key in self.texts.items() if key == item.key]:
            del self.texts[index]

    def announced(self, kind: str, index: int, item_id: str, call_id: str) -> OutputItem:
        """Returns the item that an event announces: a new one, unless the event repeats itself."""
        for item in self._of(kind, call_id):
            is_known = item.is_called(item_id) and _may_equal(item.index, index)
            if is_known or (call_id and item.call_id == call_id) or _is_late(item, index, item_id):
                item.call_id = item.call_id or call_id
                break
        else:
            item = self.add(kind, index, item_id, call_id)
        item.is_announced = True
        return item

    def growing(self, kind: str, index: int, item_id: str) -> OutputItem | None:
        """Returns the item that a delta belongs to; None if it begins one.

        It is a finished one if the delta comes after its end.
        """
        known = self._by_id.get((kind, item_id)) if item_id else None
        if known is not None and known.is_growing:
            known.is_stable = True
            return known
        return self._at(kind, index, item_id) or known

    def ended(self, index: int, item_id: str, final: Item, kind: str) -> OutputItem:
        """Returns the item that an event ends: `final` is how the event shows it.

        It is a finished one if the event repeats itself, a new one if it was not announced.
        """
        self.calls.clear()
        call_id = final.call_id if isinstance(final, FunctionCall) else ""
        called = [item for item in self._of(kind, call_id) if item.is_called(item_id)]
        for item in called:
            if item.is_growing:
                return item
        for item in called:
            if _may_equal(item.index, index):
                return item
        for item in self._of(kind, call_id):
            if not item.is_open and not item_id and item.index == index and item.final == final:
                return item
            if not item.is_open and call_id and item.call_id == call_id:
                return item
        return self._at(kind, index, item_id, call_id) or self.add(kind, index, item_id, call_id)

    def paired(self, finals: Sequence[tuple[str, str, Item]]) -> Iterator[OutputItem | None]:
        """Yields the places of a whole output, each with the item that was read of it, if any.

        `finals` are the kind, the id and the content of each item. An output that has none of the
        messages and calls that were finished is not that of this response, and yields nothing.
        """
        found: dict[int, OutputItem] = {}
        free = list(self.all)
        was_finished = any(not item.is_open for item in free if item.kind != REASONING)
        for matches in (_has_id, _has_call_id, _has_content, _has_kind):
            if matches is _has_kind and was_finished and not found:
                return
            for place, (kind, item_id, final) in enumerate(finals):
                if place in found:
                    continue
                same = (i for i in free if i.kind == kind and matches(i, item_id, final))
                item = next(same, None)
                if item is not None:
                    found[place] = item
                    free.remove(item)
        for place in range(len(finals)):
            yield found.get(place)

    def is_alone(self, message: OutputItem, index: int) -> bool:
        """Whether `index` stands for that message alone: only then ids need not be compared."""
        if message.item_id and not message.is_announced:
            return False
        return not any(
            item.is_growing and item is not message and _may_equal(item.index, index)
            for item in self.all
            if item.kind == MESSAGE
        )

    def _at(self, kind: str, index: int, item_id: str, call_id: str = "") -> OutputItem | None:
        """Returns the newest open item at `index`, or one without an index."""
        near: OutputItem | None = None
        for item in self._of(kind, call_id):
            if not item.is_growing or (item.is_stable and item_id):
                continue
            if item.index == index:
                return item
            if near is None and _may_equal(item.index, index):
                near = item
        return near

    def _of(self, kind: str, call_id: str) -> Iterator[OutputItem]:
        """Yields the items of a kind that may have that call id, the newest first."""
        for item in reversed(self.all):
            is_other = call_id and item.call_id and item.call_id != call_id
            if item.kind == kind and not is_other:
                yield item


def _may_equal(index: int, other: int) -> bool:
    return index == other or NO_INDEX in {index, other}


def _is_late(item: OutputItem, index: int, item_id: str) -> bool:
    """Whether an announcement is of an item whose deltas came before it."""
    has_other_id = bool(item_id and item.item_id)
    return item.is_growing and not item.is_announced and item.index == index and not has_other_id


def _number(part: tuple[tuple[str, int], str]) -> int:
    return part[0][1]


def _has_id(item: OutputItem, item_id: str, final: Item) -> bool:
    return bool(item_id) and item.item_id == item_id


def _has_call_id(item: OutputItem, item_id: str, final: Item) -> bool:
    return isinstance(final, FunctionCall) and bool(final.call_id) and item.call_id == final.call_id


def _has_content(item: OutputItem, item_id: str, final: Item) -> bool:
    """Whether the item was read with that content already."""
    match final:
        case Message():
            return item.written == final.text + final.refusal != ""
        case FunctionCall():
            is_written = item.written == final.arguments != ""
            return is_written and item.name == final.name
        case Reasoning():
            return item.written == final.text != ""
        case _:
            return item.final == final


def _has_kind(item: OutputItem, item_id: str, final: Item) -> bool:
    """Always true: what is left of one kind is paired in its order, whatever its ids are."""
    return True
