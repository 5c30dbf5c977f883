"""Whether every job settled once, as its kind and its bodies say, and its agents have ended."""

from collections import Counter
from collections.abc import Iterator, Sequence

from chaos.calls import ENDED
from chaos.evidence import Evidence
from chaos.findings import Findings
from chaos.records import JobBegan, JobCancelled, JobDone, JobSubmitted
from chaos.stored import StoredThread
from chaos.tasks import DONE, PLANNED
from treadle.domain.events import JobDelegated, JobSettled, JobStarted, RunCancelling, TerminalEvent
from treadle.errors import NodeCancelled

INTERRUPTED = "interrupted"
"""The code of a job that the end of the process has ended."""


class Grown:
    """The jobs of a thread as its events tell of them; `begun` is the last start of each."""

    def __init__(self) -> None:
        self.begun: dict[str, JobStarted] = {}
        self.ended: dict[str, JobSettled] = {}
        self.open: set[str] = set()

    def above(self, job_id: str) -> Iterator[JobStarted]:
        """Yields the jobs to which one belongs now, the nearest first."""
        while job_id := self.begun[job_id].parent:
            yield self.begun[job_id]


def judge_jobs(findings: Findings, thread: StoredThread, evidence: Evidence) -> None:
    """Each job settles once, after those below it and before its run, as its kind allows."""
    cancelled = {
        *(event.run_id for event in thread.events if isinstance(event, RunCancelling)),
        *(one.job_id for one in evidence.read(JobCancelled)),
    }
    jobs = Grown()
    for event in thread.events:
        if isinstance(event, JobStarted):
            _judge_start(findings, thread, jobs, event)
        elif isinstance(event, JobSettled):
            _judge_end(findings, thread, jobs, event, cancelled)
        elif isinstance(event, TerminalEvent):
            for job_id in jobs.open:
                job = jobs.begun[job_id]
                if job.run_id == event.run_id and not job.background:
                    findings.wrong.append(f"{thread.id}: {event.run_id} ended before {job_id}")
    for job_id in jobs.open:
        findings.losses.append(f"{thread.id}: {job_id} never settled")


def judge_bodies(findings: Findings, threads: Sequence[StoredThread], evidence: Evidence) -> None:
    """Each attempt of a job that is told ran once at most, and to its end where it completed."""
    events = [event for thread in threads for event in thread.events]
    started = {(e.job_id, e.attempt): e for e in events if isinstance(e, JobStarted)}
    settled = {event.job_id: event for event in events if isinstance(event, JobSettled)}
    done = {(one.job_id, one.attempt): one for one in evidence.read(JobDone)}
    times = Counter((one.job_id, one.attempt) for one in evidence.read(JobBegan))
    for one in evidence.read(JobBegan):
        event, end = started.get((one.job_id, one.attempt)), settled.get(one.job_id)
        job = f"{one.job_id}, attempt {one.attempt},"
        if event is None:
            findings.losses.append(f"{job} ran, and no event tells of it")
        elif one.restartable != bool(event.kind):
            findings.wrong.append(f"{job} is stored as {event.kind!r}")
        if one.attempt > 1 and not one.restartable:
            findings.duplicates.append(f"{job} ran, and it must run once")
        if times[one.job_id, one.attempt] > 1:
            findings.duplicates.append(f"{job} ran {times[one.job_id, one.attempt]} times")
        last = done.get((one.job_id, one.attempt))
        if end is not None and end.at < max(one.at, last.at if last is not None else 0.0):
            findings.wrong.append(f"{job} went on after it had settled")
    attempts = {event.job_id: event.attempt for event in started.values()}
    for job_id, event in settled.items():
        # What other kinds of jobs do, such as agents, leaves its traces elsewhere.
        if event.output.startswith(DONE) and (job_id, attempts[job_id]) not in done:
            findings.losses.append(f"{job_id} has completed, and its body has not")


