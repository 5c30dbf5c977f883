"""What may be said to a call from outside, in every state it can be in."""

import pytest
from msgspec.structs import replace
from tests.domain.fold import CALL, CALL_2, OUTPUT, RESPONSE, STEP, STEP_DONE, R, begun, fold

from treadle.domain.answers import approval_of, denial_of, output_of
from treadle.domain.events import (
    RunCancelled,
    RunCancelling,
    RunRequiresAction,
    StepCompleted,
    ToolApproved,
    ToolOutputRecorded,
)
from treadle.domain.items import FunctionCallOutput
from treadle.domain.state import ThreadState
from treadle.domain.usage import Usage
from treadle.errors import Conflict, RunNotInProgress, UnknownToolCall

WAITS = RunRequiresAction(run_id=R, call_ids=("c1", "c2"))


def waiting(*events: object) -> ThreadState:
    """The call c1 waits for an approval, c2 for an output."""

    calls = [replace(CALL, awaits="approval"), replace(CALL_2, awaits="output")]
    return fold([*begun(), STEP, *calls, RESPONSE, WAITS, *events])  # type: ignore[list-item]


def test_what_waits_can_be_answered() -> None:
    state = waiting()
    output = output_of(state, "c2", "two")
    assert output is not None
    assert (output.item.output, output.item.is_error, output.name) == ("two", False, "look")
    approval = approval_of(state, "c1")
    assert approval == ToolApproved(run_id=R, call_id="c1")
    denial = denial_of(state, "c1", "no")
    assert denial is not None
    assert (denial.item.output, denial.item.is_error) == ("The call was denied: no", True)
    plain = denial_of(state, "c1")
    assert plain is not None
    assert plain.item.output == "The call was denied."
    by_hand = output_of(state, "c1", "done by hand", is_error=False)
    assert by_hand is not None


def test_the_same_again_has_no_effect_and_another_is_a_conflict() -> None:
    output = output_of(waiting(), "c2", "two")
    state = waiting(output)
    assert output_of(state, "c2", "two") is None
    for other in (("three", False), ("two", True)):
        with pytest.raises(Conflict, match="already answered: 'two'"):
            output_of(state, "c2", other[0], is_error=other[1])
    approved = waiting(approval_of(waiting(), "c1"))
    assert approval_of(approved, "c1") is None
    with pytest.raises(Conflict, match="already approved"):
        denial_of(approved, "c1")
    with pytest.raises(Conflict, match="already approved"):
        output_of(approved, "c1", "x")
    denied = waiting(denial_of(waiting(), "c1", "no"))
    assert denial_of(denied, "c1", "no") is None
    with pytest.raises(Conflict):
        denial_of(denied, "c1", "other")
    with pytest.raises(Conflict, match="already answered: 'The call was denied: no'"):
        approval_of(denied, "c1")


def test_an_approval_is_repeated_without_effect_however_late() -> None:
    approved = waiting(approval_of(waiting(), "c1"))
    one, two = FunctionCallOutput("c1", "one", "fco_1"), FunctionCallOutput("c2", "two", "fco_2")
    done = ToolOutputRecorded(run_id=R, item=one, name="remove")
    answered = [ToolApproved(run_id=R, call_id="c1"), done]
    other = ToolOutputRecorded(run_id=R, item=two, name="look")
    closed = [other, StepCompleted(run_id=R, step=1)]
    ended = [RunCancelled(run_id=R, usage=Usage())]
    for state in (
        approved, waiting(*answered), waiting(*answered, *closed),
        waiting(*answered, *closed, *ended),
    ):  # fmt: skip
        assert approval_of(state, "c1") is None
        with pytest.raises(Conflict, match="already approved"):
            denial_of(state, "c1")


def test_an_external_call_is_not_approved() -> None:
    with pytest.raises(Conflict, match="submit the output"):
        approval_of(waiting(), "c2")


def test_calls_that_take_no_answer() -> None:
    with pytest.raises(UnknownToolCall, match="no open call"):
        output_of(waiting(), "c9", "x")
    with pytest.raises(UnknownToolCall, match="no open call"):
        output_of(fold(begun()), "c1", "x")
    local = fold([*begun(), STEP, CALL])
    with pytest.raises(UnknownToolCall, match="takes no answer"):
        output_of(local, "c1", "x")


def test_no_run_waits() -> None:
    with pytest.raises(RunNotInProgress):
        output_of(waiting(RunCancelling(run_id=R)), "c1", "x")
    for state in (ThreadState(), waiting(RunCancelling(run_id=R))):
        with pytest.raises(UnknownToolCall, match="no call 'c9'"):
            output_of(state, "c9", "x")


def test_a_call_of_a_closed_step_keeps_its_output() -> None:
    closed = fold([*begun(), STEP, CALL, OUTPUT, RESPONSE, STEP_DONE])
    assert output_of(closed, "c1", "one") is None
    with pytest.raises(Conflict):
        output_of(closed, "c1", "two")
