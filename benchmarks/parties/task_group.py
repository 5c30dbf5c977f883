"""Plain asyncio: each node of the tree a task, with a TaskGroup for those below it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.metrics.job_tree import parts


async def grow(size: int) -> None:
    """A node of the tree, with all that is below it."""
    below = parts(size)
    if not below:
        return
    async with asyncio.TaskGroup() as tasks:
        for part in below:
            tasks.create_task(grow(part))


class TaskGroups:
    """Keeps nothing of a tree."""

    async def grow(self, size: int) -> None:
        """Runs a tree of `size` tasks."""
        await grow(size)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[TaskGroups]:
    """Needs nothing of the provider."""
    yield TaskGroups()
