"""What the fold of a thread requires of the state: the run and the step of an event."""

from treadle.domain.events import RecordedEvent
from treadle.domain.open_step import Step
from treadle.domain.state import Run, ThreadState
from treadle.errors import InvalidTransition


def require_active_run(state: ThreadState, event: RecordedEvent) -> Run:
    """Returns the run of the event; raises `InvalidTransition` if it is not in progress."""
    run = state.active_run
    if run is None or run.id != event.run_id:
        raise InvalidTransition(f"Run {event.run_id} is not in progress.")
    return run


def require_open_step(state: ThreadState, event: RecordedEvent) -> Step:
    """Returns the open step of the run of the event; raises `InvalidTransition` without one."""
    require_active_run(state, event)
    if state.step is None:
        raise InvalidTransition(f"{type(event).__name__} needs an open step.")
    return state.step


def require_pending(step: Step, call_id: str) -> None:
    """Raises `InvalidTransition` unless the step has the call, without an output."""
    if step.call(call_id) is None or step.is_answered(call_id):
        raise InvalidTransition(f"Call {call_id} is not open.")
