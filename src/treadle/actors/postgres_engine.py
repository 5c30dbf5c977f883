"""The engine on a PostgreSQL database: nodes divide the threads among them, and replace each other.

Which node has a thread is in the database, and one statement changes it (see `postgres_nodes`).
Each node looks at the others twice a second: it removes those that have ended or stand still, and
takes its share of the threads that wait. Notifications only make that quicker: an entry that comes
into an inbox wakes the node that has the thread, or any node if none has.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING
from zlib import crc32

from treadle.actors.engine import Drives, Worker
from treadle.errors import JournalError, TreadleError
from treadle.journal.base import not_found
from treadle.logging import logger_of
from treadle.repeating import repeat

if TYPE_CHECKING:
    from treadle.journal.postgres_nodes import Listener, Nodes, Told

_LOGGER = logger_of("treadle.engine")

BEAT_SECONDS = 3.0
"""How often a node writes that it lives."""

LOOK_SECONDS = 0.5
"""How often a node looks at the others, on average."""

CONFIRM_SECONDS = 0.25
"""How soon it looks again at a node whose lock is free: it may have lost its connection only."""

LIMIT = 500
"""The most threads that one look finds."""

ASIDE_SECONDS = 2.0
LAST_ASIDE_SECONDS = 300.0
"""A thread that was woken by a look is left alone by the next ones for the first, then for twice as
long, …: it may be damaged."""


class PostgresEngine:
    """Fulfils `Engine` for the nodes of one database, in any number of processes.

    `agents` returns the names of those that this node has. A thread whose next agent only other
    nodes have is left to them, and one on which an agent works for another thread is driven where
    that thread is.
    """

    finds_work = True

    def __init__(
        self,
        nodes: "Nodes",
        agents: Callable[[], Iterable[str]],
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._nodes = nodes
        self._agents = agents
        self._jitter = jitter
        self._drives = Drives(jitter, self._begun)
        self._worker: Worker | None = None
        self._taken: set[str] = set()
        self._taking: dict[str, asyncio.Task[bool]] = {}
        self._waiting: Counter[str] = Counter()  # callers that wait for a thread to be taken
        self._released: set[str] = set()  # given back, and not yet in the database
        self._aside: dict[str, tuple[float, float]] = {}  # until when, and the pause
        self._changed = asyncio.Event()
        self._listener: Listener | None = None
        self._watching: asyncio.Task[None] | None = None
        self._beat_at = 0.0
        self._is_draining = False
        self._suspects: Sequence[tuple[int, str]] = ()
        self._others: Mapping[int, Sequence[str]] = {}

    async def start(self, worker: Worker) -> None:
        """Makes this process a node, which takes threads from now on."""
        self._worker = worker
        await self._nodes.join(list(self._agents()))
        self._beat_at = asyncio.get_running_loop().time()
        self._drives.start(worker)
        self._watching = asyncio.create_task(
            repeat(self._watch, _LOGGER, "The nodes could not be looked at."), name="treadle node"
        )

    async def stop(self) -> None:
        """Interrupts all drives and waits for their end; the node keeps its threads until `leave`.

        A second call does nothing.
        """
        await self._drives.stop()

    def drain(self) -> None:
        """Takes no more threads; the other nodes are told, and that this one has no agents."""
        self._is_draining = True
        self._beat_at = -BEAT_SECONDS
        self._changed.set()

    async def leave(self) -> None:
        """Ends the node, whose threads are then free; a second call does nothing."""
        self._drives.is_stopping = True
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        if self._listener is not None:
            self._listener.close()
        if self._taking:
            await asyncio.wait(list(self._taking.values()))
        try:
            await self._nodes.leave()
        except JournalError as error:
            _LOGGER.warning("The other nodes will notice that this one ends: %s", error.message)

    # Threads

    async def take(self, thread_id: str) -> bool:
        """Takes a thread, unless another node has it, or should have it."""
        if thread_id in self._taken:
            return True
        if self._is_draining:
            return False
        if thread_id in self._released:
            self._released.discard(thread_id)  # the database has not been told
            self._taken.add(thread_id)
            return True
        taking = self._taking.get(thread_id)
        if taking is None:
            taking = asyncio.create_task(self._take(thread_id), name=f"treadle take {thread_id}")
            self._taking[thread_id] = taking
            taking.add_done_callback(lambda _: self._taking.pop(thread_id, None))
        self._waiting[thread_id] += 1
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(lambda _: self._taken_for(thread_id))
            raise
        finally:
            self._waiting[thread_id] -= 1
            if not self._waiting[thread_id]:
                del self._waiting[thread_id]

    async def seize(self, thread_id: str) -> bool:
        """Takes a thread even from a node that lives, which is told that it has lost it."""
        if not await self.take(thread_id):
            await self._nodes.seize(thread_id)
            self._has_taken(thread_id)
        return True

    async def _take(self, thread_id: str) -> bool:
        is_taken = await self._nodes.take(thread_id)
        if is_taken is None:
            raise not_found(thread_id)
        if is_taken:
            self._has_taken(thread_id)
        return is_taken

    def _has_taken(self, thread_id: str) -> None:
        self._taken.add(thread_id)
        # Giving it back may have failed while it was being taken.
        self._released.discard(thread_id)

    def _taken_for(self, thread_id: str) -> None:
        """Gives a thread back if all callers that wanted it have left."""
        if thread_id not in self._waiting and self._worker is not None:
            self._worker.release_unused(thread_id)

    def release(self, thread_id: str) -> None:
        """Gives a thread back; the database is told soon, together with others."""
        if thread_id in self._taken:
            self._taken.discard(thread_id)
            self._released.add(thread_id)
            self._changed.set()

    # Driving

    def wake(self, thread_id: str) -> None:
        """Lets the thread be driven now or again, if no other node has it."""
        self._aside.pop(thread_id, None)
        self._drives.wake(thread_id)

    def is_driving(self, thread_id: str) -> bool:
        """Returns whether the thread is being driven by this node."""
        return thread_id in self._drives

    async def interrupt(self, thread_id: str) -> None:
        """Interrupts the drive of a thread by this node and waits for its end."""
        await self._drives.interrupt(thread_id)

    def _begun(self, thread_id: str) -> None:
        """Notes that a drive begins; never waits."""

    # The other nodes

    async def _watch(self) -> None:
        self._changed.clear()
        try:
            await self._listen()
            await self._tell_released()
            await self._look()
        except TreadleError as error:
            _LOGGER.warning("The nodes could not be looked at: %s", error.message)
        try:
            async with asyncio.timeout(self._pause()):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _pause(self) -> float:
        """Returns after how many seconds it looks again."""
        return CONFIRM_SECONDS if self._suspects else LOOK_SECONDS * (0.5 + self._jitter())

    def _limit(self) -> int:
        """Returns the most threads that the next look finds."""
        return LIMIT

    async def _listen(self) -> None:
        if self._listener is None and not self._drives.is_stopping:
            self._listener = await self._nodes.listen(self._heard, self._lost)

    def _lost(self) -> None:
        """Notes that the connection for notifications was lost: that of the lock may be, too."""
        self._listener = None
        self._changed.set()

    def _heard(self, told: "Told | None") -> None:
        """Takes a notification."""
        if told is None:
            self._node_ended()
        elif told.is_lost:
            if told.node == self._nodes.id and told.thread in self._taken:
                self._lose(told.thread)
        elif told.thread in self._taken:
            if self._worker is not None:
                self._worker.ring(told.thread)
            self.wake(told.thread)
        elif told.node == self._nodes.id:
            self.wake(told.thread)
        elif told.node is None and self._is_first_for(told):
            self._wake_free(told.thread)

    def _wake_free(self, thread_id: str) -> None:
        """Wakes a thread that no node has, for which this one is the first."""
        self.wake(thread_id)

    def _is_first_for(self, told: "Told") -> bool:
        """Whether this node is the one of all living ones that takes a thread which no node has.

        It follows from their numbers, so that one of them tries, and each gets its part. Where they
        know of different nodes, the next look finds the thread.
        """
        mine = self._nodes.id
        if self._is_draining:
            return False
        members = {**self._others, mine: tuple(self._agents())}
        having = [node for node, agents in members.items() if told.agent in agents]
        first = max(
            having or [node for node in members if members[node]] or members,
            key=lambda node: crc32(f"{node} {told.thread}".encode()),
        )
        return first == mine

    def _node_ended(self) -> None:
        self._changed.set()
        if self._worker is not None:
            self._worker.node_ended()

    async def _tell_released(self) -> None:
        if not self._released:
            return
        told, self._released = self._released, set()
        try:
            await self._nodes.release(list(told), tells=self._is_draining)
        except BaseException:
            self._released |= told - self._taken
            raise

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        beats = loop.time() - self._beat_at >= BEAT_SECONDS
        seen = await self._nodes.look(
            [] if self._is_draining else list(self._agents()),
            self._suspects,
            beats=beats,
            limit=self._limit(),
        )
        self._suspects, self._others = seen.suspects, seen.others
        if not seen.is_member:
            await self._rejoin()
            return
        if beats:
            self._beat_at = loop.time()
        for node in seen.dead:
            _LOGGER.warning("Node %d has ended, or stands still; its threads are taken over.", node)
            self._node_ended()
        if not (self._drives.is_stopping or self._is_draining):
            self._take_share(seen.threads)

    def _take_share(self, threads: Sequence[str]) -> None:
        """Drives its share of the threads that wait; the other nodes see the same ones."""
        now = asyncio.get_running_loop().time()
        self._aside = {id: aside for id, aside in self._aside.items() if aside[0] + aside[1] > now}
        share = -(-len(threads) // (len(self._others) + 1))
        ready = [id for id in threads if self._is_ready(id, now)]
        # The owners take turns in this order; the nodes begin in different places.
        first = int(self._jitter() * len(ready)) if self._others else 0
        for thread_id in [*ready[first:], *ready[:first]][:share]:
            self._wake_waiting(thread_id, now)

    def _wake_waiting(self, thread_id: str, now: float) -> None:
        # What a drive cannot change, such as a damaged thread, is found at each look.
        pause = self._aside.get(thread_id, (0.0, ASIDE_SECONDS / 2))[1]
        pause = min(2 * pause, LAST_ASIDE_SECONDS)
        self._aside[thread_id] = (now + pause, pause)
        if thread_id in self._taken and self._worker is not None:
            self._worker.ring(thread_id)
        self._drives.wake(thread_id)

    def _is_ready(self, thread_id: str, now: float) -> bool:
        """Whether a thread that waits is to be driven now."""
        is_aside = thread_id in self._aside and self._aside[thread_id][0] > now
        return not is_aside and not self._drives.is_retried(thread_id)

    async def _rejoin(self) -> None:
        """Becomes a node again, after others took this one for dead; keeps what is still free."""
        before = list(self._taken)
        _LOGGER.warning(
            "Other nodes took this one for dead: its event loop, or its connection, stood still."
        )
        kept = set(await self._nodes.rejoin(list(self._agents()), before))
        self._beat_at = asyncio.get_running_loop().time()
        for thread_id in before:
            if thread_id not in kept and thread_id in self._taken:
                self._lose(thread_id)

    def _lose(self, thread_id: str) -> None:
        self._taken.discard(thread_id)
        if self._worker is not None:
            self._worker.lose(thread_id)
