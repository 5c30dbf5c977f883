"""Making a schedule of what a caller passes, and listing those of a thread."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, tzinfo

import msgspec
from msgspec.structs import replace

from treadle.domain.arguments import require_text
from treadle.domain.ids import id_of, new_id
from treadle.domain.inputs import as_message
from treadle.domain.items import Input
from treadle.domain.options import RunOptions
from treadle.domain.schedules import Schedule, ScheduleAuthor
from treadle.schedules.times import times_of


def new_schedule(
    thread_id: str,
    message: Input,
    now: float,
    *,
    at: datetime | None,
    after: float | timedelta | None,
    cron: str | None,
    tz: str | tzinfo,
    key: str = "",
    agent: str = "",
    author: ScheduleAuthor = "user",
    options: RunOptions | None = None,
) -> Schedule:
    """Returns a schedule of the thread, made at `now` (Unix seconds); see `Thread.schedule`.

    With a `key`, its id follows from the key and that of its message from the content and the
    options, so that the same schedule can be told from another one. Raises `InvalidInput`.
    """
    require_text("key", key)
    require_text("agent (the name of an agent)", agent)
    times = times_of(now, at=at, after=after, cron=cron, tz=tz)
    item = as_message(message)
    id = id_of("schedule", thread_id, key) if key else new_id("schedule")
    if key:
        content = [msgspec.json.encode(item.content).decode()]
        if options is not None:
            content.append(msgspec.json.encode(options, order="deterministic").decode())
        item = replace(item, id=id_of("msg", id, *content))
    return Schedule(
        id=id,
        item=item,
        due_at=times.due_at,
        cron=times.cron,
        tz=times.tz,
        agent=agent,
        author=author,
        options=options,
    )


def listed(thread_id: str, schedules: Iterable[Schedule]) -> Sequence[Schedule]:
    """Returns schedules with the id of their thread, the one that is due first first."""
    ordered = sorted(schedules, key=lambda one: (one.due_at, one.id))
    return tuple(replace(one, thread_id=thread_id) for one in ordered)
