"""Events of a run as chunks of a UI message stream."""

from collections.abc import Sequence, Set
from typing import cast

import msgspec

from treadle.domain.answers import DENIED
from treadle.domain.events import (
    DurableEvent,
    Event,
    HandedOff,
    HostedCallProgress,
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
    ToolOutputRecorded,
    ToolProgress,
    ToUserDelta,
    UsageAdded,
    object_in,
)
from treadle.domain.items import FunctionCallOutput, HostedCall, Message
from treadle.domain.usage import Usage
from treadle.server.ai_sdk.chunks import Chunk, Chunks
from treadle.server.ai_sdk.message_parts import citations_of, hosted_input, hosted_output, ui_parts
from treadle.server.ai_sdk.tool_kinds import ToolKinds
from treadle.server.call_texts import said_text, shown_arguments
from treadle.tools.output_type import OUTPUT_TOOL


class _Call:
    """A call that has no output yet; `is_shown` once its part was begun."""

    __slots__ = ("awaits", "is_approved", "is_complete", "is_shown", "name", "sent", "to_user")

    def __init__(self, name: str) -> None:
        self.name = name
        self.awaits = self.to_user = ""
        self.is_approved = self.is_complete = self.is_shown = False
        self.sent = 0


class ChatMapper:
    """Makes the chunks of the message that is a run, which it is fed with from its first event on.

    With or without deltas, the chunks add up to the same message. `answered` are the ids of calls
    whose output is recorded already: a client that begins with them must not answer them again.
    """

    def __init__(
        self, run_id: str, chunks: Chunks, tools: ToolKinds, answered: Set[str] = frozenset()
    ) -> None:
        self.is_over = False
        self._run_id = run_id
        self._chunks = chunks
        self._tools = tools
        self._answered = answered
        self._has_started = False
        self._texts: dict[str, int] = {}  # how much of each text in flight was shown
        self._calls: dict[str, _Call] = {}
        self._hosted: set[str] = set()  # the ids of calls of hosted tools that are at work
        self._waits: set[str] = set()
        self._landed: list[Event] = []  # of the step
        self._has_client_call = False  # in the step
        self._usage = Usage()

    def feed(self, event: Event) -> None:
        """Takes the next event of the run."""
        if self.is_over:
            return
        if type(event) is TextDelta:
            self._grow("text", event.item_id, event.delta)
            return
        match event:
            case StepStarted():
                self._landed.clear()
                self._has_client_call = False
                self._add({"type": "start-step"})
            case StepCompleted():
                self._add({"type": "finish-step"})
            case StepInterrupted():
                self._interrupt()
            case RunQueued():
                self._tools.add_options(event.options)
            case RunStarted():
                self._has_started = True
                self._tools.add_options(event.options)
                self._tell(agent=event.agent, createdAt=int(event.at * 1000))
            case HandedOff():
                self._tell(agent=event.agent)
            case RunRequiresAction():
                self._waits = set(event.call_ids) & self._calls.keys()
            case ResponseCompleted():
                self._usage += event.usage
                self._leave_hosted()
            case UsageAdded():
                if not event.job_id:
                    self._usage += event.usage
            case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
                self._end(event)
            case _:
                if isinstance(event, DurableEvent):
                    self._landed.append(event)
                self._take(event)

    def settle(self) -> None:
        """Ends the message if the run waits for answers, and nothing else is in progress."""
        if self._waits and not self.is_over and self._calls.keys() == self._waits:
            self._finish("tool-calls")

    def _add(self, chunk: Chunk) -> None:
        self._chunks.add(chunk)

    def _tell(self, **metadata: object) -> None:
        self._add({"type": "message-metadata", "messageMetadata": metadata})

    # Items

    def _take(self, event: Event) -> None:
        match event:
            case ReasoningDelta():
                self._grow("reasoning", event.item_id, event.delta)
            case RefusalDelta():
                self._grow("text", f"{event.item_id}:refusal", event.delta)
            case ToUserDelta():
                self._grow("text", f"{event.item_id}:to_user", event.delta, for_call=event.call_id)
            case ToolCallStarted():
                self._begin_call(event)
            case ToolArgumentsDelta():
                self._grow_call(event)
            case ToolProgress():
                data = {"toolCallId": event.call_id, "message": event.message}
                self._add({"type": "data-tool-progress", "data": data, "transient": True})
            case MessageAdded():
                self._add_message(event)
            case ReasoningAdded():
                self._complete("reasoning", event.item.id, event.item.text)
            case HostedCallProgress():
                self._begin_hosted(event.call)
            case ProviderItemAdded(item=item) if item.call is not None:
                self._add_hosted(item.call)
            case ToolCallRequested():
                self._complete_call(event)
            case ToolApproved():
                self._approve(event)
            case ToolOutputRecorded():
                self._add_output(event.item)
            case _:
                pass

    def _grow(self, kind: str, id: str, delta: str, *, for_call: str = "") -> None:
        if id not in self._texts:
            self._texts[id] = 0
            start: Chunk = {"type": f"{kind}-start", "id": id}
            if for_call:
                start["providerMetadata"] = {"treadle": {"toolCallId": for_call}}
            self._add(start)
        self._texts[id] += len(delta)
        self._add({"type": f"{kind}-delta", "id": id, "delta": delta})

    def _complete(
        self,
        kind: str,
        id: str,
        text: str,
        *,
        for_call: str = "",
        citations: Sequence[Chunk] = (),
    ) -> None:
        sent = self._texts.get(id, 0)
        if len(text) > sent:
            self._grow(kind, id, text[sent:], for_call=for_call)
        if self._texts.pop(id, None) is not None:
            end: Chunk = {"type": f"{kind}-end", "id": id}
            if citations:
                end["citations"] = citations
            self._add(end)

    def _add_message(self, event: MessageAdded) -> None:
        item = event.item
        if event.origin == "model":
            self._add_answer(item)
        elif event.origin == "user" and self._has_started:
            self._add({"type": "steering-message", "id": item.id, "parts": ui_parts(item)})

    def _add_answer(self, item: Message) -> None:
        sources, citations = citations_of(item)
        self._complete("text", item.id, item.text, citations=citations)
        self._complete("text", f"{item.id}:refusal", item.refusal)
        for source in sources:
            self._add(source)

    # Calls

    def _begin_hosted(self, call: HostedCall) -> None:
        if call.call_id not in self._hosted:
            self._hosted.add(call.call_id)
            name, _ = hosted_input(call)
            self._add({"type": "tool-input-start", "toolName": name, **_hosted(call.call_id)})

    def _add_hosted(self, call: HostedCall) -> None:
        """Shows a call of a hosted tool; of a call and its result, which may be two items, once."""
        self._begin_hosted(call)
        if call.status == "in_progress":
            return
        self._hosted.remove(call.call_id)
        shown = _hosted(call.call_id)
        name, given = hosted_input(call)
        self._add({"type": "tool-input-available", "toolName": name, "input": given, **shown})
        if call.status == "failed":
            self._add({"type": "tool-output-error", "errorText": call.output, **shown})
        else:
            self._add({"type": "tool-output-available", "output": hosted_output(call), **shown})

    def _leave_hosted(self) -> None:
        """Ends the calls of hosted tools that are at work where the response ends."""
        for id in self._hosted:
            error = "The provider sent no result."
            self._add({"type": "tool-output-error", "errorText": error, **_hosted(id)})
        self._hosted.clear()

    def _begin_call(self, event: ToolCallStarted) -> None:
        if event.name == OUTPUT_TOOL:
            return
        call = self._calls[event.call_id] = _Call(event.name)
        if not self._tools.is_held(event.name):
            self._show_call(event.call_id, call)

    def _show_call(self, call_id: str, call: _Call) -> None:
        call.is_shown = True
        shown: Chunk = {"type": "tool-input-start", "toolCallId": call_id, "toolName": call.name}
        if not self._tools.is_of_client(call.name):
            shown |= {"dynamic": True, "providerExecuted": True}
        self._add(shown)

    def _grow_call(self, event: ToolArgumentsDelta) -> None:
        call = self._calls.get(event.call_id)
        if call is None:  # the output of the agent, written as a call
            self._grow("text", event.item_id, event.delta)
        elif call.is_shown:
            call.sent += len(event.delta)
            self._add(_input_delta(event.call_id, event.delta))

    def _complete_call(self, event: ToolCallRequested) -> None:
        item = event.item
        if item.name == OUTPUT_TOOL:
            self._complete("text", item.id, item.arguments)
            return
        self._complete("text", f"{item.id}:to_user", said_text(event), for_call=item.call_id)
        call = self._calls.setdefault(item.call_id, _Call(item.name))
        if not call.is_shown:
            self._show_call(item.call_id, call)
        given = shown_arguments(event)
        if len(given) > call.sent:
            self._add(_input_delta(item.call_id, given[call.sent :]))
        call.is_complete, call.awaits, call.to_user = True, event.awaits or "", event.to_user
        is_ours = event.awaits != "output" or item.call_id in self._answered
        self._has_client_call |= event.awaits is not None
        self._show_input(item.call_id, call, given, is_ours)
        if event.awaits == "approval":
            asked: Chunk = {"approvalId": item.call_id, "toolCallId": item.call_id}
            self._add({"type": "tool-approval-request", **asked})

    def _show_input(self, call_id: str, call: _Call, given: str, is_ours: bool) -> None:
        arguments = object_in(given or "{}")
        if arguments is not None:
            arguments.pop(call.to_user, None)
        shown: Chunk = {"type": "tool-input-available", "toolCallId": call_id}
        shown |= {"toolName": call.name, "input": given if arguments is None else arguments}
        shown["providerExecuted"] = is_ours
        if not self._tools.is_of_client(call.name):
            shown["dynamic"] = True
        self._add(shown)

    def _approve(self, event: ToolApproved) -> None:
        call = self._calls.get(event.call_id)
        if call is None:
            return
        call.is_approved = True
        self._waits.discard(event.call_id)
        if event.arguments:
            self._show_input(event.call_id, call, event.arguments, True)
        self._answer(event.call_id, True)

    def _answer(self, call_id: str, approved: bool, **fields: object) -> None:
        self._add(
            {
                "type": "tool-approval-response",
                "approvalId": call_id,
                "approved": approved,
                "providerExecuted": True,
                **fields,
            }
        )

    def _add_output(self, output: FunctionCallOutput) -> None:
        call = self._calls.pop(output.call_id, None)
        if call is None:
            return
        self._waits.discard(output.call_id)
        shown: Chunk = {"toolCallId": output.call_id}
        asked = call.awaits == "approval" and not call.is_approved
        if asked and output.is_error and output.text.startswith(DENIED):
            reason = output.text.removeprefix(DENIED).removeprefix(": ")
            fields: Chunk = {} if reason == "." else {"reason": reason}
            self._answer(output.call_id, False, **fields)
            self._add({"type": "tool-output-denied", **shown})
        elif output.is_error:
            self._add({"type": "tool-output-error", **shown, "errorText": output.text})
        else:
            self._add({"type": "tool-output-available", **shown, "output": _output(output)})

    # Ends

    def _interrupt(self) -> None:
        """Takes back what the model had begun; what it had finished is shown again.

        A client removes all parts of a step, and not single ones.
        """
        is_complete = all(call.is_complete for call in self._calls.values())
        if is_complete and not self._texts and not self._hosted:
            return
        self._texts.clear()
        self._calls.clear()
        self._hosted.clear()
        self._add({"type": "reset-step"})
        for event in self._landed:
            self._take(event)

    def _end(self, event: TerminalEvent) -> None:
        self._interrupt()
        self._usage = event.usage
        match event:
            case RunCompleted():
                if event.output is not None:  # a validator of the program changed it
                    self._complete("text", f"{self._run_id}:output", event.output.text)
                self._finish("stop")
            case RunIncomplete():
                is_limit = event.stop_reason in {"max_tokens", "max_output_tokens"}
                is_filter = event.stop_reason == "content_filter"
                reason = "content-filter" if is_filter else "length" if is_limit else "other"
                self._tell(stopReason=event.stop_reason)
                self._finish(reason)
            case RunFailed():
                error = {"code": event.code, "retryable": event.retryable}
                self._tell(usage=_usage(self._usage), error=error)
                self._close({"type": "error", "errorText": event.message})
            case RunCancelled() | RunExpired():
                reason = "cancelled" if isinstance(event, RunCancelled) else "expired"
                self._tell(usage=_usage(self._usage), stopReason=reason)
                self._close({"type": "abort", "reason": reason})

    def _finish(self, reason: str) -> None:
        metadata = {"usage": _usage(self._usage)}
        self._close({"type": "finish", "finishReason": reason, "messageMetadata": metadata})

    def _close(self, chunk: Chunk) -> None:
        if self._has_client_call and not self._waits:
            # Clients send a message again if all calls of its last step have an output.
            self._add({"type": "start-step"})
        self._add(chunk)
        self.is_over = True


