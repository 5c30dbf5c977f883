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
from treadle.actors.permits import NO_LIMITS, LimitedNode, Permits, RunLimits
from treadle.errors import JournalError, JournalTooNew, JournalUnavailable, TreadleError
from treadle.journal.base import not_found
from treadle.logging import logger_of
from treadle.repeating import repeat

if TYPE_CHECKING:
    from treadle.journal.postgres_nodes import Listener, Nodes, Told, Waiting

_LOGGER = logger_of("treadle.engine")

BEAT_SECONDS = 3.0
"""How often a node writes that it lives."""

LOOK_SECONDS = 0.5
"""How often a node looks at the others, on average."""

CONFIRM_SECONDS = 0.25
"""How soon it looks again at a node whose lock is free: it may have lost its connection only."""

SWEEP_SECONDS = 5.0
"""How often a node searches all unfinished runs for those that no node has: one that ends, gives
back or is replaced tells the others, and an entry is found by each look."""

LIMIT = 500
"""The most threads that one look finds."""

LEFT_SECONDS = 0.4
"""How long a thread that waits is left to the node that is the first for it."""

ASIDE_SECONDS = 2.0
LAST_ASIDE_SECONDS = 300.0
"""A thread that was woken by a look is left alone by the next ones for the first, then for twice as
long, …: it may be damaged."""


