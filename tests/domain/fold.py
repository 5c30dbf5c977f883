"""Events of a run, ready to be folded in tests."""

from collections.abc import Sequence

from msgspec.structs import replace

from treadle.domain.events import (
    DurableEvent,
    JobDelegated,
    JobSettled,
    JobStarted,
    MessageAdded,
    ReasoningAdded,
    ResponseCompleted,
    RunCompleted,
    RunStarted,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolStarted,
)
from treadle.domain.fold import apply
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Message,
    OutputText,
    Reasoning,
    user_message,
)
from treadle.domain.state import ThreadState
from treadle.domain.usage import Usage
from treadle.errors import InvalidTransition

R = "run_1"
ASKED = MessageAdded(run_id=R, item=user_message("hi"), origin="user")
STARTED = RunStarted(run_id=R, agent="a")
STEP = StepStarted(run_id=R, step=1, model="m")
TEXT = MessageAdded(run_id=R, item=Message("assistant", (OutputText("t"),)), origin="model")
CALL = ToolCallRequested(run_id=R, item=FunctionCall("c1", "look", "{}"), index=1)
CALL_2 = ToolCallRequested(run_id=R, item=FunctionCall("c2", "look", "{}"), index=2)
RUNNING = ToolStarted(run_id=R, call_id="c1", name="look", attempt=1)
OUTPUT = ToolOutputRecorded(run_id=R, item=FunctionCallOutput("c1", "one"), name="look")
OUTPUT_2 = ToolOutputRecorded(run_id=R, item=FunctionCallOutput("c2", "two"), name="look")
THOUGHT = ReasoningAdded(run_id=R, item=Reasoning(id="r"))
RESPONSE = ResponseCompleted(
    run_id=R, response_id="x", finish_reason="stop", usage=Usage(3, 2, requests=1)
)
STEP_DONE = StepCompleted(run_id=R, step=1)
STEP_BROKEN = StepInterrupted(run_id=R, step=1, reason="cut")
DONE = RunCompleted(run_id=R, stop_reason="end_turn", usage=Usage())
CORRECTION = MessageAdded(run_id=R, item=user_message("again"), origin="runtime")

JOB = JobStarted(run_id=R, job_id="job_1", name="index", kind="m:Index", arguments="{}")
JOB_BELOW = JobStarted(run_id=R, job_id="job_2", name="page", parent="job_1")
JOB_AGAIN = replace(JOB, attempt=2)
JOB_DELEGATED = JobDelegated(run_id=R, job_id="job_1", agent="b", thread_id="thread_8")
JOB_DONE = JobSettled(run_id=R, job_id="job_1", outcome="completed", output="indexed", seconds=2.5)
JOB_BELOW_DONE = JobSettled(run_id=R, job_id="job_2", outcome="failed", code="c", message="m")
WAKING = user_message("[The background job crawl has completed.]")
QUIET = user_message("[The background job watch has completed.]")
BACK = JobStarted(run_id=R, job_id="job_3", name="crawl", background=True, agent="a")
BACK_BELOW = replace(BACK, job_id="job_4", name="fetch", parent="job_3")
BACK_DELEGATED = JobDelegated(run_id=R, job_id="job_3", agent="b", thread_id="thread_7")
BACK_DONE = JobSettled(
    run_id=R, job_id="job_3", outcome="completed", announcement=WAKING, wakes=True
)
BACK_BELOW_DONE = JobSettled(run_id=R, job_id="job_4", outcome="cancelled")
BACK_QUIET = replace(BACK, job_id="job_5", name="watch", announces="quiet")
BACK_QUIET_DONE = JobSettled(run_id=R, job_id="job_5", outcome="completed", announcement=QUIET)
TOLD = MessageAdded(run_id=R, item=WAKING, origin="job")
TOLD_QUIETLY = MessageAdded(run_id=R, item=QUIET, origin="job")


def fold(events: Sequence[DurableEvent], state: ThreadState | None = None) -> ThreadState:
    state = state or ThreadState()
    for event in events:
        state = apply(state, replace(event, seq=state.seq + 1))  # type: ignore[arg-type]
    return state


def begun() -> list[DurableEvent]:
    """A run that has begun."""
    return [ASKED, STARTED]


def fold_what_follows(
    events: Sequence[DurableEvent], state: ThreadState | None = None
) -> ThreadState:
    """The state after those of `events` that may follow, each after the ones before."""
    state = state or ThreadState()
    for event in events:
        try:
            state = fold([event], state)
        except InvalidTransition:
            continue
    return state
