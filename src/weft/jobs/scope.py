"""A scope: a node whose body is not its own task, but a block of code elsewhere."""

from collections.abc import Callable

from weft.jobs.change import Listener
from weft.jobs.failure import OnFailure
from weft.jobs.node import Node


class Scope(Node[None]):
    """A node that is active until it is closed: whoever opened it is its body.

    It keeps no child that has settled, so that rounds may go on under it for ever. `on_interrupt`
    is called where the scope is cancelled or fails while it is open: its holder is to stop what it
    does, and to close it.
    """

    __slots__ = ("_on_interrupt",)

    keeps_children = False

    def __init__(
        self,
        name: str,
        on_interrupt: Callable[[], object],
        *,
        on_failure: OnFailure | None = None,
        listener: Listener | None = None,
    ) -> None:
        self._name = name
        self._on_interrupt = on_interrupt
        self._policy = on_failure
        self._listener = listener

    def close(self) -> None:
        """Ends the body: the node settles when its children have."""
        self._body_ended()

    def _run_body(self) -> None:
        """Its body runs elsewhere."""

    def _interrupt(self) -> None:
        if self._state == "active":
            self._on_interrupt()
        else:
            super()._interrupt()
