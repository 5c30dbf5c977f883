"""The context of a job: the thread under which it runs."""

import itertools
from collections.abc import Callable
from typing import Generic, Literal, TypeVar, cast, overload

from typing_extensions import TypeVar as TypeVarWithDefault

from treadle.domain.items import Input
from treadle.domain.result import RunResult, require_complete
from treadle.errors import ConfigurationError
from treadle.jobs.node import Node
from treadle.ports import Delegation, Worker

Deps = TypeVarWithDefault("Deps", default=None)
Out = TypeVar("Out")


class JobContext(Generic[Deps]):
    """The thread under which a job runs, and what it offers.

    - `job_id`: the name of the job on the thread.
    - `thread_id`, `run_id`: where it was started. `attempt`: the number of starts, from 1.
    - `background`: whether it belongs to the thread, and may outlive the run.
    """

    def __init__(
        self,
        deps: Callable[[], Deps],
        delegation: Delegation,
        *,
        thread_id: str,
        run_id: str,
        job_id: str,
        attempt: int = 1,
        background: bool = False,
    ) -> None:
        self._deps = deps
        self.thread_id = thread_id
        self.run_id = run_id
        self.job_id = job_id
        self.attempt = attempt
        self.background = background
        self._delegation = delegation
        self._delegated = itertools.count()

    @property
    def deps(self) -> Deps:
        """The dependencies of the thread's tools."""
        return self._deps()

    @overload
    async def run_agent(
        self,
        agent: Worker[Out],
        input: Input,
        *,
        lends_memory: bool = False,
        raise_on_incomplete: Literal[True] = True,
    ) -> RunResult[Out]: ...

    @overload
    async def run_agent(
        self,
        agent: Worker[Out],
        input: Input,
        *,
        lends_memory: bool = False,
        raise_on_incomplete: bool,
    ) -> RunResult[Out | None]: ...

    async def run_agent(
        self,
        agent: Worker[Out],
        input: Input,
        *,
        lends_memory: bool = False,
        raise_on_incomplete: bool = True,
    ) -> RunResult[Out] | RunResult[Out | None]:
        """Runs an agent for this job, on a thread of its own, and returns its result.

        Its events are shown under the thread, its usage counts for the run, and it is cancelled
        with the job. In a background job it works within the limits of a run of its own, and its
        usage counts for the thread. If a restartable job runs the same agents in the same order
        after a restart, they continue. With `lends_memory` the agent reads and edits the memory
        blocks of the thread.

        Raises the error of a run that failed, a kind of `RunStopped` if the run ended without an
        output (unless `raise_on_incomplete` is False), `AgentsTooDeep` and `BudgetUsedUp`.
        """
        key = f"{self.job_id}/{next(self._delegated)}"
        result = await self._delegation.run(
            agent, input, key=key, job_id=self.job_id, lends_memory=lends_memory
        )
        return require_complete(result) if raise_on_incomplete else result


def job_context(node: "Node[object]") -> JobContext[object]:
    """Returns the context of a job.

    Raises `ConfigurationError` if the node does not run under a thread.
    """
    context = node.tree_context()
    if not isinstance(context, JobContext):
        # Not its repr: that of a dataclass shows all its data.
        raise ConfigurationError(
            f"{node.name} #{node.id} runs under no thread; a tool starts it with ctx.jobs."
        )
    return cast("JobContext[object]", context)
