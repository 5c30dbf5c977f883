"""Whether every message is there once, with the run that was promised, and every cancel counted."""

from collections import Counter

from chaos.evidence import Evidence
from chaos.findings import Findings
from chaos.records import Acknowledged, CancelAcknowledged, CancelIntent, Intent
from chaos.stored import StoredThread
from treadle.domain.events import (
    MessageAdded,
    RunCancelled,
    RunCancelling,
    RunStarted,
    TerminalEvent,
)


def judge_messages(findings: Findings, thread: StoredThread, evidence: Evidence) -> None:
    """What was acknowledged is in the history once; so is what was sent until it was."""
    said = Counter(
        event.item.text
        for event in thread.events
        if isinstance(event, MessageAdded) and event.origin == "user"
    )
    began = {event.run_id for event in thread.events if isinstance(event, RunStarted)}
    cancelled = {event.run_id for event in thread.events if isinstance(event, RunCancelled)}
    wished = {one.run_id for one in evidence.read(CancelIntent)}
    dropped = cancelled - began
    for run_id in dropped - wished:
        findings.losses.append(f"{thread.id}: {run_id} was dropped, and nobody wished it")
    acknowledged = {one.key: one for one in evidence.read(Acknowledged)}
    for intent in evidence.read(Intent):
        if intent.thread_id != thread.id:
            continue
        findings.counts["messages"] += 1
        if intent.key not in acknowledged:
            findings.wrong.append(f"{thread.id}: the message {intent.key} was never acknowledged")
        if not said[intent.key] and thread.keys.get(intent.key) not in dropped:
            findings.losses.append(f"{thread.id}: the message {intent.key} is gone")
    for key, count in said.items():
        if count > 1:
            findings.duplicates.append(f"{thread.id}: the message {key} is there {count} times")
    for one in evidence.read(Acknowledged):
        if one.thread_id == thread.id and thread.keys.get(one.key) != one.run_id:
            findings.wrong.append(
                f"{thread.id}: the message {one.key} was acknowledged with {one.run_id},"
                f" and has {thread.keys.get(one.key)}"
            )
    _judge_cancels(findings, thread, evidence)


def _judge_cancels(findings: Findings, thread: StoredThread, evidence: Evidence) -> None:
    """An acknowledged cancel has an event, unless the run had ended before."""
    ended = {event.run_id: event.at for event in thread.events if isinstance(event, TerminalEvent)}
    cancelled = {
        event.run_id for event in thread.events if isinstance(event, RunCancelling | RunCancelled)
    }
    for cancel in evidence.read(CancelAcknowledged):
        if cancel.thread_id != thread.id:
            continue
        findings.counts["cancels"] += 1
        in_time = ended.get(cancel.run_id, float("inf")) <= cancel.at
        if cancel.party == "outside":  # taken when the driving process looks into the inbox
            in_time = cancel.run_id in ended
        if cancel.run_id not in cancelled and not in_time:
            findings.losses.append(
                f"{thread.id}: the cancel of {cancel.run_id} was acknowledged and is gone"
            )
