"""How a run ended, read from the journal when nobody waited for it."""

from typing import NamedTuple

from weft.errors import RunNotFound
from weft.events import TerminalEvent
from weft.journal.base import Journal
from weft.state import ThreadState


class Ended(NamedTuple):
    """How a run ended: its last event, the state right then, and the error it failed with here."""

    event: TerminalEvent
    state: ThreadState
    error: Exception | None = None


async def read_ending(journal: Journal, thread_id: str, run_id: str) -> Ended | None:
    """Returns how the run ended, or None if it has not; raises `RunNotFound`."""
    run = await journal.run(thread_id, run_id)
    if run is None:
        raise RunNotFound(f"The thread {thread_id} has no run {run_id[:100]!r}.")
    if not run.last_seq:
        return None
    (event,) = await journal.read(thread_id, after=run.last_seq - 1, limit=1)
    assert isinstance(event, TerminalEvent)
    return Ended(event, await journal.load(thread_id, at=run.last_seq))
