"""Positions that callers give."""

from treadle.actors.access import ThreadAccess
from treadle.bus.position import Position
from treadle.errors import InvalidInput


def require_reached(threads: ThreadAccess, thread_id: str, position: Position) -> None:
    """Raises `InvalidInput` for a position behind the last event of a thread."""
    if position.seq and not threads.has_reached(thread_id, position.seq):
        raise InvalidInput(
            f"{position.text!r} is not a position of {thread_id}: it has no event "
            f"{position.seq}. Give the number of one of its events, or 0."
        )
