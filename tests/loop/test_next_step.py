"""Whether a thread can go on without anyone outside, and what its rows say of it."""

from msgspec.structs import replace
from tests.domain.fold import (
    BACK,
    BACK_DONE,
    BACK_QUIET,
    BACK_QUIET_DONE,
    CALL,
    CALL_2,
    DONE,
    JOB,
    JOB_DONE,
    OUTPUT,
    RESPONSE,
    RUNNING,
    STEP,
    STEP_BROKEN,
    STEP_DONE,
    TEXT,
    TOLD,
    R,
    begun,
    fold,
)

from treadle import Agent, Limits
from treadle.domain.events import (
    MessageQueued,
    RunCancelling,
    RunFinishing,
    RunQueued,
    RunRequiresAction,
    StepStarted,
    ToolApproved,
)
from treadle.domain.items import user_message
from treadle.domain.state import ThreadState, can_go_on
from treadle.journal.projection import status_of
from treadle.loop.outcome import End, find_end, may_answer
from treadle.testing import ScriptedModel

APPROVAL = replace(CALL, awaits="approval")
OUTSIDE = replace(CALL_2, awaits="output")
WAITS = RunRequiresAction(run_id=R, call_ids=("c1",))
STEERED = MessageQueued(run_id=R, item=user_message("more"))
QUEUED = RunQueued(run_id="run_2", item=user_message("x"), agent="a")


def test_a_thread_at_rest_does_nothing() -> None:
    assert not can_go_on(ThreadState())
    assert not can_go_on(fold([*begun(), DONE]))
    assert status_of(ThreadState()) is None
    assert status_of(fold([*begun(), DONE])) == "completed"


def test_a_queue_is_worked_off() -> None:
    state = fold([*begun(), QUEUED, DONE])
    assert can_go_on(state)
    assert status_of(state) == "queued"


def test_a_run_that_a_job_makes_fail_waits_for_nobody() -> None:
    waiting = fold([*begun(), JOB, STEP, replace(CALL, awaits="output"), RESPONSE, WAITS])
    assert not can_go_on(waiting)
    failed = replace(JOB_DONE, outcome="failed", message="m", fails_run=True)
    assert can_go_on(fold([failed], waiting))


def test_what_a_background_job_tells_starts_a_run_only_where_it_wakes() -> None:
    resting = [*begun(), BACK, BACK_QUIET, DONE]
    assert not can_go_on(fold(resting))
    quiet = fold([*resting, BACK_QUIET_DONE])
    assert not can_go_on(quiet)
    waking = fold([BACK_DONE], quiet)
    assert can_go_on(waking)
    assert status_of(waking) == "completed"
    assert not can_go_on(fold([TOLD], waking))


def test_a_run_at_its_end_may_answer_more_unless_something_ends_it() -> None:
    def agent(**options: object) -> Agent[None, str]:
        return Agent(ScriptedModel([]), **options)  # type: ignore[arg-type]

    state = fold([*begun(), STEP, TEXT, RESPONSE, STEP_DONE])
    assert find_end(state, agent()) == End("end_turn")
    assert may_answer(state, agent())
    assert may_answer(fold(begun()), agent())
    assert not may_answer(state, agent(limits=Limits(max_steps=1)))
    assert not may_answer(state, agent(thread_limits=Limits(max_tokens=5)))
    assert not may_answer(fold([RunFinishing(run_id=R)], state), agent())
    assert may_answer(fold([*begun(), RunFinishing(run_id=R)]), agent())


def test_an_active_run_goes_on() -> None:
    for events in ([], [STEP], [STEP, STEP_BROKEN], [STEP, APPROVAL], [STEP, CALL, RUNNING]):
        state = fold([*begun(), *events])
        assert can_go_on(state)
        assert status_of(state) == "in_progress"


def test_a_run_that_waits_does_not() -> None:
    state = fold([*begun(), STEP, APPROVAL, RESPONSE, WAITS])
    assert not can_go_on(state)
    assert status_of(state) == "requires_action"
    assert can_go_on(fold([ToolApproved(run_id=R, call_id="c1")], state))
    assert can_go_on(fold([RunCancelling(run_id=R)], state))


def test_a_run_that_waits_while_it_works_is_in_progress_for_who_recovers_it() -> None:
    state = fold([*begun(), STEP, replace(APPROVAL, index=9), replace(CALL_2), RESPONSE, WAITS])
    assert can_go_on(state)
    assert status_of(state) == "in_progress"


def test_steering_skips_an_approval_but_not_an_answer_from_outside() -> None:
    approval = fold([*begun(), STEP, APPROVAL, RESPONSE, WAITS, STEERED])
    assert can_go_on(approval)
    outside = fold([*begun(), STEP, OUTSIDE, RESPONSE, WAITS, STEERED])
    assert not can_go_on(outside)


def test_calls_that_are_ready() -> None:
    step = fold([*begun(), STEP, APPROVAL, OUTSIDE]).step
    assert step is not None
    assert [call.call_id for call in step.awaited] == ["c1", "c2"]
    assert step.call("c9") is None
    assert step.output("c1") is None
    approved = fold([*begun(), STEP, APPROVAL, OUTSIDE, ToolApproved(run_id=R, call_id="c1")]).step
    assert approved is not None
    assert [call.call_id for call in approved.ready] == ["c1"]
    answered = fold([*begun(), STEP, CALL, OUTPUT]).step
    assert answered is not None
    assert answered.output("c1") == OUTPUT.item
    assert (answered.awaited, answered.ready) == ((), ())
    assert fold([*begun(), StepStarted(run_id=R, step=1, model="m")]).step is not None