def _hosted(call_id: str) -> Chunk:
    return {"toolCallId": call_id, "dynamic": True, "providerExecuted": True}


def _input_delta(call_id: str, delta: str) -> Chunk:
    return {"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": delta}


def _output(output: FunctionCallOutput) -> object:
    """Returns the output of a tool: a text, JSON if it is an object or a list, or parts."""
    given = output.output
    if not isinstance(given, str):
        return cast("object", msgspec.to_builtins(given))
    if given[:1] in {"{", "["}:
        try:
            return cast("object", msgspec.json.decode(given))
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return given
    return given


def _usage(usage: Usage) -> Chunk:
    """Returns token counts in the form of `LanguageModelUsage`."""
    cached, reasoning = usage.cached_input_tokens, usage.reasoning_tokens
    return {
        "inputTokens": usage.input_tokens,
        "inputTokenDetails": {
            "noCacheTokens": usage.input_tokens - cached - usage.cache_write_tokens,
            "cacheReadTokens": cached,
            "cacheWriteTokens": usage.cache_write_tokens,
        },
        "outputTokens": usage.output_tokens,
        "outputTokenDetails": {
            "textTokens": usage.output_tokens - reasoning,
            "reasoningTokens": reasoning,
        },
        "totalTokens": usage.total_tokens,
    }
