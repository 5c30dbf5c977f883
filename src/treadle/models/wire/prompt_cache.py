"""Keys of prompt caches: requests with the same key reach a server that has their prefix."""

import hashlib

from treadle.models.base import ModelRequest


def cache_key(model: str, request: ModelRequest) -> str:
    """Returns a key for the conversation of `request`; "" for one without items.

    It is that of the first item, which stays as long as the conversation, whatever is said, edited
    in memory or compacted later; forks share it with their origin. Nothing of the item can be read
    from it.
    """
    items = request.conversation or request.items
    if not items:
        return ""
    first = items[0]
    text = f"{model} {getattr(first, 'id', '') or first!r}"
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]
