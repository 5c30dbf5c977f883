"""The parts of a run, for protocols in which a client is asked by the end of an answer."""

from treadle.domain.events import (
    DurableEvent,
    RunRequiresAction,
    StepStarted,
    ToolApproved,
    ToolCallRequested,
    ToolOutputRecorded,
)
from treadle.tools.output_type import OUTPUT_TOOL


class RunParts:
    """Tells at which events of a run only a client can continue it.

    `run.requires_action` comes as soon as the model has asked; the agent may have calls of its own
    at work then, whose outputs belong to the same part.
    """

    def __init__(self) -> None:
        self._at_work: set[str] = set()
        self._awaited: set[str] = set()

    def feed(self, event: DurableEvent) -> bool:
        """Takes the next event of the run; returns whether a part ends with it."""
        match event:
            case ToolCallRequested() if event.awaits is None and event.item.name != OUTPUT_TOOL:
                self._at_work.add(event.item.call_id)
            case ToolApproved():
                self._awaited.discard(event.call_id)
                self._at_work.add(event.call_id)
            case ToolOutputRecorded():
                self._awaited.discard(event.item.call_id)
                self._at_work.discard(event.item.call_id)
            case RunRequiresAction():
                self._awaited.update(event.call_ids)
            case StepStarted():
                self._at_work.clear()
            case _:
                return False
        if not self._awaited or self._at_work:
            return False
        self._awaited.clear()
        return True
