"""Who has a thread driven: the port, and the engine inside this process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from treadle.errors import TreadleError
from treadle.logging import logger_of


class Engine(Protocol):
    """Calls `drive(thread_id)` for the threads that are woken, for each at most once at a time.

    Progress is kept in the journal alone, so `drive` may be called once too often, never too
    rarely.
    """

    async def start(self) -> None:
        """Makes the engine ready."""
        ...

    def wake(self, thread_id: str) -> None:
        """Has the thread driven now, or again after the drive that goes on."""
        ...

    def is_driving(self, thread_id: str) -> bool:
        """Whether the thread is being driven, here."""
        ...

    async def interrupt(self, thread_id: str) -> None:
        """Interrupts the drive of a thread and waits for its end."""
        ...

    async def stop(self) -> None:
        """Interrupts all drives and waits for their end; a second call does nothing."""
        ...


_LOGGER = logger_of("treadle.engine")


class EmbeddedEngine:
    """Fulfils `Engine` with tasks of one event loop; idle threads cost nothing."""

    def __init__(self, drive: Callable[[str], Awaitable[None]]) -> None:
        self._drive = drive
        self._driving: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Starts the task that owns all drives."""
        ready = asyncio.Event()
        self._supervisor = asyncio.create_task(self._supervise(ready), name="treadle engine")
        await ready.wait()

    def wake(self, thread_id: str) -> None:
        """Has the thread driven now, or again after the drive that goes on."""
        if self._tasks is None or self._stopping.is_set():
            return
        self._again.add(thread_id)
        if thread_id not in self._driving:
            task = self._tasks.create_task(self._work(thread_id), name=f"treadle {thread_id}")
            self._driving[thread_id] = task

    def is_driving(self, thread_id: str) -> bool:
        """Whether the thread is being driven."""
        return thread_id in self._driving

    async def interrupt(self, thread_id: str) -> None:
        """Interrupts the drive of a thread and waits for its end."""
        task = self._driving.get(thread_id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def stop(self) -> None:
        """Interrupts all drives and waits for their end; a second call does nothing."""
        self._stopping.set()
        for task in list(self._driving.values()):
            task.cancel()
        if self._supervisor is not None:
            await asyncio.wait([self._supervisor])

    async def _supervise(self, ready: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            ready.set()
            await self._stopping.wait()

    async def _work(self, thread_id: str) -> None:
        try:
            while thread_id in self._again:
                self._again.discard(thread_id)
                await self._drive_once(thread_id)
        finally:
            self._again.discard(thread_id)
            del self._driving[thread_id]

    async def _drive_once(self, thread_id: str) -> None:
        try:
            await self._drive(thread_id)
        except TreadleError as error:
            _LOGGER.warning("%s is not driven on: %s", thread_id, error.message)
        except Exception:
            # A defect met in one thread must not end the others.
            _LOGGER.exception("%s is not driven on", thread_id)
