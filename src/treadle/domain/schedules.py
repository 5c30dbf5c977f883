"""Schedules: messages that are sent to a thread at a later time, once or again and again."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from treadle.domain.items import Message
from treadle.domain.options import RunOptions

MAX_SCHEDULES = 100
"""The most schedules that a thread has at a time."""

ScheduleAuthor = Literal["user", "model"]
"""The author of a schedule: the program or a person, or a tool that the model called."""


class Schedule(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A message that starts a run when it is due.

    It is due at `due_at` (Unix seconds). With `cron` (five fields, in the time zone `tz`) it is due
    again after that, until it is cancelled. `agent` answers; "" is the agent of the thread. `by` is
    the principal that made the schedule, and is that of its runs.
    `options` are those of its runs, None without any. `thread_id` is set where schedules are
    listed.
    """

    id: str
    item: Message
    due_at: float
    cron: str = ""
    tz: str = ""
    agent: str = ""
    author: ScheduleAuthor = "user"
    by: str = ""
    options: RunOptions | None = None
    thread_id: str = ""

    @property
    def text(self) -> str:
        """The text of the message."""
        return self.item.text


NO_SCHEDULES: Mapping[str, Schedule] = MappingProxyType({})