def judge_submitted(
    findings: Findings, threads: Sequence[StoredThread], evidence: Evidence
) -> None:
    """A job whose submission was acknowledged is in the journal, and none is there twice."""
    known = Counter(
        event.name
        for thread in threads
        for event in thread.events
        if isinstance(event, JobStarted) and event.attempt == 1
    )
    for name, times in known.items():
        if times > 1:
            findings.duplicates.append(f"the job {name} is there {times} times")
    for one in evidence.read(JobSubmitted):
        findings.counts["jobs acknowledged"] += 1
        if not known[one.name]:
            findings.losses.append(f"the job {one.name} was acknowledged and is gone")


def judge_agents(findings: Findings, threads: Sequence[StoredThread]) -> None:
    """The agents of a job have ended before it settled."""
    by_id = {thread.id: thread for thread in threads}
    for thread in threads:
        ended = {event.job_id: event for event in thread.events if isinstance(event, JobSettled)}
        asked = {e.thread_id: e.job_id for e in thread.events if isinstance(e, JobDelegated)}
        findings.counts["agents of jobs"] += len(asked)
        for thread_id, job_id in asked.items():
            settled, worker = ended.get(job_id), by_id.get(thread_id)
            if settled is None or worker is None:
                findings.losses.append(f"{thread.id}: {job_id} or its agent {thread_id} is gone")
                continue
            where = f"{thread.id}: the agent {thread_id} of {job_id}, {settled.outcome}"
            expected = {"completed"} if settled.outcome == "completed" else ENDED
            if worker.status not in expected:
                findings.wrong.append(f"{where}, is {worker.status}")
            elif worker.events and worker.events[-1].at > settled.at:
                findings.wrong.append(f"{where}, went on after it")


def _judge_start(findings: Findings, thread: StoredThread, jobs: Grown, event: JobStarted) -> None:
    job = f"{thread.id}: {event.job_id}"
    before = jobs.begun.get(event.job_id)
    findings.counts["jobs"] += event.attempt == 1
    findings.counts["jobs started again"] += event.attempt > 1
    if event.attempt != (1 if before is None else before.attempt + 1):
        findings.wrong.append(f"{job} was started with attempt {event.attempt}")
    if event.attempt > 1 and not event.kind:
        findings.duplicates.append(f"{job} is not restartable, and was started again")
    if event.job_id in jobs.ended:
        findings.duplicates.append(f"{job} was started after it had settled")
    jobs.begun[event.job_id] = event
    jobs.open.add(event.job_id)


def _judge_end(
    findings: Findings,
    thread: StoredThread,
    jobs: Grown,
    event: JobSettled,
    cancelled: set[str],
) -> None:
    job = f"{thread.id}: {event.job_id}"
    if event.job_id not in jobs.open:
        findings.duplicates.append(f"{job} settled without being open")
        return
    for below in jobs.open:
        if jobs.begun[below].parent == event.job_id:
            findings.wrong.append(f"{job} settled before {below}, which is below it")
    jobs.open.remove(event.job_id)
    jobs.ended[event.job_id] = event
    findings.counts[f"jobs {event.code if event.code == INTERRUPTED else event.outcome}"] += 1
    started, above = jobs.begun[event.job_id], list(jobs.above(event.job_id))
    if event.outcome == "cancelled":
        wished = {started.job_id, *(one.job_id for one in above)}
        if not started.background:
            wished.add(started.run_id)
        if not wished & cancelled:
            findings.wrong.append(f"{job} was cancelled, and nobody wished it")
    elif event.code == INTERRUPTED:
        if started.kind and not any(one.kind for one in above):
            findings.losses.append(f"{job} is restartable, and was not started again")
    elif event.outcome == "failed" and not _is_expected(jobs, event):
        findings.wrong.append(f"{job} failed: {event.message}")


def _is_expected(jobs: Grown, failed: JobSettled) -> bool:
    """Whether a job was to fail, or waited for one that was cancelled."""
    ends = [end for id, end in jobs.ended.items() if jobs.begun[id].parent == failed.job_id]
    awaited = any(end.outcome == "cancelled" or end.code == failed.code for end in ends)
    return PLANNED in failed.message or (failed.code == NodeCancelled.code and awaited)
