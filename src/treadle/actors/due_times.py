"""What is due at a time: one task for all threads sleeps until the next due time.

The journal is asked for due times of all threads at once, in their order; no thread has a timer,
and what is due on a thread that is not in memory costs nothing until then.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable

from treadle.clock import now
from treadle.errors import ThreadNotFound, TreadleError
from treadle.journal.base import Due, DuePlace, Journal
from treadle.logging import logger_of
from treadle.repeating import repeat
from treadle.tools.failure import reraise_interrupt

_LOGGER = logger_of("treadle.runtime")

PAGE = 100
AT_ONCE = 16
"""How many due times are worked off in parallel."""

FIRST_RETRY_SECONDS = 10.0
LAST_RETRY_SECONDS = 3600.0
"""What is still due after it was worked off is tried again after the first, then after twice as
long, …: its thread may be damaged, or another node may have it."""

LONGEST_SLEEP_SECONDS = 60.0
"""The time of day may be changed, and another process may store an earlier due time."""


class DueTimes:
    """Calls `act` for what is due, at least once for each; `act` does nothing if it was done."""

    def __init__(self, journal: Journal, act: Callable[[Due], Awaitable[None]]) -> None:
        self._journal = journal
        self._act = act
        self._changed = asyncio.Event()
        self._until = math.inf  # when the task looks next
        self._tried: dict[tuple[object, ...], tuple[float, float]] = {}  # next try, last pause
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to watch the time."""
        self._task = asyncio.create_task(
            repeat(self._watch, _LOGGER, "The due times could not be worked off."),
            name="treadle due times",
        )

    async def stop(self) -> None:
        """Watches the time no longer; a second call does nothing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def notice(self, at: float) -> None:
        """Notes that something is due at `at` (Unix seconds); looks then, or at once."""
        if at < self._until:
            self._changed.set()

    def look(self) -> None:
        """Reads the due times again, soon: another process may have stored one."""
        self._changed.set()

    async def _watch(self) -> None:
        self._changed.clear()
        self._until = math.inf  # what is stored while the journal is read is noticed
        try:
            until = await self._look()
        except TreadleError as error:
            _LOGGER.warning("The due times could not be read: %s", error.message)
            until = now() + FIRST_RETRY_SECONDS
        self._until = until
        delay = None if until == math.inf else max(0.0, until - now())
        if delay is None and self._journal.is_shared:
            delay = LONGEST_SLEEP_SECONDS
        if delay is not None:
            delay = min(delay, LONGEST_SLEEP_SECONDS)
        try:
            async with asyncio.timeout(delay):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _look(self) -> float:
        """Works off what is due; returns when to look again."""
        tried, self._tried = self._tried, {}
        last: DuePlace | None = None
        while page := await self._journal.due(limit=PAGE, after=last):
            moment = now()
            due = [one for one in page if one.at <= moment]
            ready = [one for one in due if self._is_ready(one, tried, moment)]
            for start in range(0, len(ready), AT_ONCE):
                await asyncio.gather(*map(self._try, ready[start : start + AT_ONCE]))
            if len(due) < len(page):
                return min([page[len(due)].at, *(at for at, _ in self._tried.values())])
            last = page[-1].place
        return min((at for at, _ in self._tried.values()), default=math.inf)

    def _is_ready(
        self, due: Due, tried: dict[tuple[object, ...], tuple[float, float]], moment: float
    ) -> bool:
        """Whether it is to be worked off now, and not only after a pause; notes the next try."""
        before = tried.get(due.place)
        if before is not None and before[0] > moment:
            self._tried[due.place] = before
            return False
        pause = FIRST_RETRY_SECONDS if before is None else min(before[1] * 2, LAST_RETRY_SECONDS)
        self._tried[due.place] = (moment + pause, pause)
        return True

    async def _try(self, due: Due) -> None:
        try:
            await self._act(due)
        except ThreadNotFound:
            pass  # it was deleted meanwhile
        except TreadleError as error:
            self._report(due, error.message)
        except Exception as error:  # noqa: BLE001 - the others are not to wait for it
            reraise_interrupt(error)
            self._report(due, repr(error))

    def _report(self, due: Due, problem: str) -> None:
        first = self._tried[due.place][1] == FIRST_RETRY_SECONDS
        log = _LOGGER.warning if first else _LOGGER.debug
        log("What is due on %s (%s) waits: %s", due.thread_id, due.kind, problem)
