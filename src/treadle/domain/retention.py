"""How long a thread is kept: until a time, or only while it is used."""

from datetime import datetime
from typing import Literal

from treadle.domain.arguments import shown
from treadle.domain.state import ThreadState
from treadle.errors import InvalidInput

Expiry = datetime | Literal["never"]
"""When a thread is deleted: at a time with a time zone, or never."""

UNSTORED_SECONDS = 600.0
"""How long a thread with `store=False` is kept after its last run, for readers that were cut."""


def is_unused(state: ThreadState) -> bool:
    """Returns whether nothing is left to do on a thread: no run, message, job or schedule."""
    return not (
        state.active_run is not None
        or state.queue
        or state.jobs
        or state.schedules
        or any(told.wakes for told in state.announced)
    )


def expiry_time(expires_at: object, now: float) -> float:
    """Returns when a thread is to be deleted, in Unix seconds.

    Raises `InvalidInput` unless it is a datetime with a time zone, after `now` (Unix seconds).
    """
    if not isinstance(expires_at, datetime) or expires_at.tzinfo is None:
        raise InvalidInput(
            f"expires_at={shown(expires_at)} is not a datetime with a time zone; write "
            "expires_at=datetime.now(UTC) + timedelta(days=30)."
        )
    at = expires_at.timestamp()
    if at <= now:
        raise InvalidInput(
            f"expires_at={expires_at.isoformat()} is in the past; delete the thread instead."
        )
    return at
