"""Whether the events of a thread fold, the fold is at rest, and all else follows from it."""

import asyncio
from collections import Counter
from pathlib import Path

import treadle
from chaos.database import url_of
from chaos.findings import Findings
from chaos.stored import StoredThread
from treadle.domain.events import RunFailed, RunStarted, TerminalEvent
from treadle.domain.fold import apply
from treadle.domain.history import require_valid
from treadle.domain.state import ThreadState
from treadle.errors import TreadleError
from treadle.journal.projection import status_of
from treadle.journal.snapshot import encode_head


def judge_state(findings: Findings, thread: StoredThread, database: Path) -> None:
    """The fold must succeed, be valid and at rest, and be what a reader is given."""
    seqs = [event.seq for event in thread.events]
    if seqs != list(range(1, len(seqs) + 1)):
        findings.wrong.append(f"{thread.id}: its events are not numbered from 1 without gaps")
    state = ThreadState()
    try:
        for event in thread.events:
            state = apply(state, event)
        require_valid(state.history)
    except TreadleError as error:
        findings.wrong.append(f"{thread.id}: {error.message}")
        return
    if state.active_run is not None or state.queue or state.steering or thread.waiting:
        findings.losses.append(f"{thread.id} did not come to rest")
    _judge_runs(findings, thread)
    if thread.status != status_of(state):
        findings.wrong.append(f"{thread.id} is listed as {thread.status}, not {status_of(state)}")
    loaded = asyncio.run(_loaded(database, thread.id))
    if encode_head(loaded) != encode_head(state) or list(loaded.history) != list(state.history):
        findings.wrong.append(f"{thread.id}: what is loaded is not the fold of its events")


def _judge_runs(findings: Findings, thread: StoredThread) -> None:
    """Every run that began ended once, did not fail, and is listed from where to where it was."""
    runs = {event.run_id: event.seq for event in thread.events if isinstance(event, RunStarted)}
    began = Counter(event.run_id for event in thread.events if isinstance(event, RunStarted))
    ends = Counter(event.run_id for event in thread.events if isinstance(event, TerminalEvent))
    last = {event.run_id: event.seq for event in thread.events if isinstance(event, TerminalEvent)}
    findings.counts["runs"] += len(began)
    for run_id, first in runs.items():
        if (began[run_id], ends[run_id]) != (1, 1):
            findings.wrong.append(
                f"{thread.id}: {run_id} began {began[run_id]} and ended {ends[run_id]} times"
            )
        elif thread.runs.get(run_id, ("", 0, 0))[1:] != (first, last[run_id]):
            findings.wrong.append(f"{thread.id}: {run_id} is listed as {thread.runs.get(run_id)}")
    for event in thread.events:
        if isinstance(event, RunFailed):
            findings.wrong.append(f"{thread.id}: {event.run_id} failed: {event.message}")


async def _loaded(database: Path, thread_id: str) -> ThreadState:
    async with treadle.open(url_of(database), drive=False) as runtime:
        return await (await runtime.connect(thread_id)).state()
