"""Why a run ends, and what it has to say then: pure functions of the state and the agent."""

from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.events import LimitScope, RunCompleted, RunIncomplete
from treadle.domain.items import FunctionCallOutput, Message
from treadle.domain.limits import NO_LIMITS
from treadle.domain.open_step import Step
from treadle.domain.state import Run, ThreadState
from treadle.domain.stop_reason import StopReason
from treadle.loop.definition import AgentDefinition, Deps, Out


class End(Struct, frozen=True):
    """The run ends; `scope` is what a limit was of."""

    reason: StopReason
    scope: LimitScope = "run"


LAST_WORD = End("end_turn")
"""The model has given its answer."""


def find_end(state: ThreadState, agent: AgentDefinition[Deps, Out]) -> End | None:
    """Returns why the run in progress ends before its next step, or None if it continues."""
    run = run_of(state)
    step = run.last_step
    if step is not None:
        end = _end_after(step, agent)
        if end is not None:
            return end
    if run.finishing and run.steps:
        return End("finish_requested")
    reason = agent.limits.reached(run.spent)
    if reason is not None:
        return End(reason)
    if agent.thread_limits is not NO_LIMITS:
        reason = agent.thread_limits.reached(state.spent)
    return End(reason, "thread") if reason is not None else None


def may_answer(state: ThreadState, agent: AgentDefinition[Deps, Out]) -> bool:
    """Returns whether the run in progress would continue after another message."""
    asked = replace(state, run=replace(run_of(state), last_step=None))
    return find_end(asked, agent) is None


def _end_after(step: Step, agent: AgentDefinition[Deps, Out]) -> End | None:
    match step.finish_reason:
        case "length":
            return End("max_output_tokens", "response")
        case "content_filter":
            return End("content_filter", "response")
        case "stop" | "pause" | None:
            pass
        case _ as unreachable:
            assert_never(unreachable)
    if not step.calls:
        # A response that was cut off by the end of a process, or paused by the provider, is not
        # the last word of the model: it is asked to continue.
        return None if step.finish_reason in {None, "pause"} else LAST_WORD
    return End("terminal_tool") if terminal_output(step, agent) else None


def end_event(state: ThreadState, end: End) -> RunCompleted | RunIncomplete:
    """Builds the terminal event of a run that ends by itself."""
    run, reason = run_of(state), end.reason
    if reason.startswith("max_") or reason == "content_filter":
        return RunIncomplete(run_id=run.id, stop_reason=reason, usage=run.usage, scope=end.scope)
    return RunCompleted(run_id=run.id, stop_reason=reason, usage=run.usage)


def terminal_output(step: Step, agent: AgentDefinition[Deps, Out]) -> FunctionCallOutput | None:
    """Returns the first output of a terminal tool that did not fail."""
    outputs = {output.call_id: output for output in step.outputs}
    for call in step.calls:
        if agent.ends_run(call.name) and not outputs[call.call_id].is_error:
            return outputs[call.call_id]
    return None


def final_text(state: ThreadState, agent: AgentDefinition[Deps, Out]) -> str:
    """Returns the text of the last response, or the output of a terminal tool."""
    step = run_of(state).last_step
    if step is None:
        return ""
    output = terminal_output(step, agent)
    return output.text if output is not None else step_text(step)


def step_text(step: Step) -> str:
    """Returns the text of all messages of a step, joined."""
    return "".join(item.text for item in step.ordered if isinstance(item, Message))


def refusal_of(step: Step) -> str:
    """Returns the text with which the model refused, or an empty one."""
    return "".join(item.refusal for item in step.ordered if isinstance(item, Message))


def run_of(state: ThreadState) -> Run:
    """Returns the run in progress, or the one that ended last; there must be one."""
    assert state.run is not None
    return state.run
