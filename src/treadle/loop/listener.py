"""Calls the `on_event` hooks of a run's agents, in the order of the events, alongside the run."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from treadle.domain.events import Event, HandedOff
from treadle.errors import HookFailed
from treadle.logging import logger_of
from treadle.loop.definition import AgentDefinition, reachable_from
from treadle.loop.hook_context import HookContext
from treadle.loop.hooks import Hooks
from treadle.ports import ThreadWriter
from treadle.tools.watched import GRACE_SECONDS

_LOGGER = logger_of("treadle.hooks")

_AnyAgent = AgentDefinition[Any, Any]
_MakeContext = Callable[[_AnyAgent], HookContext[Any]]


class EventListener:
    """Takes the events of a run from its beginning to its end, and hands them to hooks.

    It takes events at any time, and calls hooks only in `listening`. The loop waits for it before
    each step, so the queue holds at most the events of one step.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._wakeup = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failure: HookFailed | None = None
        self._is_hurried = False

    def put(self, event: Event) -> None:
        """Takes an event; never waits."""
        self._events.append(event)
        self._idle.clear()
        self._wakeup.set()

    def hurry(self) -> None:
        """Makes `listening` wait for hooks no longer than `GRACE_SECONDS` at its end."""
        self._is_hurried = True

    async def caught_up(self) -> None:
        """Waits until hooks were called for all events; raises `HookFailed` if one failed."""
        await self._idle.wait()
        if self._failure is not None:
            raise self._failure

    @asynccontextmanager
    async def listening(
        self, thread: ThreadWriter, agent: _AnyAgent, make_context: _MakeContext
    ) -> AsyncGenerator[None]:
        """Calls the hooks of `agent` while it is open, and of those it hands over to.

        Leaves once they were called for everything that was recorded. `make_context` makes what
        the hooks of an agent are given. A failure that comes after the end of the run is logged.
        """
        self._is_hurried = False
        task = asyncio.create_task(self._listen(agent, make_context), name="treadle on_event hooks")
        try:
            yield
            await thread.durable()  # an event comes here when it is kept, and not before
        except BaseException:
            self.hurry()  # the driving ends
            raise
        finally:
            try:
                async with asyncio.timeout(GRACE_SECONDS if self._is_hurried else None):
                    await self._idle.wait()
            except TimeoutError:
                _LOGGER.error("An on_event hook did not end in time, and was cancelled.")
            finally:
                task.cancel()
        if self._failure is not None and thread.state.active_run is None:
            _LOGGER.warning("%s", self._failure.message)

    async def _listen(self, agent: _AnyAgent, make_context: _MakeContext) -> None:
        context = make_context(agent)
        try:
            while True:
                while self._events:
                    event = self._events.popleft()
                    # In the order of the events, because the loop may be ahead of them.
                    if isinstance(event, HandedOff):
                        agent = reachable_from(agent).get(event.agent, agent)
                        context = make_context(agent)
                    await self._call(event, agent.hooks, context)
                self._idle.set()
                self._wakeup.clear()
                await self._wakeup.wait()
        finally:
            self._idle.set()  # no caller must wait for a task that has ended

    async def _call(self, event: Event, hooks: Hooks[Any], context: HookContext[Any]) -> None:
        if self._failure is not None:
            return  # the run is about to fail
        try:
            for hook in hooks.at("on_event"):
                answer = hook(context, event)
                if answer is not None:
                    await hook.answer(answer)
        except HookFailed as error:
            self._failure = error
