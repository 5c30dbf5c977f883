"""Reports which items of a history a request leaves out or replaces; pure."""

import hashlib

import msgspec

from treadle.domain.events import ItemAdaptation, RequestAdapted
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, ProviderItem
from treadle.domain.state import Run
from treadle.models.base import ItemsAdapted


def adapted_items(run: Run, adapted: ItemsAdapted) -> RequestAdapted | None:
    """Returns the event about the items that the run has not reported yet; None without any."""
    items = [
        ItemAdaptation(reference, change.reason, change.text)
        for change in adapted.changes
        if (reference := item_reference(change.item)) not in run.adapted
    ]
    return RequestAdapted(run_id=run.id, items=tuple(items)) if items else None


def item_reference(item: Item) -> str:
    """Returns the id of an item, its call id without one, or a digest of it without either."""
    found = "" if isinstance(item, ProviderItem) else item.id
    if not found and isinstance(item, FunctionCall | FunctionCallOutput):
        found = item.call_id
    return found or f"item_{hashlib.sha256(msgspec.json.encode(item)).hexdigest()[:26]}"
