"""The engine on a PostgreSQL database whose nodes Restate asks to drive threads.

Each drive has an invocation of the virtual object of its thread, which Restate gives to any of the
nodes: that node drives the thread, or, if another one has it, waits until nothing is left to do,
and takes over when that node dies. Invocations outlive nodes, so a thread is driven to its end.
Which node has a thread is in the database, as it is without Restate, and Restate may be away.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from treadle.actors import restate_endpoint
from treadle.actors.engine import Worker
from treadle.actors.permits import NO_LIMITS, RunLimits
from treadle.actors.postgres_engine import LIMIT, PostgresEngine
from treadle.actors.restate import Restate
from treadle.actors.restate_endpoint import Endpoint, Ingress
from treadle.errors import TreadleError
from treadle.logging import logger_of
from treadle.repeating import repeat

if TYPE_CHECKING:
    from treadle.journal.postgres_nodes import Holder, Nodes, Waiting

_LOGGER = logger_of("treadle.engine")

HELD_LOOK_SECONDS = 0.25
"""How often a node looks at the threads of its invocations, and at the other nodes meanwhile."""

CALLED_CONFIRM_SECONDS = 0.1
"""How soon it looks again at a node whose lock is free if Restate calls about a thread that it has:
it may have called because the node has ended."""

SWEEP_SECONDS = 5.0
"""How often a node looks for threads that no invocation is about, because it was lost."""

MAX_ID_BYTES = 2000
"""The longest id of a thread for which an invocation is accepted."""


class _Held:
    """The invocations of one thread that wait here."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting = 0
        self.is_new = True
        self.is_had = True  # by a node, as far as it is known
        self.done_at: float | None = None  # when nothing was left to do


