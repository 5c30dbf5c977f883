"""The fold: allowed and forbidden transitions, and validity over random sequences of events."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from weft.errors import InvalidTransition
from weft.events import (
    DurableEvent,
    MessageAdded,
    ProviderItemAdded,
    RateLimitHit,
    ReasoningAdded,
    RecordedEvent,
    ResponseCompleted,
    Retrying,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunIncomplete,
    RunStarted,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolStarted,
)
from weft.history import require_valid
from weft.items import (
    FunctionCall,
    FunctionCallOutput,
    Message,
    OutputText,
    Reasoning,
    user_message,
)
from weft.state import ThreadState, apply
from weft.usage import Usage

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


def fold(events: Sequence[DurableEvent], state: ThreadState | None = None) -> ThreadState:
    state = state or ThreadState()
    for event in events:
        state = apply(state, replace(event, seq=state.seq + 1))  # type: ignore[arg-type]
    return state


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
    assert fold(retries, state) == replace(state, seq=state.seq + 2)


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

    from weft.items import ProviderItem

    item = ProviderItem("openai", msgspec.Raw(b"{}"))
    state = fold([STARTED, STEP, ProviderItemAdded(run_id=R, item=item), RESPONSE, STEP_DONE])
    assert list(state.history) == [item]
