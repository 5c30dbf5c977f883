"""The copy of a thread right after any of its events can go on, and knows its runs."""

import pytest
from hypothesis import given
from msgspec.structs import replace
from tests.domain.fold import (
    ASKED,
    BACK,
    BACK_BELOW,
    BACK_DONE,
    CALL,
    DONE,
    JOB,
    JOB_AGAIN,
    JOB_BELOW,
    RESPONSE,
    RUNNING,
    STARTED,
    STEP,
    R,
    begun,
    fold,
    fold_what_follows,
)
from tests.domain.test_state import EVENTS

from treadle.actors.fork import Addition, fork_of
from treadle.domain.events import (
    DurableEvent,
    JobSettled,
    MessageAdded,
    MessageQueued,
    RunCancelled,
    RunFinishing,
    RunQueued,
    RunStarted,
    TextDelta,
)
from treadle.domain.fold import apply
from treadle.domain.history import require_valid
from treadle.domain.items import user_message
from treadle.journal.base import ThreadInfo
from treadle.journal.projection import RunRecord

INFO = ThreadInfo(
    id="thread_1",
    agent="a",
    owner="ann",
    metadata={"x": 1},
    title="hi",
    status="completed",
    created_at=1.0,
    updated_at=2.0,
)
QUEUED = RunQueued(run_id="run_2", item=user_message("two"), agent="b", key="k")
STEERED = MessageQueued(run_id=R, item=user_message("more"))
STORY: list[DurableEvent] = [ASKED, STARTED, STEP, QUEUED, CALL, RUNNING, STEERED, RESPONSE]
LATER = [
    RunRecord(id=R, agent="a", agent_hash="h", status="completed", seq=2, first_seq=2, last_seq=12),
    RunRecord(
        id="run_2", agent="b", agent_hash="h2", status="failed", seq=4, first_seq=14, last_seq=20
    ),
]


@pytest.mark.parametrize("at", range(len(STORY) + 1))
def test_a_fork_of_any_moment_is_closed_and_goes_on(at: int) -> None:
    state = fold(STORY[:at])
    fork = fork_of(state, INFO, LATER)
    assert (fork.source, fork.at) == ("thread_1", at)
    after = state
    for entry in fork.entries:
        after = apply(after, entry.event)  # type: ignore[arg-type]
        assert entry.seq == after.seq
    require_valid(after.history)
    assert (after.active_run, after.step, after.queue, after.steering) == (None, None, (), ())
    apply(after, RunStarted(seq=after.seq + 1, run_id="run_9", agent="a"))
    statuses = {run.id: (run.status, run.agent) for run in fork.projection.runs}
    expected = {R: ("cancelled", "a")} if at >= 2 else {}
    if at >= 4:
        expected["run_2"] = ("cancelled", "b")
    assert statuses == expected
    for run in fork.projection.runs:
        assert run.last_seq <= after.seq
        assert run.first_seq <= at
    assert fork.projection.status == ("cancelled" if at >= 2 else None)


def test_a_fork_belongs_to_whom_the_original_belongs() -> None:
    info = fork_of(fold([ASKED, STARTED, DONE]), INFO, LATER[:1]).info
    assert info.id != "thread_1"
    assert (info.owner, info.metadata, info.title) == ("ann", {"x": 1}, "hi")
    assert (info.forked_from, info.status) == ("thread_1", None)
    assert info.created_at == info.updated_at > 2.0


def test_runs_that_had_ended_are_copied_as_they_were() -> None:
    events = [ASKED, STARTED, DONE, RunFinishing(run_id="run_2")]
    state = fold([*events[:3], replace(ASKED, run_id="run_2")])
    fork = fork_of(state, INFO, [replace(LATER[0], last_seq=3), LATER[1]])
    assert fork.entries == []
    assert fork.projection.runs == (replace(LATER[0], last_seq=3),)
    assert fork.projection.status == "completed"


def test_jobs_that_were_under_way_are_cancelled_those_below_first() -> None:
    state = fold([*begun(), BACK, JOB, JOB_BELOW, BACK_BELOW, JOB_AGAIN, STEP])
    fork = fork_of(state, INFO, LATER)
    told = [entry.event for entry in fork.entries]
    settled = [event for event in told if isinstance(event, JobSettled)]
    assert [event.job_id for event in settled] == ["job_4", "job_2", "job_1", "job_3"]
    assert {event.outcome for event in settled} == {"cancelled"}
    assert not any(event.announcement for event in settled)
    assert fork.projection.jobs == 0


def test_what_a_job_has_told_already_is_told_in_the_fork_too() -> None:
    state = fold([*begun(), BACK, DONE, BACK_DONE])
    fork = fork_of(state, INFO, LATER[:1])
    (entry,) = fork.entries
    assert isinstance(entry.event, MessageAdded)
    assert entry.event.item == state.announced[0].item
    assert entry.event.origin == "job"
    assert fork.projection.jobs == 0


@given(EVENTS)
def test_a_fork_of_any_state_is_closed(events: list[DurableEvent]) -> None:
    state = fold_what_follows([ASKED, STARTED, STEP, *events])
    after = state
    fork = fork_of(state, INFO, [])
    for entry in fork.entries:
        after = apply(after, entry.event)  # type: ignore[arg-type]
    require_valid(after.history)
    assert (after.active_run, after.step, after.queue, after.steering) == (None, None, (), ())
    assert after.jobs == {}
    assert after.announced == ()
    assert fork.projection.jobs == 0


@pytest.mark.anyio
async def test_what_is_added_needs_no_one() -> None:
    addition = Addition("thread_2", fold([ASKED, STARTED]), at=5.0)
    addition.record(RunCancelled(run_id=R, usage=DONE.usage))
    addition.publish(TextDelta("m", "x"))
    await addition.durable()
    assert [envelope.event.at for envelope in addition.entries] == [5.0]