class RestateEngine(PostgresEngine):
    """Fulfils `Engine` for the nodes of one database that a Restate server calls.

    Raises `ConfigurationError` for settings that cannot be used.
    """

    def __init__(
        self,
        nodes: "Nodes",
        agents: Callable[[], Iterable[str]],
        settings: Restate,
        limits: RunLimits = NO_LIMITS,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(nodes, agents, limits, jitter=jitter)
        self._endpoint = Endpoint(settings, self.hold)
        self._ingress = Ingress(settings, self._refused)
        self._held: dict[str, _Held] = {}
        self._arrived = asyncio.Event()
        self._holding: asyncio.Task[None] | None = None
        self._sweep_at = 0.0

    @property
    def port(self) -> int:
        """The port on which it listens for Restate, once it has started."""
        return self._endpoint.port

    async def start(self, worker: Worker) -> None:
        """Makes this process a node, which Restate can call."""
        self._ingress.start()
        await super().start(worker)
        self._holding = asyncio.create_task(
            repeat(self._hold, _LOGGER, "The invocations could not be looked at."),
            name="treadle invocations",
        )
        await self._endpoint.start()

    async def stop(self) -> None:
        """Interrupts all drives and waits for their end; other nodes get the invocations."""
        await super().stop()
        self._pass_on()

    def drain(self) -> None:
        """Takes no more threads; other nodes get the invocations."""
        super().drain()
        self._pass_on()

    async def leave(self) -> None:
        """Ends the node; a second call does nothing."""
        self._drives.is_stopping = True
        holding, self._holding = self._holding, None
        if holding is not None:
            holding.cancel()
            await asyncio.wait([holding])
        self._pass_on()
        await self._endpoint.stop()
        await self._ingress.close()
        await super().leave()

    # Invocations

    async def hold(self, thread_id: str) -> bool:
        """Waits until nothing is left to do on a thread, and drives it if no other node has it.

        Returns True if another invocation is to do so.
        """
        if "\0" in thread_id or len(thread_id.encode(errors="replace")) > MAX_ID_BYTES:
            return False  # not a thread
        if self._is_draining or self._drives.is_stopping:
            return True
        held = self._held.setdefault(thread_id, _Held())
        held.waiting += 1
        self._arrived.set()
        try:
            async with asyncio.timeout(restate_endpoint.HOLD_SECONDS):
                return await asyncio.shield(held.ended)
        except TimeoutError:
            return held.is_had  # else no node can take it: the sweep of one that can finds it
        finally:
            held.waiting -= 1
            if not held.waiting and self._held.get(thread_id) is held:
                del self._held[thread_id]

    def _pass_on(self) -> None:
        for thread_id in list(self._held):
            self._end(thread_id, again=True)

    def _end(self, thread_id: str, *, again: bool) -> None:
        held = self._held.pop(thread_id)  # the next invocation is another one
        if not held.ended.done():
            held.ended.set_result(again)

    async def _hold(self) -> None:
        self._arrived.clear()
        if self._held:
            try:
                await self._look_at_held()
            except TreadleError as error:
                _LOGGER.warning("The invocations could not be looked at: %s", error.message)
        try:
            async with asyncio.timeout(HELD_LOOK_SECONDS if self._held else None):
                await self._arrived.wait()
        except TimeoutError:
            pass

    async def _look_at_held(self) -> None:
        asked = dict(self._held)
        found = await self._nodes.unsettled(list(asked))
        now = asyncio.get_running_loop().time()
        for thread_id, held in asked.items():
            if self._held.get(thread_id) is not held:
                continue
            if thread_id in found or thread_id in self._drives:
                held.done_at = None
            elif held.done_at is None:
                held.done_at = now  # what it is about may not be committed yet
            elif now - held.done_at >= HELD_LOOK_SECONDS:
                self._end(thread_id, again=False)
            if thread_id in found:
                self._see_to(thread_id, held, found[thread_id], now)

    def _see_to(self, thread_id: str, held: _Held, holder: "Holder", now: float) -> None:
        """Drives a thread if no other node has it."""
        held.is_had = holder.node is not None
        if held.is_new:
            held.is_new = False
            self._aside.pop(thread_id, None)
            if holder.suspect is not None and not self._suspects:
                self._suspects = (holder.suspect,)
                loop = asyncio.get_running_loop()
                loop.call_later(CALLED_CONFIRM_SECONDS, self._changed.set)
        has_room = self._permits.room(self._here) != 0
        if holder.node is None and has_room and self._is_ready(thread_id, now):
            self._wake_waiting(thread_id, now)

    def _begun(self, thread_id: str) -> None:
        if thread_id in self._taken:
            self._ask_for_drive(thread_id)

    def _has_taken(self, thread_id: str) -> None:
        super()._has_taken(thread_id)
        if thread_id in self._drives:
            self._ask_for_drive(thread_id)

    def _ask_for_drive(self, thread_id: str) -> None:
        """Asks for an invocation for a drive here, unless it has begun with one."""
        if thread_id not in self._held:
            self._ingress.ask(thread_id)

    def _wake_free(self, thread_id: str) -> None:
        self._ingress.ask(thread_id)

    def _refused(self, thread_id: str) -> None:
        """Drives a thread without Restate, or leaves it to the node that has it."""
        if thread_id not in self._taken:
            self.wake(thread_id)

    # The other nodes

    def _pause(self) -> float:
        pause = super()._pause()
        return min(pause, HELD_LOOK_SECONDS * (0.5 + self._jitter())) if self._held else pause

    def _sweeps(self) -> bool:
        return True

    def _limit(self) -> int:
        now = asyncio.get_running_loop().time()
        if now < self._sweep_at:
            return 0
        self._sweep_at = now + SWEEP_SECONDS
        return LIMIT

    def _take_share(self, waiting: "Mapping[str, Waiting]") -> bool:
        are_left = super()._take_share(waiting)
        if are_left:
            self._sweep_at = 0.0  # the next look finds what no node has taken as its share
        return are_left

    def _node_ended(self) -> None:
        self._sweep_at = 0.0
        super()._node_ended()
