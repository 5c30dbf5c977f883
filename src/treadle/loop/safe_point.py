"""The safe point after a response: every call has its output, and nothing was asked next.

Here, and nowhere else, a program may change what the model reads.
"""

from functools import partial

from msgspec.structs import replace

from treadle.domain.events import HistoryReplaced, MessageAdded, RecordedEvent
from treadle.domain.state import ThreadState
from treadle.domain.stop_reason import StopReason
from treadle.loop.activation import Activation
from treadle.loop.definition import AgentDefinition, Deps, Out
from treadle.loop.hook_context import Completion, runs_agents, undo_changes
from treadle.loop.steering import expected_end
from treadle.ports import ThreadWriter


async def settle(activation: Activation[Deps, Out]) -> None:
    """Calls the `after_completion` hooks for the last step; waits for those of `on_event`.

    Raises `HookFailed`.
    """
    await _after_completion(activation)
    if activation.listener is not None:
        await activation.listener.caught_up()


async def _after_completion(activation: Activation[Deps, Out]) -> None:
    """Calls the hooks, and records what they change.

    Everything in one turn of the event loop, so that a crash leaves all of it or nothing; in the
    latter case they are called again.
    """
    thread, agent, run = activation.thread, activation.agent, activation.run
    hooks, step = agent.hooks.at("after_completion"), run.last_step
    if not hooks or step is None or run.hooked == run.steps:
        return
    if step.finish_reason is None:
        return  # the end of a process cut the response off, and the model is asked again
    state = thread.state
    await thread.durable()
    completion = Completion(step, partial(_stop_reason, state, agent))
    context = activation.completion_context()
    for hook in hooks:
        undo = partial(undo_changes, context, len(context.changes)) if hook.isolated else None
        answer = hook(context, completion, undo=undo)
        if answer is not None:
            await hook.answer(answer, undo, partial(runs_agents, context))
    _record(thread, [await _kept(activation, change) for change in context.changes])


async def _kept(activation: Activation[Deps, Out], change: RecordedEvent) -> RecordedEvent:
    """Returns a change of a hook whose large files are stored apart."""
    files = activation.services.files
    match change:
        case MessageAdded():
            return replace(change, item=await files.keep(change.item))
        case HistoryReplaced():
            return replace(change, items=tuple([await files.keep(one) for one in change.items]))
        case _:
            return change


def _record(thread: ThreadWriter, changes: list[RecordedEvent]) -> None:
    """Records what hooks changed, in one turn."""
    for change in changes:
        thread.record(change)


def _stop_reason(state: ThreadState, agent: AgentDefinition[Deps, Out]) -> StopReason | None:
    end = expected_end(state, agent)
    return end.reason if end is not None else None
