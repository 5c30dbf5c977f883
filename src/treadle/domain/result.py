"""The result of a run, and the error of one that ended without an output."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from treadle.domain.items import Item
from treadle.domain.state import RunStatus
from treadle.domain.stop_reason import StopReason
from treadle.domain.usage import Usage
from treadle.errors import (
    CancelRequested,
    ContentFiltered,
    LimitReached,
    OutputMissing,
    ReplyOverdue,
    RunStopped,
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunResult(Generic[T]):
    """The result of a run.

    - `run_id`, `thread_id`: the ids of the run and its thread; a foreground run has a thread in
      memory.
    - `output`: the result in the agent's output type. None in the result of a run that ended
      without an output, which is returned with `raise_on_incomplete=False` only.
    - `text`: the last text of the model, the arguments of the call with which it gave its output,
      or the output of the terminal tool.
    - `items`: the items that the run added to the conversation, including the input.
    - `history`: the whole conversation, which can be passed to the next run.
    - `usage`: tokens of all steps, and of other agents that worked for the run. `cost`: their cost,
      as far as the prices are known. `steps`: the number of responses.
    - `status` and `stop_reason`: how and why the run ended. `agent`: the name of the last agent.
    - `is_complete`: whether the run completed with an output.
    """

    run_id: str
    thread_id: str
    output: T
    text: str
    refusal: str
    items: Sequence[Item]
    history: Sequence[Item]
    usage: Usage
    status: RunStatus
    stop_reason: StopReason
    steps: int
    cost: float = 0.0
    agent: str = ""
    is_complete: bool = True


def require_complete(result: RunResult[T]) -> RunResult[T]:
    """Returns the result of a run with an output; raises a kind of `RunStopped` for another."""
    if result.is_complete:
        return result
    raise _stopped(result)


def _stopped(result: RunResult[T]) -> RunStopped:
    reason = result.stop_reason
    else_ = "or pass raise_on_incomplete=False to get the result so far."
    if reason.startswith("max_"):
        return LimitReached(f"The run reached the limit {reason}; raise it, {else_}", result)
    match reason:
        case "content_filter":
            text = f"The provider filtered the response; change the input, {else_}"
            return ContentFiltered(text, result)
        case "expired":
            text = f"No answer to a call arrived in time; raise action_timeout, {else_}"
            return ReplyOverdue(text, result)
        case "cancelled":
            return CancelRequested(f"The run was cancelled; send again, {else_}", result)
        case _:
            text = f"The run ended ({reason}) before there was an output; send again, {else_}"
            return OutputMissing(text, result)
