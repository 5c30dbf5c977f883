"""The items of a thread: an immutable sequence that grows in constant time."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import assert_never, overload

from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    ProviderItem,
    Reasoning,
)
from treadle.errors import InvalidInput


class History(Sequence[Item]):
    """An immutable sequence of items; `extended` shares the storage with its predecessor.

    All versions of one history look at one append-only list, each up to its own length. Only the
    newest version appends to it in place; extending an older one copies. A fold over n events
    therefore costs n appends, not n copies.
    """

    __slots__ = ("_items", "_length")

    def __init__(self, items: Iterable[Item] = ()) -> None:
        if type(items) is History:
            self._items = items._items[: items._length]  # 20 times as fast as by its iterator
        else:
            self._items = list(items)
        self._length = len(self._items)

    def extended(self, items: Sequence[Item]) -> "History":
        """Returns this history followed by `items`."""
        if not items:
            return self
        newest = self._length == len(self._items)
        storage = self._items if newest else self._items[: self._length]
        storage.extend(items)
        grown = History.__new__(History)
        grown._items = storage
        grown._length = len(storage)
        return grown

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return [self._items[i] for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError("history index out of range")
        return self._items[index if index >= 0 else self._length + index]

    def __iter__(self) -> Iterator[Item]:
        return islice(self._items, self._length)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"History({list(self)!r})"


class HistoryUnread(Exception):
    """An item was asked for that is in the journal and was not read."""


class UnreadHistory(History):
    """A history of which the first `before` items were not read, and those of `read` follow.

    It has its length, and grows as any other. An item that was not read raises `HistoryUnread`.
    """

    __slots__ = ("_before",)

    def __init__(self, before: int, read: History) -> None:
        self._items, self._length = read._items, read._length
        self._before = before

    def extended(self, items: Sequence[Item]) -> "History":
        """Returns this history followed by `items`."""
        return UnreadHistory(self._before, super().extended(items))

    def __len__(self) -> int:
        return self._before + self._length

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError("history index out of range")
        place = (index if index >= 0 else len(self) + index) - self._before
        if place < 0:
            raise HistoryUnread
        return self._items[place]

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"UnreadHistory({self._before}, {self._items[: self._length]!r})"


def require_valid(items: Sequence[Item]) -> None:
    """Raises `InvalidInput` unless every call has exactly one output, before anything else.

    Only items of the same response may come between its calls and their outputs.
    """
    open_calls: dict[str, str] = {}
    seen: set[str] = set()
    for item in items:
        match item:
            case FunctionCall():
                if item.call_id in seen:
                    raise InvalidInput(f"The history has two calls with the id {item.call_id!r}.")
                seen.add(item.call_id)
                open_calls[item.call_id] = item.name
            case FunctionCallOutput():
                if open_calls.pop(item.call_id, None) is None:
                    raise InvalidInput(
                        f"The history answers {item.call_id!r}, which is not an open call."
                    )
            case Message(role="assistant") | Reasoning() | ProviderItem():
                pass
            case Message():
                _require_answered(open_calls)
            case _ as unreachable:
                assert_never(unreachable)
    _require_answered(open_calls)


def _require_answered(open_calls: dict[str, str]) -> None:
    for call_id, name in open_calls.items():
        raise InvalidInput(
            f"The history has no output for the call {call_id!r} of {name}; add a "
            "FunctionCallOutput after it."
        )
