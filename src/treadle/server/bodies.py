"""The values of the API that are not values of the runtime."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from treadle.domain.events import StopReason
from treadle.domain.items import Item
from treadle.domain.state import RunStatus
from treadle.domain.usage import Usage
from treadle.server.problems import Problem


class Sent(Struct, frozen=True, kw_only=True):
    """What a message started: its run, and the position right before it."""

    thread_id: str
    run_id: str
    position: str


class Added(Struct, frozen=True, kw_only=True):
    """Items were added to a thread; `position` is behind them."""

    thread_id: str
    position: str


class Repaired(Struct, frozen=True):
    """The numbers of the events that were removed because they could not be read."""

    removed: list[int]


class Inserted(Struct, frozen=True):
    """The id of a text in the archive."""

    id: str


class ErrorInfo(Struct, frozen=True):
    """Why a run failed."""

    code: str
    message: str
    retryable: bool


class Result(Struct, frozen=True, kw_only=True):
    """The result of a run that has ended; `output` is JSON in the output type of the agent.

    `history` is the whole conversation, for a request that asks for it.
    """

    thread_id: str
    run_id: str
    status: RunStatus
    stop_reason: StopReason | None = None
    text: str = ""
    output: Any = None
    refusal: str = ""
    items: list[Item] = []
    history: list[Item] | UnsetType = UNSET
    usage: Usage = Usage()
    cost: float = 0.0
    steps: int = 0
    agent: str = ""
    is_complete: bool = False
    error: ErrorInfo | None = None


class Answered(Struct, frozen=True):
    """What became of an answer to a call: nothing went wrong, or `problem`."""

    call_id: str
    problem: Problem | None = None


class ToolInfo(Struct, frozen=True, kw_only=True):
    """A tool of an agent; `needs_approval` is true if some of its calls may need it.

    `to_user` names the argument that is shown to the user while the model writes it, if there is
    one.
    """

    name: str
    description: str
    parameters: Any
    external: bool
    needs_approval: bool
    to_user: str = ""


class AgentInfo(Struct, frozen=True, kw_only=True):
    """An agent that the server runs. Tools of sources such as MCP servers are not among `tools`.

    `serves` is false for agents that only work for others. `window` is how many tokens its model
    reads at once, if that is known.
    """

    name: str
    description: str
    model: str
    serves: bool = True
    examples: list[str] = []
    window: int | None = None
    tools: list[ToolInfo]
    handoffs: list[str]
    overridable: list[str] = []


class Me(Struct, frozen=True, kw_only=True):
    """The principal of a request."""

    by: str
    owner: str | None
    scopes: list[str]
