"""Events of a run as events of the Responses API, and as the response they add up to."""

from collections.abc import Mapping
from typing import cast

from treadle.domain.events import (
    DurableEvent,
    Event,
    EventRemoved,
    MessageAdded,
    ProviderItemAdded,
    ReasoningAdded,
    ReasoningDelta,
    ResponseCompleted,
    RunCancelled,
    RunCompleted,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    StepInterrupted,
    StepStarted,
    TerminalEvent,
    TextDelta,
    ToolApproved,
    ToolCallRequested,
    ToolCallStarted,
    ToolOutputRecorded,
    ToUserDelta,
    UsageAdded,
)
from treadle.domain.items import FunctionCallOutput
from treadle.domain.options import RunOptions
from treadle.domain.usage import Usage
from treadle.journal.projection import RunRecord
from treadle.server.openai.errors import error_fields, failure_code
from treadle.server.problems import Problem
from treadle.server.responses.delta_cuts import DeltaCuts
from treadle.server.responses.response_frames import ResponseFrames
from treadle.server.responses.response_ids import response_id
from treadle.server.responses.response_object import ECHO, Json, response_object
from treadle.server.responses.response_output import ResponseOutput
from treadle.server.run_parts import RunParts
from treadle.server.sse import Framed
from treadle.server.stream import EndReason
from treadle.server.stream_ends import end_text

_TAKEN_BACK = (
    "The response of the model broke off: discard the item that is incomplete. The response "
    "continues; retrieve it, or continue its stream after the sequence_number of this error."
)


