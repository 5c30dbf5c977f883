"""A page of a list, and the cursor with which the next one is asked for."""

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

MAX_PAGE = 1000
"""The most entries that one page has."""


class Page(list[T]):
    """A part of a list, in its order; iterate it as any list.

    `next` is what `after=` takes to get the page that follows, and "" at the end of the list. It
    stays valid if entries are changed or deleted meanwhile. `position`, of a list of waiting calls,
    is where `Runtime.subscribe` continues it.
    """

    def __init__(self, entries: Iterable[T] = (), next: str = "", position: str = "") -> None:
        super().__init__(entries)
        self.next = next
        self.position = position
