"""The state of a thread: its history, its run and open step, and all that waits."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Struct

from treadle.domain.block_memory import NO_MEMORY, BlockMemory
from treadle.domain.context import WHOLE, Context
from treadle.domain.events import Announces, ValidatedOutput
from treadle.domain.history import History
from treadle.domain.items import Item, Message
from treadle.domain.open_step import Step
from treadle.domain.options import RunOptions
from treadle.domain.schedules import NO_SCHEDULES, Schedule
from treadle.domain.stop_reason import StopReason
from treadle.domain.usage import Spent, Usage

RunStatus = Literal[
    "queued",
    "in_progress",
    "requires_action",
    "cancelling",
    "completed",
    "incomplete",
    "failed",
    "cancelled",
    "expired",
]
ACTIVE: frozenset[RunStatus] = frozenset({"in_progress", "requires_action", "cancelling"})


class ToolCount(Struct, frozen=True, gc=False):
    """How often a run called the tool `name`: calls that were made, and those that succeeded."""

    name: str
    made: int
    succeeded: int


class Run(Struct, frozen=True, gc=False, omit_defaults=True):
    """One activation of an agent on a thread.

    `agent` works on it now, `agent_hash` identifies its definition, `handoffs` counts changes of
    the agent. `last_step` is the step closed last, or None once a message was added after it.
    `hooked` is the number of the step after which hooks changed something last. `corrections`
    counts the messages treadle itself added, `interrupted` the steps that were cut off. `usage`,
    `cost`, `calls` (asked for by the model) and `seconds` are used up so far, `tools` counts the
    calls of closed steps, `counted` holds the threads of other agents whose use is in it.
    `first_item` is the length of the history when the run started: before it stands the message
    that the run began with, and what of its answer the caller brought. `finishing` is set once it
    was asked to end after its step, `job_failure` is why a job makes it fail. `expires_at` (Unix
    seconds) is when a run that requires action ends. `adapted` are the ids of the items that it
    reported as adapted. `options` are those of the run, None without any; `first_agent` is the
    agent it began with, if it has any.
    `output` is what a validator made of the answer.
    """

    id: str
    agent: str
    agent_hash: str = ""
    status: RunStatus = "in_progress"
    stop_reason: StopReason | None = None
    steps: int = 0
    interrupted: int = 0
    usage: Usage = Usage()
    cost: float = 0.0
    calls: int = 0
    seconds: float = 0.0
    tools: tuple[ToolCount, ...] = ()
    handoffs: int = 0
    last_step: Step | None = None
    hooked: int = 0
    counted: tuple[str, ...] = ()
    corrections: int = 0
    first_item: int = 0
    finishing: bool = False
    job_failure: str = ""
    expires_at: float | None = None
    adapted: tuple[str, ...] = ()
    cancelled_by: str = ""
    options: RunOptions | None = None
    first_agent: str = ""
    output: ValidatedOutput | None = None

    @property
    def is_active(self) -> bool:
        """Whether the run has not ended."""
        return self.status in ACTIVE

    @property
    def spent(self) -> Spent:
        """What the run has used up, the open step's calls left out."""
        steps = self.steps - self.interrupted
        return Spent(self.usage, self.cost, steps, self.calls, self.seconds)

    def count_of(self, tool: str) -> ToolCount:
        """How often the run called a tool, the open step left out."""
        return next((one for one in self.tools if one.name == tool), ToolCount(tool, 0, 0))


class QueuedRun(Struct, frozen=True, gc=False, omit_defaults=True):
    """A run that waits for the one before it, and the message it starts with, sent `by`.

    `before` are messages that enter the history right before it, `so_far` items right after it.
    """

    id: str
    item: Message
    agent: str
    key: str = ""
    by: str = ""
    options: RunOptions | None = None
    before: tuple[Message, ...] = ()
    schedule_id: str = ""
    so_far: tuple[Item, ...] = ()


