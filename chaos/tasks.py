"""The jobs that the tools start: each leaves a trace where it begins, and where it is done."""

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

import treadle
from chaos.evidence import Evidence
from chaos.records import JobBegan, JobDone, JobSubmitted
from treadle.domain.ids import new_id
from treadle.jobs.agent_job import AgentJob
from treadle.jobs.context import JobContext, job_context
from treadle.jobs.job import Job
from treadle.jobs.node import Node

SHORT, LONG = 0.03, 0.8
WAKING = 0.6
"""How likely a call is to start a job that wakes the agent; the run that it starts calls again."""

DONE = "done "
"""How the result of a job begins."""

PLANNED = "as planned"
"""What the jobs fail with that are to fail."""

CHAINS = (
    (),
    ("once",),
    ("again",),
    ("fails",),
    ("once", "again"),
    ("again", "once"),
    ("again", "again", "once"),
)
"""What a job may have below it, one below the other."""


@dataclass(frozen=True)
class Desk:
    """What jobs get as `deps`: where they leave their traces, and an agent that works for them."""

    evidence: Evidence
    worker: treadle.Agent[Any, str]


@dataclass
class Once(Job[str]):
    """Does something that must not be done twice, and starts the first of the kinds `below`.

    That starts the others in its turn. Where it `waits`, it awaits what it has started.
    """

    mark: str
    below: tuple[str, ...] = ()
    waits: bool = False
    seconds: float = SHORT

    def __post_init__(self) -> None:
        self.name = self.mark  # so that the thread knows it by that

    async def task(self) -> str:
        """Works, and says so."""
        context, evidence = job_context(self), desk_of(self).evidence
        begin(self, context)
        node: Node[str] | None = None
        if self.below:
            kind, mark = KINDS[self.below[0]], new_id("job")
            job = kind(mark, self.below[1:], not self.waits, self.seconds)
            node = await submitted(self, job, evidence)
        await at_work(self.seconds)
        if node is not None and self.waits:
            await node
        await self.work()
        evidence.add(JobDone(context.job_id, context.attempt, time.time()))
        return f"{DONE}{self.mark}"

    async def work(self) -> None:
        """What this kind does beside."""


@dataclass
class Again(Once, restartable=True):
    """Does something that may be done again, with all below it."""


@dataclass
class Failing(Once):
    """Fails in the end."""

    async def work(self) -> None:
        """Fails."""
        raise ValueError(PLANNED)


@dataclass
class Asking(Again):
    """Has an agent work for it, and finds that work where it was when it is started again."""

    async def work(self) -> None:
        """Asks the agent."""
        await job_context(self).run_agent(desk_of(self).worker, self.mark)


@dataclass
class Outlived(Once):
    """Places a job under the thread, which goes on when the run has ended."""

    async def work(self) -> None:
        """Places it."""
        job = SilentAgain(new_id("job"), ("again",), False, LONG)
        await submitted(self, job, desk_of(self).evidence, parent=self.root)


@dataclass
class QuietAgain(Again, announces="quiet"):
    """Tells its end to the next run."""


@dataclass
class SilentOnce(Once, announces="never"):
    """Tells nothing of its end."""


@dataclass
class SilentAgain(Again, announces="never"):
    """Tells nothing of its end, however often it was started."""


KINDS: dict[str, type[Once]] = {"once": Once, "again": Again, "fails": Failing}


def begin(job: Once, context: JobContext[object]) -> None:
    """Leaves the trace of a body that begins."""
    is_restartable = type(job).restartable
    desk_of(job).evidence.add(
        JobBegan(context.job_id, job.mark, context.attempt, is_restartable, time.time())
    )


async def at_work(seconds: float) -> None:
    """Takes the time that the work takes."""
    await asyncio.sleep(seconds)


async def submitted(
    node: Node[Any], job: Job[Any], evidence: Evidence, *, parent: Node[Any] | None = None
) -> Node[Any]:
    """Submits a job under a node, or under `parent`; says so once that was acknowledged."""
    placed = await node.submit(job, parent=parent)
    evidence.add(JobSubmitted(job.name))
    return placed


def jobs_of_run(desk: Desk, chance: random.Random) -> list[Job[Any]]:
    """Returns one or two jobs for a run."""
    agent = AgentJob(desk.worker, "work")
    agent.name = new_id("job")
    jobs: list[Job[Any]] = [
        Once(new_id("job"), chance.choice(CHAINS), chance.random() < 0.5),
        Once(new_id("job"), chance.choice(CHAINS), chance.random() < 0.5),
        Again(new_id("job"), chance.choice(CHAINS), chance.random() < 0.5),
        Again(new_id("job"), chance.choice(CHAINS), chance.random() < 0.5),
        Asking(new_id("job")),
        Outlived(new_id("job")),
        agent,
    ]
    return chance.sample(jobs, chance.randint(1, 2))


def jobs_of_thread(chance: random.Random) -> list[Job[Any]]:
    """Returns one or two jobs for the thread; few wake the agent, so that it comes to rest."""
    kind = chance.choice([SilentOnce, SilentAgain, QuietAgain])
    jobs: list[Job[Any]] = [kind(new_id("job"), chance.choice(CHAINS), False, LONG)]
    if chance.random() < WAKING:
        kind = chance.choice([Once, Again, Failing, Asking])
        jobs.append(kind(new_id("job"), chance.choice(CHAINS), False, LONG))
    return jobs


def desk_of(node: Node[Any]) -> Desk:
    """Returns what a job has got as `deps`."""
    desk = job_context(node).deps
    assert isinstance(desk, Desk)
    return desk
