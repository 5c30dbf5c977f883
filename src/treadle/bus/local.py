"""A bus within one process, for the runtimes that share a journal object."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from weakref import WeakKeyDictionary

from treadle.bus.base import Follower, Node, Take
from treadle.bus.position import Position
from treadle.domain.envelope import Envelope
from treadle.errors import TreadleError


class _Group:
    """The runtimes on one journal object: those that drive threads, and all that watch some."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.followers: list[Follower] = []


_groups: WeakKeyDictionary[object, _Group] = WeakKeyDictionary()


class LocalBus:
    """Fulfils `Bus`; runtimes on the same `journal` object are each other's nodes."""

    announces = False
    """Another process may drive the threads of the journal."""

    def __init__(self, journal: object) -> None:
        self._group = _groups.setdefault(journal, _Group())
        self._node: Node | None = None
        self._follower: Follower | None = None

    def listen(self, follower: Follower) -> None:
        """Announces to `follower` what the other runtimes drive."""
        self._follower = follower
        self._group.followers.append(follower)

    async def serve(self, node: Node) -> None:
        """Lets the other runtimes follow what `node` drives."""
        self._node = node
        self._group.nodes.append(node)

    async def close(self) -> None:
        """Ends what was served and heard; a second call does nothing."""
        if self._node is not None:
            self._group.nodes.remove(self._node)
            self._node = None
        if self._follower is not None:
            self._group.followers.remove(self._follower)
            self._follower = None

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

    async def deliver(self, thread_id: str, after: Position, take: Take) -> None:
        """Calls `take` with the events that `follow` yields, until it returns False."""
        async with aclosing(self.follow(thread_id, after)) as envelopes:
            async for envelope in envelopes:
                if not take(envelope):
                    return

    async def ring(self, thread_id: str) -> bool:
        """Asks the driving runtime to look at the inbox."""
        node = self._driving(thread_id)
        if node is not None:
            node.ring(thread_id)
        return node is not None

    def announce(self, thread_id: str) -> None:
        """Announces to the other runtimes that this one drives the thread from now on."""
        for follower in self._group.followers:
            if follower is not self._follower:
                follower.follow(thread_id)

    def _driving(self, thread_id: str) -> Node | None:
        others = (node for node in self._group.nodes if node is not self._node)
        return next((node for node in others if node.drives(thread_id)), None)
