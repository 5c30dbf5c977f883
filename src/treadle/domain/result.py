"""What came of a run."""

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
    """What came of a run.

    - `output`: the result in the agent's output type; None when the run ended before there was one.
    - `text`: what the model said last, or the output of the terminal tool.
    - `items`: what the run added to the conversation, the input included.
    - `history`: the whole conversation, to be given to the next run.
    - `usage`: tokens of all steps, and of other agents that worked for the run. `cost`: what they
      cost, as far as the prices are known. `steps`: how many responses there were.
    - `status` and `stop_reason`: how and why the run ended. `agent`: who worked on it last.
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
    cost: float = 0.0
    agent: str = ""
