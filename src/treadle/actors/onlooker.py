"""A process beside the one that drives: it reads and watches, and leaves inputs in the inbox."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from treadle.actors.ending import Ended, read_ending
from treadle.actors.live import follow, socket_path
from treadle.actors.shared_memory import require_shared
from treadle.bus.topic import Topic
from treadle.domain.answers import approval_of, denial_of, output_of, pin_of
from treadle.domain.block_memory import BlockMemory
from treadle.domain.entries import (
    AnswerEntry,
    ApprovalEntry,
    CancelEntry,
    CancelJobEntry,
    DenialEntry,
    EditEntry,
    Entry,
    FinishEntry,
    InsertEntry,
    MemoryEntry,
    OutputEntry,
    PinEntry,
    RemoveEntry,
    SendEntry,
    UndoEntry,
)
from treadle.domain.envelope import Envelope
from treadle.domain.events import DurableEvent
from treadle.domain.state import ThreadState
from treadle.errors import InvalidInput, JournalLocked, MemoryFailed, RunInProgress, TreadleError
from treadle.journal.base import Journal, ThreadInfo, Waiting
from treadle.logging import logger_of
from treadle.memory.archive.access import ArchiveAccess
from treadle.memory.blocks.changes import changes_of, undo_of
from treadle.memory.blocks.edits import change

_LOGGER = logger_of("treadle.runtime")

POLL_SECONDS = 0.05
"""How often the journal is looked at, for what the driving process appended."""

RETRY_SECONDS = 0.5
"""How long after live events ended, or there were none, the socket is tried again."""


class Onlooker:
    """Fulfils `ThreadAccess` without driving anything."""

    def __init__(self, journal: Journal, database: Path | None, archive: ArchiveAccess) -> None:
        self._journal = journal
        self.archive = archive
        self._socket = socket_path(database) if database is not None else None
        self._live: dict[str, asyncio.Task[None]] = {}
        self._topics: dict[str, Topic] = {}
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts to look for new events."""
        self._poller = asyncio.create_task(self._poll(), name="treadle journal poller")

    async def stop(self) -> None:
        """Ends all subscriptions."""
        tasks = [*self._live.values(), *([] if self._poller is None else [self._poller])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for topic in self._topics.values():
            topic.close()
        self._topics.clear()

    async def create(self, info: ThreadInfo) -> None:
        """Adds a thread, which the driving process takes over once it has something to do."""
        await self._journal.create(info)

    async def connect(self, thread_id: str) -> None:
        """Makes sure that the thread exists."""
        await self._journal.info(thread_id)

    async def send(self, thread_id: str, input: SendEntry) -> str:
        """Leaves a message in the inbox; the driving process decides by what is true then."""
        if input.key:
            known = await self._journal.run_of_key(thread_id, input.key)
            if known is not None:
                return known
        run = (await self._journal.load(thread_id)).active_run
        if run is not None and input.on_busy == "reject":
            raise RunInProgress(f"The run {run.id} is in progress; try again later.", run_id=run.id)
        if input.on_busy == "steer":
            # The driver decides by what is true then, but keeps the promise of this run.
            steered = run.id if run is not None else input.run_id
            input = replace(input, run_id=steered, on_busy="steer" if run is not None else "queue")
        await self._journal.enqueue(thread_id, input)
        if input.key:  # the same message may have been sent from elsewhere meanwhile
            return await self._journal.run_of_key(thread_id, input.key) or input.run_id
        return input.run_id

    async def answer(self, thread_id: str, input: AnswerEntry) -> None:
        """Leaves an answer in the inbox, if it can be given."""
        state = await self._journal.load(thread_id)
        match input:
            case OutputEntry():
                event = output_of(state, input.call_id, input.output, is_error=input.is_error)
            case ApprovalEntry():
                event = approval_of(state, input.call_id)
            case DenialEntry():
                event = denial_of(state, input.call_id, input.reason)
        if event is not None:
            await self._journal.enqueue(thread_id, input)

    async def cancel(self, thread_id: str, run_id: str) -> None:
        """Leaves the wish in the inbox."""
        await self._journal.enqueue(thread_id, CancelEntry(run_id))

    async def finish(self, thread_id: str, run_id: str) -> None:
        """Leaves the wish in the inbox."""
        await self._journal.enqueue(thread_id, FinishEntry(run_id))

    async def cancel_job(self, thread_id: str, job_id: str) -> None:
        """Leaves the wish in the inbox."""
        await self._journal.enqueue(thread_id, CancelJobEntry(job_id))

    async def pin(self, thread_id: str, input: PinEntry) -> None:
        """Leaves the wish in the inbox, if there is such a message."""
        state = await self._journal.load(thread_id)
        if pin_of(state, input.message_id, pinned=input.pinned) is not None:
            await self._journal.enqueue(thread_id, input)

    async def remember(self, thread_id: str, input: MemoryEntry) -> None:
        """Leaves a change of a memory block in the inbox, if it can be made after those there.

        What is put into the archive, or taken out, is left there too.
        """
        if isinstance(input, InsertEntry | RemoveEntry):
            await self._journal.enqueue(thread_id, input)
            return
        waiting = await self._journal.inbox(thread_id)
        state = await self._journal.load(thread_id)
        if isinstance(input, EditEntry):
            memory = _changed(state.memory, waiting)
            if change(memory, input.edit, input.author, key=input.key) is None:
                return
        elif not any(_is_of(one.entry, input.label) for one in waiting):
            changes = partial(changes_of, self._journal, thread_id)
            event = await undo_of(state.memory, input, changes, state.seq)
            input = replace(input, seq=input.seq or event.undoes)  # the newest as it is here
        # Else what it takes back may have no number yet, and is the newest when its turn comes.
        await self._journal.enqueue(thread_id, input)

    async def shared(self, owner: str, name: str) -> str:
        """Adds the shared memory unless it is there; the driving process takes it over."""
        return await require_shared(self, self._journal, owner, name)

    async def topic(self, thread_id: str) -> Topic:
        """Returns a topic that is fed from the journal, while it is watched."""
        if thread_id not in self._topics:
            seq = (await self._journal.load(thread_id)).seq
            self._topics.setdefault(thread_id, Topic(seq))
        return self._topics[thread_id]

    async def state(self, thread_id: str) -> ThreadState:
        """Returns the fold of the events so far."""
        return await self._journal.load(thread_id)

    async def ended(self, thread_id: str, run_id: str) -> Ended:
        """Waits for the end of a run, which may still be in the inbox."""
        while True:
            run = await self._journal.run(thread_id, run_id)
            if run is not None and run.last_seq:
                ending = await read_ending(self._journal, thread_id, run_id)
                assert ending is not None
                return ending
            await asyncio.sleep(POLL_SECONDS)

    async def fork(self, thread_id: str, at: int | None) -> str:
        """Refuses: only the driving process makes events."""
        raise _not_here("fork")

    async def delete(self, thread_id: str) -> None:
        """Refuses: the driving process may be at work on the thread."""
        raise _not_here("delete")

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            for thread_id, topic in list(self._topics.items()):
                if not topic.is_watched and not (topic.is_in_flight and thread_id in self._live):
                    # Not within an item: who comes back there would get it from its start.
                    self._forget(thread_id)
                elif thread_id not in self._live:
                    await self._catch_up(thread_id, topic)

    async def _catch_up(self, thread_id: str, topic: Topic) -> None:
        """Reads what is new, and goes over to the live events where somebody drives."""
        try:
            events = await self._journal.read(thread_id, after=topic.seq)
        except TreadleError as error:
            _LOGGER.warning("%s could not be read: %s", thread_id, error.message)
            topic.close(error)
            self._forget(thread_id)
            return
        for event in events:
            topic.publish(Envelope(event, event.seq))
        if self._socket is not None and not events:
            self._live[thread_id] = asyncio.create_task(
                self._follow(self._socket, thread_id, topic), name=f"treadle follow {thread_id}"
            )

    async def _follow(self, socket: Path, thread_id: str, topic: Topic) -> None:
        """Hands live events on until the driving process ends; without one, at once."""
        try:
            async with aclosing(follow(socket, thread_id, topic.position)) as envelopes:
                async for envelope in envelopes:
                    if not isinstance(envelope.event, DurableEvent):
                        topic.publish_live(envelope.event, envelope.n)
                    elif envelope.seq > topic.seq:
                        topic.publish(envelope)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            # Nobody listens, or not as this version does: the journal has what is durable.
            _LOGGER.debug("No live events of %s: %s", thread_id, error)
        await asyncio.sleep(RETRY_SECONDS)
        self._live.pop(thread_id, None)

    def _forget(self, thread_id: str) -> None:
        del self._topics[thread_id]
        task = self._live.pop(thread_id, None)
        if task is not None:
            task.cancel()


def _not_here(what: str) -> JournalLocked:
    return JournalLocked(f"Only the process that drives the database can {what} a thread.")


def _changed(memory: BlockMemory, waiting: Sequence[Waiting]) -> BlockMemory:
    """Returns the blocks as the edits that wait will make them; no undo is among what is known.

    An edit that was taken meanwhile may be in both, and have no effect again.
    """
    for one in waiting:
        if isinstance(one.entry, EditEntry):
            with suppress(MemoryFailed, InvalidInput):  # then it will have no effect
                edit = one.entry
                event = change(memory, edit.edit, edit.author, key=edit.key)
                memory = memory if event is None else memory.changed(event)
    return memory


def _is_of(input: Entry, label: str) -> bool:
    """Whether an input changes the block of that label."""
    match input:
        case EditEntry():
            return input.edit.label == label
        case UndoEntry():
            return input.label == label
        case _:
            return False
