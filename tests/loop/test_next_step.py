"""What the loop does next in each state; whether a thread can continue without a reply."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from pydantic import BaseModel
from tests.domain.fold import (
    BACK,
    BACK_DONE,
    BACK_QUIET,
    BACK_QUIET_DONE,
    CALL,
    CALL_2,
    CORRECTION,
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
    TOLD_QUIETLY,
    R,
    begun,
    fold,
)

from treadle import Agent, Limits, ToolRules, tool
from treadle.domain.events import (
    DurableEvent,
    HandedOff,
    MessageAdded,
    MessageQueued,
    ResponseCompleted,
    RunCancelling,
    RunFinishing,
    RunQueued,
    RunRequiresAction,
    StepStarted,
    ToolApproved,
)
from treadle.domain.items import FunctionCall, FunctionCallOutput, user_message
from treadle.domain.state import ThreadState, can_go_on
from treadle.domain.usage import Usage
from treadle.errors import OutputInvalid, RuleBroken
from treadle.journal.projection import status_of
from treadle.loop.definition import hash_of
from treadle.loop.next_step import (
    Ask,
    Cancel,
    Correct,
    Enter,
    Fail,
    HandOff,
    NextStep,
    Pause,
    Resume,
    Settle,
    Wait,
    next_step,
)
from treadle.loop.outcome import End, find_end, may_answer
from treadle.loop.steering import announcements, skipped_calls
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


# The next step


@tool
def look() -> str:
    """Looks."""
    return "one"


class City(BaseModel):
    name: str


ANSWERED = [*begun(), STEP, TEXT, RESPONSE, STEP_DONE]
CALLED = [*begun(), STEP, CALL, RESPONSE, OUTPUT, STEP_DONE]


def following(
    events: Sequence[DurableEvent],
    agent: Agent[None, Any] | None = None,
    *,
    is_settled: bool = True,
    has_open_jobs: bool = False,
) -> NextStep:
    agent = agent or Agent(ScriptedModel([]), name="a", tools=[look])
    return next_step(fold(events), agent, is_settled=is_settled, has_open_jobs=has_open_jobs)


def test_a_safe_point_is_settled_before_anything_else_happens_there() -> None:
    for events in (begun(), ANSWERED, CALLED, [*begun(), STEERED]):
        assert following(events, is_settled=False) == Settle()


def test_the_model_is_asked_until_it_calls_no_tool() -> None:
    assert following(begun()) == Ask()
    assert following(CALLED) == Ask()
    assert following([*begun(), STEP, STEP_BROKEN]) == Ask()
    paused = ResponseCompleted(run_id=R, response_id="x", finish_reason="pause", usage=Usage())
    assert following([*begun(), STEP, TEXT, paused, STEP_DONE]) == Ask()
    assert following(ANSWERED) == End("end_turn")


def test_limits_and_a_request_to_finish_end_the_run_after_a_step() -> None:
    limited = Agent(ScriptedModel([]), limits=Limits(max_steps=1))
    assert following(CALLED, limited) == End("max_steps")
    thread = Agent(ScriptedModel([]), thread_limits=Limits(max_tokens=5))
    assert following(CALLED, thread) == End("max_tokens", "thread")
    assert following([*CALLED, RunFinishing(run_id=R)]) == End("finish_requested")
    terminal = Agent(ScriptedModel([]), tools=[look], rules=ToolRules(terminal=["look"]))
    assert following(CALLED, terminal) == End("terminal_tool")
    long = ResponseCompleted(run_id=R, response_id="x", finish_reason="length", usage=Usage())
    cut = End("max_output_tokens", "response")
    assert following([*begun(), STEP, TEXT, long, STEP_DONE]) == cut


def test_a_run_ends_after_its_jobs() -> None:
    assert following(ANSWERED, has_open_jobs=True) == Wait()
    assert following(CALLED, has_open_jobs=True) == Ask()
    assert following([*ANSWERED, STEERED], has_open_jobs=True) == Enter([_entered(STEERED)])


def test_a_cancel_and_a_failed_job_come_before_all_else() -> None:
    failed = replace(JOB_DONE, outcome="failed", message="m", fails_run=True)
    for events in (begun(), ANSWERED, [*begun(), STEP, CALL], [*ANSWERED, STEERED]):
        for is_settled in (False, True):
            cancelled = following([*events, RunCancelling(run_id=R)], is_settled=is_settled)
            assert cancelled == Cancel()
    for events in ([*begun(), JOB], [*begun(), JOB, STEP, CALL]):
        step = following([*events, failed], is_settled=False, has_open_jobs=True)
        assert isinstance(step, Fail)
        assert step.error.code == "job_failed"
        assert following([*events, failed, RunCancelling(run_id=R)]) == Cancel()


def test_an_open_step_is_resumed_unless_all_of_it_waits_for_a_reply() -> None:
    waiting = [*begun(), STEP, APPROVAL, RESPONSE, WAITS]
    assert following([*begun(), STEP, CALL, RUNNING]) == Resume()
    assert following(waiting) == Pause()
    assert following([*waiting, ToolApproved(run_id=R, call_id="c1")]) == Resume()
    assert following([*waiting, STEERED]) == Resume()
    outside = [*begun(), STEP, OUTSIDE, RESPONSE, replace(WAITS, call_ids=("c2",)), STEERED]
    assert following(outside) == Pause()


def test_the_output_of_a_handoff_hands_the_run_over_once_it_is_settled() -> None:
    other = Agent(ScriptedModel([]), name="b")
    agent = Agent(ScriptedModel([]), name="a", handoffs=[other])
    call = replace(CALL, item=FunctionCall("c1", "transfer_to_b", "{}"))
    given = [*begun(), STEP, call, RESPONSE, OUTPUT, STEP_DONE]
    handed = HandedOff(run_id=R, agent="b", agent_hash=hash_of(other))
    assert following(given, agent, is_settled=False) == HandOff(handed)
    failed = replace(OUTPUT, item=FunctionCallOutput("c1", "no", is_error=True))
    refused = [*begun(), STEP, call, RESPONSE, failed, STEP_DONE]
    assert following(refused, agent, is_settled=False) == Settle()
    assert following([*given, handed], other) == Ask()


def test_an_answer_that_must_not_stand_is_corrected_and_then_fails_the_run() -> None:
    typed = Agent(ScriptedModel([]), output=City, max_corrections=1)
    step = following(ANSWERED, typed)
    assert isinstance(step, Correct)
    assert step.text.startswith("Your answer is not valid")
    again = [replace(event, step=2) for event in (STEP, STEP_DONE)]
    twice = [*ANSWERED, CORRECTION, again[0], TEXT, RESPONSE, again[1]]
    step = following(twice, typed)
    assert isinstance(step, Fail)
    assert isinstance(step.error, OutputInvalid)
    ruled = Agent(
        ScriptedModel([]), tools=[look], rules=ToolRules(required=["look"]), max_corrections=1
    )
    assert following(ANSWERED, ruled) == Correct("Before you answer, call look.")
    step = following(twice, ruled)
    assert isinstance(step, Fail)
    assert isinstance(step.error, RuleBroken)


# Steering


def test_what_waits_enters_in_the_order_in_which_it_came() -> None:
    second = replace(STEERED, item=user_message("and more"))
    state = [*ANSWERED[:2], BACK, *ANSWERED[2:], STEERED, BACK_DONE, second]
    step = following(state)
    assert step == Enter([_entered(STEERED), _entered(second), TOLD])
    assert isinstance(step, Enter)
    assert following([*state, *step.messages]) == Ask()


def test_an_announcement_that_the_run_cannot_answer_waits_for_the_next_one() -> None:
    state = [*begun(), BACK, STEP, TEXT, RESPONSE, STEP_DONE, BACK_DONE]
    agent = Agent(ScriptedModel([]), limits=Limits(max_steps=1))
    assert following(state, agent) == End("end_turn")
    assert announcements(fold(state), "run_2") == [replace(TOLD, run_id="run_2")]
    assert following([*state, STEERED], agent) == Enter([_entered(STEERED)])


def test_a_quiet_announcement_does_not_continue_the_run() -> None:
    state = [*begun(), BACK_QUIET, STEP, TEXT, RESPONSE, STEP_DONE, BACK_QUIET_DONE]
    assert following(state) == Enter([TOLD_QUIETLY])
    assert following([*state, TOLD_QUIETLY]) == End("end_turn")


def test_a_message_skips_the_calls_that_have_not_begun() -> None:
    third = replace(CALL_2, item=FunctionCall("c3", "look", "{}"), index=3)
    fourth = replace(third, item=FunctionCall("c4", "look", "{}"), index=4, awaits="approval")
    events = [*begun(), STEP, CALL, OUTSIDE, third, fourth, RUNNING, RESPONSE]
    assert skipped_calls(fold(events), ()) == ()
    steered = fold([*events, STEERED])
    assert [call.call_id for call in skipped_calls(steered, ())] == ["c3", "c4"]
    assert [call.call_id for call in skipped_calls(steered, {"c3"})] == ["c4"]
    assert skipped_calls(fold([*begun(), STEERED]), ()) == ()


def _entered(queued: MessageQueued) -> MessageAdded:
    return MessageAdded(run_id=R, item=queued.item, origin="user")
