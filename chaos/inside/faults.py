"""What goes wrong inside a process: exceptions of every kind, and appends that fail."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from treadle.domain.entries import Entry
from treadle.domain.state import ThreadState
from treadle.errors import JournalError, JournalFull, JournalLocked, ServerFailed, StaleWriter
from treadle.journal.base import Batch, Claim
from treadle.journal.memory import MemoryJournal


class Panic(BaseException):
    """What extensions raise that are not written in Python."""


class Unprintable(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


KINDS: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("a defect"),
    lambda: ServerFailed("overloaded"),
    Unprintable,
    lambda: Panic("panicked"),
    lambda: SystemExit(3),
    GeneratorExit,
    StopAsyncIteration,
    lambda: asyncio.CancelledError("of something else"),
    TimeoutError,
    lambda: RecursionError("too deep"),
    lambda: ExceptionGroup("several", [ValueError("one"), Unprintable()]),
    lambda: BaseExceptionGroup("several", [Panic("one"), ValueError("two")]),
)


class Faults:
    """Decides by chance what fails; none does once `is_active` is false."""

    def __init__(self, seed: int, rate: float) -> None:
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.is_active = True
        self._rate = rate

    def strikes(self, place: str, rate: float | None = None) -> bool:
        """Whether something fails here, now."""
        hit = self.is_active and self.chance.random() < (self._rate if rate is None else rate)
        self.counts[place] += hit
        return hit

    def visit(self, place: str) -> None:
        """Raises an exception of some kind, or does nothing."""
        if self.strikes(place):
            error = self.chance.choice(KINDS)()
            raise error


class FaultyJournal(MemoryJournal):
    """A journal whose calls take a while and fail, except for the threads in `spared`.

    An append that fails was written or was not: a connection that breaks while a database answers
    leaves that open.
    """

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.spared: set[str] = set()
        self._faults = faults
        self._broken: set[Claim] = set()
        self._due = 0.0

    def append(self, batch: Batch) -> "asyncio.Future[None]":
        """Appends, some turns or milliseconds later."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        kept = self._by_number.get(batch.claim.number)
        is_spared = kept is not None and kept.info.id in self.spared
        error: JournalError | None = None
        is_written = True
        if batch.claim in self._broken:
            error, is_written = StaleWriter("An append before this one failed."), False
        elif not is_spared and self._faults.strikes("append"):
            self._broken.add(batch.claim)
            is_written = self._faults.chance.random() < 0.3
            error = JournalFull("full") if not is_written else JournalError("connection lost")
        if is_written:
            try:
                self._append(batch)  # in the order of the calls
            except JournalError as refused:
                error = refused

        def settle() -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        # In the order of the calls, as a database does it.
        due = loop.time() + self._faults.chance.choice([0, 0, 0.001, 0.02])
        self._due = max(self._due + 1e-9, due)
        loop.call_at(self._due, settle)
        return done

    async def claim(self, thread_id: str) -> Claim:
        """Claims, or fails."""
        await self._pause(thread_id, "claim")
        return await super().claim(thread_id)

    async def load(self, thread_id: str, *, at: int | None = None) -> ThreadState:
        """Loads, or fails."""
        await self._pause(thread_id, "load")
        return await super().load(thread_id, at=at)

    async def enqueue(self, thread_id: str, entry: Entry) -> None:
        """Puts the entry into the inbox, or fails."""
        await self._pause(thread_id, "enqueue")
        await super().enqueue(thread_id, entry)

    async def _pause(self, thread_id: str, place: str) -> None:
        for _ in range(self._faults.chance.choice([0, 1, 3])):
            await asyncio.sleep(0)
        if thread_id not in self.spared and self._faults.strikes(place):
            raise JournalLocked("locked")