class PostgresEngine:
    """Fulfils `Engine` for the nodes of one database, in any number of processes.

    `agents` returns the names of those that this node has. A thread whose next agent only other
    nodes have is left to them, and one on which an agent works for another thread is driven where
    that thread is.

    A node that has as many runs as it may hands the others over, and takes none. The runs of an
    owner are counted in the database; one above the limit waits where its thread is.
    """

    finds_work = True

    def __init__(
        self,
        nodes: "Nodes",
        agents: Callable[[], Iterable[str]],
        limits: RunLimits = NO_LIMITS,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._nodes = nodes
        self._agents = agents
        self._most_of_owner = limits.per_owner
        self._here = LimitedNode(RunLimits(per_node=limits.per_node), self.wake)
        self._jitter = jitter
        self._drives = Drives(jitter, self._drive_ended, self._begun)
        self._permits = Permits()  # those of this node
        self._owners: dict[str, str] = {}  # of threads that have a permit of their owner
        self._awaiting: dict[str, str] = {}  # of threads that wait for one
        self._unpermitted: set[str] = set()  # threads whose drives end without a permit
        self._ended: dict[str, set[str]] = {}  # by owner: what the database has not been told
        self._has_ended = asyncio.Event()
        self._asking: dict[str, asyncio.Task[bool]] = {}
        self._told: set[str] = set()  # what it is being told, under the lock
        self._tell_lock = asyncio.Lock()
        self._telling: asyncio.Task[None] | None = None
        self._worker: Worker | None = None
        self._taken: set[str] = set()
        self._taking: dict[str, asyncio.Task[bool]] = {}
        self._waiting: Counter[str] = Counter()  # callers that wait for a thread to be taken
        self._released: set[str] = set()  # given back, and not yet in the database
        self._handed_over: set[str] = set()  # those of them that another node is to run now
        self._aside: dict[str, tuple[float, float]] = {}  # until when, and the pause
        self._left: dict[str, float] = {}  # to other nodes, and since when
        self._changed = asyncio.Event()
        self._listener: Listener | None = None
        self._watching: asyncio.Task[None] | None = None
        self._beat_at = 0.0
        self._sweeps_at = 0.0
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
        if self._most_of_owner is not None:
            self._telling = asyncio.create_task(
                repeat(self._tell_ended, _LOGGER, "The ends of runs could not be told."),
                name="treadle permits",
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
        tasks = [task for task in (self._watching, self._telling) if task is not None]
        self._watching = self._telling = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._listener is not None:
            self._listener.close()
        if pending := [*self._taking.values(), *self._asking.values()]:
            await asyncio.wait(pending)
        try:
            await self._nodes.leave()
        except JournalUnavailable:
            pass  # reported where it was waited for; the lock of the node went with its session
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
        else:
            self._aside.pop(thread_id, None)  # if the node that has it ends, it is needed at once
        return is_taken

    def _has_taken(self, thread_id: str) -> None:
        self._taken.add(thread_id)
        # Giving it back may have failed while it was being taken.
        self._released.discard(thread_id)
        self._handed_over.discard(thread_id)

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
        self._end_permits(thread_id)

    # Driving

    def wake(self, thread_id: str) -> None:
        """Lets the thread be driven now or again, if no other node has it."""
        self._aside.pop(thread_id, None)
        self._drives.wake(thread_id)

    async def permit(self, thread_id: str, owner: str) -> bool:
        """Returns whether a drive may work on a run of the thread now."""
        most = self._most_of_owner
        if not self._permits_here(thread_id, owner):
            self._end_permit_of_owner(thread_id)
            return False
        if most is None or not owner:
            return True
        if await self._ask_permit(thread_id, owner, most):
            return True
        self._permits.end(thread_id)
        self._unpermitted.add(thread_id)
        return False

    async def _ask_permit(self, thread_id: str, owner: str, most: int) -> bool:
        """Asks for one of the permits of an owner, which a run before may have had."""
        while thread_id in self._asking:
            await asyncio.wait([self._asking[thread_id]])
        if thread_id in self._told:
            async with self._tell_lock:
                pass  # the end of the permit that it had must not end the next one
        is_next = self._owners.pop(thread_id, None) is not None
        if thread_id in self._ended.get(owner, ()):
            self._ended[owner].discard(thread_id)
            is_next = True
        asking = self._asking[thread_id] = asyncio.create_task(
            self._nodes.ask_permit(thread_id, owner, most, is_next=is_next),
            name=f"treadle permit {thread_id}",
        )
        asking.add_done_callback(lambda _: self._asking.pop(thread_id, None))
        try:
            is_given = await asyncio.shield(asking)
        except BaseException:
            asking.add_done_callback(lambda _: self._tell_end(thread_id, owner))
            raise
        (self._owners if is_given else self._awaiting)[thread_id] = owner
        if is_given:
            self._awaiting.pop(thread_id, None)
        return is_given

    def _permits_here(self, thread_id: str, owner: str) -> bool:
        """Whether this node has room for a run; else it is handed over, or waits."""
        self._unpermitted.discard(thread_id)
        if not self._here.limits.are_set or self._permits.ask(thread_id, owner, self._here):
            return True
        self._unpermitted.add(thread_id)
        return False

    def _drive_ended(self, thread_id: str) -> None:
        """Ends the permits of a thread, unless its drive has ended because it waits for them."""
        if thread_id not in self._unpermitted:
            self._end_permits(thread_id)
            return
        self._unpermitted.discard(thread_id)
        if thread_id not in self._awaiting and self._others and self._worker is not None:
            self._aside.pop(thread_id, None)
            self._handed_over.add(thread_id)
            self._worker.hand_over(thread_id)

    def _end_permits(self, thread_id: str) -> None:
        is_full = self._permits.room(self._here) == 0
        self._permits.end(thread_id)
        self._end_permit_of_owner(thread_id)
        if is_full and self._permits.room(self._here):
            self._sweeps_at = 0.0
            self._changed.set()  # there is room for what other nodes could not run

    def _end_permit_of_owner(self, thread_id: str) -> None:
        """Ends what a thread has or waits for; the database is told at once, with others."""
        owner = self._owners.pop(thread_id, None) or self._awaiting.pop(thread_id, None)
        if owner is not None:
            self._tell_end(thread_id, owner)

    def _tell_end(self, thread_id: str, owner: str) -> None:
        self._ended.setdefault(owner, set()).add(thread_id)
        self._has_ended.set()

    async def _tell_ended(self) -> None:
        await self._has_ended.wait()
        self._has_ended.clear()
        async with self._tell_lock:
            told, self._ended = self._ended, {}
            self._told = {id for ids in told.values() for id in ids}
            threads = {owner: list(ids) for owner, ids in told.items()}
            try:
                await self._nodes.end_permits(threads, self._most_of_owner or 0)
            except TreadleError as error:
                _LOGGER.warning("The ends of runs could not be told: %s", error.message)
                self._ended = {  # with the next one, or with a look
                    owner: told.get(owner, set()) | self._ended.get(owner, set())
                    for owner in {**told, **self._ended}
                }
            finally:
                self._told = set()

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
        except JournalTooNew as error:
            await self._give_up(error)
        except TreadleError as error:
            _LOGGER.warning("The nodes could not be looked at: %s", error.message)
        try:
            async with asyncio.timeout(self._pause()):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _give_up(self, error: JournalTooNew) -> None:
        """Drives no more, because a newer version has changed the tables; others take over."""
        _LOGGER.error("This node drives no more threads: %s", error.message)
        self._is_draining = True
        await self._drives.stop()
        for thread_id in list(self._taken):
            self._lose(thread_id)
        await self._nodes.abandon()
        await asyncio.get_running_loop().create_future()  # until `leave`

    def _pause(self) -> float:
        """Returns after how many seconds it looks again."""
        return CONFIRM_SECONDS if self._suspects else LOOK_SECONDS * (0.5 + self._jitter())

    def _sweeps(self) -> bool:
        """Whether the next look searches all unfinished runs, of which a full node takes none."""
        is_due = asyncio.get_running_loop().time() >= self._sweeps_at
        return is_due and self._permits.room(self._here) != 0

    def _limit(self) -> int:
        """Returns the most threads that the next look finds."""
        return LIMIT

    async def _listen(self) -> None:
        if self._listener is None and not self._drives.is_stopping:
            listener = await self._nodes.listen(self._heard, self._lost)
            try:
                await self._keep_permits()
            except BaseException:
                listener.close()
                raise
            self._listener = listener

    async def _keep_permits(self) -> None:
        """Writes again which runs have permits: the server may have crashed, and lost them."""
        async with self._tell_lock:  # one that ends meanwhile is told after this
            if self._owners:
                await self._nodes.keep_permits(list(self._owners))

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
        return not self._is_draining and self._is_first(told.thread, told.agent, self._members())

    def _members(self) -> dict[int | None, Sequence[str]]:
        """Returns the living nodes with their agents."""
        return {**self._others, self._nodes.id: tuple(self._agents())}

    def _is_first(
        self, thread_id: str, agent: str | None, members: Mapping[int | None, Sequence[str]]
    ) -> bool:
        having = [node for node, agents in members.items() if agent in agents]
        first = max(
            having or [node for node in members if members[node]] or members,
            key=lambda node: crc32(f"{node} {thread_id}".encode()),
        )
        return first == self._nodes.id

    def _node_ended(self) -> None:
        """Looks for threads that another node has given back, soon if there is room for them."""
        self._sweeps_at = 0.0
        if self._permits.room(self._here) != 0:
            self._changed.set()
        if self._worker is not None:
            self._worker.node_ended()

    async def _tell_released(self) -> None:
        if not self._released:
            return
        told, self._released = self._released, set()
        try:
            tells = self._is_draining or not told.isdisjoint(self._handed_over)
            await self._nodes.release(list(told), tells=tells)
            self._handed_over -= told
        except BaseException:
            self._released |= told - self._taken
            raise

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        beats = loop.time() - self._beat_at >= BEAT_SECONDS
        sweeps = self._sweeps()
        seen = await self._nodes.look(
            [] if self._is_draining else list(self._agents()),
            self._suspects,
            beats=beats,
            sweeps=sweeps,
            limit=self._limit(),
        )
        if sweeps:
            self._sweeps_at = loop.time() + SWEEP_SECONDS
        self._suspects, self._others = seen.suspects, seen.others
        if not seen.is_member:
            await self._rejoin()
            return
        if beats:
            self._beat_at = loop.time()
        for node in seen.dead:
            _LOGGER.warning("Node %d has ended, or stands still; its threads are taken over.", node)
            self._node_ended()
        if self._ended:
            self._has_ended.set()
        if not (self._drives.is_stopping or self._is_draining):
            if self._take_share(seen.threads) and sweeps:
                self._sweeps_at = 0.0  # the next look finds what no node has taken as its share
            await self._look_at_permits()

    async def _look_at_permits(self) -> None:
        """Drives what has got a permit without being told, such as one of a node that has ended."""
        if self._awaiting and self._most_of_owner is not None:
            threads = list(self._awaiting)
            for id in await self._nodes.with_permits(threads, self._most_of_owner):
                self._drives.wake(id)

    def _take_share(self, waiting: "Mapping[str, Waiting]") -> bool:
        """Drives its share of the threads that wait; the other nodes see the same ones.

        Each thread has a first node (`_is_first`). What that one has not taken soon, because it is
        full or dead, is divided among the others. Returns whether threads are left that can be
        driven now.
        """
        room = self._permits.room(self._here)
        now = asyncio.get_running_loop().time()
        self._aside = {id: aside for id, aside in self._aside.items() if aside[0] + aside[1] > now}
        members = self._members()
        mine: list[str] = []
        overdue: list[str] = []
        left: dict[str, float] = {}
        for id, one in waiting.items():
            if not self._is_ready(id, now) or not (one.has_entries or room != 0):
                continue
            since = self._left.get(id, now)
            if id in self._taken or self._is_first(id, one.agent, members):
                mine.append(id)
            elif now - since >= LEFT_SECONDS:
                overdue.append(id)
            else:
                left[id] = since
        # The owners take turns in this order; the nodes begin in different places.
        first = int(self._jitter() * len(overdue))
        share = -(-len(overdue) // len(members))
        ready = [*mine, *overdue[first:], *overdue[:first]]
        most = len(mine) + share
        if room:
            most = min(most, room)
        for thread_id in ready[:most]:
            self._wake_waiting(thread_id, now)
        self._left = left | {id: self._left.get(id, now) for id in ready[most:]}
        return bool(self._left) or len(waiting) >= LIMIT

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
        if self._asking:  # what they get belongs to the node that is gone, and is kept below
            await asyncio.wait(list(self._asking.values()))
        before = list(self._taken)
        _LOGGER.warning(
            "Other nodes took this one for dead: its event loop, or its connection, stood still."
        )
        kept = set(await self._nodes.rejoin(list(self._agents()), before, list(self._owners)))
        self._beat_at = asyncio.get_running_loop().time()
        for thread_id in before:
            if thread_id not in kept and thread_id in self._taken:
                self._lose(thread_id)

    def _lose(self, thread_id: str) -> None:
        self._taken.discard(thread_id)
        self._handed_over.discard(thread_id)
        if self._worker is not None:
            self._worker.lose(thread_id)
