"""The schedules of a thread as the tools of a run use them."""

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo

from treadle.clock import now
from treadle.domain.accept import accept
from treadle.domain.entries import CancelScheduleEntry, ScheduleEntry
from treadle.domain.items import Input
from treadle.domain.schedules import MAX_SCHEDULES, Schedule
from treadle.errors import ConfigurationError, TooManySchedules
from treadle.journal.base import Journal, ThreadInfo
from treadle.ports import ThreadWriter
from treadle.schedules.new_schedule import listed, new_schedule


class ThreadSchedules:
    """Fulfils `RunSchedules` for a thread in a journal."""

    def __init__(self, info: ThreadInfo, thread: ThreadWriter, journal: Journal) -> None:
        self._info = info
        self._thread = thread
        self._journal = journal

    async def add(
        self,
        message: Input,
        *,
        at: datetime | None = None,
        after: float | timedelta | None = None,
        cron: str | None = None,
        tz: str | tzinfo = "UTC",
        key: str = "",
        limit: int = MAX_SCHEDULES,
    ) -> Schedule:
        """Sends a message to the thread later."""
        info = self._info
        if info.work is not None:
            raise ConfigurationError(
                "An agent that works for another run cannot wake itself later: its thread is not "
                "continued. Give the tool to the agent of the conversation."
            )
        schedule = new_schedule(
            info.id, message, now(), at=at, after=after, cron=cron, tz=tz, key=key, author="model"
        )
        if schedule.id not in self._thread.state.schedules:
            await self._thread.durable()  # what was fired before is in the journal then
            if await self._journal.sent(info.id, schedule.id, inbox=False) is not None:
                return schedule
        mine = [one for one in self._thread.state.schedules.values() if one.author == "model"]
        if schedule.id not in self._thread.state.schedules and len(mine) >= limit:
            raise TooManySchedules(
                f"This conversation has {len(mine)} wake-ups of yours, which is the most; cancel "
                "one first."
            )
        await self._record(ScheduleEntry(schedule, self._run_id))
        return self._thread.state.schedules.get(schedule.id, schedule)

    def all(self) -> Sequence[Schedule]:
        """Returns the schedules of the thread, the one that is due first first."""
        return listed(self._info.id, self._thread.state.schedules.values())

    async def cancel(self, schedule_id: str) -> bool:
        """Cancels a schedule that the model made."""
        schedule = self._thread.state.schedules.get(schedule_id)
        if schedule is None or schedule.author != "model":
            return False
        await self._record(CancelScheduleEntry(schedule_id, self._run_id))
        return True

    @property
    def _run_id(self) -> str:
        run = self._thread.state.active_run
        return run.id if run is not None else ""

    async def _record(self, entry: ScheduleEntry | CancelScheduleEntry) -> None:
        accepted = accept(self._thread.state, entry)
        assert isinstance(accepted, Sequence)
        for event in accepted:
            self._thread.record(event)
        await self._thread.durable()
