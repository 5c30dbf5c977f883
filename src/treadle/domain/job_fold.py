"""The fold of jobs: those that are open, what they used up, and what they announce."""

from typing import assert_never

from msgspec.structs import replace

from treadle.domain.events import JobDelegated, JobSettled, JobStarted, MessageAdded, UsageAdded
from treadle.domain.fold_requirements import require_active_run
from treadle.domain.state import Announcement, OpenJob, ThreadState
from treadle.domain.usage import Spent
from treadle.errors import InvalidTransition


def job_changed(state: ThreadState, event: JobStarted | JobDelegated | JobSettled) -> ThreadState:
    """Returns the state after a job has started, was delegated to a thread, or has settled."""
    jobs = dict(state.jobs)
    job = jobs.get(event.job_id)
    match event:
        case JobStarted():
            _start_job(state, jobs, job, event)
            return replace(state, jobs=jobs)
        case JobDelegated():
            if job is None:
                raise InvalidTransition(f"Job {event.job_id} is not open.")
            threads = (*job.delegated, event.thread_id)
            return replace(state, jobs={**jobs, job.id: replace(job, delegated=threads)})
        case JobSettled():
            if job is None or job.children:
                raise InvalidTransition(f"Job {event.job_id} is not open, or has open children.")
            if event.fails_run:
                run = require_active_run(state, event)
                failure = run.job_failure or event.message or "it failed"
                state = replace(state, run=replace(run, job_failure=failure))
            del jobs[event.job_id]
            _leave_parent(jobs, job)
            announced = state.announced
            if event.announcement is not None:
                added = Announcement(event.announcement, event.run_id, job.agent, event.wakes)
                announced = (*announced, added)
            return replace(state, jobs=jobs, announced=announced)
        case _ as unreachable:
            assert_never(unreachable)


def _start_job(
    state: ThreadState, jobs: dict[str, OpenJob], before: OpenJob | None, event: JobStarted
) -> None:
    if not event.background:
        require_active_run(state, event)
    if event.attempt != (1 if before is None else before.attempt + 1):
        raise InvalidTransition(f"Job {event.job_id} cannot have attempt {event.attempt} now.")
    # What it started may still be below it, and belongs to the run or the thread as it does.
    if before is not None and (event.parent or event.background != before.background):
        raise InvalidTransition(f"Job {event.job_id} cannot start again in another place.")
    parent = jobs.get(event.parent)
    if event.parent and (parent is None or parent.background != event.background):
        raise InvalidTransition(f"The job {event.parent}, to which one belongs, is not open.")
    if before is not None:
        _leave_parent(jobs, before)
        again = replace(before, parent="", attempt=event.attempt, announces=event.announces)
        jobs[before.id] = again
        return
    if parent is not None:
        jobs[parent.id] = replace(parent, children=parent.children + 1)
    jobs[event.job_id] = OpenJob(
        event.job_id,
        event.name,
        event.run_id,
        event.parent,
        event.background,
        event.agent,
        event.announces,
        event.kind,
        event.arguments,
    )


def _leave_parent(jobs: dict[str, OpenJob], job: OpenJob) -> None:
    if job.parent:
        parent = jobs[job.parent]
        jobs[job.parent] = replace(parent, children=parent.children - 1)


def announcement_added(state: ThreadState, event: MessageAdded) -> ThreadState:
    """The announcement of a job enters the history; one that wakes needs a response."""
    found = next((one for one in state.announced if one.item.id == event.item.id), None)
    if found is None:
        raise InvalidTransition(f"No job announced the message {event.item.id}.")
    run = state.active_run
    return replace(
        state,
        run=replace(run, last_step=None) if run is not None and found.wakes else state.run,
        history=state.history.extended((event.item,)),
        announced=tuple(one for one in state.announced if one is not found),
    )


def usage_added(state: ThreadState, event: UsageAdded) -> ThreadState:
    """Returns the state after other agents used something up, for a tool or a background job."""
    job = state.jobs.get(event.job_id)
    if event.job_id:
        if job is None or not job.background:
            raise InvalidTransition(f"The background job {event.job_id} is not open.")
        spent = Spent(event.usage, event.cost, tool_calls=event.calls)
        job = replace(job, counted=(*job.counted, event.thread_id))
        return replace(state, jobs={**state.jobs, job.id: job}, ended=state.ended + spent)
    run = require_active_run(state, event)
    run = replace(
        run,
        usage=run.usage + event.usage,
        cost=run.cost + event.cost,
        calls=run.calls + event.calls,
        counted=(*run.counted, event.thread_id) if event.thread_id else run.counted,
    )
    return replace(state, run=run)