class SteeringMessage(Struct, frozen=True, gc=False, omit_defaults=True):
    """A message that waits for the next safe point, and the principal that sent it."""

    item: Message
    by: str = ""


class OpenJob(Struct, frozen=True, gc=False, omit_defaults=True):
    """A job that has not settled, with the fields of `JobStarted`; `children` of it are open.

    `delegated` are the threads of the agents that work for it, `counted` are those whose usage is
    counted already.
    """

    id: str
    name: str
    run_id: str
    parent: str = ""
    background: bool = False
    agent: str = ""
    announces: Announces = "wake"
    kind: str = ""
    arguments: str = ""
    attempt: int = 1
    children: int = 0
    delegated: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()


class Announcement(Struct, frozen=True, gc=False):
    """The message in which a background job of the run `run_id` of `agent` reports its end.

    With `wakes` it starts a run if none is in progress.
    """

    item: Message
    run_id: str
    agent: str
    wakes: bool


NO_JOBS: Mapping[str, OpenJob] = MappingProxyType({})
NOBODY: Mapping[str, str] = MappingProxyType({})


class ThreadState(Struct, frozen=True, gc=False):
    """All that is known of a thread.

    The history, the run and its open step, the runs that wait (`queue`), and the messages that wait
    for the next safe point of the run in progress (`steering`). `jobs` are the jobs that have not
    settled, by their ids, `announced` the messages of background jobs that have not entered the
    history. `ended` is the usage of the runs that have ended, `edited` the number of the event that
    replaced the history last. `approved` are the ids of all calls that were approved, `answered_by`
    the principals that approved or answered calls, by the ids of the calls. `memory`
    contains the memory blocks, `context` selects what the model reads of the history, `tended` is
    the number of items that a sleep agent has read. `said` is the number of the last event of the
    conversation itself, and not of memory, jobs, schedules or compaction. `schedules` are the
    messages that are to be sent later, by their ids.
    """

    seq: int = 0
    history: History = msgspec.field(default_factory=History)
    run: Run | None = None
    step: Step | None = None
    queue: tuple[QueuedRun, ...] = ()
    steering: tuple[SteeringMessage, ...] = ()
    ended: Spent = Spent()
    edited: int = 0
    approved: frozenset[str] = frozenset()
    answered_by: Mapping[str, str] = NOBODY
    jobs: Mapping[str, OpenJob] = NO_JOBS
    announced: tuple[Announcement, ...] = ()
    memory: BlockMemory = NO_MEMORY
    context: Context = WHOLE
    tended: int = 0
    said: int = 0
    schedules: Mapping[str, Schedule] = NO_SCHEDULES

    @property
    def active_run(self) -> Run | None:
        """The run that has not ended, if there is one."""
        run = self.run
        return run if run is not None and run.status in ACTIVE else None

    @property
    def spent(self) -> Spent:
        """The usage of all runs of the thread so far, and of the work outside of runs."""
        run = self.active_run
        return self.ended if run is None else self.ended + run.spent


def can_go_on(state: ThreadState) -> bool:
    """Whether a thread has something to do that needs nothing from outside."""
    run, step = state.active_run, state.step
    if run is None:
        return bool(state.queue) or any(one.wakes for one in state.announced)
    if run.status != "requires_action" or step is None or step.ready or run.job_failure:
        return True
    # Steering skips calls that wait for approval. A call whose output comes from outside is not
    # skipped: the work for it may be under way, and the model has to see its output.
    approvals = (step.awaits_of(call.call_id) == "approval" for call in step.awaited)
    return bool(state.steering) and any(approvals)


def message_place(run: Run, history: Sequence[Item]) -> int | None:
    """Returns the place of the message that a run began with, or None.

    After it may be items with which the caller began the answer.
    """
    for place in range(run.first_item - 1, -1, -1):
        item = history[place]
        if isinstance(item, Message) and item.role != "assistant":
            return place
    return None
