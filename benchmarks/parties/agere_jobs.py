"""agere's jobs: each node of the tree a job; a commander with an event loop in a thread of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agere.commander import PASS_WORD, CommanderAsync, Job, tasker  # type: ignore[import-not-found]

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


class AgereJobs:
    """A commander for each tree."""

    async def grow(self, size: int) -> None:
        """Runs a tree of `size` jobs."""
        await asyncio.to_thread(CommanderAsync().run, Grows(size), auto_exit=True)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[AgereJobs]:
    """Needs nothing of the provider."""
    yield AgereJobs()
