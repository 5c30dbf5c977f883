"""What a thread is told of its jobs: the events of their end, and of another start.

Functions of what became of a node, or of what the thread knew of a job.
"""

from functools import partial
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.events import JobOutcome, JobSettled, JobStarted
from treadle.domain.items import user_message
from treadle.domain.result import RunResult
from treadle.domain.state import OpenJob
from treadle.errors import TreadleError
from treadle.jobs.node import Node
from treadle.tools.failure import MAX_FAILURE, explain_failure, reraise_interrupt
from treadle.tools.output import is_small, to_output, truncated
from treadle.tools.threads import NeverStarted, in_thread

MAX_OUTPUT_CHARS = 10_000
"""Characters of the result of a job that its thread keeps, and that a message tells."""


_ENDED: dict[JobOutcome, str] = {
    "completed": "has completed",
    "failed": "has failed",
    "cancelled": "was cancelled",
}


class Encoded(Struct, frozen=True):
    """The result of a job, and the text of it that its thread keeps."""

    result: object
    text: str


async def encoded_result(result: object) -> Encoded | None:
    """Encodes the result of a job in a thread; returns None for one that needs no thread."""
    if isinstance(result, Node | RunResult | str) or is_small(result):
        return None
    try:
        return Encoded(result, await in_thread(partial(_shown, result)))
    except NeverStarted:
        return Encoded(result, "")


def _announced(settled: JobSettled, job: OpenJob) -> JobSettled:
    """Returns the event with the message that a background job tells its end with."""
    if not job.background or job.parent or job.announces == "never":
        return settled
    told = settled.output if settled.outcome == "completed" else settled.message
    text = f"[The background job {job.name} {_ENDED[settled.outcome]}.] {told}".rstrip()
    # The caller that cancelled it knows, and expects no answer.
    wakes = job.announces == "wake" and settled.outcome != "cancelled"
    return replace(settled, announcement=user_message(text), wakes=wakes)


def ending_of(
    node: Node[object],
    job: OpenJob,
    seconds: float,
    *,
    encoded: Encoded | None = None,
    fails_run: bool = False,
) -> JobSettled:
    """Returns the event of the end of `job`, which the settled `node` was, in `seconds`.

    `encoded` is what the job returned, if it is large.
    """
    outcome, error = node.state, node.exception
    assert outcome in {"completed", "failed", "cancelled"}
    settled = JobSettled(
        run_id=job.run_id,
        job_id=job.id,
        outcome=cast("JobOutcome", outcome),
        output=(
            encoded.text
            if encoded is not None and encoded.result is node.result
            else _shown(node.result)
        ),
        code=""
        if error is None
        else error.code
        if isinstance(error, TreadleError)
        else "job_failed",
        message="" if error is None else told_of(error),
        problems=tuple(told_of(problem) for problem in node.callback_errors),
        seconds=seconds,
        fails_run=fails_run,
    )
    return _announced(settled, job)


def restart_of(job: OpenJob) -> JobStarted:
    """Returns the event of another start of a job that an earlier process left."""
    return JobStarted(
        run_id=job.run_id,
        job_id=job.id,
        name=job.name,
        background=job.background,
        agent=job.agent,
        # A part of another job is not announced: the thread did not ask for it.
        announces="never" if job.parent else job.announces,
        kind=job.kind,
        arguments=job.arguments,
        attempt=job.attempt + 1,
    )


def interruption_of(job: OpenJob, why: str) -> JobSettled:
    """Returns the event of the end of a job that the end of its process cut off."""
    settled = JobSettled(
        run_id=job.run_id,
        job_id=job.id,
        outcome="failed",
        code="interrupted",
        message=f"The process ended while the job ran.{why}",
    )
    return _announced(settled, job)


def _shown(result: object) -> str:
    """The beginning of a result as text; nothing for none."""
    if isinstance(result, RunResult):
        result = cast("RunResult[object]", result).text
    if result is None:
        return ""
    try:
        output = to_output(result, MAX_OUTPUT_CHARS)
    except TypeError:  # a value for the program alone
        return ""
    except BaseException as error:  # noqa: BLE001 - what serializes it may raise anything
        reraise_interrupt(error)
        return ""
    return output if isinstance(output, str) else ""


def told_of(error: BaseException) -> str:
    """Returns an error in words, at most 2,000 characters."""
    if isinstance(error, TreadleError):
        return truncated(error.message, MAX_FAILURE)
    return explain_failure(error)
