"""Reading the journal for the index of the archive."""

from treadle.errors import ThreadDamaged
from treadle.journal.base import Journal
from treadle.memory.archive.pages import Page, page_of

PAGE = 500
"""How many events one transaction of the index covers."""


async def next_page(journal: Journal, thread_id: str, after: int) -> Page | None:
    """Returns what the events after the first `after` change; None if there are none.

    Of a damaged thread, that is up to the damaged event. Raises `ThreadDamaged` if that is the
    next one, and `ThreadNotFound`.
    """
    try:
        events = await journal.read(thread_id, after=after, limit=PAGE)
    except ThreadDamaged as error:
        if error.seq <= after + 1:
            raise
        events = await journal.read(thread_id, after=after, until=error.seq - 1)
    return page_of(thread_id, events)
