"""The fold: allowed and forbidden transitions, and validity over random sequences of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.domain.fold import (
    ASKED,
    BACK,
    BACK_BELOW,
    BACK_BELOW_DONE,
    BACK_DELEGATED,
    BACK_DONE,
    BACK_QUIET,
    BACK_QUIET_DONE,
    CALL,
    CALL_2,
    CORRECTION,
    DONE,
    JOB,
    JOB_AGAIN,
    JOB_BELOW,
    JOB_BELOW_DONE,
    JOB_DELEGATED,
    JOB_DONE,
    OUTPUT,
    OUTPUT_2,
    RESPONSE,
    RUNNING,
    STARTED,
    STEP,
    STEP_BROKEN,
    STEP_DONE,
    TEXT,
    THOUGHT,
    TOLD,
    TOLD_QUIETLY,
    WAKING,
    R,
    begun,
    fold,
)

from treadle.domain.blocks import BlockRules
from treadle.domain.events import (
    ContextCompacted,
    DurableEvent,
    HandedOff,
    HistoryReplaced,
    JobSettled,
    JobStarted,
    MemoryTended,
    MemoryUpdated,
    MessageAdded,
    MessagePinned,
    MessageQueued,
    PassageAdded,
    PassageRemoved,
    ProviderItemAdded,
    QuotaHit,
    RateLimitHit,
    RecordedEvent,
    RetriesExhausted,
    Retrying,
    RunCancelled,
    RunCancelling,
    RunContinued,
    RunExpired,
    RunFailed,
    RunFinishing,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    StepCompleted,
    ToolApproved,
    ToolCallRequested,
    ToolDelegated,
    UsageAdded,
)
from treadle.domain.fold import apply
from treadle.domain.history import require_valid
from treadle.domain.items import (
    FunctionCall,
    Message,
    user_message,
)
from treadle.domain.state import Announcement, OpenJob, SteeringMessage, ThreadState, ToolCount
from treadle.domain.usage import Spent, Usage
from treadle.errors import InvalidTransition


def test_a_whole_run() -> None:
    state = fold([ASKED, STARTED, STEP, THOUGHT, TEXT, CALL, RUNNING, RESPONSE, OUTPUT, STEP_DONE])
    assert state.run is not None
    assert state.run.usage == Usage(3, 2, requests=1)
    assert list(state.history) == [
        ASKED.item,
        THOUGHT.item,
        TEXT.item,
        CALL.item,
        OUTPUT.item,
    ]
    state = fold([DONE], state)
    assert state.run is not None
    assert (state.run.status, state.run.stop_reason) == ("completed", "end_turn")
    assert state.seq == 11


def test_outputs_enter_the_history_in_call_order_and_items_in_response_order() -> None:
    state = fold([ASKED, STARTED, STEP, CALL_2, CALL, TEXT, OUTPUT_2, OUTPUT, RESPONSE, STEP_DONE])
    assert list(state.history)[1:] == [
        TEXT.item,
        CALL.item,
        CALL_2.item,
        OUTPUT.item,
        OUTPUT_2.item,
    ]


def test_an_open_step_is_not_in_the_history() -> None:
    state = fold([ASKED, STARTED, STEP, TEXT, CALL, RUNNING])
    assert list(state.history) == [ASKED.item]
    assert state.step is not None
    assert state.step.pending == (CALL.item,)
    assert state.step.started == ("c1",)


def test_an_interrupted_step_drops_reasoning_that_led_to_nothing() -> None:
    state = fold([ASKED, STARTED, STEP, CALL, OUTPUT, replace(THOUGHT, index=5), STEP_BROKEN])
    assert list(state.history)[1:] == [CALL.item, OUTPUT.item]
    only_thought = fold([ASKED, STARTED, STEP, THOUGHT, STEP_BROKEN])
    assert list(only_thought.history) == [ASKED.item]
    kept = fold([ASKED, STARTED, STEP, THOUGHT, replace(CALL, index=1), OUTPUT, STEP_BROKEN])
    assert list(kept.history)[1:] == [THOUGHT.item, CALL.item, OUTPUT.item]


def test_a_correction_opens_the_run_again() -> None:
    state = fold([ASKED, STARTED, STEP, TEXT, RESPONSE, STEP_DONE, CORRECTION])
    assert state.run is not None
    assert (state.run.corrections, state.run.last_step) == (1, None)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (DONE, "completed"),
        (RunIncomplete(run_id=R, stop_reason="max_steps", usage=Usage()), "incomplete"),
        (RunFailed(run_id=R, code="c", message="m", retryable=False, usage=Usage()), "failed"),
        (RunCancelled(run_id=R, usage=Usage()), "cancelled"),
    ],
)
def test_a_terminal_run_never_changes_again(end: RecordedEvent, status: str) -> None:
    state = fold([ASKED, STARTED, end])
    assert state.run is not None
    assert state.run.status == status
    for event in (STEP, end, TEXT, RESPONSE, STEP_DONE):
        with pytest.raises(InvalidTransition):
            fold([event], state)
    again = fold([replace(ASKED, run_id="run_2"), RunStarted(run_id="run_2", agent="b")], state)
    assert again.run is not None
    assert (again.run.status, again.run.first_item) == ("in_progress", 2)


@pytest.mark.parametrize(
    "events",
    [
        [STEP],
        [STARTED, STARTED],
        [STARTED, TEXT],
        [STARTED, replace(STEP, step=2)],
        [STARTED, STEP, STEP],
        [STARTED, STEP, ASKED],
        [STARTED, STEP, CALL, CALL],
        [STARTED, STEP, RUNNING],
        [STARTED, STEP, OUTPUT],
        [STARTED, STEP, CALL, OUTPUT, OUTPUT],
        [STARTED, STEP, CALL, OUTPUT, RUNNING],
        [STARTED, STEP, CALL, RESPONSE, STEP_DONE],
        [STARTED, STEP, CALL, STEP_BROKEN],
        [STARTED, STEP, STEP_DONE],
        [STARTED, STEP, RESPONSE, RESPONSE],
        [STARTED, STEP, DONE],
        [STARTED, replace(STEP, run_id="run_2")],
        [STARTED, Retrying(run_id=R, code="c", delay=1, retries_remaining=1, message="m")],
    ],
)
def test_forbidden_transitions(events: list[DurableEvent]) -> None:
    before = fold(events[:-1])
    with pytest.raises(InvalidTransition):
        fold(events[-1:], before)


def test_retries_change_nothing_but_the_number() -> None:
    retries = [
        Retrying(run_id=R, code="c", delay=1, retries_remaining=1, message="m"),
        RateLimitHit(run_id=R, delay=1, retries_remaining=1, message="m"),
    ]
    state = fold([STARTED, STEP])
    assert fold(retries, state) == replace(state, seq=state.seq + 2, said=state.seq + 2)


def test_seq_has_no_gap_and_no_repeat() -> None:
    with pytest.raises(InvalidTransition, match="cannot follow"):
        apply(ThreadState(), replace(ASKED, seq=2))
    with pytest.raises(InvalidTransition, match="cannot follow"):
        apply(fold([ASKED]), replace(STARTED, seq=1))


ANY = [
    ASKED,
    STARTED,
    STEP,
    replace(STEP, step=2),
    TEXT,
    CALL,
    CALL_2,
    RUNNING,
    OUTPUT,
    OUTPUT_2,
    THOUGHT,
    RESPONSE,
    STEP_DONE,
    replace(STEP_DONE, step=2),
    STEP_BROKEN,
    DONE,
    CORRECTION,
]


@given(st.lists(st.sampled_from(ANY), max_size=60))
def test_whatever_is_accepted_leaves_a_valid_history(events: list[DurableEvent]) -> None:
    state = fold([ASKED, STARTED, STEP])
    calls_closed = set[str]()
    for event in events:
        is_used_call = isinstance(event, ToolCallRequested) and event.item.call_id in calls_closed
        if is_used_call:
            continue  # the demux never repeats a call id within a thread
        try:
            state = fold([event], state)
        except InvalidTransition:
            continue
        calls_closed |= {i.call_id for i in state.history if isinstance(i, FunctionCall)}
        require_valid(state.history)


def test_items_of_a_provider_are_kept() -> None:
    import msgspec

    from treadle.domain.items import ProviderItem

    item = ProviderItem("openai", msgspec.Raw(b"{}"))
    state = fold([STARTED, STEP, ProviderItemAdded(run_id=R, item=item), RESPONSE, STEP_DONE])
    assert list(state.history) == [item]


MORE = user_message("more")
QUEUED = RunQueued(run_id="run_2", item=MORE, agent="b", key="k")
STEERED = MessageQueued(run_id=R, item=MORE)
STEERING = MessageAdded(run_id=R, item=MORE, origin="user")
WAITING_CALL = replace(CALL, awaits="approval")
OUTSIDE_CALL = replace(CALL_2, awaits="output")
WAITS = RunRequiresAction(run_id=R, call_ids=("c1", "c2"), expires_at=9.0)
APPROVED = ToolApproved(run_id=R, call_id="c1")
CANCELLED = RunCancelled(run_id=R, usage=Usage())


def test_runs_wait_in_a_queue() -> None:
    state = fold([*begun(), QUEUED])
    urgent = RunQueued(run_id="run_3", item=MORE, agent="b", urgent=True)
    state = fold([urgent], state)
    assert [run.id for run in state.queue] == ["run_3", "run_2"]
    assert state.queue[1].key == "k"
    state = fold([DONE, replace(ASKED, run_id="run_3")], state)
    state = fold([RunStarted(run_id="run_3", agent="b", agent_hash="h")], state)
    assert [run.id for run in state.queue] == ["run_2"]
    assert state.active_run is not None
    assert state.active_run.agent_hash == "h"
    dropped = fold([RunCancelled(run_id="run_2", usage=Usage())], state)
    assert (dropped.queue, dropped.run) == ((), state.run)


@pytest.mark.parametrize("run_id", [R, "run_2"])
def test_a_run_is_queued_once(run_id: str) -> None:
    with pytest.raises(InvalidTransition, match="already known"):
        fold([*begun(), QUEUED, replace(QUEUED, run_id=run_id)])


def test_a_message_that_steers_enters_at_a_safe_point() -> None:
    state = fold([*begun(), STEP, STEERED, TEXT])
    assert state.steering == (SteeringMessage(MORE),)
    with pytest.raises(InvalidTransition, match="while a step is open"):
        fold([STEERING], state)
    state = fold([RESPONSE, STEP_DONE], state)
    with pytest.raises(InvalidTransition, match="still waits"):
        fold([DONE], state)
    state = fold([STEERING], state)
    assert state.steering == ()
    assert state.history[-1] == MORE
    assert state.run is not None
    assert state.run.last_step is None
    with pytest.raises(InvalidTransition):
        fold([DONE, STEERED], state)


def test_a_run_waits_for_what_comes_from_outside() -> None:
    state = fold([*begun(), STEP, WAITING_CALL, OUTSIDE_CALL, RESPONSE, WAITS])
    assert state.run is not None
    assert (state.run.status, state.run.expires_at) == ("requires_action", 9.0)
    assert state.step is not None
    assert [call.call_id for call in state.step.awaited] == ["c1", "c2"]
    assert state.step.ready == ()
    with pytest.raises(InvalidTransition, match="waits for someone outside"):
        fold([RUNNING], state)
    state = fold([APPROVED], state)
    assert state.run is not None
    assert state.run.status == "requires_action"
    state = fold([RUNNING, OUTPUT_2], state)
    assert state.run is not None
    assert (state.run.status, state.run.expires_at) == ("in_progress", None)
    state = fold([OUTPUT, STEP_DONE], state)
    assert list(state.history)[-2:] == [OUTPUT.item, OUTPUT_2.item]


def test_what_is_not_awaited_is_not_approved() -> None:
    for call in (CALL, replace(CALL, awaits="output")):
        with pytest.raises(InvalidTransition, match="waits for no approval"):
            fold([*begun(), STEP, call, APPROVED])
    with pytest.raises(InvalidTransition, match="not open"):
        fold([*begun(), STEP, APPROVED])
    with pytest.raises(InvalidTransition, match="no call to wait for"):
        fold([*begun(), STEP, CALL, RESPONSE, WAITS])


def test_a_run_that_is_being_cancelled_waits_for_nothing() -> None:
    state = fold([*begun(), STEP, WAITING_CALL, RESPONSE, RunCancelling(run_id=R)])
    assert state.active_run is not None
    assert state.active_run.status == "cancelling"
    with pytest.raises(InvalidTransition, match="no call to wait for"):
        fold([WAITS], state)
    state = fold([OUTPUT, STEP_BROKEN, CANCELLED], state)
    assert (state.run and state.run.status, state.active_run) == ("cancelled", None)


def test_a_run_can_expire_and_be_asked_to_finish() -> None:
    state = fold([*begun(), RunFinishing(run_id=R)])
    assert state.run is not None
    assert state.run.finishing
    state = fold([RunExpired(run_id=R, usage=Usage())], state)
    assert state.run is not None
    assert (state.run.status, state.run.stop_reason) == ("expired", "expired")
    for event in (RunFinishing(run_id=R), RunCancelling(run_id=R), QUEUED):
        if event is not QUEUED:
            with pytest.raises(InvalidTransition):
                fold([event], state)
    assert fold([QUEUED], state).queue


def test_a_step_that_was_cut_off_is_counted() -> None:
    state = fold([*begun(), STEP, STEP_BROKEN])
    assert state.run is not None
    assert (state.run.steps, state.run.interrupted) == (1, 1)
    state = fold([*begun(), STEP, CALL, RESPONSE, OUTPUT, STEP_BROKEN])
    assert state.run is not None
    assert state.run.interrupted == 0


def test_retries_and_quotas_need_an_open_step() -> None:
    events = [
        RetriesExhausted(run_id=R, code="c", attempts=3, message="m"),
        QuotaHit(run_id=R, message="m"),
    ]
    fold([*begun(), STEP, *events])
    for event in events:
        with pytest.raises(InvalidTransition):
            fold([*begun(), event])


JOB_USED = UsageAdded(run_id=R, usage=Usage(2, 1), cost=0.5, calls=3, thread_id="thread_7")


def test_what_the_agent_of_a_background_job_used_counts_for_the_thread() -> None:
    used = replace(JOB_USED, job_id="job_3")
    before = fold([*begun(), BACK, BACK_DELEGATED, JOB])
    state = fold([used], before)
    assert state.run == before.run
    assert state.ended == Spent(Usage(2, 1), 0.5, tool_calls=3)
    assert state.jobs["job_3"].counted == ("thread_7",)
    assert state.jobs["job_1"] == before.jobs["job_1"]
    # also where no run is in progress
    ended = fold([JOB_DONE, DONE, used], before)
    assert ended.ended.tool_calls == 3
    for job_id in ("job_1", "job_9"):
        with pytest.raises(InvalidTransition, match=f"background job {job_id} is not open"):
            fold([replace(used, job_id=job_id)], before)
    with pytest.raises(InvalidTransition, match="background job job_3 is not open"):
        fold([BACK_DONE, used], before)


def test_what_the_agent_of_another_job_used_counts_for_the_run() -> None:
    state = fold([*begun(), JOB, JOB_DELEGATED, JOB_USED])
    assert state.run is not None
    assert (state.run.spent.usage, state.run.spent.tool_calls) == (Usage(2, 1), 3)
    assert state.run.counted == ("thread_7",)
    assert state.ended == Spent()


def test_jobs_are_open_until_they_settle() -> None:
    state = fold([*begun(), JOB, JOB_BELOW, JOB_DELEGATED])
    assert list(state.jobs.values()) == [
        OpenJob(
            "job_1",
            "index",
            R,
            kind="m:Index",
            arguments="{}",
            children=1,
            delegated=("thread_8",),
        ),
        OpenJob("job_2", "page", R, parent="job_1"),
    ]
    state = fold([JOB_BELOW_DONE], state)
    assert [(job.id, job.children) for job in state.jobs.values()] == [("job_1", 0)]
    assert fold([JOB_DONE, DONE], state).jobs == {}
    assert fold([JOB_DONE], state).announced == ()


def test_a_job_is_started_again_with_what_is_below_it_and_above_it_no_more() -> None:
    below = replace(JOB_BELOW, kind="m:Page")
    deeper = replace(JOB_BELOW, job_id="job_6", parent="job_2")
    state = fold([*begun(), JOB, JOB_DELEGATED, below, deeper])
    state = fold([JOB_AGAIN, replace(below, parent="", attempt=2)], state)
    assert [(job.id, job.parent, job.attempt, job.children) for job in state.jobs.values()] == [
        ("job_1", "", 2, 0),
        ("job_2", "", 2, 1),
        ("job_6", "job_2", 1, 0),
    ]
    assert state.jobs["job_1"].delegated == ("thread_8",)
    state = fold([JOB_DONE, replace(JOB_BELOW_DONE, job_id="job_6"), JOB_BELOW_DONE], state)
    assert state.jobs == {}


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([JOB], "not in progress"),
        ([*begun(), replace(JOB, run_id="run_2")], "not in progress"),
        ([*begun(), DONE, JOB], "not in progress"),
        ([*begun(), JOB_AGAIN], "attempt 2 now"),
        ([*begun(), JOB, JOB], "attempt 1 now"),
        ([*begun(), JOB, JOB_AGAIN, JOB_AGAIN], "attempt 2 now"),
        ([*begun(), JOB, replace(JOB, attempt=3)], "attempt 3 now"),
        ([*begun(), JOB, JOB_BELOW, replace(JOB_AGAIN, parent="job_2")], "another place"),
        ([*begun(), JOB, replace(JOB_AGAIN, parent="job_1")], "another place"),
        ([*begun(), JOB, replace(JOB_AGAIN, background=True)], "another place"),
        ([*begun(), BACK, replace(BACK, background=False, attempt=2)], "another place"),
        ([*begun(), JOB_BELOW], "job_1, to which one belongs, is not open"),
        ([*begun(), JOB, JOB_DONE, JOB_BELOW], "job_1, to which one belongs, is not open"),
        ([*begun(), BACK, replace(JOB_BELOW, parent="job_3")], "job_3, to which one belongs"),
        ([*begun(), JOB, replace(BACK_BELOW, parent="job_1")], "job_1, to which one belongs"),
        ([*begun(), JOB_DELEGATED], "job_1 is not open"),
        ([*begun(), JOB, JOB_DONE, JOB_DELEGATED], "job_1 is not open"),
        ([*begun(), JOB_DONE], "job_1 is not open"),
        ([*begun(), JOB, JOB_DONE, JOB_DONE], "job_1 is not open"),
        ([*begun(), JOB, JOB_BELOW, JOB_DONE], "has open children"),
        ([*begun(), JOB, DONE], "job of the run has not settled"),
        ([*begun(), TOLD], "No job announced"),
        ([*begun(), BACK, TOLD], "No job announced"),
        ([*begun(), BACK, BACK_DONE, TOLD, TOLD], "No job announced"),
        ([*begun(), BACK, BACK_DONE, STEP, TOLD], "while a step is open"),
    ],
)
def test_what_cannot_happen_to_jobs(events: list[DurableEvent], problem: str) -> None:
    before = fold(events[:-1])
    with pytest.raises(InvalidTransition, match=problem):
        fold(events[-1:], before)


def test_a_job_may_make_its_run_fail() -> None:
    failed = replace(JOB_DONE, outcome="failed", output="", message="m", fails_run=True)
    other = replace(failed, job_id="job_6", message="later")
    state = fold([*begun(), JOB, replace(JOB, job_id="job_6"), failed, other])
    assert state.run is not None
    assert (state.run.job_failure, state.run.status) == ("m", "in_progress")
    unsaid = fold([*begun(), JOB, replace(failed, message="")]).run
    assert unsaid is not None
    assert unsaid.job_failure
    with pytest.raises(InvalidTransition, match="not in progress"):
        fold([*begun(), BACK, DONE, replace(failed, job_id=BACK.job_id)])


def test_a_background_job_outlives_its_run_and_starts_more_without_one() -> None:
    state = fold([*begun(), BACK, DONE, BACK_BELOW])
    assert [(job.id, job.agent, job.children) for job in state.jobs.values()] == [
        ("job_3", "a", 1),
        ("job_4", "a", 0),
    ]
    state = fold([BACK_BELOW_DONE, replace(BACK_DONE, wakes=False)], state)
    assert state.jobs == {}
    assert state.announced == (Announcement(WAKING, R, "a", wakes=False),)


def test_what_a_background_job_tells_opens_the_run_again_only_where_it_wakes() -> None:
    closed = [*begun(), BACK, BACK_QUIET, STEP, TEXT, RESPONSE, STEP_DONE]
    state = fold([*closed, BACK_DONE, BACK_QUIET_DONE])
    assert [told.wakes for told in state.announced] == [True, False]
    quiet = fold([TOLD_QUIETLY], state)
    assert quiet.run is not None
    assert quiet.run.last_step is not None
    assert [told.item for told in quiet.announced] == [WAKING]
    woken = fold([TOLD], quiet)
    assert woken.run is not None
    assert woken.run.last_step is None
    assert woken.announced == ()
    assert list(woken.history)[-2:] == [TOLD_QUIETLY.item, WAKING]


def test_what_is_told_before_a_run_starts_belongs_to_the_history_of_that_run() -> None:
    state = fold([*begun(), BACK, DONE, BACK_DONE])
    told = fold([replace(TOLD, run_id="run_2"), RunStarted(run_id="run_2", agent="a")], state)
    assert told.announced == ()
    assert told.history[-1] == WAKING
    assert told.active_run is not None
    assert told.active_run.first_item == len(told.history)


EXPIRED = RunExpired(run_id=R, usage=Usage())
CANCELLING = RunCancelling(run_id=R)
OF_JOBS: list[DurableEvent] = [
    JOB,
    JOB_AGAIN,
    JOB_BELOW,
    replace(JOB_BELOW, parent="", attempt=2),
    replace(JOB_BELOW, parent="job_3"),
    JOB_DELEGATED,
    JOB_DONE,
    JOB_BELOW_DONE,
    BACK,
    replace(BACK, attempt=2),
    replace(BACK, background=False, attempt=2),
    BACK_BELOW,
    replace(BACK_BELOW, parent="job_1"),
    BACK_DELEGATED,
    replace(JOB_USED, job_id="job_3"),
    BACK_DONE,
    BACK_BELOW_DONE,
    BACK_QUIET,
    BACK_QUIET_DONE,
    TOLD,
    TOLD_QUIETLY,
]
COMPACTED = ContextCompacted(
    cut=1,
    strategy="sliding_window",
    cause="after_run",
    tokens_before=9,
    tokens_after=5,
    counted_by="estimate",
)

ANY_OF_ALL: list[DurableEvent] = [
    *ANY,
    *OF_JOBS,
    replace(RUNNING, call_id="c2"),
    WAITING_CALL,
    OUTSIDE_CALL,
    WAITS,
    replace(WAITS, expires_at=None),
    replace(WAITS, expires_at=20.0),
    APPROVED,
    STEERED,
    replace(STEERED, key="k3"),
    STEERING,
    CANCELLING,
    CANCELLED,
    EXPIRED,
    RunFinishing(run_id=R),
    RunFailed(run_id=R, code="c", message="m", retryable=False, usage=Usage()),
    QUEUED,
    RunQueued(run_id="run_3", item=MORE, agent="c", urgent=True),
    RunCancelled(run_id="run_2", usage=Usage()),
    RunStarted(run_id="run_2", agent="b", agent_hash="h", key="k"),
    RunStarted(run_id="run_3", agent="c"),
    replace(DONE, run_id="run_2"),
    replace(STEP, run_id="run_2"),
    replace(STEP_BROKEN, run_id="run_2"),
    HistoryReplaced(run_id=R, items=(MORE,)),
    RunContinued(run_id=R),
    HandedOff(run_id=R, agent="b"),
    MessageAdded(run_id=R, item=MORE, origin="hook"),
    ToolDelegated(run_id=R, call_id="c1", agent="b", thread_id="thread_9"),
    UsageAdded(run_id=R, usage=Usage(1, 1), cost=0.5),
    MemoryUpdated(label="b", operation="create", author="agent", added="x", becomes=BlockRules()),
    MemoryUpdated(label="b", operation="delete", author="user", removed="x", was=BlockRules()),
    MemoryUpdated(label="b", operation="append", author="model", added="y", memory="thread_9"),
    COMPACTED,
    replace(COMPACTED, cut=2, kept=(0,), summary=MORE),
    MessagePinned(message_id=MORE.id),
    MessagePinned(message_id=MORE.id, pinned=False),
    MemoryTended(until=2, job_id="job_3"),
    PassageAdded(passage_id="p", text="t", author="user"),
    PassageRemoved(passage_id="p"),
]


EVENTS = st.lists(st.sampled_from(ANY_OF_ALL) | st.sampled_from(OF_JOBS), max_size=80)


def is_repeated(event: DurableEvent, state: ThreadState, settled: set[str]) -> bool:
    """Whether the id of a job is used a second time, which no program does."""
    is_start = isinstance(event, JobStarted) and event.job_id not in state.jobs
    return is_start and event.job_id in settled


@given(EVENTS)
def test_whatever_is_accepted_keeps_the_thread_whole(events: list[DurableEvent]) -> None:
    state = fold([ASKED, STARTED, STEP])
    calls_closed, ended = set[str](), dict[str, str]()
    settled, told = set[str](), list[str]()
    for event in events:
        if isinstance(event, ToolCallRequested) and event.item.call_id in calls_closed:
            continue  # the demux never repeats a call id within a thread
        if is_repeated(event, state, settled):
            continue
        before = state
        try:
            state = fold([event], state)
        except InvalidTransition:
            assert state is before
            continue
        calls_closed |= {i.call_id for i in state.history if isinstance(i, FunctionCall)}
        require_valid(state.history)
        if not isinstance(event, HistoryReplaced):
            assert list(state.history)[: len(before.history)] == list(before.history)
        run, step = state.run, state.step
        assert run is not None
        assert run.id not in ended or run.status == ended[run.id]
        if not run.is_active:
            ended[run.id] = run.status
            assert step is None
            assert state.steering == ()
        if run.status == "requires_action":
            assert step is not None
            assert step.awaited
        else:
            assert run.expires_at is None or not run.is_active or run.status == "cancelling"
        waiting = [queued.id for queued in state.queue]
        assert len(set(waiting)) == len(waiting)
        assert run.id not in waiting
        if isinstance(event, JobSettled):
            settled.add(event.job_id)
        if isinstance(event, MessageAdded) and event.origin == "job":
            told.append(event.item.id)
        require_whole_jobs(state)
        assert state.tended <= len(state.history)
        assert state.context.cut <= len(state.history)
        assert len(state.context.items(state.history)) <= len(state.history) + 1
        assert len(set(told)) == len(told)
        assert not {one.item.id for one in state.announced} & set(told)


def require_whole_jobs(state: ThreadState) -> None:
    """What holds for the open jobs of any thread."""
    jobs = state.jobs
    for id, job in jobs.items():
        assert job.id == id
        assert job.children == sum(other.parent == id for other in jobs.values())
        assert not job.parent or jobs[job.parent].background == job.background
        if not job.background:
            assert state.active_run is not None
            assert job.run_id == state.active_run.id
        above = [id]
        while jobs[above[-1]].parent:
            above.append(jobs[above[-1]].parent)
            assert len(above) <= len(jobs)  # nothing is below itself


def test_between_steps_a_hook_may_change_the_history() -> None:
    closed = [*begun(), STEP, RESPONSE, StepCompleted(run_id=R, step=1)]
    items = (user_message("in short"),)
    edited = fold([*closed, HistoryReplaced(run_id=R, items=items)])
    assert tuple(edited.history) == items
    assert edited.edited == edited.seq
    assert edited.run is not None
    assert edited.run.hooked == 1
    with pytest.raises(InvalidTransition, match="no output"):
        broken = (FunctionCall("c9", "f", "{}"),)
        fold([*closed, HistoryReplaced(run_id=R, items=broken)])
    for event in (
        HistoryReplaced(run_id=R, items=items),
        RunContinued(run_id=R),
        HandedOff(run_id=R, agent="b"),
    ):
        with pytest.raises(InvalidTransition, match="still open"):
            fold([*begun(), STEP, event])


@pytest.mark.parametrize(
    ("items", "first"),
    [
        ((user_message("before"), ASKED.item, TEXT.item, user_message("more")), 2),
        ((user_message("in short"), TEXT.item), 1),
        ((TEXT.item, user_message("one"), user_message("two"), TEXT.item), 3),
        ((TEXT.item,), 1),
        ((), 0),
    ],
)
def test_where_a_run_begins_in_a_history_that_is_replaced(
    items: tuple[Message, ...], first: int
) -> None:
    state = fold([*begun(), HistoryReplaced(run_id=R, items=items)])
    assert state.run is not None
    assert state.run.first_item == first
    woken = fold([STARTED, HistoryReplaced(run_id=R, items=items)])  # nothing was asked
    assert woken.run is not None
    assert woken.run.first_item == 0


def test_a_hand_over_and_a_continuation_let_the_run_go_on() -> None:
    closed = [*begun(), STEP, RESPONSE, StepCompleted(run_id=R, step=1, seconds=2.5)]
    assert fold(closed).run is not None
    handed = fold([*closed, HandedOff(run_id=R, agent="b", agent_hash="h")]).run
    assert handed is not None
    assert (handed.agent, handed.agent_hash, handed.handoffs) == ("b", "h", 1)
    assert (handed.last_step, handed.seconds) == (None, 2.5)
    continued = fold([*closed, RunContinued(run_id=R)]).run
    assert continued is not None
    assert (continued.last_step, continued.hooked) == (None, 1)


@pytest.mark.parametrize(
    ("started", "is_error", "expected"),
    [
        (True, False, (ToolCount("look", 1, 1),)),
        (True, True, (ToolCount("look", 1, 0),)),  # it was made, and has failed
        (False, True, ()),  # it was refused
    ],
)
def test_calls_that_were_made_are_counted(
    started: bool, is_error: bool, expected: tuple[ToolCount, ...]
) -> None:
    output = replace(OUTPUT, item=replace(OUTPUT.item, is_error=is_error))
    running = [RUNNING] if started else []
    state = fold([*begun(), STEP, CALL, *running, RESPONSE, output, STEP_DONE])
    assert state.run is not None
    assert state.run.tools == expected
