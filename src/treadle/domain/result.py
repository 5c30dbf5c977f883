"""The result of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from treadle.domain.events import StopReason
from treadle.domain.items import Item
from treadle.domain.state import RunStatus
from treadle.domain.usage import Usage

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunResult(Generic[T]):
    """The result of a run.

    - `run_id`, `thread_id`: the ids of the run and its thread; a foreground run has a thread in
      memory.
    - `output`: the result in the agent's output type; None if the run ended before there was one.
    - `text`: the last text of the model, or the output of the terminal tool.
    - `items`: the items that the run added to the conversation, including the input.
    - `history`: the whole conversation, which can be passed to the next run.
    - `usage`: tokens of all steps, and of other agents that worked for the run. `cost`: their cost,
      as far as the prices are known. `steps`: the number of responses.
    - `status` and `stop_reason`: how and why the run ended. `agent`: the name of the last agent.
    """

    run_id: str
    thread_id: str
    output: T | None
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
