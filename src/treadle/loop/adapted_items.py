"""Reports which items of a history a request leaves out or replaces, or is refused for."""

import hashlib

import msgspec

from treadle.domain.events import ItemAdaptation, RequestAdapted
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, ProviderItem
from treadle.errors import ItemRefused, JournalError, ModelError
from treadle.models.base import ItemsAdapted
from treadle.ports import ThreadWriter


def report_adapted(thread: ThreadWriter, adapted: ItemsAdapted) -> None:
    """Records which items the request of the run adapts that it has not reported yet."""
    run = thread.state.active_run
    if run is None:
        return
    items = [
        ItemAdaptation(reference, change.reason, change.text)
        for change in adapted.changes
        if (reference := item_reference(change.item)) not in run.adapted
    ]
    if items:
        thread.record(RequestAdapted(run_id=run.id, items=tuple(items)))


async def locate_item(thread: ThreadWriter, refused: ModelError) -> None:
    """Adds to the refusal of an item which event of the thread contains it, and the way out."""
    if not isinstance(refused, ItemRefused) or refused.seq:
        return
    item = refused.item
    if not isinstance(item, Item):
        return
    try:
        refused.seq = await thread.event_of(item)
    except JournalError:
        return  # the refusal itself is what the caller has to know
    if refused.seq:
        refused.message += (
            f" It is in event {refused.seq} of the thread; thread.remove_event({refused.seq}, "
            "error.item) takes it out of the history."
        )
        refused.args = (refused.message,)


def item_reference(item: Item) -> str:
    """Returns the id of an item, its call id without one, or a digest of it without either."""
    found = "" if isinstance(item, ProviderItem) else item.id
    if not found and isinstance(item, FunctionCall | FunctionCallOutput):
        found = item.call_id
    return found or f"item_{hashlib.sha256(msgspec.json.encode(item)).hexdigest()[:26]}"
