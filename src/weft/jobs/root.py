"""The root of a tree: the scope that all of it belongs to."""

from collections import deque
from collections.abc import Callable

from weft.errors import NodeClosed
from weft.jobs.change import Listener
from weft.jobs.failure import OnFailure
from weft.jobs.node import Node
from weft.jobs.scope import Scope
from weft.jobs.tree import Tree


class Root(Scope):
    """The root of a tree; see `Scope`. `may_settle` has the last word on the end."""

    __slots__ = ("_may_settle",)

    def __init__(
        self,
        tree: Tree,
        on_interrupt: Callable[[], object],
        *,
        on_failure: OnFailure,
        listener: Listener | None = None,
        may_settle: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__("root", on_interrupt, on_failure=on_failure, listener=listener)
        self._tree = tree
        self._state = "active"
        self._may_settle = may_settle

    def look_again(self) -> None:
        """Settles, if nothing is open; for when `may_settle` may have changed its mind."""
        self._settle_up()

    def _adopt(self, child: Node[object], tree: Tree) -> None:
        if tree.is_exiting:
            raise NodeClosed(f"The run is ending: it takes no new work such as {child.name}.")
        super()._adopt(child, tree)

    def _is_closed(self) -> bool:
        return super()._is_closed() and self._may_settle()

    def _decide(self) -> None:
        super()._decide()
        self._due = deque([*(self._due or ()), *self._in_tree().endings])
