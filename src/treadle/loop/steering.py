"""Steering: messages that are sent into a run while it works. Pure functions of the state.

A message that steers waits in `ThreadState.steering` for the next safe point. Meanwhile it skips
the calls of the open step that have not begun, once the response is complete; then it enters the
history, and the run continues where it would have ended. What background jobs announce enters at
the same place. Whether a waiting thread resumes for a message is `can_go_on` of the state.
"""

from collections.abc import Collection, Sequence

from treadle.domain.events import MessageAdded
from treadle.domain.items import FunctionCall
from treadle.domain.state import ThreadState
from treadle.loop.definition import AgentDefinition, Deps, Out
from treadle.loop.outcome import End, find_end, may_answer, run_of

SKIPPED = "Skipped: the user sent a new message."
"""The output of a call that a message skipped."""


def entering_messages(
    state: ThreadState, agent: AgentDefinition[Deps, Out]
) -> Sequence[MessageAdded]:
    """Returns the events by which waiting messages enter the history at a safe point.

    An announcement enters only if the run may still answer it; else it waits for the next run.
    """
    entering = steering_messages(state)
    if state.announced and may_answer(state, agent):
        entering += announcements(state, run_of(state).id)
    return entering


def steering_messages(state: ThreadState) -> list[MessageAdded]:
    """Returns the events by which messages that steer enter the history.

    They enter even when the run is cancelled or fails: each was acknowledged.
    """
    if not state.steering:
        return []
    run_id = run_of(state).id
    return [
        MessageAdded(run_id=run_id, item=waiting.item, origin="user", by=waiting.by)
        for waiting in state.steering
    ]


def announcements(state: ThreadState, run_id: str) -> list[MessageAdded]:
    """Returns the events by which announcements of background jobs enter, in the run `run_id`."""
    return [MessageAdded(run_id=run_id, item=one.item, origin="job") for one in state.announced]


def expected_end(state: ThreadState, agent: AgentDefinition[Deps, Out]) -> End | None:
    """Returns why the run ends after its step, or None if a waiting message may continue it."""
    return None if state.steering else find_end(state, agent)


def skips(state: ThreadState, call: FunctionCall, at_work: Collection[str]) -> bool:
    """Returns whether a waiting message skips a call of the open step.

    `at_work` are the calls that began here. Such a call may still be in its hooks, before its
    `tool.started`, and gets its output from there. A call that is answered from outside is not
    skipped either: another system may be at work on it already.
    """
    step = state.step
    assert step is not None
    return (
        bool(state.steering)
        and call.call_id not in at_work
        and call.call_id not in step.started
        and step.awaits_of(call.call_id) != "output"
    )


def skipped_calls(state: ThreadState, at_work: Collection[str]) -> Sequence[FunctionCall]:
    """Returns the calls without an output that a waiting message skips; see `skips`."""
    step = state.step
    if step is None or not state.steering:
        return ()
    return [call for call in step.pending if skips(state, call, at_work)]
