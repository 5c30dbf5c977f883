"""The port of an actor to the process that hosts it."""

from typing import Protocol

from treadle.actors.access import ThreadAccess
from treadle.actors.spending import SpendingGuard
from treadle.domain.entries import SendEntry
from treadle.domain.state import ThreadState
from treadle.journal.base import Journal, Work
from treadle.loop.catalog import Catalog
from treadle.loop.definition import AgentDefinition
from treadle.memory.archive.access import ArchiveAccess
from treadle.memory.blocks.thread_memory import SharedMemory, ThreadMemory
from treadle.tools.callables import UserFunction

AnyAgent = AgentDefinition[object, object]


class Host(Protocol):
    """What the threads of one process have in common."""

    @property
    def journal(self) -> Journal: ...

    @property
    def archive(self) -> ArchiveAccess: ...

    @property
    def threads(self) -> ThreadAccess:
        """The way to any thread, wherever it is driven."""
        ...

    @property
    def is_stopping(self) -> bool:
        """Whether this process is shutting down: what is interrupted now resumes in the next."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether this process begins no more requests and runs: others continue what it has."""
        ...

    def agent(self, name: str, /) -> AnyAgent:
        """Returns the agent of that name; raises `UnknownAgent`."""
        ...

    @property
    def catalog(self) -> Catalog:
        """The models, tools and output types that options of runs may name."""
        ...

    @property
    def deps(self) -> UserFunction[object]:
        """Makes what the tools of a thread get, from its `ThreadInfo`."""
        ...

    @property
    def spending(self) -> SpendingGuard:
        """Refuses requests for owners that have reached a limit."""
        ...

    def lend(self, agent: AnyAgent, /) -> None:
        """Makes an agent known that a tool, a hook or a job runs; raises `ConfigurationError`."""
        ...

    def wake(self, thread_id: str) -> None:
        """Asks for a thread to be driven; never waits."""
        ...

    async def permit(self, thread_id: str, owner: str, /) -> bool:
        """Returns whether a run may be worked on now; else the thread is driven again then."""
        ...

    def lost(self, thread_id: str, /) -> bool:
        """Notes that the journal refused the actor of a thread, which other nodes may have.

        Returns False if there are no other nodes.
        """
        ...

    def due_at(self, at: float, /) -> None:
        """Notes that something is due at `at` (Unix seconds); never waits."""
        ...

    def may_be_idle(self, thread_id: str) -> None:
        """Notes that something has ended that kept a thread in memory."""
        ...

    async def abandon(self, thread_id: str) -> ThreadState:
        """Cancels what an agent does on a thread for a run that no longer needs it.

        Returns the state after that.
        """
        ...

    async def fork_for(self, thread_id: str, entry: SendEntry) -> None:
        """Copies a thread up to event `entry.expect`, with the message as its next run."""
        ...

    async def shared_memory(self, owner: str, name: str) -> SharedMemory:
        """Returns the memory of that name which the threads of an owner share."""
        ...

    async def lent_memory(self, work: Work) -> ThreadMemory:
        """Returns the memory of the thread for which an agent works."""
        ...
