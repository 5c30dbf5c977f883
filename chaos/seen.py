"""Whether what subscribers saw is what is stored, once and in order, and their text the same."""

from collections import defaultdict

from chaos.evidence import Evidence
from chaos.findings import Findings
from chaos.records import Seen, TextSeen
from chaos.stored import StoredThread
from treadle.domain.envelope import decode_events


def judge_seen(findings: Findings, thread: StoredThread, evidence: Evidence) -> None:
    """Each subscriber saw the events from 1 on, without gap or repeat, as they are stored."""
    saw = defaultdict[str, list[Seen]](list)
    for one in evidence.read(Seen):
        if one.thread_id == thread.id:
            saw[one.watcher].append(one)
    for watcher, events in saw.items():
        _judge_order(findings, thread, f"{thread.id}: the subscriber {watcher}", events)
    outside = len(saw["outside"])
    if saw["outside"] and outside < len(thread.bodies):
        findings.losses.append(
            f"{thread.id}: who watched to the end saw {outside} of {len(thread.bodies)} events"
        )
    for text in evidence.read(TextSeen):
        if text.thread_id == thread.id:
            _judge_text(findings, text)


def _judge_order(
    findings: Findings, thread: StoredThread, subscriber: str, events: list[Seen]
) -> None:
    expected = 1
    for event in events:
        findings.counts["events seen"] += 1
        if event.seq < expected:
            findings.duplicates.append(f"{subscriber} saw the event {event.seq} again")
        elif event.seq > expected:
            findings.losses.append(f"{subscriber} saw {event.seq} after {expected - 1}")
        expected = max(expected, event.seq + 1)
        stored = thread.bodies[event.seq - 1] if event.seq <= len(thread.bodies) else b""
        if not _is_same(event.body.encode(), stored):
            findings.losses.append(f"{subscriber} saw the event {event.seq}, which is not stored")


def _is_same(seen: bytes, stored: bytes) -> bool:
    """Whether both are the same event; fields may stand in another order."""
    if seen == stored:
        return True
    return bool(stored) and decode_events(b"[%b]" % seen) == decode_events(b"[%b]" % stored)


def _judge_text(findings: Findings, text: TextSeen) -> None:
    """All of it where the subscriber stayed, else its beginning."""
    findings.counts["streamed items"] += text.unbroken
    right = text.seen == text.final if text.unbroken else text.final.startswith(text.seen)
    if not right:
        found = findings.duplicates if len(text.seen) > len(text.final) else findings.losses
        found.append(
            f"{text.thread_id}: the subscriber {text.watcher} saw {text.seen!r} of"
            f" {text.item_id}, which is {text.final!r}"
        )
