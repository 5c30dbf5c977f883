"""From the state of a thread to what came of a run."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from treadle.actors.ending import Ended
from treadle.domain.events import RunFailed
from treadle.domain.items import Item
from treadle.domain.removed_items import visible
from treadle.domain.result import RunResult
from treadle.domain.state import Run, ThreadState, message_place
from treadle.domain.usage import Usage
from treadle.errors import error_of
from treadle.loop.definition import AgentDefinition
from treadle.loop.outcome import final_answer, refusal_of

T = TypeVar("T")


def result_of(
    thread_id: str, state: ThreadState, run: Run, definition: AgentDefinition[Any, T]
) -> RunResult[T | None]:
    """Returns the result of `run`, which ended last on the thread."""
    answer = final_answer(state, definition)
    began = message_place(run, state.history)
    output: T | None = None
    is_complete = run.status == "completed"
    if is_complete:
        try:
            if run.output is not None:  # a validator changed it
                output = definition.parse(run.output.text)
            else:
                output = definition.parse(answer.text, is_call=answer.is_call)
        except ValueError:  # it was told to finish, or a terminal tool ended it, before
            is_complete = False
    return RunResult(
        run_id=run.id,
        thread_id=thread_id,
        output=output,
        text=answer.text,
        refusal=refusal_of(run.last_step) if run.last_step is not None else "",
        items=_shown(
            state, state.history[max(run.first_item - 1, 0) if began is None else began :]
        ),
        history=_shown(state, state.history),
        usage=run.usage,
        status=run.status,
        stop_reason=run.stop_reason or "cancelled",
        steps=run.steps,
        cost=run.cost,
        agent=run.agent,
        is_complete=is_complete,
    )


def never_began(thread_id: str, run_id: str, state: ThreadState) -> RunResult[object]:
    """Returns the result of a run that was taken out of the queue."""
    return RunResult(
        run_id=run_id,
        thread_id=thread_id,
        output=None,
        text="",
        refusal="",
        items=(),
        history=_shown(state, state.history),
        usage=Usage(),
        status="cancelled",
        stop_reason="cancelled",
        steps=0,
        is_complete=False,
    )


def _shown(state: ThreadState, items: Sequence[Item]) -> Sequence[Item]:
    """Returns items of the history without those that were removed."""
    return visible(items) if state.context.removed else items


def result_of_ended(
    ended: Ended,
    thread_id: str,
    run_id: str,
    agent_of: Callable[[Run], AgentDefinition[object, object]],
) -> RunResult[object]:
    """Returns what came of a run that has ended; raises the error of one that failed.

    `agent_of` returns the agent that worked on the run, as far as its result depends on it.
    """
    if ended.error is not None:
        raise ended.error
    event, run = ended.event, ended.state.run
    if isinstance(event, RunFailed):
        raise error_of(event.code, event.message, retryable=event.retryable)
    if run is None or run.id != run_id:
        return never_began(thread_id, run_id, ended.state)
    return result_of(thread_id, ended.state, run, agent_of(run))
