"""The safe point after a response: every call has its output, and nothing was asked next.

Here, and nowhere else, a program may change what the model reads.
"""

from weft.control import RunControl
from weft.decision import stop
from weft.definition import AgentDefinition, Deps, Out
from weft.hook_context import Completion, CompletionContext
from weft.writer import ThreadWriter


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
    stopped = stop(state, definition) if not state.steering else None
    completion = Completion(step, stopped.reason if stopped is not None else None)
    context = CompletionContext(thread, definition.name, deps, control.delegation)
    for hook in hooks:
        known = len(context.changes)
        await hook(context, completion, undo=lambda known=known: context.undo(known))
    for change in context.changes:
        thread.record(change)
