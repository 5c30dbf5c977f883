"""From the state of a thread to what the API shows of it."""

from treadle.domain.removed_items import visible
from treadle.domain.state import ThreadState
from treadle.journal.base import ThreadInfo
from treadle.runtime.thread import Thread
from treadle.server.bodies import PendingCallInfo, QueuedView, RunView, StepView, ThreadView
from treadle.server.streams import present


async def view_thread(thread: Thread) -> ThreadView:
    """Returns the present state of a thread."""
    # The list entry first: what changes in between is in the events after the position.
    info = await thread.info()
    return view_of(info, await thread.state())


def view_of(info: ThreadInfo, state: ThreadState) -> ThreadView:
    """Returns a state as the API shows it."""
    run, step = state.run, state.step
    items = visible(state.history) if state.context.removed else state.history
    return ThreadView(
        thread=info,
        position=present(state.seq),
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
        else StepView(
            items=[item for _, item in sorted(step.items, key=lambda one: one[0])],
            outputs=list(step.outputs),
        ),
        calls=pending_calls(info.id, state),
        queue=[QueuedView(run_id=one.id, item=one.item, agent=one.agent) for one in state.queue],
        steering=[one.item for one in state.steering],
        jobs=list(state.jobs.values()),
    )


def pending_calls(thread_id: str, state: ThreadState) -> list[PendingCallInfo]:
    """Returns the calls of a thread that wait for an answer from outside."""
    run, step = state.active_run, state.step
    if run is None or step is None:
        return []
    return [
        PendingCallInfo(
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
