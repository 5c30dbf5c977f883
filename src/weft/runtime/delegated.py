"""What holds for an agent that works for the run of another, wherever it runs."""

from typing import Any, TypeVar, cast

from weft.definition import AgentDefinition
from weft.delegation import Worker
from weft.errors import AgentsTooDeep, BudgetUsedUp, ConfigurationError
from weft.events import AgentEvent, Event, JobDelegated, ToolDelegated, UsageAdded
from weft.state import ThreadState
from weft.usage import Spent
from weft.writer import ThreadWriter

Out = TypeVar("Out")


def delegated(
    definition: AgentDefinition[object, Any],
    agent: Worker[Out],
    spent: Spent,
    depth: int,
) -> AgentDefinition[object, Out]:
    """Returns the agent within what is left to that of `definition`, which has used up `spent`.

    It works at `depth` + 1. Raises `AgentsTooDeep` and `BudgetUsedUp`.
    """
    if not isinstance(agent, AgentDefinition):
        raise ConfigurationError(f"{agent!r:.100} is no agent.")
    limits = definition.limits
    if depth >= limits.max_depth:
        raise AgentsTooDeep(
            f"{agent.name} would work {depth + 1} deep, and {limits.max_depth} is allowed; do it "
            "without another agent, or raise Limits.max_depth."
        )
    reached = limits.reached(spent)
    if reached is not None and reached != "max_steps":
        raise BudgetUsedUp(f"The run has nothing left for another agent: {reached}.")
    worker = cast("AgentDefinition[object, Out]", agent)
    return worker.within(limits.left(spent))


def started(
    state: ThreadState, agent: str, thread_id: str, *, call_id: str, job_id: str
) -> ToolDelegated | JobDelegated:
    """Returns the event that tells on which thread an agent works for a call, or for a job."""
    if job_id:
        run_id = state.jobs[job_id].run_id
        return JobDelegated(run_id=run_id, job_id=job_id, agent=agent, thread_id=thread_id)
    assert state.run is not None
    return ToolDelegated(run_id=state.run.id, call_id=call_id, agent=agent, thread_id=thread_id)


def record_spent(thread: ThreadWriter, spent: Spent, worker: str, job_id: str = "") -> None:
    """Counts what the agent on the thread `worker` used, once: for the run, or the thread.

    The latter where it worked for the background job `job_id`. Nothing is counted for what has
    ended meanwhile.
    """
    run, job = thread.state.active_run, thread.state.jobs.get(job_id)
    counts_for = job if job is not None and job.background else run
    if counts_for is None or worker in counts_for.counted or spent == Spent():
        return
    thread.record(
        UsageAdded(
            run_id=job.run_id if counts_for is job and job is not None else counts_for.id,
            usage=spent.usage,
            cost=spent.cost,
            calls=spent.tool_calls,
            thread_id=worker,
            job_id=job_id if counts_for is job else "",
        )
    )


class AgentShown:
    """Shows what an agent does to the subscribers of the thread that it works for."""

    def __init__(self, thread: ThreadWriter, agent: str, call_id: str, thread_id: str = "") -> None:
        self.thread_id = thread_id
        self._thread = thread
        self._agent = agent
        self._call_id = call_id

    def put(self, event: Event) -> None:
        """Takes an event of the agent."""
        self._thread.publish(AgentEvent(self._call_id, self._agent, self.thread_id, event))
