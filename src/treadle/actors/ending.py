"""How a run ended: for tasks that wait for it, or read from the journal."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from treadle.domain.events import TerminalEvent
from treadle.domain.state import ThreadState
from treadle.errors import RunNotFound
from treadle.journal.base import Journal


class Ended(NamedTuple):
    """How a run ended: its last event, the state right then, and the error it failed with here."""

    event: TerminalEvent
    state: ThreadState
    error: Exception | None = None


class Endings:
    """The ends of a thread's runs, for tasks that wait for them here; it knows the last one.

    `on_unawaited` is called when no task waits for a run any more.
    """

    def __init__(self, on_unawaited: Callable[[], None]) -> None:
        self._on_unawaited = on_unawaited
        self._last: Ended | None = None
        self._errors: dict[str, Exception] = {}
        self._waiters: dict[str, list[asyncio.Future[Ended]]] = {}

    @property
    def are_awaited(self) -> bool:
        """Whether anyone waits for the end of a run."""
        return bool(self._waiters)

    def is_last(self, run_id: str) -> bool:
        """Whether the run was the last to end."""
        return self._last is not None and self._last.event.run_id == run_id

    async def of(self, run_id: str) -> Ended:
        """Waits for the end of a run; raises what `close` is given."""
        if self._last is not None and self._last.event.run_id == run_id:
            return self._last
        waiter: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(run_id, [])
        waiters.append(waiter)
        try:
            return await waiter
        finally:
            waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(run_id, None)
                self._on_unawaited()

    def failed(self, run_id: str, error: Exception) -> None:
        """Takes note of what a run failed with, before its end is told."""
        if not self.is_last(run_id):
            self._errors[run_id] = error

    def tell(self, event: TerminalEvent, state: ThreadState) -> None:
        """Tells the end of a run, and the state right then."""
        self._last = ended = Ended(event, state, self._errors.pop(event.run_id, None))
        for waiter in self._waiters.get(event.run_id, ()):
            if not waiter.done():
                waiter.set_result(ended)

    def close(self, error: Exception) -> None:
        """Raises `error` where anyone waits: no end will be told here."""
        for waiters in list(self._waiters.values()):
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)


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
