"""From the state of a thread to what came of a run."""

from typing import TypeVar

from weft.decision import final_text, refusal_of
from weft.definition import AgentDefinition
from weft.result import RunResult
from weft.state import Run, ThreadState
from weft.usage import Usage

T = TypeVar("T")


def result_of(state: ThreadState, run: Run, definition: AgentDefinition[object, T]) -> RunResult[T]:
    """Returns the result of `run`, which ended last on the thread."""
    text = final_text(state, definition)
    return RunResult(
        output=_output(definition, text) if run.status == "completed" else None,
        text=text,
        refusal=refusal_of(run.last_step) if run.last_step is not None else "",
        items=state.history[max(run.first_item - 1, 0) :],
        history=state.history,
        usage=run.usage,
        status=run.status,
        stop_reason=run.stop_reason or "cancelled",
        steps=run.steps,
        cost=run.cost,
        agent=run.agent,
    )


def never_began(state: ThreadState) -> RunResult[object]:
    """Returns the result of a run that was taken out of the queue."""
    return RunResult(
        output=None,
        text="",
        refusal="",
        items=(),
        history=state.history,
        usage=Usage(),
        status="cancelled",
        stop_reason="cancelled",
        steps=0,
    )


def _output(definition: AgentDefinition[object, T], text: str) -> T | None:
    try:
        return definition.parse(text)
    except ValueError:
        # The run was told to finish, or a terminal tool ended it, before there was an output.
        return None
