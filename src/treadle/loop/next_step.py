"""What the loop does next: a pure function of the thread's state and the agent.

All the policy of a run is in `next_step`; the loop in `drive.py` only does what it returns.
"""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.events import HandedOff, MessageAdded
from treadle.domain.rules import due_tools, missing_tools
from treadle.domain.state import Run, ThreadState, can_go_on
from treadle.errors import JobFailed, OutputInvalid, OutputRefused, RuleBroken, TreadleError
from treadle.loop.definition import AgentDefinition, Deps, Out, hash_of, output_tool_of
from treadle.loop.outcome import (
    LAST_WORD,
    End,
    final_answer,
    find_end,
    refusal_of,
    run_of,
    terminal_output,
)
from treadle.loop.output_validators import Verdict
from treadle.loop.steering import entering_messages
from treadle.tools.output_type import OUTPUT_TOOL


class Cancel(Struct, frozen=True):
    """The run was cancelled, and ends."""


class Fail(Struct, frozen=True):
    """The run fails with `error`."""

    error: TreadleError


class Resume(Struct, frozen=True):
    """The open step continues: an earlier process left it, or a reply came from outside."""


class Pause(Struct, frozen=True):
    """The open step waits for a reply from outside; until then the run is not driven."""


class Settle(Struct, frozen=True):
    """The run is at a safe point: hooks may look at the last step, and change the history."""


class HandOff(Struct, frozen=True):
    """As `Settle`; then another agent takes over, which is recorded with `event`."""

    event: HandedOff


class Enter(Struct, frozen=True):
    """Messages that waited for the safe point enter the history."""

    messages: Sequence[MessageAdded]


class Ask(Struct, frozen=True):
    """The model is asked for the next response."""


class Wait(Struct, frozen=True):
    """The run would end, and has open jobs: what they bring may continue it."""


class Validate(Struct, frozen=True):
    """The output validators are asked about the `output` of step `step`."""

    step: int
    output: object


class Correct(Struct, frozen=True):
    """The answer of the model must not stand: a message with `text` asks for another one."""

    text: str


NextStep = (
    Cancel
    | Fail
    | Resume
    | Pause
    | Settle
    | HandOff
    | Enter
    | Ask
    | Wait
    | Validate
    | Correct
    | End
)


def next_step(
    state: ThreadState,
    agent: AgentDefinition[Deps, Out],
    *,
    is_settled: bool,
    has_open_jobs: bool,
    verdict: Verdict | None = None,
) -> NextStep:
    """Returns what the run in progress does next, with `agent` at work on it.

    Three facts belong to the process and not to the state: whether the safe point was settled since
    the last step or correction (`is_settled`), whether a job of the run `has_open_jobs`, and the
    last `verdict` of the output validators.
    """
    interruption = find_interruption(run_of(state))
    if interruption is not None:
        return interruption
    if state.step is not None:
        return Resume() if can_go_on(state) else Pause()
    if not is_settled:
        # Before hooks run: a message that one of them adds must not undo the handoff.
        handed = find_handoff(state, agent)
        return Settle() if handed is None else HandOff(handed)
    if entering := entering_messages(state, agent):
        return Enter(entering)
    end = find_end(state, agent)
    if end is None:
        return Ask()
    if has_open_jobs:
        return Wait()
    return _checked_answer(state, agent, verdict) if end == LAST_WORD else end


def find_interruption(run: Run) -> Cancel | Fail | None:
    """Returns how a run ends that was cancelled, or has a failed job; both may interrupt a step."""
    if run.status == "cancelling":
        return Cancel()
    if run.job_failure:
        return Fail(JobFailed(f"A job of the run failed: {run.job_failure}"))
    return None


def find_handoff(state: ThreadState, agent: AgentDefinition[Deps, Out]) -> HandedOff | None:
    """Returns the event by which the step just closed hands the run to another agent, if any."""
    run = run_of(state)
    step = run.last_step
    if step is None or not agent.handoffs or terminal_output(step, agent):
        return None
    for call in step.calls:
        tool, output = agent.tools.get(call.name), step.output(call.call_id)
        if tool is not None and tool.handoff and output is not None and not output.is_error:
            other = agent.handoffs[tool.handoff]
            return HandedOff(run_id=run.id, agent=other.name, agent_hash=hash_of(other))
    return None


def _checked_answer(
    state: ThreadState, agent: AgentDefinition[Deps, Out], verdict: Verdict | None
) -> Validate | Correct | Fail | End:
    """Ends the run, if the last answer may stand.

    It must not while a required tool was not called, if it is not valid structured output, or if a
    validator asks for another one.
    """
    run = run_of(state)
    is_last_try = run.corrections >= agent.max_corrections
    due = due_tools(agent.rules, state)
    missing = [*missing_tools(agent.rules, run), *([" or ".join(due)] if due else [])]
    if missing:
        names = " and ".join(missing)
        if is_last_try:
            return Fail(RuleBroken(f"The model answered without calling {names} first."))
        return Correct(f"Before you answer, call {names}.")
    if run.last_step is None:
        return LAST_WORD
    problem, kind = "", "text"
    answer = final_answer(state, agent)
    value: object = answer.text
    if (output := agent.output) is not None:
        kind = output.schema.name
        if refusal := refusal_of(run.last_step):
            return Fail(OutputRefused(f"The model refused to answer: {refusal}"))
        try:
            value = agent.parse(answer.text, is_call=answer.is_call)
        except ValueError as error:
            problem = output.explain(error)
    if not problem:
        if not agent.output_validators:
            return LAST_WORD
        if verdict is None or verdict.step != run.steps:
            return Validate(run.steps, value)
        if not verdict.problem:
            return replace(LAST_WORD, output=verdict.output)
        problem = verdict.problem
    if is_last_try:
        return Fail(
            OutputInvalid(
                f"The output is not a valid {kind} after {run.corrections} corrections: {problem}"
            )
        )
    return Correct(f"Your answer is not valid: {problem}\n{_again(agent)}")


def _again(agent: AgentDefinition[Deps, Out]) -> str:
    if agent.output is None:
        return "Answer again."
    if output_tool_of(agent) is None:
        return "Answer again with corrected JSON only."
    again = f"Call {OUTPUT_TOOL} with the corrected answer"
    return f"{again}, or answer with a text." if agent.output.takes_text else f"{again}."
