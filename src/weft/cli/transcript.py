"""A run as a person reads it in a terminal: text as it comes, a line for each thing done."""

from collections.abc import Callable
from typing import assert_never

import click

from weft.cli.open_calls import OpenCalls, as_written
from weft.cli.plain_text import clean, one_line
from weft.events import (
    AgentEvent,
    Event,
    HandedOff,
    HistoryReplaced,
    MessageAdded,
    MessageQueued,
    ProviderItemAdded,
    QuotaHit,
    RateLimitHit,
    ReasoningAdded,
    ReasoningDelta,
    RefusalDelta,
    ResponseCompleted,
    RetriesExhausted,
    Retrying,
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunContinued,
    RunExpired,
    RunFailed,
    RunFinishing,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    TerminalEvent,
    TextDelta,
    ToolApproved,
    ToolArgumentsDelta,
    ToolCallRequested,
    ToolCallStarted,
    ToolDelegated,
    ToolOutputRecorded,
    ToolProgress,
    ToolStarted,
    UsageAdded,
)

Write = Callable[[str], None]


class Transcript:
    """Writes the events of runs through `write`, to a terminal of `width` columns.

    What comes from models and tools is printed without control characters, so that it cannot move
    the cursor or change the terminal.
    """

    def __init__(self, write: Write, width: int = 100, *, echo: bool = False) -> None:
        self._write = write
        self._width = width
        self._echo = echo
        self._mid_line = False
        self._dim = False
        self._streamed: set[str] = set()
        self._calls = OpenCalls()

    def show(self, event: Event) -> None:
        """Shows one event."""
        match event:
            case TextDelta() | RefusalDelta():
                self._streamed.add(event.item_id)
                self._text(event.delta, dim=False)
            case ReasoningDelta():
                self._text(event.delta, dim=True)
            case MessageAdded():
                self._message(event)
            case ToolCallRequested():
                self._calls.begin(event.item)
                self.line(f"● {as_written(event.item)}")
            case ToolOutputRecorded():
                self._output(event)
            case ToolProgress():
                label = self._calls.label(event.call_id, event.name)
                self.line(f"  {label}: {one_line(event.message)}")
            case RateLimitHit() | Retrying():
                self._retry(event)
            case HandedOff():
                self.line(f"({event.agent} goes on.)")
            case AgentEvent():
                self._agent(event)
            case StepInterrupted():
                if self._mid_line:
                    self.notice(f"({event.reason}; discard the unfinished text above.)")
            case RunCompleted() | RunFailed() | RunIncomplete() | RunCancelled() | RunExpired():
                self._ended(event)
            case (
                RunStarted()
                | RunQueued()
                | RunFinishing()
                | RunCancelling()
                | RunRequiresAction()
                | MessageQueued()
                | StepStarted()
                | ReasoningAdded()
                | ProviderItemAdded()
                | ToolCallStarted()
                | ToolArgumentsDelta()
                | ToolApproved()
                | ToolStarted()
                | ToolDelegated()
                | RetriesExhausted()
                | QuotaHit()
                | ResponseCompleted()
                | UsageAdded()
                | StepCompleted()
                | HistoryReplaced()
                | RunContinued()
            ):
                pass
            case _ as unreachable:
                assert_never(unreachable)

    def _message(self, event: MessageAdded) -> None:
        """A message as a whole, unless its text was shown as it came, or typed here."""
        if event.origin != "model":
            self.end_line()
            if self._echo:
                self._write(click.style(f"> {clean(event.item.text)}", bold=True) + "\n")
        elif event.item.id not in self._streamed:
            self._text(event.item.text or event.item.refusal, dim=False)
        self._streamed.discard(event.item.id)
        self.end_line()

    def _ended(self, event: TerminalEvent) -> None:
        match event:
            case RunIncomplete():
                self.notice(f"(The run stopped before its end: {event.stop_reason}.)")
            case RunCancelled():
                self.notice("(Cancelled.)")
            case RunExpired():
                self.notice("(The run expired: the answer it waited for took too long.)")
            case RunFailed():
                if self._echo:  # who runs it is told by the error itself
                    self.notice(f"(Failed: {one_line(event.message)})")
                self.end_line()
            case RunCompleted():
                self.end_line()
            case _ as unreachable:
                assert_never(unreachable)

    def _agent(self, event: AgentEvent) -> None:
        """What another agent does for a call: its calls, and what it says in the end."""
        match event.event:
            case ToolCallRequested():
                self.line(f"  {event.agent} ● {as_written(event.event.item)}")
            case MessageAdded() if event.event.origin == "model":
                self.line(f"  {event.agent}: {one_line(event.event.item.text)}")
            case _:
                pass  # the output of the call tells the rest

    def line(self, text: str) -> None:
        """Writes a dim line of its own, cut where the terminal ends."""
        self.notice(self._fitting(text))

    def notice(self, text: str) -> None:
        """Writes a dim text of its own, whole."""
        self.end_line()
        self._write(click.style(clean(text), dim=True) + "\n")

    def _fitting(self, text: str) -> str:
        return text if len(text) < self._width else text[: self._width - 2] + "…"

    def end_line(self) -> None:
        """Goes to a new line unless the last one is ended."""
        if self._mid_line:
            self._write("\n")
            self._mid_line = False

    def _text(self, text: str, *, dim: bool) -> None:
        if dim != self._dim:
            self.end_line()
            self._dim = dim
        text = clean(text)
        self._write(click.style(text, dim=True) if dim else text)
        self._mid_line = not text.endswith("\n")

    def _output(self, event: ToolOutputRecorded) -> None:
        call_id = event.item.call_id
        mark = "✗" if event.item.is_error else "✓"
        # A call that was cut off has no time of its own.
        took = f" ({event.seconds * 1000:.0f} ms)" if event.seconds else ""
        label = self._calls.label(call_id, event.name)
        self.line(f"{mark} {label}{took}  {one_line(event.item.text)}")
        self._calls.end(call_id)

    def _retry(self, event: RateLimitHit | Retrying) -> None:
        what = "The provider asks to wait" if isinstance(event, RateLimitHit) else event.message
        self.line(
            f"(Trying again in {event.delay:.1f} s, {event.retries_remaining} more retries: "
            f"{one_line(what)})"
        )
