"""The future of a job that another thread has submitted."""

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

from weft.jobs.node import Node

T = TypeVar("T")


class NodeFuture(Future[T], Generic[T]):
    """Has the result of a node, its exception, or `NodeCancelled`; to cancel it cancels the node.

    It stands for whoever awaits the node: a failure is the future's, and goes nowhere else.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._node: Node[T] | None = None

    def cancel(self) -> bool:
        """Cancels the future at once, and the node from its event loop; False if it is done."""
        if not super().cancel():
            return False
        with suppress(RuntimeError):  # the event loop is closed, so the node has settled
            self._loop.call_soon_threadsafe(self._cancel_node)
        return True

    def follow(self, node: Node[T]) -> None:
        """Takes its outcome from `node`, which has just been submitted."""
        self._node = node
        node.taking().add_done_callback(self._take)

    def _cancel_node(self) -> None:
        if self._node is not None:
            self._node.cancel()

    def _take(self, _: "asyncio.Future[None]") -> None:
        assert self._node is not None
        if not self.set_running_or_notify_cancel():
            return
        try:
            self.set_result(self._node.outcome())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            self.set_exception(error)
