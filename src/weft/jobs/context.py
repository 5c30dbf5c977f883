"""What a job may know of the thread under which it runs."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from typing_extensions import TypeVar as TypeVarWithDefault

from weft.delegation import Delegation, Worker
from weft.errors import ConfigurationError
from weft.items import Input
from weft.jobs.node import Node
from weft.result import RunResult

Deps = TypeVarWithDefault("Deps", default=None)
Out = TypeVar("Out")


@dataclass(frozen=True, kw_only=True)
class JobContext(Generic[Deps]):
    """What a job may know of the thread under which it runs.

    - `deps`: what the tools of the thread get. `job_id`: the name of the job on the thread.
    - `thread_id`, `run_id`: where it was started. `attempt`: how often it was, from 1.
    - `background`: whether it belongs to the thread, and may outlive the run.
    """

    deps: Deps
    thread_id: str
    run_id: str
    job_id: str
    attempt: int = 1
    background: bool = False
    delegation: Delegation | None = field(default=None, repr=False)
    _delegated: "Iterator[int]" = field(default_factory=itertools.count, repr=False)

    async def run_agent(self, agent: Worker[Out], input: Input) -> RunResult[Out]:
        """Has an agent work for this job, on a thread of its own; returns what came of it.

        Its events are shown under the run, what it uses counts for the run, and it is cancelled
        with the job. A restartable job that asks for the same agents in the same order finds their
        work where it was. Raises the error of a run that failed, `AgentsTooDeep`, `BudgetUsedUp`,
        and `ConfigurationError` in a background job: it has no run that could answer for it.
        """
        if self.delegation is None:
            raise ConfigurationError(
                "An agent works for a run: start the job under the run, not under the thread."
            )
        key = f"{self.job_id}/{next(self._delegated)}"
        return await self.delegation.run(agent, input, key=key, job_id=self.job_id)


def job_context(node: "Node[object]") -> JobContext[object]:
    """Returns what a job may know of its thread.

    Raises `ConfigurationError` for a node that runs under no thread.
    """
    context = node.context
    if not isinstance(context, JobContext):
        # Not its repr: that of a dataclass shows all its data.
        raise ConfigurationError(
            f"{node.name} #{node.id} runs under no thread; a tool starts it with ctx.jobs."
        )
    return cast("JobContext[object]", context)
