"""The answer of a run, made of its events."""

from typing import Any

from treadle.domain.events import (
    Event,
    HandedOff,
    MessageAdded,
    RunCompleted,
    RunStarted,
    ToolCallRequested,
)
from treadle.loop.definition import AgentDefinition, reachable_from
from treadle.server.waiting import json_of
from treadle.tools.output_type import OUTPUT_TOOL


class RunAnswer:
    """What the agent of a run, or the one to which it was handed over, has said last."""

    def __init__(self, agent: AgentDefinition[Any, Any]) -> None:
        self.text = ""
        self._agents = reachable_from(agent)
        self._agent = agent.name
        self._is_call = False

    def feed(self, event: Event) -> None:
        """Takes an event of the run."""
        match event:
            case RunStarted() | HandedOff():
                self._agent = event.agent
            case MessageAdded(origin="model"):
                self.text, self._is_call = event.item.text or event.item.refusal, False
            case ToolCallRequested() if event.item.name == OUTPUT_TOOL:
                self.text, self._is_call = event.item.arguments, True
            case RunCompleted() if event.output is not None:
                self.text, self._is_call = event.output.text, False
            case _:
                pass

    @property
    def output(self) -> object:
        """The answer as JSON values if the agent has a type for it, else None."""
        agent = self._agents.get(self._agent)
        if agent is None or agent.output is None:
            return None
        try:
            return json_of(agent.parse(self.text, is_call=self._is_call), self.text)
        except ValueError:
            return self.text
