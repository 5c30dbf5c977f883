"""An agent at work as a job of a run."""

from typing import TypeVar

from treadle.domain.items import Input
from treadle.domain.result import RunResult
from treadle.jobs.context import job_context
from treadle.jobs.job import Job
from treadle.ports import Worker

Out = TypeVar("Out")


class AgentJob(Job[RunResult[Out]]):
    """Has an agent work on a thread of its own; the result is that of its run.

    Runs under a thread only; see `JobContext.run_agent`. Fails with the error of a run that failed,
    with a kind of `RunStopped` if the run ended without an output, with `AgentsTooDeep` and with
    `BudgetUsedUp`.
    """

    def __init__(self, agent: Worker[Out], input: Input) -> None:
        self.agent = agent
        self.input = input
        self.name = agent.name

    async def task(self) -> RunResult[Out]:
        """Runs the agent."""
        return await job_context(self).run_agent(self.agent, self.input)
