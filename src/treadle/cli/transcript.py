"""A run as text for a terminal: words as they arrive, a line for each action."""

from collections.abc import Callable
from typing import assert_never

import click

from treadle.cli.hosted import hosted_label, sources_of
from treadle.cli.markdown import BOLD, DIM, Markdown
from treadle.cli.open_calls import OpenCalls, as_written, in_full
from treadle.cli.plain_text import clean, one_line
from treadle.cli.wrap import Style, Wrapper
from treadle.domain.events import (
    AgentEvent,
    CitationAdded,
    ContextCompacted,
    Event,
    EventRemoved,
    FieldDelta,
    HandedOff,
    HistoryReplaced,
    HostedCallProgress,
    ItemRemoved,
    ItemsAdded,
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
    RequestAdapted,
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
    ScheduleCancelled,
    ScheduleCreated,
    ScheduleFired,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    TerminalEvent,
    TextDelta,
    ThreadUpdated,
    ToolApproved,
    ToolArgumentsDelta,
    ToolCallRequested,
    ToolCallStarted,
    ToolChoiceIgnored,
    ToolDelegated,
    ToolOutputRecorded,
    ToolProgress,
    ToolStarted,
    ToUserDelta,
    UnknownEvent,
    UsageAdded,
)
from treadle.domain.items import FunctionCall, HostedCall

Write = Callable[[str], None]


