"""The safe point after a response: every call has its output, and nothing was asked next.

Here, and nowhere else, a program may change what the model reads.
"""

from functools import partial

from treadle.domain.events import RecordedEvent, StopReason
from treadle.domain.state import ThreadState
from treadle.loop.control import RunControl
from treadle.loop.decision import stop
from treadle.loop.definition import AgentDefinition, Deps, Out
from treadle.loop.hook_context import Completion, CompletionContext
from treadle.ports import ThreadWriter


async def after_completion(
    thread: ThreadWriter,
    definition: AgentDefinition[Deps, Out],
    deps: Deps,
    control: RunControl,
) -> None:
    """Calls the hooks of that name for the step that was closed last.

    What they change is recorded in one turn of the event loop, so that a crash leaves all of it or
    nothing; in the latter case they are called again. Raises `HookFailed`.
    """
    hooks = definition.hooks.at("after_completion")
    state, run = thread.state, thread.state.run
    step = run.last_step if run is not None else None
    if not hooks or run is None or step is None or run.hooked == run.steps:
        return
    if step.finish_reason is None:
        return  # the response was cut off by the end of a process, and is asked for again
    await thread.durable()
    completion = Completion(step, partial(_stop_reason, state, definition))
    context = CompletionContext(thread, definition.name, deps, control.delegation, control.jobs)
    for hook in hooks:
        undo = partial(context.undo, len(context.changes)) if hook.isolated else None
        answer = hook(context, completion, undo=undo)
        if answer is not None:
            await hook.answer(answer, undo)
    _record(thread, context.changes)


def _record(thread: ThreadWriter, changes: list[RecordedEvent]) -> None:
    """Records what hooks changed, in one turn."""
    for change in changes:
        thread.record(change)


def _stop_reason(state: ThreadState, definition: AgentDefinition[Deps, Out]) -> StopReason | None:
    """Why the run ends after the step, unless a message that waits lets it go on."""
    stopped = stop(state, definition) if not state.steering else None
    return stopped.reason if stopped is not None else None
