"""agere's jobs: each node of the tree a job; a commander with an event loop in its own thread."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agere.commander import (  # type: ignore[import-not-found]
    PASS_WORD,
    CommanderAsync,
    Job,
    handler,
    tasker,
)

from benchmarks.metrics.job_tree import parts


class Grows(Job):
    """A node of the tree, with all that is below it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    @tasker(PASS_WORD)
    async def task(self) -> None:
        for part in parts(self.size):
            await self.put_job(Grows(part))


@handler(PASS_WORD)
async def grow(self_handler: Any, size: int) -> None:
    """The same as a handler, which may wait without holding all others up."""
    for part in parts(size):
        self_handler.call_handler(make(part))


make: Any = grow  # the decorator takes its first argument away


class Calls(Job):
    """Calls the handler at the top."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    @tasker(PASS_WORD)
    async def task(self) -> None:
        self.call_handler(make(self.size))


class AgereJobs:
    """A commander for each tree; its jobs run one after the other, its handlers at once."""

    async def grow(self, size: int) -> None:
        """Runs a tree of `size` jobs."""
        await asyncio.to_thread(CommanderAsync().run, Grows(size), auto_exit=True)

    async def grow_handlers(self, size: int) -> None:
        """Runs a tree of `size` handlers."""
        await asyncio.to_thread(CommanderAsync().run, Calls(size), auto_exit=True)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[AgereJobs]:
    """Needs nothing of the provider."""
    yield AgereJobs()