def duration(seconds: float) -> str:
    """Returns a duration for a person, such as `250 ms` or `5.4 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


_DONE: dict[MemoryOperation, str] = {
    "create": " created",
    "delete": " deleted",
    "configure": " configured",
    "undo": ", a change undone",
}


class Transcript:
    """Writes the events of runs through `write`, to a terminal of `width` columns.

    With `rich`, which is for terminals, Markdown is rendered and words are wrapped at spaces.
    Otherwise texts are written as they are.

    Text of models and tools is printed without control characters, so that it cannot move the
    cursor or change the terminal. The `to_user` text of a call is printed as a line before the
    call. If several calls are written at the same time, the first one is printed as it grows, the
    others when they are complete.
    """

    def __init__(
        self, write: Write, width: int = 100, *, echo: bool = False, rich: bool = False
    ) -> None:
        self.write = write
        self.width = width
        self.typed: set[str] = set()
        """The runs whose messages were typed here, and stand on the screen already."""
        self._echo = echo
        self._rich = rich
        self._mid_line = False
        self._markdown: Markdown | None = None  # of the text that is being written
        self._thought: Wrapper | None = None
        self._voice = ""
        self._speaking = ""
        self._streamed: set[str] = set()
        self._calls = OpenCalls()
        self._jobs: dict[str, str] = {}
        self._hosted: set[str] = set()
        self._written: dict[str, int] = {}  # how much of the code of a hosted call was shown

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
            case ToolProgress() | HostedCallProgress() | ProviderItemAdded():
                self._progress(event)
            case RateLimitHit() | Retrying() | RequestAdapted() | ToolChoiceIgnored():
                self._request(event)
            case ToolDelegated() | HandedOff() | AgentEvent() | JobDelegated():
                self._other_agent(event)
            case JobStarted() | JobSettled():
                self._job(event)
            case MemoryUpdated() | ContextCompacted() | EventRemoved() | UnknownEvent():
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
                | CitationAdded()
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
                | ItemRemoved()
                | ThreadUpdated()
                | ItemsAdded()
                | ScheduleCreated()
                | ScheduleCancelled()
                | ScheduleFired()
            ):
                pass
            case _ as unreachable:
                assert_never(unreachable)

    def _message(self, event: MessageAdded) -> None:
        """Shows a whole message, unless its text was streamed or typed here."""
        if event.origin != "model":
            self.end_line()
            is_new = event.origin == "user" and event.run_id not in self.typed
            if self._echo or event.origin == "schedule" or is_new:
                self._wrapped(f"> {clean(event.item.text)}", BOLD, "  ")
        elif event.item.id not in self._streamed:
            self._text(event.item.text or event.item.refusal, event.item.id)
        self._streamed.discard(event.item.id)
        self.end_line()
        for source in sources_of(event.item):
            self.line(f"  {source}")

    def _progress(self, event: ToolProgress | HostedCallProgress | ProviderItemAdded) -> None:
        match event:
            case ToolProgress():
                label = self._calls.label(event.call_id, event.name)
                self.line(f"  {label}: {one_line(event.message)}")
            case HostedCallProgress():
                self._hosted_begun(event.call, is_partial=event.is_partial)
            case ProviderItemAdded():
                self._hosted_ended(event.item.call)
            case _ as unreachable:
                assert_never(unreachable)

    def _hosted_begun(self, call: HostedCall, *, is_partial: bool = False) -> None:
        """Shows a call of a hosted tool once, as soon as it is known what it is about.

        Code is shown line by line while the model writes it.
        """
        if is_partial or call.call_id in self._written:
            self._hosted_lines(call, is_partial=is_partial)
        elif call.arguments and call.call_id not in self._hosted:
            self._hosted.add(call.call_id)
            self.line(f"● {hosted_label(call)} {one_line(call.arguments)}")

    def _hosted_lines(self, call: HostedCall, *, is_partial: bool) -> None:
        """Shows the lines of code that were not shown yet."""
        if call.call_id not in self._hosted:
            self._hosted.add(call.call_id)
            self.line(f"● {hosted_label(call)}")
        start = self._written.pop(call.call_id, 0)
        for text in call.arguments[start:].splitlines():
            self.line(f"  {clean(text)}".rstrip())
        if is_partial:
            self._written[call.call_id] = len(call.arguments)

    def _hosted_ended(self, call: HostedCall | None) -> None:
        """Shows the result of a call of a hosted tool; its call before, if that was not shown."""
        if call is None:
            return
        self._hosted_begun(call)
        if call.status == "in_progress":
            return
        self._hosted.discard(call.call_id)
        mark = "✗" if call.status == "failed" else "✓"
        count = len(call.sources)
        found = f"{count} {'source' if count == 1 else 'sources'}" if count else ""
        self.line(f"{mark} {hosted_label(call)}  {found or one_line(call.output)}".rstrip())

    def _said(self, event: ToUserDelta) -> None:
        if self._speaking in {"", event.item_id}:
            self._speaking = event.item_id
            self._text(event.delta, event.item_id)

    def _interrupted(self, event: StepInterrupted) -> None:
        self._speaking = ""
        if self._is_mid_line:
            self.notice(f"({event.reason}; discard the unfinished text above.)")

    def _requested(self, event: ToolCallRequested) -> None:
        """Shows a whole call, after its `to_user` text unless that was streamed."""
        if self._speaking == event.item.id:
            self._speaking = ""
        elif event.said:
            self._text(event.said, event.item.id)
        self.line(f"● {self._calls.begin(event.item, event.to_user)}")

    def question(self, call: FunctionCall) -> None:
        """Writes a call that a person is asked about, with all of its arguments."""
        self.end_line()
        # Not wrapped: a person must see the arguments as they are, with all their spaces.
        self.write(click.style(clean("? " + "\n".join(in_full(call))), dim=True) + "\n")

    def _ended(self, event: TerminalEvent) -> None:
        match event:
            case RunIncomplete():
                self.notice(f"(The run stopped early: {event.stop_reason}.)")
            case RunCancelled():
                self.notice("(Cancelled.)")
            case RunExpired():
                self.notice("(The run expired: it was not answered in time.)")
            case RunFailed():
                if self._echo:  # without echo, the caller prints the error itself
                    self.notice(f"(Failed: {one_line(event.message)})")
                self.end_line()
            case RunCompleted():
                self.end_line()
            case _ as unreachable:
                assert_never(unreachable)

    def _job(self, event: JobStarted | JobSettled) -> None:
        """Shows the start or the end of a job."""
        if isinstance(event, JobStarted):
            self._jobs[event.job_id] = event.name
            again = "" if event.attempt == 1 else f" (attempt {event.attempt})"
            where = " in the background" if event.background and not event.parent else ""
            self.line(f"◇ {one_line(event.name)}{where}{again}")
            return
        name = self._jobs.pop(event.job_id, "job")
        mark = "✓" if event.outcome == "completed" else "✗"
        # A job that was interrupted with its process has no duration.
        took = f" ({duration(event.seconds)})" if event.seconds else ""
        result = one_line(event.output or event.message)
        self.line(f"{mark} {one_line(name)} {event.outcome}{took}  {result}".rstrip())

    def _remembered(
        self, event: MemoryUpdated | ContextCompacted | EventRemoved | UnknownEvent
    ) -> None:
        """Shows a change of a memory block, a compaction, or the place of what cannot be shown."""
        if isinstance(event, UnknownEvent):
            what = one_line(event.original_type)
            self.line(f"(Event {event.seq} has the type {what}; it needs a newer treadle.)")
            return
        if isinstance(event, EventRemoved):
            self.line("(Removed.)")
            return
        if isinstance(event, ContextCompacted):
            tokens = f"{event.tokens_before:,} → {event.tokens_after:,} tokens"
            self.line(f"(The context was compacted: {event.left_out} items removed, {tokens}.)")
            return
        diff = f": {one_line(event.diff)}" if event.diff else ""
        self.line(f"✎ {one_line(event.label)}{_DONE.get(event.operation, '')}{diff}")

    def _other_agent(self, event: ToolDelegated | HandedOff | AgentEvent | JobDelegated) -> None:
        """Shows the start, the calls and the messages of another agent."""
        match event:
            case HandedOff():
                self.line(f"({event.agent} continues.)")
            case ToolDelegated() | JobDelegated():
                if self._echo:  # a later reader may want to read that thread too
                    self.line(f"  {event.agent} works on {event.thread_id}")
            case AgentEvent(event=ToolCallRequested() as requested):
                written = as_written(requested.item, requested.to_user)
                self.line(f"  {event.agent} ● {written}")
            case AgentEvent(event=MessageAdded(origin="model") as said):
                self.line(f"  {event.agent}: {one_line(said.item.text)}")
            case AgentEvent():
                pass  # the output of the call contains the rest
            case _ as unreachable:
                assert_never(unreachable)

    def line(self, text: str) -> None:
        """Writes a separate dim line, cut to the width of the terminal."""
        self.notice(self._fitting(text))

    def notice(self, text: str) -> None:
        """Writes a separate dim text in full."""
        self.end_line()
        self._wrapped(clean(text), DIM, "")

    def _wrapped(self, text: str, style: Style, indent: str) -> None:
        if not self._rich:
            self.write(click.style(text, **dict.fromkeys(style, True)) + "\n")
            return
        out = Wrapper(self.write, self.width)
        for line in text.split("\n"):
            out.indent(indent)
            out.add(line, style)
            if out.is_mid_line:
                out.end_line()
            else:
                out.blank_line()

    def _fitting(self, text: str) -> str:
        return text if len(text) < self.width else text[: self.width - 2] + "…"

    @property
    def _is_mid_line(self) -> bool:
        if self._markdown is not None:
            return self._markdown.is_mid_line
        if self._thought is not None:
            return self._thought.is_mid_line
        return self._mid_line

    def end_line(self) -> None:
        """Starts a new line unless the last one is complete, and ends the text that was written."""
        if self._markdown is not None:
            self._markdown.close()
        elif self._thought is not None:
            self._thought.end_line()
        elif self._mid_line:
            self.write("\n")
        self._markdown = self._thought = None
        self._mid_line = False

    def _text(self, text: str, voice: str, *, dim: bool = False) -> None:
        """Continues the text of `voice`; another voice starts on a new line."""
        if voice != self._voice:
            self.end_line()
            self._voice = voice
        text = clean(text)
        if not self._rich:
            self.write(click.style(text, dim=True) if dim else text)
            self._mid_line = not text.endswith("\n")
        elif dim:
            self._think(text)
        else:
            if self._markdown is None:
                self._markdown = Markdown(self.write, self.width)
            self._markdown.add(text)

    def _think(self, text: str) -> None:
        """Writes reasoning, which is not rendered."""
        if self._thought is None:
            self._thought = Wrapper(self.write, self.width)
        *lines, rest = text.split("\n")
        for line in lines:
            self._thought.add(line, DIM)
            self._thought.end_line()
        self._thought.add(rest, DIM)

    def _output(self, event: ToolOutputRecorded) -> None:
        call_id = event.item.call_id
        mark = "✗" if event.item.is_error else "✓"
        # An interrupted call has no duration.
        took = f" ({duration(event.seconds)})" if event.seconds else ""
        label = self._calls.label(call_id, event.name)
        self.line(f"{mark} {label}{took}  {one_line(event.item.text)}")
        self._calls.end(call_id)

    def _request(self, event: RateLimitHit | Retrying | RequestAdapted | ToolChoiceIgnored) -> None:
        match event:
            case ToolChoiceIgnored():
                what = f"the tool {event.tool}" if event.tool else "a tool"
                self.line(f"(The model had to call {what} and did not.)")
            case RequestAdapted():
                for item in event.items:
                    self.line(f"({one_line(item.text)})")
            case _:
                self._retry(event)

    def _retry(self, event: RateLimitHit | Retrying) -> None:
        what = "the provider asks to wait" if isinstance(event, RateLimitHit) else event.message
        left = event.retries_remaining
        retries = f"{left} {'retry' if left == 1 else 'retries'} left"
        self.line(f"(Retrying in {event.delay:.1f} s, {retries}: {one_line(what)})")
