"""The order in which the items of a response of the model are shown: one after another.

An item may be in flight while another one is finished, and the journal knows the order in which
they were finished only. Shown in the order in which they began, and each to its end before the
next, they have the same numbers for a reader that was there and for one that reads the journal.
"""

from collections.abc import Iterator

from treadle.domain.events import (
    MessageAdded,
    ProviderItemAdded,
    ReasoningAdded,
    ToolCallRequested,
)
from treadle.domain.items import HostedCall

Landing = MessageAdded | ReasoningAdded | ToolCallRequested | ProviderItemAdded
"""An event that makes an item of the model durable."""


def is_whole(call: HostedCall | None) -> bool:
    """Whether an item of the provider is a call of a hosted tool with its result."""
    return call is not None and bool(call.call_id) and call.status != "in_progress"


class OpenItem:
    """An item that has begun.

    `shown_id` is the id of the item that shows its text, `growth` what of the text has arrived and
    waits to be shown, `sent` how many characters were shown, and `place` where it is in the output,
    None before any of it was shown.
    """

    __slots__ = ("growth", "id", "is_reasoning", "landing", "place", "sent", "shown_id")

    def __init__(self, id: str, is_reasoning: bool = False) -> None:
        self.id = self.shown_id = id
        self.is_reasoning = is_reasoning
        self.growth: list[str] = []
        self.sent = 0
        self.place: int | None = None
        self.landing: Landing | None = None


class ItemOrder:
    """The items of a response that are not shown to their end."""

    def __init__(self) -> None:
        self._open: list[OpenItem] = []
        self._by_id: dict[str, OpenItem] = {}
        self._held: list[OpenItem] = []  # nothing was seen of them before they were finished
        self._landed: set[int] = set()
        self._expected = 0  # the lowest index of which no item is known

    def begin(self, id: str, is_reasoning: bool = False) -> OpenItem:
        """Returns the item `id`, which has begun."""
        item = self._by_id.get(id)
        if item is None:
            item = self._by_id[id] = OpenItem(id, is_reasoning)
            self._open.append(item)
        return item

    @property
    def first(self) -> OpenItem | None:
        """The item that is shown now."""
        return self._open[0] if self._open else None

    def land(self, event: Landing) -> None:
        """Takes note of an item that is finished."""
        is_shown = not isinstance(event, ProviderItemAdded) or is_whole(event.item.call)
        item = self._by_id.get(event.item.id) if is_shown else None
        if item is None and is_shown:
            is_reasoning = isinstance(event, ReasoningAdded)
            item = self._by_id[event.item.id] = OpenItem(event.item.id, is_reasoning)
            self._held.append(item)
        if item is not None:
            item.landing = event
        self._landed.add(event.index)
        while self._expected in self._landed:
            self._expected += 1

    def finished(self) -> Iterator[tuple[OpenItem, Landing]]:
        """Yields the items that are to be shown to their end now."""
        self._release(self._expected)
        while self._open and (landing := self._open[0].landing) is not None:
            item = self._open.pop(0)
            yield item, landing

    def flush(self) -> Iterator[tuple[OpenItem, Landing]]:
        """Yields all that are finished; the response is over, others do not come any more."""
        shown = [item for item in self._open[:1] if item.place is not None]
        rest = [item for item in (*self._open[len(shown) :], *self._held) if item.landing]
        rest.sort(key=_index)
        self._open, self._held = [*shown, *rest], []
        yield from self.finished()

    def clear(self) -> OpenItem | None:
        """Drops what is not finished; returns the item of which a part was shown, if there is one.

        The next response begins.
        """
        first = self.first
        self._open, self._held = [], []
        self._by_id.clear()
        self._landed.clear()
        self._expected = 0
        return first if first is not None and first.place is not None else None

    def _release(self, below: int) -> None:
        ready = sorted((item for item in self._held if _index(item) < below), key=_index)
        if ready:
            self._held = [item for item in self._held if _index(item) >= below]
            place = 1 if self._open and self._open[0].place is not None else 0
            self._open[place:place] = ready


def _index(item: OpenItem) -> int:
    assert item.landing is not None
    return item.landing.index
