"""What a node foresees of a thread that another node drives, to refuse what can have no effect."""

import contextlib
from collections.abc import Sequence

from msgspec.structs import replace

from treadle.domain.accept import ForkThread, StartRun, StopJob, accept, acknowledged
from treadle.domain.entries import (
    CancelEntry,
    FinishEntry,
    InsertEntry,
    RemoveEntry,
    SendEntry,
    UndoEntry,
    UpdateEntry,
)
from treadle.domain.events import ItemsAdded, MessageAdded, RecordedEvent, RunStarted
from treadle.domain.fold import apply
from treadle.domain.items import Message
from treadle.domain.state import QueuedRun, Run, ThreadState
from treadle.errors import TreadleError
from treadle.journal.base import Waiting
from treadle.journal.projection import RunRecord

BY_RUNS = (CancelEntry, FinishEntry, InsertEntry, RemoveEntry, UpdateEntry)
"""The entries whose effect depends on the runs of a thread, or on nothing of it; see `outline_of`.
"""


def outline_of(runs: Sequence[RunRecord]) -> ThreadState:
    """Returns the state of a thread as far as the rows of its runs without an end contain it.

    It decides about messages without `expect`, and about `BY_RUNS`, as the state itself does. No
    event is read for it. It does not contain whether a run was asked to finish.
    """
    state = ThreadState()
    for run in runs:
        if run.status == "queued":
            queued = QueuedRun(run.id, Message("user", (), run.message_id), run.agent)
            state = replace(state, queue=(*state.queue, queued))
        else:
            state = replace(state, run=Run(run.id, run.agent, status=run.status))
    return state


def changing_runs(waiting: Sequence[Waiting]) -> list[Waiting]:
    """Returns the entries that change the runs of a thread."""
    return [one for one in waiting if isinstance(one.entry, SendEntry | CancelEntry | FinishEntry)]


def expected_state(thread_id: str, state: ThreadState, waiting: Sequence[Waiting]) -> ThreadState:
    """Returns the state as it will be once the driving node has taken the entries that wait.

    An entry that was taken meanwhile may be in both, and then has no effect again. What cannot be
    foreseen, such as an undo or the end of a job, is left out: the driving node decides.
    """
    for one in waiting:
        if isinstance(one.entry, UndoEntry):
            continue
        with contextlib.suppress(TreadleError):  # then it will have no effect
            entry = one.entry
            if isinstance(entry, SendEntry):
                entry = acknowledged(thread_id, state, entry)
            accepted = accept(state, entry)
            if isinstance(accepted, StopJob | ForkThread):
                continue
            for event in _started(accepted.entry) if isinstance(accepted, StartRun) else accepted:
                state = apply(state, replace(event, seq=state.seq + 1))
    return state


def _started(entry: SendEntry) -> Sequence[RecordedEvent]:
    run_id = entry.run_id
    items = (*entry.before, *([] if entry.item is None else [entry.item]))
    so_far = [ItemsAdded(run_id=run_id, items=entry.so_far, by=entry.by)] if entry.so_far else []
    return [
        *(MessageAdded(run_id=run_id, item=item, origin="user", by=entry.by) for item in items),
        *so_far,
        RunStarted(
            run_id=run_id,
            agent=entry.agent,
            key=entry.key,
            by=entry.by,
            options=entry.options,
        ),
    ]