class ResponseMapper:
    """Makes the frames of a response, and the response itself, of the events of its run.

    `record` is the run, `part` the part of it that is shown, `after` the number of the last event
    that the reader has seen, and `cuts` are those of its texts that are known. It is fed with all
    events of the run, from its first one on; with or without deltas, it gives the same frames.
    """

    def __init__(
        self,
        record: RunRecord,
        part: int = 1,
        after: int = -1,
        cuts: DeltaCuts | None = None,
    ) -> None:
        self.id = response_id(record.id, part)
        self.part = part
        self._run_id = record.id
        self.is_over = False
        self._frames = ResponseFrames(after, cuts)
        self._output = ResponseOutput(self._frames)
        self._has_begun = self._is_known = self._is_deleted = False
        self._parts = 1  # the number of the part in which the events are
        self._ends = RunParts()
        self._agent = record.agent
        self._options = RunOptions()
        self._created_at = record.queued_at or record.started_at or 0.0
        self._completed_at: float | None = None
        self._status = "queued"
        self._error: Json | None = None
        self._incomplete = ""
        self._usage: Usage | None = None
        self._is_responding = self._is_taken_back = False
        self._returned: list[FunctionCallOutput] = []  # while the model still writes

    # What a stream asks for

    def frame(self, envelope: Framed) -> bytes:
        """Returns the frames of an event, and of those before it."""
        self.feed(cast("Event", envelope.event))
        return self._frames.take()

    def frames(self) -> bytes:
        """Returns the frames of the events so far."""
        return self._frames.take()

    def end(self, reason: EndReason, problem: Problem | None = None) -> bytes:
        """Returns the frames of a stream that ends before the response does."""
        code, message = str(reason), end_text(reason, "response", "retrieve the response")
        if problem is not None:
            fields = error_fields(problem)
            code, message = fields.code or reason, fields.message
        self._frames.add_notice(code, message)
        return self._frames.take()

    # What a response consists of

    @property
    def exists(self) -> bool:
        """Whether there is such a part of the run, and it was not deleted."""
        if self._is_deleted:
            return False
        # A run may wait in the inbox of another process, without an event.
        return self._has_begun or (self.part == 1 and not self._is_known)

    @property
    def response(self) -> Json:
        """The response so far."""
        echo = cast("Mapping[str, object]", self._options.metadata.get(ECHO) or {})
        if self.part > 1:
            echo = {**echo, "previous_response_id": response_id(self._run_id, self.part - 1)}
        return response_object(
            self.id,
            self._agent,
            echo,
            status=self._status,
            created_at=self._created_at,
            completed_at=self._completed_at,
            output=self._output.items,
            usage=self._usage,
            error=self._error,
            incomplete=self._incomplete,
        )

    @property
    def asked(self) -> Mapping[str, str]:
        """The ids of the calls that the client must answer, and of their items."""
        return self._output.asked if self._status == "completed" else {}

    def feed(self, event: Event) -> None:
        """Takes the next event of the run."""
        if self.is_over:
            return
        if type(event) is TextDelta:
            if self._has_begun:
                self._output.grow(event.item_id, event.delta, False)
            return
        if not isinstance(event, DurableEvent):
            if self._has_begun:
                self._grow(event)
            return
        match event:
            case RunQueued() | RunStarted():
                self._start(event)
            case EventRemoved() if not self._is_known:
                self._is_deleted = True  # the message that it answers
            case ToolCallRequested():
                self._output.note_call(event)
            case _:
                pass
        is_end = self._ends.feed(event)
        if self._parts < self.part and not self._has_begun:
            self._parts += is_end
            return
        if not self._has_begun:
            if not self._is_known:
                return
            self._created_at = event.at
            self._begin("in_progress")
        self._take(event)
        if is_end:
            self._complete(event.at)

    def _start(self, event: RunQueued | RunStarted) -> None:
        self._is_known = True
        self._options = event.options or self._options
        self._output.is_structured = self._options.output is not None
        if self.part > 1:
            return
        is_queued = isinstance(event, RunQueued)
        if not self._has_begun:
            self._created_at = event.at
            self._begin("queued" if is_queued else "in_progress")
        elif not is_queued:
            self._status = "in_progress"
            self._frames.add("response.in_progress", response=self.response)

    def _begin(self, status: str) -> None:
        self._has_begun = True
        self._status = status
        self._frames.add("response.created", response=self.response)
        self._frames.add(f"response.{status}", response=self.response)

    def _grow(self, event: Event) -> None:
        match event:
            case ReasoningDelta():
                self._output.grow(event.item_id, event.delta, True)
            case ToUserDelta():
                self._output.say(event.item_id, event.delta)
            case ToolCallStarted():
                self._output.begin(event.item_id)
            case _:
                pass

    def _take(self, event: DurableEvent) -> None:
        output = self._output
        match event:
            case MessageAdded(origin="runtime"):
                output.discard()
            case (
                MessageAdded(origin="model")
                | ReasoningAdded()
                | ProviderItemAdded()
                | ToolCallRequested()
            ):
                output.land(event)
            case ToolApproved():
                output.approve(event)
            case ToolOutputRecorded():
                self._returned.append(event.item)
                if not self._is_responding:
                    self._show_outputs()
            case StepStarted():
                self._start_step()
            case ResponseCompleted():
                self._count(event.usage)
                output.end_response()
                self._show_outputs()
            case UsageAdded() if not event.job_id:
                self._count(event.usage)
            case StepInterrupted():
                self._interrupt()
            case RunRequiresAction():
                self._show_outputs()
            case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
                self._end(event)
            case _:
                pass

    def _count(self, usage: Usage) -> None:
        self._usage = usage if self._usage is None else self._usage + usage

    def _show_outputs(self) -> None:
        self._is_responding = False
        for output in self._returned:
            self._output.add_output(output)
        self._returned.clear()

    def _interrupt(self) -> None:
        """Takes back what the model had begun; a reader may have seen some of it."""
        begun = self._output.end_response()
        self._output.settle("commentary")
        if begun is not None:
            self._output.drop(begun)
        self._is_taken_back = self._frames.skip_void() or begun is not None
        self._show_outputs()

    def _start_step(self) -> None:
        self._is_responding = True
        self._output.settle("commentary")
        if self._is_taken_back:  # a text that was added up would have both
            self._frames.add_notice("response_interrupted", _TAKEN_BACK)
            self.is_over = True

    # Ends

    def _complete(self, at: float) -> None:
        self._output.leave_calls()
        self._output.settle("commentary" if self._status != "completed" else "final_answer")
        self._status = "completed"
        self._close("response.completed", at)

    def _end(self, event: TerminalEvent) -> None:
        output = self._output
        begun = output.end_response()
        if isinstance(event, RunCompleted):
            self._show_outputs()
            if event.output is not None:  # a validator of the program changed it
                output.add_text(f"{self.id}_output".replace("run_", "msg_", 1), event.output.text)
            self._status = "completed"
            self._complete(event.at)
            return
        output.settle("", "incomplete")
        if begun is not None:
            output.drop(begun)
        self._frames.skip_void()
        self._show_outputs()
        output.leave_calls()
        match event:
            case RunIncomplete():
                self._status = "incomplete"
                is_filtered = event.stop_reason == "content_filter"
                self._incomplete = "content_filter" if is_filtered else "max_output_tokens"
                self._close("response.incomplete", event.at)
            case RunFailed():
                self._status = "failed"
                self._error = {"code": failure_code(event.code), "message": event.message}
                self._frames.add_error(event.code, event.message)
                self._close("response.failed", event.at)
            case RunCancelled() | RunExpired():
                # There is no event for a response that was cancelled.
                self._status = "cancelled"
                self._close("response.failed", event.at)

    def _close(self, kind: str, at: float) -> None:
        self._completed_at = at if self._status == "completed" else None
        self._frames.add(kind, response=self.response)
        self._frames.add_done()
        self.is_over = True
