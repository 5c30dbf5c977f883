"""The tools with which an agent wakes itself later: schedule, list and cancel."""

from datetime import datetime, tzinfo

from treadle.clock import now
from treadle.domain.schedules import Schedule
from treadle.errors import InvalidInput
from treadle.schedules.times import time_zone, zone_name
from treadle.tools.context import RunContext
from treadle.tools.function import Tool, tool

MAX_WAKEUPS = 20
_MAX_TEXT = 500


def schedule_tools(*, tz: str = "UTC", limit: int = MAX_WAKEUPS) -> list[Tool[..., object]]:
    """Returns the tools `schedule_wakeup`, `list_wakeups` and `cancel_wakeup`.

    With them the model sends messages to its own conversation at a later time; each starts a run
    there. It sees all schedules of the thread, and cancels those that it made.

    - `tz`: the time zone of the times that the model writes and reads, such as `"Europe/Berlin"`.
    - `limit`: how many schedules of the model a thread may have at a time.

    Raises `InvalidInput` for an unknown time zone. The tools raise `ConfigurationError` in a run
    whose thread is not kept, or that works for another run.
    """
    name = zone_name(tz)
    zone = time_zone(name)

    @tool(idempotent=True)
    async def schedule_wakeup(
        ctx: RunContext[object],
        message: str,
        at: str | None = None,
        after_seconds: float | None = None,
        cron: str | None = None,
    ) -> str:
        """Wake yourself later: the message is sent to you in this conversation when it is due.

        Give exactly one of `at`, `after_seconds` and `cron`.

        Args:
            message: What to do then, with all that you have to know for it.
            at: The local time, such as 2026-03-01T09:30.
            after_seconds: The delay in seconds.
            cron: Again and again, by five cron fields in local time, such as 30 9 * * MON-FRI.
        """
        schedule = await ctx.schedules.add(
            message,
            at=None if not at else _local(at, zone),
            after=after_seconds,
            cron=cron or None,
            tz=name,
            key=ctx.call_id,
            limit=limit,
        )
        return f"Scheduled: {_line(schedule, zone)}"

    @tool(idempotent=True)
    async def list_wakeups(ctx: RunContext[object]) -> str:
        """List what is scheduled in this conversation, and the time now."""
        lines = [f"It is {_shown(now(), zone)}."]
        lines += [_line(schedule, zone) for schedule in ctx.schedules.all()]
        return "\n".join(lines if len(lines) > 1 else [*lines, "Nothing is scheduled."])

    @tool(idempotent=True)
    async def cancel_wakeup(ctx: RunContext[object], id: str) -> str:
        """Cancel something that you scheduled.

        Args:
            id: The id that scheduling or listing it returned.
        """
        if await ctx.schedules.cancel(id):
            return f"{id} is cancelled."
        return f"You have scheduled nothing with the id {id[:100]}, or it is over."

    return [schedule_wakeup, list_wakeups, cancel_wakeup]


def _local(at: str, zone: tzinfo) -> datetime:
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as error:
        raise InvalidInput(f"at={at[:60]!r} is not a time such as 2026-03-01T09:30.") from error
    return moment if moment.utcoffset() is not None else moment.replace(tzinfo=zone)


def _line(schedule: Schedule, zone: tzinfo) -> str:
    again = f", then by {schedule.cron} ({schedule.tz})" if schedule.cron else ""
    text = " ".join(schedule.text.split())
    text = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    whose = "" if schedule.author == "model" else " (not yours)"
    return f"{schedule.id}{whose}: {_shown(schedule.due_at, zone)}{again}: {text}"


def _shown(at: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(at, zone).isoformat(timespec="seconds")
