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
    CALL_2,
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
    RunCancelling,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    TerminalEvent,
    ThreadUpdated,
)
from treadle.domain.fold import apply
from treadle.domain.items import user_message
from treadle.domain.metadata import updated
from treadle.domain.state import RunStatus, ThreadState
from treadle.domain.usage import Usage
from treadle.errors import InvalidTransition
from treadle.journal.projection import (
    MAX_TITLE,
    OPEN_STATUSES,
    CallRecord,
    DueTime,
    Projection,
    RunError,
    RunRecord,
    Sent,
    due_times,
    jobs_of,
    merged,
    project,
    standing_of,
    status_of,
)


def told(events: Sequence[DurableEvent], before: Sequence[DurableEvent] = ()) -> Projection | None:
    """The projection of `events` behind `before`."""
    old = fold(before)
    recorded: list[RecordedEvent] = [
        replace(event, seq=old.seq + n, at=float(old.seq + n))  # type: ignore[misc]
        for n, event in enumerate(events, 1)
    ]
    final: dict[str, ThreadState] = {}
    state = old
    for event in recorded:
        state = apply(state, event)
        if isinstance(event, TerminalEvent):
            final[event.run_id] = state
    return project(recorded, standing_of(old), state, final)


BEGUN = RunRecord(
    id=R,
    agent="a",
    agent_hash="h",
    status="in_progress",
    seq=2,
    first_seq=2,
    message_id=ASKED.item.id,
    started_at=2.0,
)


