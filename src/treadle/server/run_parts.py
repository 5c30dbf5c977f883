"""The parts of a run, for protocols in which a client is asked by the end of an answer."""

from collections.abc import Set

from treadle.domain.events import (
    Awaited,
    DurableEvent,
    RunRequiresAction,
    StepStarted,
    ToolApproved,
    ToolCallRequested,
    ToolOutputRecorded,
)
from treadle.tools.output_type import OUTPUT_TOOL

ANSWERS: Set[Awaited] = frozenset({"output", "approval"})


class RunParts:
    """Tells at which events of a run only a client can continue it.

    `run.requires_action` comes as soon as the model has asked; the agent may have calls of its own
    at work then, whose outputs belong to the same part. `answers` are the kinds of answers that the
    client can give; a call that needs another one is at work until it has its output.

    `at_work` holds the ids of the calls of the step that the client cannot answer, and that have no
    output yet.
    """

    def __init__(self, answers: Set[Awaited] = ANSWERS) -> None:
        self.at_work: set[str] = set()
        self._answers = answers
        self._awaited: set[str] = set()

    def feed(self, event: DurableEvent) -> bool:
        """Takes the next event of the run; returns whether a part ends with it."""
        match event:
            case ToolCallRequested():
                if event.awaits not in self._answers and event.item.name != OUTPUT_TOOL:
                    self.at_work.add(event.item.call_id)
            case ToolApproved():
                self._awaited.discard(event.call_id)
                self.at_work.add(event.call_id)
            case ToolOutputRecorded():
                self._awaited.discard(event.item.call_id)
                self.at_work.discard(event.item.call_id)
            case RunRequiresAction():
                self._awaited.update(set(event.call_ids) - self.at_work)
            case StepStarted():
                self.at_work.clear()
            case _:
                return False
        if not self._awaited or self.at_work:
            return False
        self._awaited.clear()
        return True
