"""Hands the events of a run to the hooks `on_event` of its agent, in order, beside the run."""

import asyncio
from collections import deque
from typing import Any, Generic

from treadle.domain.events import Event, HandedOff
from treadle.errors import HookFailed
from treadle.logging import logger_of
from treadle.loop.control import RunControl
from treadle.loop.definition import AgentDefinition, Deps
from treadle.loop.hook_context import HookContext
from treadle.ports import ThreadWriter

_LOGGER = logger_of("treadle.hooks")


class EventListener(Generic[Deps]):
    """Calls hooks for the events that are put into it, while it is started.

    The loop waits for it before each step, so what waits in it is bounded by one step. `deps` is
    what hooks get as that.
    """

    def __init__(
        self,
        definition: AgentDefinition[Deps, Any],
        thread: ThreadWriter,
        deps: Deps,
        control: RunControl,
    ) -> None:
        self._agents = definition.reachable
        self._definition: AgentDefinition[Any, Any] = definition
        self._thread = thread
        self.deps = deps
        self._control = control
        self._events: deque[Event] = deque()
        self._wakeup = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failure: HookFailed | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to call the hooks, in a task that `stop` ends."""
        self._task = asyncio.create_task(self._listen(), name="treadle on_event hooks")

    def put(self, event: Event) -> None:
        """Takes an event; never waits."""
        self._events.append(event)
        self._idle.clear()
        self._wakeup.set()

    async def caught_up(self) -> None:
        """Waits until the hooks have had all events; raises `HookFailed` when one failed."""
        await self._idle.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Waits until the hooks have had all events, and ends the task."""
        try:
            await self._idle.wait()
        finally:
            if self._task is not None:
                self._task.cancel()

    def log_failure(self) -> None:
        """Tells of a hook that failed when the run had ended already."""
        if self._failure is not None:
            _LOGGER.warning("%s", self._failure.message)

    async def _listen(self) -> None:
        try:
            while True:
                while self._events:
                    await self._call(self._events.popleft())
                self._idle.set()
                self._wakeup.clear()
                await self._wakeup.wait()
        finally:
            self._idle.set()  # nobody must wait for a task that has ended

    async def _call(self, event: Event) -> None:
        if self._failure is not None:
            return  # the run is about to fail
        if isinstance(event, HandedOff):
            self._definition = self._agents.get(event.agent, self._definition)
        agent, control = self._definition, self._control
        try:
            for hook in agent.hooks.at("on_event"):
                context = HookContext(
                    self._thread, agent.name, self.deps, control.delegation, control.jobs
                )
                answer = hook(context, event)
                if answer is not None:
                    await hook.answer(answer)
        except HookFailed as error:
            self._failure = error
