"""The agents that work for a run, as subagents of AG-UI."""

from treadle.domain.events import (
    AgentEvent,
    RunCancelled,
    RunCompleted,
    RunExpired,
    RunFailed,
    RunIncomplete,
    TerminalEvent,
)
from treadle.server.ag_ui.run_frames import Json, RunFrames


class Subagents:
    """Shows when the agents that work for a run begin and end; each is named by its thread."""

    def __init__(self, frames: RunFrames) -> None:
        self._frames = frames
        self._open: dict[str, str] = {}  # the call for which each of them works
        self._ended: set[str] = set()

    @property
    def call_ids(self) -> set[str]:
        """The ids of the calls for which agents are at work."""
        return set(self._open.values())

    def begin(self, agent: str, thread_id: str, call_id: str, parent: str | None) -> None:
        """Shows an agent that begins; it is shown once, even if it works again after a crash."""
        if thread_id in self._open or thread_id in self._ended:
            return
        self._open[thread_id] = call_id
        self._frames.add(
            "SUBAGENT_STARTED",
            subagentRunId=thread_id,
            name=agent,
            parentToolCallId=call_id or None,
            parentSubagentRunId=parent,
        )

    def begin_of(self, event: AgentEvent, parent: str | None) -> None:
        """Shows the agent of an event."""
        self.begin(event.agent, event.thread_id, event.call_id, parent)

    def end(self, thread_id: str, event: TerminalEvent) -> None:
        """Shows how the run of an agent ended."""
        match event:
            case RunCompleted():
                self._close(thread_id)
            case RunFailed():
                self._fail(thread_id, event.message, event.code)
            case RunIncomplete():
                self._fail(thread_id, "The agent was stopped by a limit.", event.stop_reason)
            case RunCancelled():
                self._fail(thread_id, "The agent was cancelled.", "run_cancelled")
            case RunExpired():
                self._fail(thread_id, "The agent waited too long for an answer.", "run_expired")

    def end_call(self, call_id: str) -> None:
        """Ends the agents that worked for a call which has its output."""
        for thread_id in [one for one, call in self._open.items() if call == call_id]:
            self._close(thread_id)

    def suspend(self, thread_id: str, interrupts: list[str]) -> None:
        """Shows that an agent waits for the answers to interrupts."""
        if self._open.pop(thread_id, None) is not None:
            self._suspended(thread_id, interrupts)

    def end_all(self) -> None:
        """Leaves those that are still at work: this is the end of the stream."""
        for thread_id in list(self._open):
            del self._open[thread_id]
            self._suspended(thread_id, [])

    def _suspended(self, thread_id: str, interrupts: list[str]) -> None:
        self._ended.add(thread_id)
        outcome: Json = {"type": "suspended"}
        if interrupts:
            outcome["interruptIds"] = interrupts
        self._frames.add("SUBAGENT_FINISHED", subagentRunId=thread_id, outcome=outcome)

    def _close(self, thread_id: str) -> None:
        if self._open.pop(thread_id, None) is not None:
            self._ended.add(thread_id)
            self._frames.add(
                "SUBAGENT_FINISHED", subagentRunId=thread_id, outcome={"type": "success"}
            )

    def _fail(self, thread_id: str, message: str, code: str) -> None:
        if self._open.pop(thread_id, None) is not None:
            self._ended.add(thread_id)
            self._frames.add("SUBAGENT_ERROR", subagentRunId=thread_id, message=message, code=code)
