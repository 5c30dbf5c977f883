"""The rows for queries that events change, however they are cut into batches."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.domain.fold import (
    ASKED,
    BACK,
    BACK_DONE,
    BACK_QUIET,
    BACK_QUIET_DONE,
    CALL,
    DONE,
    JOB,
    JOB_DELEGATED,
    JOB_DONE,
    OUTPUT,
    RESPONSE,
    STARTED,
    STEP,
    STEP_BROKEN,
    STEP_DONE,
    TEXT,
    TOLD,
    TOLD_QUIETLY,
    R,
    begun,
    fold,
)
from tests.domain.test_state import EVENTS, is_repeated

from treadle.domain.events import (
    DurableEvent,
    JobSettled,
    MessageAdded,
    MessageQueued,
    RecordedEvent,
    RunCancelled,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    TerminalEvent,
)
from treadle.domain.fold import apply
from treadle.domain.items import user_message
from treadle.domain.state import RunStatus, ThreadState
from treadle.domain.usage import Usage
from treadle.errors import InvalidTransition
from treadle.journal.projection import (
    MAX_TITLE,
    Projection,
    RunRecord,
    Sent,
    jobs_of,
    merged,
    project,
    status_of,
)


def told(events: Sequence[DurableEvent], before: Sequence[DurableEvent] = ()) -> Projection | None:
    """The projection of `events` behind `before`."""
    old = fold(before)
    recorded: list[RecordedEvent] = [
        replace(event, seq=old.seq + n, at=float(old.seq + n))  # type: ignore[misc]
        for n, event in enumerate(events, 1)
    ]
    return project(recorded, status_of(old), fold(events, old))


def test_a_run_that_starts() -> None:
    projection = told([ASKED, replace(STARTED, agent_hash="h", key="k")])
    assert projection == Projection(
        "in_progress",
        2.0,
        "hi",
        None,
        (RunRecord(id=R, agent="a", agent_hash="h", status="in_progress", first_seq=2),),
        (("k", Sent(R, ASKED.item.id)),),
    )


def test_what_lists_do_not_show_changes_nothing() -> None:
    assert told([STEP, TEXT, CALL, RESPONSE, OUTPUT], begun()) is None


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (DONE, "completed"),
        (RunIncomplete(run_id=R, stop_reason="max_steps", usage=Usage()), "incomplete"),
        (RunFailed(run_id=R, code="c", message="m", retryable=False, usage=Usage()), "failed"),
        (RunCancelled(run_id=R, usage=Usage()), "cancelled"),
        (RunExpired(run_id=R, usage=Usage()), "expired"),
    ],
)
def test_a_run_that_ends(end: DurableEvent, status: RunStatus) -> None:
    projection = told([end], begun())
    assert projection is not None
    assert projection.status == status
    assert projection.runs == (RunRecord(id=R, agent="", status=status, last_seq=3),)
    whole = told([*begun(), end])
    assert whole is not None
    assert whole.runs == (RunRecord(id=R, agent="a", status=status, first_seq=2, last_seq=3),)


def test_a_message_that_steers_brings_its_key() -> None:
    steered = MessageQueued(run_id=R, item=user_message("more"), key="k2")
    projection = told([steered], begun())
    assert projection is not None
    assert (projection.keys, projection.runs) == ((("k2", Sent(R, steered.item.id)),), ())
    assert told([replace(steered, key="")], begun()) is None


def test_runs_that_wait_and_are_dropped() -> None:
    queued = RunQueued(run_id="run_2", item=user_message("x"), agent="b", key="k")
    projection = told([queued], [*begun(), DONE])
    assert projection is not None
    assert projection.status == "queued"
    assert projection.runs == (RunRecord(id="run_2", agent="b"),)
    dropped = told([queued, RunCancelled(run_id="run_2", usage=Usage())], [*begun(), DONE])
    assert dropped is not None
    assert dropped.status == "completed"
    assert dropped.runs == (RunRecord(id="run_2", agent="b", status="cancelled", last_seq=5),)


def test_the_title_is_the_beginning_of_the_first_message_of_a_person() -> None:
    def title(text: str, origin: str = "user") -> str:
        item = user_message(text)
        projection = told([MessageAdded(run_id=R, item=item, origin=origin)])  # type: ignore[arg-type]
        return projection.title if projection is not None else ""

    assert title(" one\n  two\t") == "one two"
    assert title("x" * MAX_TITLE) == "x" * MAX_TITLE
    assert title("x" * (MAX_TITLE + 1)) == "x" * (MAX_TITLE - 1) + "…"
    assert title("treadle says", "runtime") == ""
    first = told([ASKED, replace(ASKED, item=user_message("second"))])
    assert first is not None
    assert first.title == "hi"


def test_a_run_that_waits_tells_when_it_expires() -> None:
    waits = RunRequiresAction(run_id=R, call_ids=("c1",), expires_at=9.0)
    before = [*begun(), STEP, replace(CALL, awaits="output"), RESPONSE]
    projection = told([waits], before)
    assert projection is not None
    assert (projection.status, projection.expires_at) == ("requires_action", 9.0)
    answered = told([OUTPUT], [*before, waits])
    assert answered is not None
    assert (answered.status, answered.expires_at) == ("in_progress", None)
    later = told([replace(waits, expires_at=20.0)], [*before, waits])
    assert later is not None
    assert later.expires_at == 20.0


def jobs(events: Sequence[DurableEvent], before: Sequence[DurableEvent] = ()) -> int | None:
    """How many jobs the rows count after `events`, None if they change no row."""
    projection = told(events, before)
    return projection.jobs if projection is not None else None


def test_jobs_count_until_their_end_is_announced() -> None:
    assert jobs([JOB], begun()) == 1
    assert jobs([JOB_DELEGATED], [*begun(), JOB]) is None
    assert jobs([JOB_DONE], [*begun(), JOB]) == 0
    assert jobs([JOB, JOB_DONE], begun()) == 0
    back = [*begun(), BACK, BACK_QUIET, DONE]
    assert jobs(back) == 2
    assert jobs([BACK_QUIET_DONE], back) == 1
    assert jobs([BACK_DONE], [*back, BACK_QUIET_DONE]) == 1  # the other end must be announced
    assert jobs([TOLD], [*back, BACK_DONE, BACK_QUIET_DONE]) == 0
    assert jobs([TOLD_QUIETLY], [*back, BACK_DONE, BACK_QUIET_DONE]) == 1


def test_an_end_announced_to_a_run_in_progress_counts_no_more() -> None:
    before = [*begun(), BACK, STEP, TEXT, RESPONSE, STEP_DONE, BACK_DONE]
    assert told(before) is not None
    assert jobs([TOLD, replace(STEP, step=2)], before) == 0


def test_what_is_left_open_keeps_its_value() -> None:
    old = RunRecord(id=R, agent="a", agent_hash="h", status="in_progress", first_seq=2)
    assert merged(old, RunRecord(id=R, agent="", status="failed", last_seq=9)) == RunRecord(
        id=R, agent="a", agent_hash="h", status="failed", first_seq=2, last_seq=9
    )
    assert merged(old, RunRecord(id=R, agent="b", agent_hash="i", first_seq=4)) == RunRecord(
        id=R, agent="b", agent_hash="i", first_seq=4
    )


class Rows:
    """The rows of a thread, written from projections as journals do."""

    def __init__(self) -> None:
        self.status: RunStatus | None = None
        self.expires_at: float | None = None
        self.title = ""
        self.runs: dict[str, RunRecord] = {}
        self.keys: dict[str, str] = {}
        self.jobs = 0

    def take(self, projection: Projection | None) -> None:
        if projection is None:
            return
        self.status, self.expires_at = projection.status, projection.expires_at
        self.jobs = projection.jobs
        self.title = self.title or projection.title
        for run in projection.runs:
            self.runs[run.id] = merged(self.runs.get(run.id, run), run)
        for key, run_id in projection.keys:
            self.keys.setdefault(key, run_id)


@given(
    EVENTS,
    st.lists(st.integers(1, 7), min_size=1, max_size=20),
)
def test_however_events_are_cut_into_batches_the_rows_are_the_same(
    wanted: Sequence[DurableEvent], sizes: Sequence[int]
) -> None:
    states, events = [ThreadState()], list[RecordedEvent]()
    ended, settled = set[str](), set[str]()
    for event in [ASKED, STARTED, STEP, *wanted]:
        seq = states[-1].seq + 1
        numbered: RecordedEvent = replace(event, seq=seq, at=float(seq))  # type: ignore[assignment]
        if isinstance(event, RunQueued) and event.run_id in ended:
            continue  # the id of a run is given once
        if is_repeated(event, states[-1], settled):
            continue
        try:
            states.append(apply(states[-1], numbered))
        except InvalidTransition:
            continue
        events.append(numbered)
        if isinstance(event, TerminalEvent):
            ended.add(event.run_id)
        if isinstance(event, JobSettled):
            settled.add(event.job_id)
    one_by_one, in_batches = Rows(), Rows()
    for n, event in enumerate(events):
        one_by_one.take(project([event], status_of(states[n]), states[n + 1]))
    start = 0
    while start < len(events):
        end = min(len(events), start + sizes[start % len(sizes)])
        in_batches.take(project(events[start:end], status_of(states[start]), states[end]))
        start = end
    assert vars(in_batches) == vars(one_by_one)
    state = states[-1]
    assert in_batches.status == status_of(state)
    assert in_batches.jobs == jobs_of(state)
    if in_batches.status == "requires_action":
        assert state.active_run is not None
        assert in_batches.expires_at == state.active_run.expires_at


def test_a_cut_off_step_leaves_a_run_in_progress() -> None:
    assert told([STEP, STEP_BROKEN], begun()) is None
    assert told([RunStarted(run_id="run_2", agent="b")], [*begun(), DONE]) is not None
