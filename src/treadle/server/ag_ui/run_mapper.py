"""Events of a run as events of AG-UI."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from treadle.domain.events import (
    AgentEvent,
    DurableEvent,
    Event,
    HandedOff,
    HostedCallProgress,
    MemoryUpdated,
    MessageAdded,
    ProviderItemAdded,
    ReasoningAdded,
    ReasoningDelta,
    RefusalDelta,
    ResponseCompleted,
    RunCancelled,
    RunCompleted,
    RunExpired,
    RunFailed,
    RunIncomplete,
    RunRequiresAction,
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
    ToUserDelta,
    UsageAdded,
)
from treadle.domain.items import Message
from treadle.domain.usage import Usage
from treadle.loop.definition import AgentDefinition, reachable_from
from treadle.server.ag_ui.block_state import BlockState
from treadle.server.ag_ui.interrupts import Decision, interrupt_of
from treadle.server.ag_ui.message_list import (
    MessageList,
    content_of,
    hosted_activity,
    hosted_id,
    output_id,
    shown_text,
)
from treadle.server.ag_ui.open_texts import OpenTexts, Subagent
from treadle.server.ag_ui.run_frames import Json, RunFrames
from treadle.server.ag_ui.run_input import InputMessage, RunAgentInput
from treadle.server.ag_ui.subagents import Subagents
from treadle.server.call_texts import said_id
from treadle.server.problems import Problem
from treadle.server.run_answer import RunAnswer
from treadle.server.run_parts import RunParts
from treadle.server.sse import Framed
from treadle.server.stream import EndReason
from treadle.server.stream_ends import end_text
from treadle.tools.output_type import OUTPUT_TOOL

VERSION = "1.0"


def refused(given: RunAgentInput, code: str, message: str) -> bytes:
    """Returns the frames of a request that does not fit the conversation."""
    frames = RunFrames()
    _begin(frames, given)
    frames.add("RUN_ERROR", message=message, code=code)
    return frames.take()


def _begin(frames: RunFrames, given: RunAgentInput, **fields: object) -> None:
    frames.add(
        "RUN_STARTED",
        threadId=given.thread_id,
        runId=given.run_id,
        protocolVersion=VERSION,
        parentRunId=given.parent_run_id,
        **fields,
    )


class RunMapper:
    """Makes the frames of a run, or of the part of it up to the next answer of the client.

    `given` is the request, `agent` the agent that answers; `shown` are the messages that the
    client should have before the run, to which those of the run are added. It waits for none of the
    `decisions` of the request, although the stream may begin before they were made.
    """

    def __init__(
        self,
        given: RunAgentInput,
        agent: AgentDefinition[Any, Any],
        shown: MessageList,
        state: BlockState,
        decisions: Mapping[str, Decision],
    ) -> None:
        self.is_over = False
        self._decided = {(one.thread_id or None, one.call_id) for one in decisions.values()}
        self._given = given
        self._shown = shown
        self._state = state
        self._frames = RunFrames()
        self._texts = OpenTexts(self._frames, to_user_of(agent), shown.shown_ids)
        self._subagents = Subagents(self._frames)
        self._open_step = ""
        self._calls: dict[tuple[Subagent, str], ToolCallRequested] = {}
        self._model = ""
        self._usage: dict[str, Usage] = {}
        self._answer = RunAnswer(agent)
        self._parts = RunParts()
        self._asked: dict[tuple[Subagent, str], RunRequiresAction] = {}  # by owner and call

    # What a stream asks for

    def frame(self, envelope: Framed) -> bytes:
        """Returns the frames of an event."""
        if not self.is_over:
            self.feed(cast("Event", envelope.event), None)
        return self._frames.take()

    def frames(self) -> bytes:
        """Returns the frames of the events so far."""
        return self._frames.take()

    def end(self, reason: EndReason, problem: Problem | None = None) -> bytes:
        """Returns the frames of a stream that ends before the run does."""
        code, message = str(reason), end_text(reason, "conversation", "send the same request again")
        if problem is not None:
            code, message = problem.code or code, problem.detail
        self._frames.add("RUN_ERROR", message=message, code=code)
        return self._frames.take()

    def begin(self, thread_id: str, run_id: str, new: Iterable[InputMessage]) -> None:
        """Begins the run `run_id` of a thread; `new` is what the client has added to it."""
        given, frames = self._given, self._frames
        _begin(frames, given, metadata={"treadle": {"threadId": thread_id, "runId": run_id}})
        if (snapshot := self._state.snapshot) is not None:
            frames.add("STATE_SNAPSHOT", snapshot=snapshot)
        added = {one.id for one in new}
        differs = self._shown.differs(given.messages, added)
        if differs:  # without the new ones, so that they come last when they are added
            frames.add("MESSAGES_SNAPSHOT", messages=self._shown.messages)
        for one in new:
            self._shown.add_given(one)
        if differs and added:
            frames.add("MESSAGES_SNAPSHOT", messages=self._shown.messages)

    # Events

    def feed(self, event: Event, owner: Subagent) -> None:
        """Takes the next event of the run, or of the agent `owner` that works for it."""
        texts = self._texts
        match event:
            case TextDelta() | RefusalDelta():
                texts.grow(event.item_id, event.delta, owner)
            case ReasoningDelta():
                texts.grow_reasoning(event.item_id, event.delta, owner)
            case ToolArgumentsDelta():
                texts.grow_call(event.item_id, event.delta)
            case ToUserDelta():
                texts.grow(said_id(event.item_id), event.delta, owner)
            case ToolCallStarted():
                texts.begin_call(event.item_id, event.call_id, event.name, owner)
            case AgentEvent():
                self._subagents.begin_of(event, owner)
                self.feed(event.event, event.thread_id)
            case MessageAdded() | ReasoningAdded() | ToolCallRequested() | ToolOutputRecorded():
                self._land(event, owner)
            case StepStarted() | StepCompleted() | StepInterrupted():
                self._step(event, owner)
            case ToolProgress():
                self._show_progress(event, owner)
            case HostedCallProgress() | ProviderItemAdded():
                self._show_hosted(event, owner)
            case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
                if owner is None:
                    self._end(event)
                else:
                    self._subagents.end(owner, event)
            case _:
                if owner is None:
                    self._answer.feed(event)
                    self._note(event)
        if isinstance(event, DurableEvent):
            self._ask(event, owner)

    def _note(self, event: Event) -> None:
        match event:
            case HandedOff():
                value = {"agent": event.agent}
                self._frames.add("CUSTOM", name="treadle.handed_off", value=value)
            case ToolDelegated():
                self._subagents.begin(event.agent, event.thread_id, event.call_id, None)
            case ResponseCompleted():
                self._count(self._model, event.usage)
            case UsageAdded() if not event.job_id:
                self._count("", event.usage)
            case MemoryUpdated():
                snapshot, patch = self._state.change(event)
                if snapshot is not None:
                    self._frames.add("STATE_SNAPSHOT", snapshot=snapshot)
                if patch:
                    self._frames.add("STATE_DELTA", delta=patch)
            case _:
                pass

    def _land(
        self,
        event: MessageAdded | ReasoningAdded | ToolCallRequested | ToolOutputRecorded,
        owner: Subagent,
    ) -> None:
        """Shows an item that is finished to its end."""
        texts, shown = self._texts, self._shown
        if owner is None:
            self._answer.feed(event)
        match event:
            case MessageAdded(origin="model"):
                texts.end(event.item.id, shown_text(event.item), owner)
            case MessageAdded():
                if owner is not None or shown.is_of_client(event.item.id):
                    return
                self._show(event.item)
            case ReasoningAdded():
                texts.end_reasoning(event.item.id, event.item.text, owner)
            case ToolCallRequested():
                self._calls[owner, event.item.call_id] = event
                texts.end_call(event, owner)
            case ToolOutputRecorded():
                if event.name == OUTPUT_TOOL or shown.is_answered_by_client(event.item.call_id):
                    return
                self._show_output(event, owner)
        shown.add(event.item, owner)

    def _show(self, item: Message) -> None:
        """Shows a message that the client did not send."""
        text = content_of(item.content)
        self._frames.add("TEXT_MESSAGE_START", messageId=item.id, role=item.role)
        if isinstance(text, str) and text:
            self._frames.add("TEXT_MESSAGE_CONTENT", messageId=item.id, delta=text)
        self._frames.add("TEXT_MESSAGE_END", messageId=item.id)

    def _show_output(self, event: ToolOutputRecorded, owner: Subagent) -> None:
        item = event.item
        self._subagents.end_call(item.call_id)
        self._frames.add(
            "TOOL_CALL_RESULT",
            messageId=output_id(item),
            toolCallId=item.call_id,
            role="tool",
            content=content_of(item.output),
            subagentRunId=owner,
            metadata={"treadle": {"isError": True}} if item.is_error else None,
        )

    def _show_progress(self, event: ToolProgress, owner: Subagent) -> None:
        content = {"toolCallId": event.call_id, "name": event.name, "message": event.message}
        self._frames.add(
            "ACTIVITY_SNAPSHOT",
            messageId=f"{event.call_id}_progress",
            activityType="treadle.tool_progress",
            content=content,
            subagentRunId=owner,
        )

    def _show_hosted(self, event: HostedCallProgress | ProviderItemAdded, owner: Subagent) -> None:
        """Shows a call of a hosted tool, again when more of it is known."""
        call = event.call if isinstance(event, HostedCallProgress) else event.item.call
        if call is None:
            return
        shown = hosted_activity(call)
        self._frames.add(
            "ACTIVITY_SNAPSHOT", messageId=hosted_id(call), subagentRunId=owner, **shown
        )
        if isinstance(event, ProviderItemAdded):
            self._shown.add(event.item, owner)

    def _step(self, event: StepStarted | StepCompleted | StepInterrupted, owner: Subagent) -> None:
        if isinstance(event, StepInterrupted):
            self._take_back(self._texts.drop(owner))
        if owner is not None:
            return
        self._end_step()
        if isinstance(event, StepStarted):
            self._open_step, self._model = f"step {event.step}", event.model
            self._frames.add("STEP_STARTED", stepName=self._open_step)

    def _end_step(self) -> None:
        if self._open_step:
            self._frames.add("STEP_FINISHED", stepName=self._open_step)
            self._open_step = ""

    def _take_back(self, was_shown: bool) -> None:
        """Takes back what the model had begun and will not finish."""
        if was_shown:
            self._frames.add("MESSAGES_SNAPSHOT", messages=self._shown.messages)

    def _count(self, model: str, usage: Usage) -> None:
        self._usage[model] = self._usage.get(model, Usage()) + usage

    # Ends

    def _ask(self, event: DurableEvent, owner: Subagent) -> None:
        """Ends the run for now, once only the client can continue it."""
        match event:
            case RunRequiresAction():
                for id in event.call_ids:
                    call = self._calls.get((owner, id))
                    # The client cannot answer a tool of another agent, a program may.
                    may_answer = call is not None and (owner is None or call.awaits == "approval")
                    if may_answer and (owner, id) not in self._decided:
                        self._asked[owner, id] = event
            case ToolApproved():
                self._asked.pop((owner, event.call_id), None)
            case ToolOutputRecorded():
                self._asked.pop((owner, event.item.call_id), None)
            case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
                for key in [one for one in self._asked if one[0] == owner]:
                    del self._asked[key]
            case _:
                pass
        if owner is None:
            self._parts.feed(event)
        at_work = self._parts.at_work
        if any(one is not None for one, _ in self._asked):
            at_work = at_work - self._subagents.call_ids  # of which at least one waits
        if self._asked and not at_work and not self.is_over:
            self._interrupt(event.at)

    def _interrupt(self, at: float) -> None:
        interrupts: dict[Subagent, list[Json]] = {}
        for (owner, id), asked in self._asked.items():
            call = self._calls[owner, id]
            if call.awaits == "approval":
                made = interrupt_of(call, asked.expires_at, owner)
                interrupts.setdefault(owner, []).append(made)
        for owner, theirs in interrupts.items():
            if owner is not None:
                self._subagents.suspend(owner, [str(one["id"]) for one in theirs])
        if interrupts:
            self.wait_for([one for theirs in interrupts.values() for one in theirs], at)
        else:
            self._close()
            pending = [id for _, id in self._asked]
            self._finish(at, {"type": "success", "pendingToolCallIds": pending})

    def wait_for(self, interrupts: Sequence[Json], at: float) -> None:
        """Ends the run for now with interrupts."""
        self._close()
        if (snapshot := self._state.snapshot) is not None:
            self._frames.add("STATE_SNAPSHOT", snapshot=snapshot)
        self._frames.add("MESSAGES_SNAPSHOT", messages=self._shown.messages)
        self._finish(at, {"type": "interrupt", "interrupts": interrupts})

    def _end(self, event: TerminalEvent) -> None:
        self._answer.feed(event)
        match event:
            case RunCompleted():
                self._close()
                self._finish(event.at, {"type": "success"}, self._result(event))
            case RunCancelled():
                self._close()
                self._finish(event.at, {"type": "cancelled"})
            case RunIncomplete():
                message = f"The run was stopped by the limit {event.stop_reason}."
                self._fail(event, event.stop_reason, message)
            case RunFailed():
                self._fail(event, event.code, event.message)
            case RunExpired():
                self._fail(event, "run_expired", "The run waited too long for an answer.")

    def _result(self, event: RunCompleted) -> object:
        """Returns the output of the run, unless it is the text that was shown."""
        output = self._answer.output
        return self._answer.text if output is None and event.output is not None else output

    def _close(self) -> None:
        """Ends all that is open, as the protocol asks for before the end of a run."""
        self._take_back(self._texts.drop_all())
        self._end_step()
        self._subagents.end_all()

    def _finish(self, at: float, outcome: Json, result: object = None) -> None:
        self.is_over = True
        self._frames.add(
            "RUN_FINISHED",
            threadId=self._given.thread_id,
            runId=self._given.run_id,
            outcome=outcome,
            result=result,
            usage=self._usages(),
            timestamp=round(at * 1000),
        )

    def _fail(self, event: DurableEvent, code: str, message: str) -> None:
        self.is_over = True
        usage, timestamp = self._usages(), round(event.at * 1000)
        self._frames.add("RUN_ERROR", message=message, code=code, usage=usage, timestamp=timestamp)

    def _usages(self) -> list[Json] | None:
        return [_usage(model, usage) for model, usage in self._usage.items()] or None


def to_user_of(agent: AgentDefinition[Any, Any]) -> dict[str, str]:
    """Returns the arguments that are shown to the user, by the names of the tools."""
    return {
        tool.name: tool.to_user
        for one in reachable_from(agent).values()
        for tool in one.tools
        if tool.to_user
    }


def _usage(model: str, usage: Usage) -> Json:
    parts = {
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cached_input_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }
    return {
        **({"model": model} if model else {}),
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        **{name: count for name, count in parts.items() if count},
    }
