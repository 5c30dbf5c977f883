"""Approvals that agents wait for which work for a run."""

from treadle.domain.events import ToolCallRequested
from treadle.domain.items import FunctionCall
from treadle.domain.open_step import Step
from treadle.domain.state import ThreadState
from treadle.errors import ThreadNotFound
from treadle.runtime.view import RuntimeView
from treadle.server.ag_ui.interrupts import interrupt_of
from treadle.server.ag_ui.run_frames import Json


async def interrupts_of_agents(runtime: RuntimeView, state: ThreadState) -> list[Json]:
    """Returns the approvals as interrupts, those of agents below other agents included.

    A run that waits in this way is in progress itself, and its events do not tell a reader that
    comes later.
    """
    found: list[Json] = []
    for id in state.step.delegated if state.step is not None else ():
        try:
            theirs = await (await runtime.connect(id)).state()
        except ThreadNotFound:
            continue
        run, step = theirs.active_run, theirs.step
        if run is None or step is None:
            continue
        if run.status == "requires_action":
            found += [
                interrupt_of(_request(step, call), run.expires_at, id)
                for call in step.awaited
                if step.awaits_of(call.call_id) == "approval"
            ]
        found += await interrupts_of_agents(runtime, theirs)
    return found


def _request(step: Step, call: FunctionCall) -> ToolCallRequested:
    known = next((one for one in step.editable if one.call_id == call.call_id), None)
    if known is None:
        return ToolCallRequested(run_id="", item=call)
    return ToolCallRequested(
        run_id="", item=call, to_user=known.to_user, parameters=known.parameters
    )
