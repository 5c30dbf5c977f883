"""Repairing what a journal keeps of a thread: damaged events, and damaged entries of its inbox."""

import asyncio
from typing import NamedTuple

from treadle.domain.entries import is_newer_entry
from treadle.domain.repair import repaired
from treadle.journal.base import Journal
from treadle.logging import logger_of

_LOGGER = logger_of("treadle.runtime")


class Repaired(NamedTuple):
    """What was removed: the numbers of events, and a count of entries of the inbox."""

    events: list[int]
    entries: int


async def repair_thread(journal: Journal, thread_id: str) -> Repaired:
    """Removes events that cannot be read or do not fit, and entries that cannot be read.

    Entries of a type that only a newer version knows stay in the inbox, for that version. No driver
    may use the thread meanwhile.
    """
    stored: dict[int, bytes] = {}
    while page := await journal.stored(thread_id, after=max(stored, default=0)):
        stored |= page
    # In a thread, because it may take long, and a node that sends no heartbeat is taken for dead.
    changed = await asyncio.to_thread(repaired, stored)
    if changed:
        claim = await journal.claim(thread_id)
        await journal.redact(claim, changed, clears_title=False)
    unread = await journal.damaged_entries(thread_id)
    entries = [at for at, body in unread.items() if not is_newer_entry(body)]
    if entries:
        await journal.discard(entries)
        _LOGGER.warning(
            "%d damaged entries were removed from the inbox of %s.",
            len(entries),
            thread_id,
        )
    return Repaired([event.seq for event in changed], len(entries))
