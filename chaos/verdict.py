"""Whether the database and the logs agree: nothing lost, nothing doubled, everything at rest."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chaos.evidence import Evidence
from chaos.onlooker import Watched
from weft.envelope import decode_events
from weft.errors import WeftError
from weft.events import (
    MessageAdded,
    RecordedEvent,
    RunCancelled,
    RunFailed,
    RunStarted,
    TerminalEvent,
    ToolOutputRecorded,
    ToolStarted,
)
from weft.history import require_valid
from weft.journal.sqlite_file import SEQ_BITS
from weft.state import ThreadState, apply

NON_IDEMPOTENT = {"effect", "threaded", "approved"}


@dataclass
class Verdict:
    """What the campaign was, and what it found; each finding is a sentence."""

    kills: int
    threads: int = 0
    runs: int = 0
    events: int = 0
    messages: int = 0
    tool_calls: int = 0
    losses: list[str] = field(default_factory=list[str])
    duplicates: list[str] = field(default_factory=list[str])
    wrong: list[str] = field(default_factory=list[str])

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.losses or self.duplicates or self.wrong)


def verdict_of(folder: Path, kills: int, watched: Mapping[str, Watched]) -> Verdict:
    """Reads the database as any program could, and compares it with the logs."""
    evidence, verdict = Evidence(folder), Verdict(kills)
    stored = dict(_stored(folder / "weft.db"))
    effects = Counter(call_id for (call_id,) in evidence.read("effects"))
    for call_id, count in effects.items():
        if count > 1:
            verdict.duplicates.append(f"the tool of {call_id} ran {count} times")
    for thread_id, bodies in stored.items():
        verdict.threads += 1
        verdict.events += len(bodies)
        events = decode_events(b"[" + b",".join(bodies) + b"]")
        _judge_thread(verdict, thread_id, events, effects)
        _judge_messages(verdict, thread_id, events, evidence)
        _judge_seen(verdict, thread_id, bodies, evidence, watched.get(thread_id))
    for (thread_id,) in evidence.read("threads"):
        if thread_id not in stored:
            verdict.losses.append(f"{thread_id} is gone")
    return verdict


def _stored(database: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Yields each thread with the JSON of its events, in the order of the file."""
    connection = sqlite3.connect(database)
    try:
        for number, thread_id in connection.execute("SELECT n, id FROM thread").fetchall():
            rows = connection.execute(
                "SELECT body FROM event WHERE position > ? AND position < ? ORDER BY position",
                (number << SEQ_BITS, (number + 1) << SEQ_BITS),
            )
            yield thread_id, [bytes(body) for (body,) in rows]
        (left,) = connection.execute("SELECT count(*) FROM inbox").fetchone()
        assert not left, "inputs are left in the inboxes"
    finally:
        connection.close()


def _judge_thread(
    verdict: Verdict, thread_id: str, events: list[RecordedEvent], effects: Mapping[str, int]
) -> None:
    """The fold must succeed (`seq` without gap or repeat), and the thread must be at rest."""
    state = ThreadState()
    try:
        for event in events:
            state = apply(state, event)
        require_valid(state.history)
    except WeftError as error:
        verdict.wrong.append(f"{thread_id}: {error.message}")
        return
    if state.active_run is not None or state.queue or state.steering:
        verdict.losses.append(f"{thread_id} did not come to rest")
    runs = Counter(event.run_id for event in events if isinstance(event, RunStarted))
    ends = Counter(event.run_id for event in events if isinstance(event, TerminalEvent))
    verdict.runs += len(runs)
    for run_id in runs:
        if (runs[run_id], ends[run_id]) != (1, 1):
            verdict.wrong.append(f"{run_id} began {runs[run_id]} and ended {ends[run_id]} times")
    for event in events:
        if isinstance(event, RunFailed):
            verdict.wrong.append(f"{event.run_id} failed: {event.message}")
    _judge_calls(verdict, events, effects)


def _judge_calls(verdict: Verdict, events: list[RecordedEvent], effects: Mapping[str, int]) -> None:
    started = {event.call_id for event in events if isinstance(event, ToolStarted)}
    outputs = Counter[str]()
    for event in events:
        if not isinstance(event, ToolOutputRecorded):
            continue
        call_id = event.item.call_id
        outputs[call_id] += 1
        verdict.tool_calls += 1
        if outputs[call_id] > 1:
            verdict.duplicates.append(f"{call_id} has {outputs[call_id]} outputs")
        if event.name in NON_IDEMPOTENT and not event.item.is_error and not effects.get(call_id):
            verdict.losses.append(f"{call_id} has an output, but {event.name} did not run")
    calls = {e.item.call_id for e in events if isinstance(e, ToolOutputRecorded)}
    for call_id in calls & set(effects):
        if call_id not in started:
            verdict.wrong.append(f"{call_id} ran before it was known to have started")


def _judge_messages(
    verdict: Verdict, thread_id: str, events: list[RecordedEvent], evidence: Evidence
) -> None:
    said = Counter(
        event.item.text
        for event in events
        if isinstance(event, MessageAdded) and event.origin == "user"
    )
    began = {event.run_id for event in events if isinstance(event, RunStarted)}
    dropped = {e.run_id for e in events if isinstance(e, RunCancelled)} - began
    for acked_thread, key, run_id in evidence.read("acks"):
        if acked_thread != thread_id:
            continue
        verdict.messages += 1
        if not said[key] and run_id not in dropped:
            verdict.losses.append(f"the message {key} of {thread_id} was acknowledged and is gone")
    for key, count in said.items():
        if count > 1:
            verdict.duplicates.append(f"the message {key} of {thread_id} is there {count} times")


def _judge_seen(
    verdict: Verdict,
    thread_id: str,
    bodies: list[bytes],
    evidence: Evidence,
    watched: Watched | None,
) -> None:
    """What a subscriber saw is what is stored, at the same place, byte for byte."""
    for seen_thread, seq, body in evidence.read("seen"):
        if seen_thread == thread_id and _at(bodies, int(seq)) != body.encode():
            verdict.losses.append(f"event {seq} of {thread_id} was seen, and is not what is stored")
    if watched is None:
        return
    if watched.seqs != list(range(1, len(bodies) + 1)):
        verdict.wrong.append(f"the onlooker of {thread_id} saw the events {watched.seqs[-5:]}")
    elif decode_events(b"[" + b",".join(watched.durable) + b"]") != decode_events(
        b"[" + b",".join(bodies) + b"]"
    ):
        verdict.losses.append(f"the onlooker of {thread_id} saw what is not stored")
    verdict.wrong += [f"{thread_id}: {torn}" for torn in watched.torn]


def _at(bodies: list[bytes], seq: int) -> bytes | None:
    return bodies[seq - 1] if 0 < seq <= len(bodies) else None
