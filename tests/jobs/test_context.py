"""What a job may know of its thread, and how it has agents work, on a tree without a thread."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pytest

from treadle import Agent
from treadle.domain.items import Input
from treadle.domain.result import RunResult
from treadle.domain.usage import Usage
from treadle.errors import AgentsTooDeep, ConfigurationError
from treadle.jobs import Commander, Handler, Job, Root, StartQueue, Tree, handler
from treadle.jobs.agent_job import AgentJob
from treadle.jobs.context import JobContext, job_context
from treadle.ports import Worker
from treadle.testing import ScriptedModel

pytestmark = pytest.mark.anyio

Out = TypeVar("Out")
WORKER = Agent(ScriptedModel([]), name="small", description="Works.")


@dataclass
class Delegating:
    """Fulfils `Delegation`: keeps what was asked for, and answers with it."""

    asked: list[tuple[str, str, str, str]] = field(default_factory=list[tuple[str, str, str, str]])
    error: Exception | None = None

    async def run(
        self,
        agent: Worker[Out],
        input: Input,
        *,
        key: str,
        call_id: str = "",
        job_id: str = "",
        lends_memory: bool = False,
    ) -> RunResult[Out | None]:
        """Answers after a second."""
        await asyncio.sleep(1)
        self.asked.append((str(input), key, call_id, job_id))
        if self.error is not None:
            raise self.error
        return result_with(cast("Out", key))


def result_with(output: Out, **fields: Any) -> RunResult[Out | None]:
    known: dict[str, Any] = {"status": "completed", "stop_reason": "end_turn", **fields}
    return RunResult(
        run_id="r",
        thread_id="t",
        output=output,
        text="",
        refusal="",
        items=(),
        history=(),
        usage=Usage(),
        steps=1,
        **known,
    )


def context(delegation: Delegating, **fields: Any) -> JobContext[object]:
    return JobContext(
        lambda: "deps", delegation, thread_id="t", run_id="r", job_id="job_1", **fields
    )


async def run(job: Job[Any], known: JobContext[object] | None) -> Any:
    """Runs a job in a tree whose nodes know `known`."""
    loop = asyncio.get_running_loop()
    starts = StartQueue(loop, limit=None, max_pending=9)
    tree = Tree(loop, starts, lambda result, wait: None, context_of=lambda node: known)
    root = Root(tree, lambda: True, on_failure="collect")
    root.call(job)
    return await job


@dataclass
class Asks(Job[Any]):
    """Has agents work, one after the other."""

    count: int

    async def task(self) -> Any:
        """Returns the keys of what was done."""
        known = job_context(self)
        return [(await known.run_agent(WORKER, f"{n}?")).output for n in range(self.count)]


async def test_agents_are_asked_in_an_order_that_comes_again() -> None:
    for _ in range(2):
        delegating = Delegating()
        assert await run(Asks(3), context(delegating)) == ["job_1/0", "job_1/1", "job_1/2"]
        assert delegating.asked == [(f"{n}?", f"job_1/{n}", "", "job_1") for n in range(3)]


async def test_an_agent_is_a_job() -> None:
    delegating = Delegating()
    job = AgentJob(WORKER, "6 * 7?")
    assert (job.name, job.restartable) == ("small", False)
    assert (await run(job, context(delegating))).output == "job_1/0"
    assert delegating.asked == [("6 * 7?", "job_1/0", "", "job_1")]
    failing = Delegating(error=AgentsTooDeep("Too deep."))
    with pytest.raises(AgentsTooDeep):
        await run(AgentJob(WORKER, "?"), context(failing))


async def test_what_a_job_knows() -> None:
    class Looks(Job[Any]):
        async def task(self) -> Any:
            return job_context(self)

    known = context(Delegating(), attempt=2, background=True)
    assert await run(Looks(), known) is known
    assert (known.deps, known.attempt, known.background) == ("deps", 2, True)
    assert (known.thread_id, known.run_id, known.job_id) == ("t", "r", "job_1")


@handler
async def looks(node: Handler[Any]) -> Any:
    return job_context(node)


async def test_without_a_thread_there_is_nothing_to_know() -> None:
    with pytest.raises(ConfigurationError, match="in no tree yet"):
        job_context(Asks(1))
    async with Commander() as commander:
        for job in (Asks(1), looks(), AgentJob(WORKER, "?")):
            node = await commander.submit(cast("Job[Any]", job))
            with pytest.raises(ConfigurationError, match=r"^(Asks|looks|small) #\d runs under no"):
                await node
