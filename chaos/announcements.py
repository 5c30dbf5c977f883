"""Whether what background jobs tell is in the history once, and the agent woken once by it."""

from collections import defaultdict

from chaos.findings import Findings
from chaos.stored import StoredThread
from treadle.domain.events import (
    JobSettled,
    JobStarted,
    MessageAdded,
    ResponseCompleted,
    RunCancelled,
    RunStarted,
    ScheduleFired,
)
from treadle.domain.ids import id_of


def judge_announcements(findings: Findings, thread: StoredThread) -> None:
    """Who is to announce its end did, and the agent was told once, and answered if it was to."""
    started: dict[str, JobStarted] = {}
    told = defaultdict[str, list[MessageAdded]](list)
    runs: list[str] = []
    scheduled = {e.run_id for e in thread.events if isinstance(e, ScheduleFired)}
    for event in thread.events:
        if isinstance(event, JobStarted):
            started[event.job_id] = event
        elif isinstance(event, MessageAdded) and event.origin == "job":
            told[event.item.id].append(event)
        elif isinstance(event, RunStarted):
            runs.append(event.run_id)
    woken: set[str] = set()
    for event in thread.events:
        if not isinstance(event, JobSettled):
            continue
        _judge_announcement(findings, thread, started[event.job_id], event)
        if event.announcement is not None:
            run_id = id_of("run", thread.id, event.announcement.id)
            messages = told.pop(event.announcement.id, [])
            _judge_told(findings, thread, event, messages)
            if messages and event.wakes:
                woken.add(run_id)
                _judge_woken(findings, thread, messages[0], run_id, runs.count(run_id))
    for id in told:
        findings.wrong.append(f"{thread.id}: nobody announced the message {id}")
    for run_id in set(runs) - woken - scheduled - set(thread.keys.values()):
        findings.wrong.append(f"{thread.id}: nobody asked for {run_id}")


def _judge_announcement(
    findings: Findings, thread: StoredThread, started: JobStarted, settled: JobSettled
) -> None:
    """Jobs of the thread announce their end, as their kind says; those below them do not."""
    job, message = f"{thread.id}: {settled.job_id}", settled.announcement
    announces = started.announces if started.background and not started.parent else "never"
    if (message is not None) != (announces != "never"):
        findings.wrong.append(f"{job} announces {announces}, and announced {message}")
    if settled.wakes != (announces == "wake" and settled.outcome != "cancelled"):
        findings.wrong.append(f"{job} announces {announces}, and wakes: {settled.wakes}")
    verb = "was" if settled.outcome == "cancelled" else "has"
    if message is not None and f"{started.name} {verb} {settled.outcome}." not in message.text:
        findings.wrong.append(f"{job} is {settled.outcome}, and announced: {message.text}")


def _judge_told(
    findings: Findings, thread: StoredThread, settled: JobSettled, told: list[MessageAdded]
) -> None:
    """What was announced is in the history once; what does not wake may wait for the next run."""
    findings.counts["announcements"] += 1
    job = f"{thread.id}: what {settled.job_id} announced"
    if len(told) > 1:
        findings.duplicates.append(f"{job} is in the history {len(told)} times")
    later = any(isinstance(e, RunStarted) and e.seq > settled.seq for e in thread.events)
    if not told and (settled.wakes or later):
        findings.losses.append(f"{job} is not in the history")


def _judge_woken(
    findings: Findings, thread: StoredThread, told: MessageAdded, run_id: str, runs: int
) -> None:
    """A run began for the message alone, or it entered another; there the model answered."""
    job = f"{thread.id}: the message {told.item.id} of a job"
    findings.counts["runs that jobs started"] += runs
    if runs != (told.run_id == run_id):
        findings.wrong.append(f"{job} entered {told.run_id}, and started {runs} runs")
    after = [event for event in thread.events if event.seq > told.seq]
    if not any(
        isinstance(event, ResponseCompleted | RunCancelled) and event.run_id == told.run_id
        for event in after
    ):
        findings.losses.append(f"{job} was never answered")
