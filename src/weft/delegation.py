"""The port through which tools and hooks have other agents work for a run."""

from typing import Protocol, TypeVar

from weft.items import Input
from weft.result import RunResult

Out = TypeVar("Out")
Out_co = TypeVar("Out_co", covariant=True)


class Worker(Protocol[Out_co]):
    """An agent, as far as one needs to know it to have it work."""

    @property
    def name(self) -> str: ...

    def parse(self, text: str) -> Out_co:
        """Returns the output that a text is; raises `ValueError`."""
        ...


class Delegation(Protocol):
    """Has agents work for the run in progress of one thread."""

    async def run(
        self,
        agent: Worker[Out],
        input: Input,
        *,
        key: str,
        call_id: str = "",
        job_id: str = "",
        lends_memory: bool = False,
    ) -> RunResult[Out]:
        """Runs `agent` on a thread of its own, and returns what came of it.

        It works for the call `call_id`, for the job `job_id`, or for a hook. `key` names the work
        within the run: asked for again after a crash, it goes on where it was.
        Where this thread `lends_memory`, the agent reads and edits the memory blocks of this one.
        What it uses counts for the run, its events are shown under it, and it is cancelled with it.
        Raises `AgentsTooDeep`, `BudgetUsedUp`, and the error of a run that failed.
        """
        ...
