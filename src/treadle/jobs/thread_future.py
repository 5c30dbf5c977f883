"""The future of a job that another thread has submitted."""

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

from treadle.errors import NodeCancelled
from treadle.jobs.failure import Failure
from treadle.jobs.node import Node

T = TypeVar("T")


class NodeFuture(Future[T], Generic[T]):
    """Has the result of a node, its exception, or `NodeCancelled`; to cancel it cancels the node.

    It counts as awaiting the node, so a failure does not go to the parent. Reading the result or
    the exception marks the failure as seen.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._node: Node[T] | None = None
        self._failure: Failure | None = None
        self._is_asked = False

    def cancel(self) -> bool:
        """Cancels the future at once, and the node from its event loop; False if it is done."""
        if not super().cancel():
            return False
        with suppress(RuntimeError):  # the event loop is closed, so the node has settled
            self._loop.call_soon_threadsafe(self._cancel_node)
        return True

    def result(self, timeout: float | None = None) -> T:
        """Returns the result, as soon as there is one; raises what the node failed with."""
        self._is_asked = True
        try:
            return super().result(timeout)
        finally:
            self._see()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Returns what the node failed with, as soon as it has settled."""
        self._is_asked = True
        try:
            return super().exception(timeout)
        finally:
            self._see()

    def _see(self) -> None:
        if self._failure is not None:
            self._failure.take()

    def follow(self, node: Node[T]) -> None:
        """Takes its outcome from `node`, which has just been submitted."""
        self._node = node
        node.taking().add_done_callback(self._take)

    def _cancel_node(self) -> None:
        if self._node is not None:
            self._node.cancel()

    def _take(self, settled: "asyncio.Future[Failure | None]") -> None:
        assert self._node is not None
        if not self.set_running_or_notify_cancel():
            return
        self._failure = settled.result()
        if self._failure is not None:
            self.set_exception(self._failure.exception)
            if self._is_asked:
                self._failure.take()
            return
        try:
            self.set_result(self._node.outcome())
        except NodeCancelled as error:
            self.set_exception(error)
