"""Whether what hooks changed is there once for each response, over all kills."""

from collections import Counter

from chaos.agents import note_of
from chaos.findings import Findings
from chaos.stored import StoredThread
from treadle.domain.events import MessageAdded, RunCompleted, StepCompleted


def judge_notes(findings: Findings, thread: StoredThread) -> None:
    """A run that completed has one note behind each of its responses; no run has one twice."""
    if thread.parent:
        return  # its agent has no hook
    notes = Counter(
        event.item.text
        for event in thread.events
        if isinstance(event, MessageAdded) and event.origin == "hook"
    )
    findings.counts["notes of hooks"] += notes.total()
    for note, count in notes.items():
        if count > 1:
            findings.duplicates.append(f"{thread.id}: the {note} is there {count} times")
    completed = {event.run_id for event in thread.events if isinstance(event, RunCompleted)}
    for event in thread.events:
        if isinstance(event, StepCompleted) and event.run_id in completed:
            note = note_of(event.run_id, event.step)
            if not notes[note]:
                findings.losses.append(f"{thread.id}: the {note} is not there")
