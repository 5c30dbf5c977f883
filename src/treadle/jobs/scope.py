"""A scope: a node whose body is not its own task, but a block of code elsewhere."""

from collections.abc import Callable

from treadle.jobs.failure import OnFailure
from treadle.jobs.node import Listener, Node
from treadle.jobs.tree import Tree


class Scope(Node[None]):
    """A node that is active until it is closed: the code that opened it is its body.

    It is active as soon as it is placed in a tree, and takes no place of the limit. It keeps no
    child that has settled, so that rounds may continue under it forever. `on_interrupt` is called
    if the scope is cancelled or fails while it is open: its holder then stops its work and closes
    the scope. `on_failure` is that of a node.
    """

    __slots__ = ("_has_begun", "_is_open", "_on_interrupt")

    keeps_children = False

    def __init__(
        self,
        name: str,
        on_interrupt: Callable[[], object],
        *,
        on_failure: OnFailure | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._node_name = name
        self._on_interrupt = on_interrupt
        self._node_policy = on_failure
        self._node_listener = listener
        self._is_open = True
        self._has_begun = False  # its start callbacks have ended

    def close(self) -> None:
        """Ends the body: the node settles when its children have. Again, it does nothing."""
        if self._is_open:
            self._is_open = False
            if self._has_begun:
                self._node_body_ended()

    def _node_enter(self, tree: Tree) -> None:
        if self._node_is_pending():  # else the listener has cancelled it already
            self._node_begin()

    def _node_never_starts(self) -> None:
        """It is in no queue."""

    def _node_run_body(self) -> None:
        """Its body runs elsewhere: it is only seen to end."""
        self._has_begun = True
        if not self._is_open:
            self._node_body_ended()

    def _node_interrupt(self, again: bool) -> None:
        super()._node_interrupt(again)
        if self._is_open:
            self._on_interrupt()
