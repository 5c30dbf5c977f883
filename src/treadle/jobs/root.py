"""The root of a tree: the scope that all of it belongs to."""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import TypeVarTuple

from treadle.errors import CommanderNotRunning, NodeClosed
from treadle.jobs.failure import OnFailure
from treadle.jobs.lifecycle import Lifecycle, current
from treadle.jobs.node import Listener, Node
from treadle.jobs.scope import Scope
from treadle.jobs.tree import Tree

Ts = TypeVarTuple("Ts")


class Root(Scope):
    """The root of a tree; see `Scope`.

    It settles only if `may_settle` returns True. `is_host` returns whether the running code is the
    code that has to close the root, and so cannot wait for it.
    """

    __slots__ = ("_is_host", "_may_settle")

    def __init__(
        self,
        tree: Tree[Lifecycle[object]],
        on_interrupt: Callable[[], object],
        *,
        on_failure: OnFailure,
        listener: Listener | None = None,
        may_settle: Callable[[], bool] = lambda: True,
        is_host: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__("root", on_interrupt, on_failure=on_failure, listener=listener)
        self._node_tree = tree
        self._node_state = "active"
        self._has_begun = True
        self._node_context = contextvars.copy_context()
        self._may_settle = may_settle
        self._is_host = is_host
        tree.inside_of = current()

    @property
    def is_here(self) -> bool:
        """Whether the caller is in the event loop of the tree."""
        try:
            return asyncio.get_running_loop() is self._node_in_tree().loop
        except RuntimeError:
            return False

    def from_elsewhere(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """Calls a function in the event loop of the tree, from another thread.

        Raises `CommanderNotRunning` if the loop is closed.
        """
        try:
            self._node_in_tree().loop.call_soon_threadsafe(function, *args)
        except RuntimeError as error:
            raise CommanderNotRunning("The event loop of the run has ended.") from error

    def take_no_more(self) -> None:
        """Refuses new nodes from now on, because the run is ending."""
        self._node_in_tree().is_exiting = True

    def stop(self) -> None:
        """Cancels the whole tree; does nothing the second time, so as not to disturb clean-up."""
        self._node_stop()

    def let_in(self, node: Node[object], parent: Node[object] | None) -> None:
        """Places a node here, or under `parent`, that was submitted before the run was ending."""
        if parent is None or parent is self:
            super()._node_adopt(node, self._node_in_tree())
        else:
            self.call(node, parent=parent)

    def take_unseen(self) -> list[BaseException]:
        """Returns the unseen failures of the tree, and marks them as seen."""
        return self._node_in_tree().failures.take_unseen()

    def look_again(self) -> None:
        """Settles if nothing is open; called after the answer of `may_settle` may have changed."""
        self._node_settle_up()

    def _node_adopt(self, child: Lifecycle[object], tree: Tree[Lifecycle[object]]) -> None:
        if tree.is_exiting:
            raise NodeClosed(f"The run is ending: it takes no new work such as {child.name}.")
        super()._node_adopt(child, tree)

    def _node_is_closed(self) -> bool:
        return super()._node_is_closed() and self._may_settle()

    def _node_is_around(self) -> bool:
        return super()._node_is_around() or (self._is_open and self._is_host())

    def _node_decide(self) -> None:
        super()._node_decide()
        self._node_due = deque([*(self._node_due or ()), *self._node_in_tree().endings])
