"""Pages of the items of a thread."""

import re
from collections.abc import Sequence
from typing import Literal

from treadle.domain.items import Item
from treadle.domain.page import Page
from treadle.domain.removed_items import is_removed
from treadle.domain.state import ThreadState
from treadle.errors import InvalidInput

_CURSOR = re.compile(r"(\d{1,15})\.(.*)", re.DOTALL)


def all_items(state: ThreadState) -> list[Item]:
    """Returns the history, and what is finished of the step in progress."""
    step = state.step
    return [*state.history, *([*step.ordered, *step.outputs] if step is not None else ())]


def find_item(items: Sequence[Item], id: str) -> int | None:
    """Returns the place of the item with this id; of several, that of the last."""
    for place in range(len(items) - 1, -1, -1):
        if id and items[place].id == id and not is_removed(items[place]):
            return place
    return None


def page_of_items(
    items: Sequence[Item], limit: int, after: str, order: Literal["asc", "desc"]
) -> Page[Item]:
    """Returns the page behind `after`: the id of an item, or the cursor of a page.

    Items that were removed are left out. Raises `InvalidInput` for another `after`.
    """
    start = _place_of(items, after) if after else None
    if order == "asc":
        places = range(0 if start is None else start + 1, len(items))
    else:
        places = range(len(items) - 1 if start is None else start - 1, -1, -1)
    found = [place for place in places if not is_removed(items[place])]
    page = found[:limit]
    has_more = len(page) < len(found)
    next = f"{page[-1]}.{items[page[-1]].id}" if page and has_more else ""
    return Page([items[place] for place in page], next)


def _place_of(items: Sequence[Item], after: str) -> int:
    found = find_item(items, after)
    if found is not None:
        return found
    cursor = _CURSOR.fullmatch(after)
    if cursor is None:
        raise InvalidInput(
            f"after={after[:40]!r} is neither the Page.next of a page nor the id of an item."
        )
    place, id = int(cursor[1]), cursor[2]
    if place < len(items) and items[place].id == id:
        return place
    # A hook may have replaced the history; an item that was removed keeps its place.
    moved = find_item(items, id)
    return place if moved is None else moved
