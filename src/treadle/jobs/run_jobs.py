"""The port to the jobs of a run."""

from typing import Protocol

from treadle.jobs.node import Node


class RunJobs(Protocol):
    """The jobs of the run in progress on a thread."""

    @property
    def node(self) -> Node[None]:
        """The run's node in the tree of the thread; its jobs are below it.

        Raises `NodeClosed` when the run has ended.
        """
        ...

    @property
    def is_open(self) -> bool:
        """Whether a job of the run has not settled."""
        ...

    async def stop(self) -> None:
        """Cancels what is open and waits for its end; the run takes no more jobs."""
        ...
