"""treadle's jobs: each node of the tree a job, kept by its parent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.metrics.job_tree import parts
from treadle.jobs import Commander, Job, Node


class Grows(Job[None]):
    """A node of the tree, with all that is below it."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def task(self) -> None:
        for part in parts(self.size):
            await self.submit(Grows(part))


class GrowsUnkept(Grows):
    """Keeps no child that has settled."""

    keeps_children = False

    async def task(self) -> None:
        for part in parts(self.size):
            await self.submit(GrowsUnkept(part))


class Round(Job[None]):
    """One of many rounds; the callback of its end submits the next under the root."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.on("settled", self.next)

    async def task(self) -> None:
        await asyncio.sleep(0)

    async def next(self) -> None:
        if self.left:
            await self.submit(Round(self.left - 1), parent=self.root)


class TreadleJobs:
    """A commander for each tree."""

    def __init__(self) -> None:
        self.tree: Node[None] | None = None

    async def grow(self, size: int) -> None:
        """Runs a tree of `size` jobs, and keeps it."""
        async with Commander() as commander:
            self.tree = await commander.submit(Grows(size))

    async def grow_unkept(self, size: int) -> None:
        """Runs a tree of `size` jobs that keep none below them that have settled."""
        async with Commander() as commander:
            await commander.submit(GrowsUnkept(size))

    async def rounds(self, number: int) -> None:
        """Runs so many rounds, one after the other."""
        async with Commander() as commander:
            await commander.submit(Round(number - 1))


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[TreadleJobs]:
    """Needs nothing of the provider."""
    yield TreadleJobs()
