"""A run as a person reads it in a terminal: text as it comes, a line for each thing done."""

from collections.abc import Callable
from typing import assert_never

import click

from treadle.cli.open_calls import OpenCalls, as_written
from treadle.cli.plain_text import clean, one_line
from treadle.domain.events import (
    AgentEvent,
    ContextCompacted,
    Event,
    FieldDelta,
    HandedOff,
    HistoryReplaced,
    JobDelegated,
    JobSettled,
    JobStarted,
    MemoryOperation,
    MemoryTended,
    MemoryUpdated,
    MessageAdded,
    MessagePinned,
    MessageQueued,
    PassageAdded,
    PassageRemoved,
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
    ToUserDelta,
    UsageAdded,
)
from treadle.domain.items import FunctionCall

Write = Callable[[str], None]
_DONE: dict[MemoryOperation, str] = {
    "create": " created",
    "delete": " deleted",
    "configure": " configured",
    "undo": ", a change undone",
}


class Transcript:
    """Writes the events of runs through `write`, to a terminal of `width` columns.

    What comes from models and tools is printed without control characters, so that it cannot move
    the cursor or change the terminal. What a call says to the user is a line of text before the
    call; where several calls are written at the same time, the line belongs to the first, and the
    others are read when they are complete.
    """

    def __init__(self, write: Write, width: int = 100, *, echo: bool = False) -> None:
        self._write = write
        self._width = width
        self._echo = echo
        self._mid_line = False
        self._voice = ""
        self._speaking = ""
        self._streamed: set[str] = set()
        self._calls = OpenCalls()
        self._jobs: dict[str, str] = {}

    def show(self, event: Event) -> None:
        """Shows one event."""
        match event:
            case TextDelta() | RefusalDelta():
                self._streamed.add(event.item_id)
                self._text(event.delta, event.item_id)
            case ReasoningDelta():
                self._text(event.delta, event.item_id, dim=True)
            case ToUserDelta():
                self._said(event)
            case MessageAdded():
                self._message(event)
            case ToolCallRequested():
                self._requested(event)
            case ToolOutputRecorded():
                self._output(event)
            case ToolProgress():
                label = self._calls.label(event.call_id, event.name)
                self.line(f"  {label}: {one_line(event.message)}")
            case RateLimitHit() | Retrying():
                self._retry(event)
            case ToolDelegated() | HandedOff() | AgentEvent() | JobDelegated():
                self._other_agent(event)
            case JobStarted() | JobSettled():
                self._job(event)
            case MemoryUpdated() | ContextCompacted():
                self._remembered(event)
            case StepInterrupted():
                self._interrupted(event)
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
                | FieldDelta()
                | ToolApproved()
                | ToolStarted()
                | RetriesExhausted()
                | QuotaHit()
                | ResponseCompleted()
                | UsageAdded()
                | StepCompleted()
                | HistoryReplaced()
                | RunContinued()
                | MessagePinned()
                | MemoryTended()
                | PassageAdded()
                | PassageRemoved()
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
            self._text(event.item.text or event.item.refusal, event.item.id)
        self._streamed.discard(event.item.id)
        self.end_line()

    def _said(self, event: ToUserDelta) -> None:
        if self._speaking in {"", event.item_id}:
            self._speaking = event.item_id
            self._text(event.delta, event.item_id)

    def _interrupted(self, event: StepInterrupted) -> None:
        self._speaking = ""
        if self._mid_line:
            self.notice(f"({event.reason}; discard the unfinished text above.)")

    def _requested(self, event: ToolCallRequested) -> None:
        """A call as a whole, after what it says to the user, unless that was shown as it came."""
        if self._speaking == event.item.id:
            self._speaking = ""
        elif event.said:
            self._text(event.said, event.item.id)
        self.line(f"● {self._calls.begin(event.item, event.to_user)}")

    def written(self, call: FunctionCall) -> str:
        """Returns a call as it was shown when it was requested."""
        return self._calls.written(call)

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

    def _job(self, event: JobStarted | JobSettled) -> None:
        """That a job began, and how it ended."""
        if isinstance(event, JobStarted):
            self._jobs[event.job_id] = event.name
            again = "" if event.attempt == 1 else f" (attempt {event.attempt})"
            where = " in the background" if event.background and not event.parent else ""
            self.line(f"◇ {one_line(event.name)}{where}{again}")
            return
        name = self._jobs.pop(event.job_id, "job")
        mark = "✓" if event.outcome == "completed" else "✗"
        # One that was cut off with its process has no time of its own.
        took = f" ({event.seconds:.1f} s)" if event.seconds else ""
        told = one_line(event.output or event.message)
        self.line(f"{mark} {one_line(name)} {event.outcome}{took}  {told}".rstrip())

    def _remembered(self, event: MemoryUpdated | ContextCompacted) -> None:
        """What changed in a memory block, and that what the model reads became less."""
        if isinstance(event, ContextCompacted):
            tokens = f"{event.tokens_before:,} → {event.tokens_after:,} tokens"
            self.line(f"(The context was compacted: {event.left_out} items left it, {tokens}.)")
            return
        diff = f": {one_line(event.diff)}" if event.diff else ""
        self.line(f"✎ {one_line(event.label)}{_DONE.get(event.operation, '')}{diff}")

    def _other_agent(self, event: ToolDelegated | HandedOff | AgentEvent | JobDelegated) -> None:
        """That another agent works, and of what it does: its calls, and what it says."""
        match event:
            case HandedOff():
                self.line(f"({event.agent} goes on.)")
            case ToolDelegated() | JobDelegated():
                if self._echo:  # whoever reads it later may want to read that thread too
                    self.line(f"  {event.agent} works on {event.thread_id}")
            case AgentEvent(event=ToolCallRequested() as requested):
                written = as_written(requested.item, requested.to_user)
                self.line(f"  {event.agent} ● {written}")
            case AgentEvent(event=MessageAdded(origin="model") as said):
                self.line(f"  {event.agent}: {one_line(said.item.text)}")
            case AgentEvent():
                pass  # the output of the call tells the rest
            case _ as unreachable:
                assert_never(unreachable)

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

    def _text(self, text: str, voice: str, *, dim: bool = False) -> None:
        """Goes on with the text of `voice`; another one begins on a line of its own."""
        if voice != self._voice:
            self.end_line()
            self._voice = voice
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
