"""What came of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from weft.decision import final_text, refusal_of
from weft.definition import AgentDefinition
from weft.events import StopReason
from weft.items import Item
from weft.state import Run, RunStatus, ThreadState
from weft.usage import Usage

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunResult(Generic[T]):
    """What came of a run.

    - `output`: the result in the agent's output type; None when the run ended before there was one.
    - `text`: what the model said last, or the output of the terminal tool.
    - `items`: what the run added to the conversation, the input included.
    - `history`: the whole conversation, to be given to the next run.
    - `usage`: tokens of all steps. `steps`: how many responses there were.
    - `status` and `stop_reason`: how and why the run ended.
    """

    output: T | None
    text: str
    refusal: str
    items: Sequence[Item]
    history: Sequence[Item]
    usage: Usage
    status: RunStatus
    stop_reason: StopReason
    steps: int


def result_of(state: ThreadState, run: Run, definition: AgentDefinition[object, T]) -> RunResult[T]:
    """Returns the result of `run`, which ended last on the thread."""
    text = final_text(state, definition)
    return RunResult(
        output=_output(definition, text) if run.status == "completed" else None,
        text=text,
        refusal=refusal_of(run.last_step) if run.last_step is not None else "",
        items=state.history[run.first_item - 1 :],
        history=state.history,
        usage=run.usage,
        status=run.status,
        stop_reason=run.stop_reason or "cancelled",
        steps=run.steps,
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
    if definition.output is None:
        return cast("T", text)
    try:
        return definition.output.parse(text)
    except ValueError:
        # The run was told to finish, or a terminal tool ended it, before there was an output.
        return None
