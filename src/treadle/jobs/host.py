"""The host of a tree: the task whose code is the body of the root."""

import asyncio

from treadle.jobs.node import Node


class Host:
    """The current task, as the host of a tree; it is interrupted with the tree.

    An interruption is a cancellation that is taken back at the end, as `asyncio.TaskGroup` does it.
    A cancellation from outside is recognised by the count: there are more than were made here.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancels_before = task.cancelling()
        self._interrupts = 0

    def is_running(self) -> bool:
        """Whether it is the task that is running now."""
        return asyncio.current_task() is self._task

    def interrupt(self) -> None:
        """Cancels what the host does."""
        self._interrupts += 1
        self._task.cancel()

    async def wait(self, root: Node[None], error: BaseException | None) -> BaseException | None:
        """Waits until `root` has settled, whose body has ended with `error`.

        A cancellation from outside cancels the tree. Returns the error that the host must raise:
        `error`, or that cancellation, or None if the host was only interrupted.
        """
        if self._interrupts:
            error = await self._take_back(error)
        while not root.is_settled:
            try:
                await root.settling()
            except asyncio.CancelledError as cancelled:
                error = error or cancelled
                root.cancel()
        return error

    async def _take_back(self, error: BaseException | None) -> BaseException | None:
        if not isinstance(error, asyncio.CancelledError):
            try:
                await asyncio.sleep(0)  # the cancellation is still on its way
            except asyncio.CancelledError as cancelled:
                error = error or cancelled
        for _ in range(self._interrupts):
            self._task.uncancel()
        is_ours = self._task.cancelling() <= self._cancels_before
        return None if is_ours and isinstance(error, asyncio.CancelledError) else error
