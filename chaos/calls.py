"""Whether every tool call was made as often as it may be, and has the output it must have."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from chaos.agents import EXTERNAL, IDEMPOTENT, NEEDS_APPROVAL, WORKER
from chaos.evidence import Evidence
from chaos.findings import Findings
from chaos.records import AnswerAcknowledged, Ran
from chaos.stored import StoredThread
from treadle.domain.answers import DENIED
from treadle.domain.events import (
    ToolApproved,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolStarted,
    UsageAdded,
)
from treadle.tools.output_type import OUTPUT_TOOL

NOT_RUN = ("it did not run.", "Skipped: ", DENIED)
"""How outputs begin or end that say that the tool did not run."""

ENDED = {"completed", "cancelled", None}
"""How threads of agents end; one has no run where the process ended before the agent was asked."""


def judge_calls(findings: Findings, thread: StoredThread, evidence: Evidence) -> None:
    """Each call has one output, which says what the tool did; acknowledged answers are kept."""
    ran = Counter(one.call_id for one in evidence.read(Ran))
    approved = {event.call_id for event in thread.events if isinstance(event, ToolApproved)}
    outputs = defaultdict[str, list[ToolOutputRecorded]](list)
    for event in thread.events:
        if isinstance(event, ToolOutputRecorded):
            outputs[event.item.call_id].append(event)
    for event in thread.events:
        if isinstance(event, ToolCallRequested):
            findings.counts["tool calls"] += 1
            _judge_output(findings, thread.id, event, outputs[event.item.call_id], ran)
    for answer in evidence.read(AnswerAcknowledged):
        if answer.thread_id == thread.id:
            findings.counts["answers"] += 1
            _judge_answer(findings, answer, answer.call_id in approved, outputs[answer.call_id])


def judge_ran(findings: Findings, threads: Sequence[StoredThread], evidence: Evidence) -> None:
    """A tool ran only after it was known to start, and only an idempotent one more than once."""
    events = [event for thread in threads for event in thread.events]
    started = Counter(event.call_id for event in events if isinstance(event, ToolStarted))
    approved = {event.call_id for event in events if isinstance(event, ToolApproved)}
    where = {
        event.item.call_id: thread.id
        for thread in threads
        for event in thread.events
        if isinstance(event, ToolCallRequested)
    }
    ran = Counter((one.call_id, one.tool) for one in evidence.read(Ran))
    for (call_id, tool), times in ran.items():
        call = f"{where.get(call_id, 'no thread')}: {tool} {call_id}"
        if times > 1 and tool not in IDEMPOTENT:
            findings.duplicates.append(f"{call} ran {times} times")
        if times > started[call_id]:
            findings.wrong.append(f"{call} ran {times} times and started {started[call_id]} times")
        if tool == NEEDS_APPROVAL and call_id not in approved:
            findings.wrong.append(f"{call} ran without approval")
        findings.counts["repeated idempotent calls"] += times > 1
    for one in evidence.read(Ran):
        if one.idempotency_key != one.call_id:
            findings.wrong.append(f"{one.call_id} ran with the key {one.idempotency_key}")


def judge_workers(findings: Findings, threads: Sequence[StoredThread]) -> None:
    """An agent worked for a call on one thread, and completed its work if the call has its output.

    Where the call was given up, the agent does not work on.
    """
    at_work = {thread.works_for: thread for thread in threads if thread.works_for}
    asked = Counter(thread.works_for for thread in threads if thread.works_for)
    findings.counts["threads of workers"] += asked.total()
    for call_id, times in asked.items():
        if times > 1:
            findings.duplicates.append(f"{call_id} was worked on on {times} threads")
    for thread in threads:
        counted = Counter(e.thread_id for e in thread.events if isinstance(e, UsageAdded))
        for worker_id, times in counted.items():
            if times > 1:
                findings.duplicates.append(f"{thread.id}: {worker_id} is counted {times} times")
        for event in thread.events:
            if not isinstance(event, ToolOutputRecorded) or event.name != WORKER:
                continue
            worker = at_work.get(event.item.call_id)
            status = worker.status if worker is not None else None
            call = f"{thread.id}: {WORKER} {event.item.call_id}"
            if not event.item.is_error and status != "completed":
                findings.losses.append(f"{call} has an output, and its agent is {status}")
            elif worker is not None and status not in ENDED:
                findings.wrong.append(f"{call} has an output, and its agent is {status}")


def _judge_output(
    findings: Findings,
    thread_id: str,
    requested: ToolCallRequested,
    outputs: Sequence[ToolOutputRecorded],
    ran: Counter[str],
) -> None:
    call_id, name = requested.item.call_id, requested.item.name
    call = f"{thread_id}: {name} {call_id}"
    if not outputs:
        findings.losses.append(f"{call} has no output")
        return
    if len(outputs) > 1:
        findings.duplicates.append(f"{call} has {len(outputs)} outputs")
    item = outputs[0].item
    text = item.text
    if name in {EXTERNAL, WORKER, OUTPUT_TOOL}:
        return
    if not item.is_error and not ran[call_id]:
        findings.losses.append(f"{call} has an output, but did not run")
    says_not_run = text.startswith(NOT_RUN[1:]) or text.endswith(NOT_RUN[0])
    if item.is_error and says_not_run and ran[call_id]:
        findings.wrong.append(f"{call} ran, but its output says: {text}")


def _judge_answer(
    findings: Findings,
    answer: AnswerAcknowledged,
    is_approved: bool,
    outputs: Sequence[ToolOutputRecorded],
) -> None:
    texts = [output.item.text for output in outputs]
    kept = bool(texts)
    if answer.party == "inside":  # from outside, somebody else may have been quicker
        match answer.answer:
            case "output":
                kept = f"of {answer.call_id}" in texts
            case "approve":
                kept = is_approved
            case "deny":
                kept = any(text.startswith(DENIED) for text in texts)
    if not kept:
        findings.losses.append(
            f"{answer.thread_id}: the answer {answer.answer} to {answer.call_id} was acknowledged"
            f" {answer.party} and is gone; it has {texts}"
        )
