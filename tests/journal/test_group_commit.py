"""The thread that writes, as an event loop with a virtual clock sees it."""

import asyncio
import time
from collections.abc import Sequence

from treadle.journal.group_commit import GroupCommit
from treadle.testing import VirtualClockLoop


def test_time_stands_still_while_a_group_is_committed() -> None:
    loop = VirtualClockLoop()
    loop.run_until_complete(commit_twice())
    assert loop.time() == 0
    loop.close()


async def commit_twice() -> None:
    def commit(writes: Sequence[str]) -> Sequence[object]:
        time.sleep(0.02)  # longer than the loop waits for threads that it does not know
        return writes

    group = GroupCommit(commit, lambda: None)
    async with asyncio.timeout(60):
        assert await group.put("a") == "a"
        assert await group.put("b") == "b"
    await group.close()
