"""A bus within one process, for the runtimes that share a journal object."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from weakref import WeakKeyDictionary

from treadle.bus.base import Node
from treadle.bus.position import Position
from treadle.domain.envelope import Envelope
from treadle.errors import TreadleError

_nodes: WeakKeyDictionary[object, list[Node]] = WeakKeyDictionary()


class LocalBus:
    """Fulfils `Bus`; runtimes on the same `journal` object are each other's nodes."""

    def __init__(self, journal: object) -> None:
        self._nodes = _nodes.setdefault(journal, [])
        self._node: Node | None = None

    async def serve(self, node: Node) -> None:
        """Lets the other runtimes follow what `node` drives."""
        self._node = node
        self._nodes.append(node)

    async def close(self) -> None:
        """Ends what was served; a second call does nothing."""
        if self._node is not None:
            self._nodes.remove(self._node)
            self._node = None

    async def follow(self, thread_id: str, after: Position) -> AsyncGenerator[Envelope]:
        """Yields the events of a thread that another runtime drives."""
        node = self._driving(thread_id)
        if node is None:
            return
        # A node that fails, or shuts down, has ended; its error is not that of its followers.
        with suppress(TreadleError):
            async with node.subscribe(thread_id, after) as subscription:
                async for envelope in subscription.envelopes():
                    yield envelope

    async def ring(self, thread_id: str) -> bool:
        """Asks the driving runtime to look at the inbox."""
        node = self._driving(thread_id)
        if node is not None:
            node.ring(thread_id)
        return node is not None

    def announce(self, thread_id: str) -> None:
        """Announces to the other runtimes that this one drives the thread from now on."""
        for node in self._nodes:
            if node is not self._node:
                node.follow(thread_id)

    def _driving(self, thread_id: str) -> Node | None:
        others = (node for node in self._nodes if node is not self._node)
        return next((node for node in others if node.drives(thread_id)), None)