def test_a_run_that_starts() -> None:
    projection = told([ASKED, replace(STARTED, agent_hash="h", key="k")])
    assert projection == Projection(
        "in_progress",
        2.0,
        "hi",
        (BEGUN,),
        (("k", Sent(R, ASKED.item.id)),),
        told=((2, "run.started"),),
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
    (run,) = projection.runs
    assert (run.agent, run.status, run.first_seq, run.last_seq) == ("", status, 0, 3)
    assert (run.ended_at, run.stop_reason) == (3.0, getattr(end, "stop_reason", status))
    assert run.error == (RunError("c", "m") if status == "failed" else None)
    whole = told([*begun(), end])
    assert whole is not None
    assert whole.runs == (merged(replace(BEGUN, agent_hash=""), run),)


def test_what_a_run_used_is_that_of_its_end() -> None:
    usage = Usage(10, 5, requests=1)
    step = [STEP, TEXT, replace(RESPONSE, usage=usage, cost=0.5), STEP_DONE]
    events = [*begun(), *step, DONE, replace(ASKED, run_id="run_2")]
    second = [RunStarted(run_id="run_2", agent="b"), replace(STEP, run_id="run_2")]
    projection = told([*events, *second])
    assert projection is not None
    first, other = projection.runs
    assert (first.usage, first.cost, first.steps) == (usage, 0.5, 1)
    assert (other.usage, other.steps, other.status) == (Usage(), 0, "in_progress")
    assert other.message_id == ASKED.item.id


def test_calls_that_wait() -> None:
    waits = RunRequiresAction(run_id=R, call_ids=("c1",))
    call = replace(CALL, awaits="output")
    before = [*begun(), STEP, call]
    projection = told([call], [*begun(), STEP])
    assert projection is not None
    id = CALL.item.call_id
    assert projection.awaited == (id,)
    assert projection.calls == (CallRecord(id, R, "a", "output", 4, 4.0),)
    later = told([RESPONSE, waits], before)
    assert later is not None
    assert (later.awaited, later.calls) == (None, ())
    assert later.runs == (RunRecord(id=R, agent="", status="requires_action"),)
    for answer in ([OUTPUT], [RunCancelling(run_id=R), OUTPUT, STEP_BROKEN]):
        answered = told(answer, [*before, RESPONSE, waits])
        assert answered is not None
        assert (answered.awaited, answered.calls) == ((), ())
    at_once = told([call, OUTPUT, RESPONSE], [*begun(), STEP])
    assert at_once is not None
    assert at_once.awaited is None
    assert at_once.told == ((4, "tool.requested"), (5, "tool.output"))
    assert told([CALL], [*begun(), STEP]) is None


def test_a_run_that_waits_while_it_works_requires_action() -> None:
    call = replace(CALL, awaits="output")
    running = [*begun(), STEP, call, replace(CALL_2, index=1), RESPONSE]
    waits = told([RunRequiresAction(run_id=R, call_ids=("c1",))], running)
    assert waits is not None
    assert waits.status == "in_progress"  # so that it is resumed after a crash
    assert waits.runs == (RunRecord(id=R, agent="", status="requires_action"),)
    again = told([OUTPUT], [*running, RunRequiresAction(run_id=R, call_ids=("c1",))])
    assert again is not None
    assert (again.status, again.runs) == (
        "in_progress",
        (RunRecord(id=R, agent="", status="in_progress"),),
    )


def test_what_a_thread_is_called() -> None:
    projection = told([ThreadUpdated(title="new", metadata={"a": 1, "b": 2})])
    assert projection is not None
    assert (projection.new_title, projection.metadata) == ("new", {"a": 1, "b": 2})
    both = told([ThreadUpdated(metadata={"a": 1}), ThreadUpdated(metadata={"a": None, "c": 3})])
    assert both is not None
    assert (both.new_title, both.metadata) == (None, {"a": None, "c": 3})
    again = told([ASKED, ThreadUpdated(title=""), replace(ASKED, item=user_message("second"))])
    assert again is not None
    assert again.new_title == "second"


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
    waiting = RunRecord(id="run_2", agent="b", seq=4, message_id=queued.item.id, queued_at=4.0)
    assert projection.runs == (waiting,)
    dropped = told([queued, RunCancelled(run_id="run_2", usage=Usage())], [*begun(), DONE])
    assert dropped is not None
    assert dropped.status == "completed"
    ended = {"last_seq": 5, "ended_at": 5.0, "stop_reason": "cancelled"}
    assert dropped.runs == (replace(waiting, status="cancelled", **ended),)


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
    assert (projection.status, projection.due) == ("requires_action", (DueTime("approval", 9.0),))
    answered = told([OUTPUT], [*before, waits])
    assert answered is not None
    assert (answered.status, answered.due) == ("in_progress", (DueTime("approval", None),))
    later = told([replace(waits, expires_at=20.0)], [*before, waits])
    assert later is not None
    assert later.due == (DueTime("approval", 20.0),)


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
        self.due: dict[tuple[str, str], DueTime] = {}
        self.title = ""
        self.runs: dict[str, RunRecord] = {}
        self.keys: dict[str, Sent] = {}
        self.jobs = 0
        self.calls: dict[str, CallRecord] = {}
        self.metadata: dict[str, object] = {"a": 0}
        self.told: list[tuple[int, str]] = []

    def take(self, projection: Projection | None) -> None:
        if projection is None:
            return
        self.status = projection.status
        self.due |= {(one.kind, one.id): one for one in projection.due}
        self.due = {key: one for key, one in self.due.items() if one.at is not None}
        self.jobs = projection.jobs
        self.title = self.title or projection.title
        for run in projection.runs:
            # A driver records the message of a run with its start, and never in two batches.
            new = replace(run, message_id="")
            self.runs[run.id] = merged(self.runs.get(run.id, new), new)
        for key, sent in projection.keys:
            self.keys.setdefault(key, sent)
        self.told += projection.told
        if projection.new_title is not None:
            self.title = projection.new_title
        if projection.metadata is not None:
            self.metadata = updated(self.metadata, projection.metadata)
        if projection.awaited is not None:
            self.calls = {id: self.calls[id] for id in projection.awaited if id in self.calls}
            self.calls |= {call.call_id: call for call in projection.calls}


@given(
    EVENTS,
    st.lists(st.integers(1, 7), min_size=1, max_size=20),
)
def test_however_events_are_cut_into_batches_the_rows_are_the_same(
    wanted: Sequence[DurableEvent], sizes: Sequence[int]
) -> None:
    states, events = [ThreadState()], list[RecordedEvent]()
    ended, settled, final = set[str](), set[str](), dict[str, ThreadState]()
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
            final[event.run_id] = states[-1]
        if isinstance(event, JobSettled):
            settled.add(event.job_id)
    one_by_one, in_batches = Rows(), Rows()
    for n, event in enumerate(events):
        one_by_one.take(project([event], standing_of(states[n]), states[n + 1], final))
    start = 0
    while start < len(events):
        end = min(len(events), start + sizes[start % len(sizes)])
        before, after = standing_of(states[start]), states[end]
        in_batches.take(project(events[start:end], before, after, final))
        start = end
    assert vars(in_batches) == vars(one_by_one)
    state = states[-1]
    assert in_batches.status == status_of(state)
    if (run := state.active_run) is not None:
        assert in_batches.runs[run.id].status == run.status
    opened = {run.id for run in in_batches.runs.values() if run.status in OPEN_STATUSES}
    assert opened == {queued.id for queued in state.queue} | ({run.id} if run else set())
    assert bool(opened) == (in_batches.status in OPEN_STATUSES)
    assert in_batches.jobs == jobs_of(state)
    assert set(in_batches.calls) == set(standing_of(state).awaited)
    assert list(in_batches.due.values()) == list(due_times(state))


def test_a_cut_off_step_leaves_a_run_in_progress() -> None:
    assert told([STEP, STEP_BROKEN], begun()) is None
    assert told([RunStarted(run_id="run_2", agent="b")], [*begun(), DONE]) is not None
