"""What may be said to a thread from outside: the output of a call, an approval, a denial, a pin.

Functions of the state: each returns the event to record, or None where the same was said
before, and raises where it cannot be said.
"""

from treadle.domain.arguments import shown
from treadle.domain.events import (
    MessagePinned,
    ToolApproved,
    ToolOutputRecorded,
    object_in,
)
from treadle.domain.ids import new_id
from treadle.domain.items import FunctionCall, FunctionCallOutput, Message, OutputPart
from treadle.domain.open_step import Step
from treadle.domain.state import ThreadState
from treadle.errors import Conflict, RunNotInProgress, UnknownMessage, UnknownToolCall

DENIED = "The call was denied"


def output_of(
    state: ThreadState,
    call_id: str,
    output: str | tuple[OutputPart, ...],
    *,
    is_error: bool = False,
) -> ToolOutputRecorded | None:
    """Returns the event that answers an external call, or a call that waits for approval.

    Raises `Conflict` when the call has another output, `UnknownToolCall` for a call that is not
    open to answers, `RunNotInProgress` for one of a run that has ended without its output.
    """
    known = _answered(state, call_id)
    if known is not None:
        if (known.output, known.is_error) == (output, is_error):
            return None
        raise _late(state, call_id, known)
    call, run_id = _awaited(state, call_id)
    item = FunctionCallOutput(call_id, output, new_id("fco"), is_error)
    return ToolOutputRecorded(run_id=run_id, item=item, name=call.name)


def approval_of(state: ThreadState, call_id: str, arguments: str = "") -> ToolApproved | None:
    """Returns the event that lets a call run, with other `arguments` (JSON) if there are any.

    Raises as `output_of` does. A call that was approved with some arguments is not approved again
    with others: such an approval has not seen what runs.
    """
    if call_id in state.approved:
        known = call_of(state, call_id)
        edited = known.arguments if known is not None and known.proposed else ""
        if object_in(arguments or "{}") == object_in(edited or "{}"):
            return None
        raise _late(state, call_id, None, " with other arguments")
    step = state.step
    known = _answered(state, call_id)
    if known is not None:
        raise _late(state, call_id, known)
    call, run_id = _awaited(state, call_id)
    if step is None or step.awaits_of(call_id) != "approval":
        raise Conflict(f"{call.name} is answered from outside; submit the output of {call_id!r}.")
    if arguments and call.runs_at_provider:
        raise Conflict(
            f"The provider makes the call {call_id!r} with the arguments of the model; deny it "
            "with a reason that tells what to change."
        )
    return ToolApproved(run_id=run_id, call_id=call_id, arguments=arguments)


def denial_of(state: ThreadState, call_id: str, reason: str = "") -> ToolOutputRecorded | None:
    """Returns the event that denies a call; the model reads the reason. Raises as `output_of`."""
    if call_id in state.approved:
        raise _late(state, call_id, None)
    text = f"{DENIED}: {reason}" if reason else f"{DENIED}."
    return output_of(state, call_id, text, is_error=True)


def _late(
    state: ThreadState, call_id: str, known: FunctionCallOutput | None, how: str = ""
) -> Conflict:
    """Returns the error for an answer that came too late: what happened, and who answered."""
    by = state.answered_by.get(call_id, "")
    named = f" by {by[:100]}" if by else ""
    if call_id in state.approved:
        return Conflict(f"The call {call_id!r} was already approved{named}{how}.", by=by)
    text = known.output if known is not None else ""
    text = text if isinstance(text, str) else "an output with images"
    return Conflict(f"The call {call_id!r} was already answered{named}: {shown(text)}.", by=by)


def _awaited(state: ThreadState, call_id: str) -> tuple[FunctionCall, str]:
    run, step = state.active_run, state.step
    if run is None or run.status == "cancelling":
        if call_of(state, call_id) is None:
            raise UnknownToolCall(
                f"This thread has no call {call_id[:100]!r}; pending_calls() returns those that "
                "wait."
            )
        by = run.cancelled_by if run is not None else ""
        named = f"was cancelled by {by[:100]}" if by else "has ended"
        raise RunNotInProgress(f"No run waits for the call {call_id!r}; it {named}.", by=by)
    call = step.call(call_id) if step is not None else None
    if step is None or call is None:
        raise UnknownToolCall(
            f"The run {run.id} has no open call {call_id[:100]!r}; pending_calls() returns those "
            "that wait."
        )
    if call_id in step.approved:
        raise _late(state, call_id, None)
    if step.awaits_of(call_id) is None:
        raise UnknownToolCall(f"{call.name} runs here; its call {call_id!r} takes no answer.")
    return call, run.id


def call_of(state: ThreadState, call_id: str) -> FunctionCall | None:
    """Returns a call of the open step, or else the newest of that id."""
    call = state.step.call(call_id) if state.step is not None else None
    if call is not None:
        return call
    history = state.history
    for index in range(len(history) - 1, -1, -1):
        item = history[index]
        if isinstance(item, FunctionCall) and item.call_id == call_id:
            return item
    return None


def _answered(state: ThreadState, call_id: str) -> FunctionCallOutput | None:
    """Returns the output of a call of the open step, or else of the newest of that id."""
    step: Step | None = state.step
    if step is not None and step.call(call_id) is not None:
        return step.output(call_id)
    history = state.history
    for index in range(len(history) - 1, -1, -1):
        item = history[index]
        if isinstance(item, FunctionCallOutput) and item.call_id == call_id:
            return item
    return None


def pin_of(state: ThreadState, message_id: str, *, pinned: bool) -> MessagePinned | None:
    """Returns the event that pins a message of the history, or lets go of it.

    Returns None where it is so already. Raises `UnknownMessage` for one that the history does not
    have, such as one that still waits for its run.
    """
    if pinned == (message_id in state.context.pinned):
        return None
    if pinned and not _is_known(state, message_id):
        raise UnknownMessage(
            f"The history has no message {message_id[:100]!r}; those that wait for their run, and "
            "those of a step in progress, cannot be pinned yet."
        )
    return MessagePinned(message_id=message_id, pinned=pinned)


def _is_known(state: ThreadState, message_id: str) -> bool:
    # The newest first: what was not read of the history comes last.
    items = reversed(state.history)
    return any(isinstance(item, Message) and item.id == message_id for item in items)
