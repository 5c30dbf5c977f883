"""A signal that something was committed, for tasks that wait for new events."""

import asyncio

IN_PROCESS = 1.0
"""Seconds until a reader looks again, in the process that commits."""

IN_OTHERS = 0.1
"""Seconds until a reader looks again, in a process that drives no threads."""

SCANNED = 2000
"""Events of all threads that one read looks at, at most."""


class Pulse:
    """Wakes the tasks that wait, each time something was committed through this journal.

    What another process commits is found by looking again: `wait` returns after `sweep` seconds at
    the latest.
    """

    def __init__(self, sweep: float) -> None:
        self.sweep = sweep
        self.beats = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def beat(self) -> None:
        """Wakes all that wait; never waits."""
        self.beats += 1
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self, seen: int) -> None:
        """Waits for the beat after the first `seen` ones, or for `sweep` seconds."""
        if self.beats != seen:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await asyncio.wait([waiting], timeout=self.sweep)
        finally:
            self._waiting.discard(waiting)
