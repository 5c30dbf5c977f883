"""What hooks are given: a context of the run, the completion, the end; and what they change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast, overload

from typing_extensions import TypeVar as TypeVarWithDefault

from treadle.domain.events import (
    HistoryReplaced,
    MessageAdded,
    RecordedEvent,
    RunContinued,
    RunFinishing,
)
from treadle.domain.inputs import as_history, injected_message
from treadle.domain.items import FunctionCall, FunctionCallOutput, Input, Item, Message, Role
from treadle.domain.open_step import Step
from treadle.domain.result import RunResult, require_complete
from treadle.domain.state import Run
from treadle.domain.stop_reason import StopReason
from treadle.errors import InvalidInput
from treadle.jobs.node import Node
from treadle.loop.services import Services
from treadle.ports import ThreadWriter, Worker
from treadle.tools.run_facts import RunFacts, message_of

Deps = TypeVarWithDefault("Deps", default=None)
Out = TypeVar("Out")


class HookContext(RunFacts, Generic[Deps]):
    """The run that a hook is called for.

    - `deps`: what the caller gave the run. `agent`: the name of the agent at work.
    - `thread_id`, `run_id`: the ids of the thread and of the run.
    - `owner`: the owner of the thread, or "". `metadata`: what was given with the thread.
    - `message`: the message that the run began with, None without one.
    """

    def __init__(
        self,
        thread: ThreadWriter,
        agent: str,
        deps: Deps,
        services: Services,
    ) -> None:
        assert thread.state.run is not None
        info = services.info()
        self.deps = deps
        self.thread_id = thread.id
        self.run_id = thread.state.run.id
        self.agent = agent
        self.owner = info.owner
        self.metadata = info.metadata
        self.message = message_of(thread.state)
        self._thread = thread
        self._services = services

    @property
    def _writer(self) -> ThreadWriter:
        return self._thread

    @property
    def jobs(self) -> Node[None]:
        """The run's node in the tree of its thread, to submit jobs to; see `RunContext.jobs`.

        Raises `NodeClosed` once the run has ended, or is about to.
        """
        return self._services.jobs.node


class Completion:
    """A response of the model that is complete, and the outputs of its calls."""

    def __init__(self, step: Step, stop_reason: Callable[[], StopReason | None]) -> None:
        self.step = step
        self._stop_reason = stop_reason

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the run ends now, or None if it continues."""
        return self._stop_reason()

    @property
    def number(self) -> int:
        """The number of the step in its run, from 1."""
        return self.step.number

    @property
    def text(self) -> str:
        """The text of the response."""
        return "".join(item.text for item in self.step.ordered if isinstance(item, Message))

    @property
    def items(self) -> Sequence[Item]:
        """The items of the response, then the outputs of its calls."""
        return self.step.settled()

    @property
    def calls(self) -> Sequence[FunctionCall]:
        """The calls, in the order of the response."""
        return self.step.calls

    def output(self, call_id: str) -> FunctionCallOutput | None:
        """The output of a call."""
        return self.step.output(call_id)


@dataclass(frozen=True)
class RunEnd:
    """How a run ended: the run as it is now, and the error it failed with, if it did."""

    run: Run
    error: Exception | None = None


class CompletionContext(HookContext[Deps]):
    """What an `after_completion` hook may change; all of it happens at once, after all hooks.

    There is no other way to change a history.
    """

    def __init__(
        self,
        thread: ThreadWriter,
        agent: str,
        deps: Deps,
        services: Services,
    ) -> None:
        super().__init__(thread, agent, deps, services)
        self.changes: list[RecordedEvent] = []
        self._history: list[Item] | None = None
        self._delegated = 0
        self._at_work = 0  # agents

    @property
    def history(self) -> Sequence[Item]:
        """The conversation so far, with what this hook changes."""
        return super().history if self._history is None else tuple(self._history)

    def inject(self, *messages: Input, role: str = "user") -> None:
        """Adds messages behind the outputs; a text becomes a message of `role`.

        Roles are user, assistant, system and developer. Raises `InvalidInput`.
        """
        # All of them first: what is refused must not leave a part of them behind.
        for item in [injected_message(one, cast("Role", role)) for one in messages]:
            self._add(item)

    def replace_history(self, items: Sequence[Item]) -> None:
        """Replaces the history; the thread's events keep what it was.

        Raises `InvalidInput` for what is not an item, and unless every call has exactly one output
        behind it.
        """
        items = as_history(items)
        self._history = list(items)
        self.changes.append(HistoryReplaced(run_id=self.run_id, items=tuple(items)))

    def continue_with(self, *messages: Input, role: str = "user") -> None:
        """Adds messages, and continues a run that would end with the model's last word.

        A limit, or a request to finish, ends it nevertheless. Raises `InvalidInput` without a
        message.
        """
        if not messages:
            raise InvalidInput("continue_with needs at least one message for the model to answer.")
        self.inject(*messages, role=role)
        self.changes.append(RunContinued(run_id=self.run_id))

    def finish(self) -> None:
        """Ends the run now, as completed."""
        self.changes.append(RunFinishing(run_id=self.run_id))

    @overload
    async def run_agent(
        self, agent: Worker[Out], input: Input, *, raise_on_incomplete: Literal[True] = True
    ) -> RunResult[Out]: ...

    @overload
    async def run_agent(
        self, agent: Worker[Out], input: Input, *, raise_on_incomplete: bool
    ) -> RunResult[Out | None]: ...

    async def run_agent(
        self, agent: Worker[Out], input: Input, *, raise_on_incomplete: bool = True
    ) -> RunResult[Out] | RunResult[Out | None]:
        """Runs another agent on a thread of its own, and returns its result.

        What it uses counts for the run. After a crash it resumes where it was.

        Raises the error of a run that failed, a kind of `RunStopped` if the run ended without an
        output (unless `raise_on_incomplete` is False), `AgentsTooDeep` and `BudgetUsedUp`.
        """
        self._delegated += 1
        key = f"{self.run_id}/{self.step}/{self._delegated}"
        self._at_work += 1
        try:
            result = await self._services.delegation.run(agent, input, key=key)
        finally:
            self._at_work -= 1
        return require_complete(result) if raise_on_incomplete else result

    def _redo(self, change: RecordedEvent) -> None:
        self.changes.append(change)
        if isinstance(change, HistoryReplaced):
            self._history = list(change.items)
        elif isinstance(change, MessageAdded):
            self._changed().append(change.item)

    def _changed(self) -> list[Item]:
        if self._history is None:
            self._history = list(super().history)
        return self._history

    def _add(self, item: Message) -> None:
        self._changed().append(item)
        self.changes.append(MessageAdded(run_id=self.run_id, item=item, origin="hook"))


def runs_agents(context: CompletionContext[Any]) -> bool:
    """Returns whether an agent works for a hook at this moment."""
    return context._at_work > 0  # pyright: ignore[reportPrivateUsage]


def undo_changes(context: CompletionContext[Any], count: int) -> None:
    """Keeps only the first `count` changes: those of an isolated hook that failed are dropped."""
    kept = context.changes[:count]
    context.changes.clear()
    context._history = None  # pyright: ignore[reportPrivateUsage]
    for change in kept:
        context._redo(change)  # pyright: ignore[reportPrivateUsage]
