"""The port to other nodes: events go out to those that watch, and wakes come in.

Within a process events go straight from the thread to its topic. A bus carries them between the
runtimes that share a journal: one drives a thread and serves its events, any other follows them.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol

from treadle.bus.position import Position
from treadle.bus.subscription import Subscription
from treadle.domain.envelope import Envelope

Take = Callable[[Envelope], bool]
"""Takes an event, and returns whether more are wanted; never waits."""


class Node(Protocol):
    """A runtime that drives threads, as the bus sees it."""

    def drives(self, thread_id: str) -> bool:
        """Returns whether the thread is driven here."""
        ...

    def subscribe(self, thread_id: str, after: Position) -> Subscription:
        """Returns the events of a thread that is driven here."""
        ...

    def ring(self, thread_id: str) -> None:
        """Looks at the inbox of a thread soon; never waits."""
        ...


class Follower(Protocol):
    """The threads that are watched in a process and driven elsewhere, as the bus sees them."""

    def watches(self, thread_id: str) -> bool:
        """Returns whether the thread is watched here, and not driven."""
        ...

    def waiting(self) -> Mapping[str, int]:
        """Returns the threads that are watched here and of which no node is known.

        With the number of the last event that their readers have.
        """
        ...

    def follow(self, thread_id: str) -> None:
        """Notes that another node drives the thread from now on; never waits."""
        ...


class Bus(Protocol):
    """Carries the live events of threads to other nodes, and wakes to the node that drives."""

    announces: bool
    """Whether it learns of each thread that any other node comes to drive.

    Else a process that drives no threads looks for events itself.
    """

    def listen(self, follower: Follower) -> None:
        """Announces to `follower` what other nodes drive, until `close`."""
        ...

    async def serve(self, node: Node) -> None:
        """Lets other nodes follow what `node` drives, until `close`."""
        ...

    async def close(self) -> None:
        """Ends what was served and heard; those that follow it notice.

        A second call does nothing.
        """
        ...

    def follow(self, thread_id: str, after: Position) -> AsyncGenerator[Envelope]:
        """Yields the events of a thread after a position, as its driving node hands them out.

        Ends when that node stops to serve the thread; at once if no other node drives it. What is
        durable is in the journal in any case, so a reader can continue there.
        """
        ...

    async def deliver(self, thread_id: str, after: Position, take: Take) -> None:
        """Calls `take` with the events that `follow` would yield; returns where that would end.

        Also once `take` has returned False. What it raises is raised here. A task that feeds
        others with the events is not woken by them.
        """
        ...

    async def ring(self, thread_id: str) -> bool:
        """Asks the driving node to look at the inbox; returns whether a node was reached."""
        ...

    def announce(self, thread_id: str) -> None:
        """Announces to the other nodes that this one drives the thread from now on."""
        ...
