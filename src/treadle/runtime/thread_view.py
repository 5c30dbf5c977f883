"""The present state of a thread, for readers that begin with it and not with its past events."""

from typing import ClassVar, Literal

from msgspec import Struct

from treadle.bus.position import Position
from treadle.domain.events import Awaited
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Message
from treadle.domain.removed_items import visible
from treadle.domain.state import OpenJob, RunStatus, ThreadState
from treadle.domain.usage import Usage
from treadle.journal.base import ThreadInfo


class CallView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call that waits for an output or an approval; the run expires at `expires_at`, or never."""

    thread_id: str
    run_id: str
    agent: str
    awaits: Awaited
    call: FunctionCall
    expires_at: float | None = None


class RunView(Struct, frozen=True, kw_only=True):
    """The run in progress, or the last one."""

    id: str
    agent: str
    status: RunStatus
    steps: int
    usage: Usage
    cost: float


class StepView(Struct, frozen=True, kw_only=True):
    """The step in progress: the finished items of its response, and the outputs of its calls."""

    items: list[Item]
    outputs: list[FunctionCallOutput]


class QueuedView(Struct, frozen=True, kw_only=True):
    """A run that waits for the one before it, and the message it starts with."""

    run_id: str
    item: Message
    agent: str


class ThreadView(Struct, frozen=True, kw_only=True, tag="thread.state"):
    """The present state of a thread; events after `position` continue it.

    - `items`: the history, without the step in progress and without what was removed.
    - `run`, `step`: None if there is none. `calls`: those that wait for an answer.
    - `queue`: the runs that wait, `steering`: the messages that enter the run in progress next.
    - `jobs`: those that have not settled.
    """

    type: ClassVar[Literal["thread.state"]] = "thread.state"
    thread: ThreadInfo
    position: str
    items: list[Item]
    run: RunView | None
    step: StepView | None
    calls: list[CallView]
    queue: list[QueuedView]
    steering: list[Message]
    jobs: list[OpenJob]


def view_of(info: ThreadInfo, state: ThreadState) -> ThreadView:
    """Returns a state as readers get it."""
    run, step = state.run, state.step
    items = visible(state.history) if state.context.removed else state.history
    return ThreadView(
        thread=info,
        position=Position(state.seq).text,
        items=list(items),
        run=None
        if run is None
        else RunView(
            id=run.id,
            agent=run.agent,
            status=run.status,
            steps=run.steps,
            usage=run.usage,
            cost=run.cost,
        ),
        step=None
        if step is None
        else StepView(items=list(step.ordered), outputs=list(step.outputs)),
        calls=_calls(info.id, state),
        queue=[QueuedView(run_id=one.id, item=one.item, agent=one.agent) for one in state.queue],
        steering=[one.item for one in state.steering],
        jobs=list(state.jobs.values()),
    )


def _calls(thread_id: str, state: ThreadState) -> list[CallView]:
    run, step = state.active_run, state.step
    if run is None or step is None:
        return []
    return [
        CallView(
            thread_id=thread_id,
            run_id=run.id,
            agent=run.agent,
            awaits=awaits,
            call=call,
            expires_at=run.expires_at,
        )
        for call in step.awaited
        if (awaits := step.awaits_of(call.call_id)) is not None
    ]
