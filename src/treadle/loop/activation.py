"""An activation: all that works together on the active run of a thread."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic

from treadle.domain.state import Run
from treadle.loop.definition import AgentDefinition, Deps, Out
from treadle.loop.hook_context import CompletionContext, HookContext
from treadle.loop.listener import EventListener
from treadle.loop.services import Services
from treadle.loop.signals import Signals
from treadle.loop.stopwatch import Stopwatch
from treadle.models.retry import Backoff
from treadle.ports import ThreadWriter
from treadle.tools.context import CallServices, RunContext
from treadle.tools.run_facts import message_of

_NOT_LISTENING = nullcontext()


@dataclass(slots=True)
class Activation(Generic[Deps, Out]):
    """One stretch of work on a run, from `drive` until the run has ended or must wait.

    - `thread`: where the run is recorded. `agent`: works on the run now; a handoff changes it.
    - `deps`: what the caller gave the run; `make_deps` makes it first, if the runtime does.
    - `backoff`: counts the failures of the request in progress; None before the first.
    - `services` and `signals` outlive the activation, and so does the `listener`, which calls the
      `on_event` hooks; None if no agent has any.
    """

    thread: ThreadWriter
    agent: AgentDefinition[Deps, Out]
    deps: Deps
    services: Services
    signals: Signals
    listener: EventListener | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    backoff: Backoff | None = None
    make_deps: Callable[[], Awaitable[Deps]] | None = None

    @property
    def run(self) -> Run:
        """The run that is in progress, or that ended last."""
        run = self.thread.state.run
        assert run is not None
        return run

    @property
    def repeats_interrupted(self) -> bool:
        """Whether the model is asked again after a response of which something was seen."""
        policy = self.agent.on_interruption
        return self.services.is_kept if policy is None else policy == "retry"

    @property
    def seconds_left(self) -> float | None:
        """How long the run may still work; None is no limit."""
        limit = self.agent.limits.max_seconds
        return None if limit is None else max(0.0, limit - self.run.seconds)

    def hook_context(self, agent: AgentDefinition[Any, Any] | None = None) -> HookContext[Deps]:
        """Returns what a hook of `agent` is given; the one that works now by default."""
        name = self.agent.name if agent is None else agent.name
        return HookContext(self.thread, name, self.deps, self.services)

    def run_context(
        self, *, call_id: str = "", tool_name: str = "", services: CallServices | None = None
    ) -> RunContext[Deps]:
        """Returns what a function of the program is given; by default it can use the memory."""
        lent = services or CallServices(writer=self.thread, memory=self.services.memory)
        return run_context(
            self.thread,
            self.services,
            lent,
            deps=self.deps,
            agent=self.agent.name,
            call_id=call_id,
            tool_name=tool_name,
        )

    def completion_context(self) -> CompletionContext[Deps]:
        """Returns what the `after_completion` hooks are given."""
        return CompletionContext(self.thread, self.agent.name, self.deps, self.services)

    def listening(self) -> AbstractAsyncContextManager[None]:
        """While it is open, the `on_event` hooks are called; see `EventListener.listening`."""
        if self.listener is None:
            return _NOT_LISTENING
        return self.listener.listening(self.thread, self.agent, self.hook_context)


def run_context(
    thread: ThreadWriter,
    services: Services,
    lent: CallServices,
    *,
    deps: Deps,
    agent: str,
    call_id: str = "",
    tool_name: str = "",
) -> RunContext[Deps]:
    """Returns the context of the run in progress; its `run_id` is "" between runs."""
    info, run = services.info(), thread.state.run
    return RunContext(
        deps=deps,
        thread_id=thread.id,
        run_id=run.id if run is not None else "",
        call_id=call_id,
        tool_name=tool_name,
        agent=agent,
        owner=info.owner,
        metadata=info.metadata,
        run_metadata=run.options.metadata if run is not None and run.options is not None else {},
        message=message_of(thread.state),
        _services=lent,
    )
