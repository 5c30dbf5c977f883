"""The spans of one run: the run, its steps, and their model calls and tools; pure.

    invoke_agent NAME
      step 1
        chat MODEL           one for each request, including repeated ones
        execute_tool NAME
      step 2
        …
      job NAME               the jobs of the run, nested as in its tree

Names and attributes follow the GenAI conventions, version 1.41; others begin with `treadle.`:
https://github.com/open-telemetry/semantic-conventions/tree/v1.41.0/docs/gen-ai
"""

from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.events import (
    HandedOff,
    JobSettled,
    JobStarted,
    MessageAdded,
    ProviderItemAdded,
    QuotaHit,
    RateLimitHit,
    ReasoningAdded,
    RecordedEvent,
    ResponseCompleted,
    RetriesExhausted,
    Retrying,
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
    ToolApproved,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolStarted,
)
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item
from treadle.domain.usage import Usage
from treadle.telemetry.content import output_messages
from treadle.telemetry.provider_names import provider_name
from treadle.telemetry.signal import Attributes, Measured, Signal, SpanBegan, SpanEnded, Value

TOOL_FAILED = "tool_failed"
"""The `error.type` of a tool whose output describes a failure."""

INTERRUPTED = "interrupted"
"""The `error.type` of a span cut off by the end of its run or of the process."""

_STATUSES: Mapping[type[TerminalEvent], str] = {
    RunCompleted: "completed",
    RunIncomplete: "incomplete",
    RunFailed: "failed",
    RunCancelled: "cancelled",
    RunExpired: "expired",
}


class Options(Struct, frozen=True):
    """Options of signals.

    `content` adds messages to them; `providers` maps names of models to names of their providers.
    """

    content: bool = False
    providers: Mapping[str, str] = {}


class _Open(Struct):
    """A span that has begun."""

    id: int
    began: float
    name: str = ""


class _Chat(_Open):
    """A request to the model; `first` is the time of the first delta, in Unix seconds."""

    first: float | None = None


class _Call(Struct):
    """A tool call that has no output yet."""

    asked: float
    item: FunctionCall | None = None
    span: _Open | None = None
    attempts: int = 0


class RunSpans:
    """Folds the events of one run into signals, and calls `emit` with each.

    For any events in any order, each span that began ends once, at the latest by `end`.
    """

    def __init__(
        self,
        thread_id: str,
        run_id: str,
        at: float,
        *,
        agent: str = "",
        parent: int | None = None,
        resumed: bool = False,
        attributes: Attributes,
        options: Options,
        new_id: Callable[[], int],
        emit: Callable[[Signal], None],
    ) -> None:
        self.thread_id = thread_id
        self.run_id = run_id
        self.agent = agent
        self.ended = False
        self.suspended = False
        self._options = options
        self._new_id = new_id
        self._emit = emit
        self._step: _Open | None = None
        self._chat: _Chat | None = None
        self._model = ""
        self._repeat_at: float | None = None
        self._interrupted_at: float | None = None
        self._calls: dict[str, _Call] = {}
        self._awaited: set[str] = set()
        self._jobs: dict[str, _Open] = {}
        self._items: list[Item] = []
        self._said = ""
        self._run = self._begin(
            f"invoke_agent {agent}".rstrip(),
            at,
            parent=parent,
            attributes={
                "gen_ai.operation.name": "invoke_agent",
                **({"gen_ai.agent.name": agent} if agent else {}),
                "gen_ai.conversation.id": thread_id,
                "treadle.run.id": run_id,
                **attributes,
            },
            run_id=run_id,
            resumed=resumed,
        )

    @property
    def awaits_first(self) -> bool:
        """Whether a response is awaited that has no delta yet."""
        return (self._chat is not None and self._chat.first is None) or self._repeat_at is not None

    def delta_seen(self, now: float) -> None:
        """Notes a delta of the response."""
        chat = self._answering(now)
        if chat is not None and chat.first is None:
            chat.first = max(0.0, now - chat.began)

    def has_job(self, job_id: str) -> bool:
        """Whether the span of a job is open."""
        return job_id in self._jobs

    def span_of(self, id: str) -> int:
        """Returns the parent span of an agent: that of a call, of a job, or of the run."""
        if id in self._jobs:
            return self._jobs[id].id
        call = self._calls.get(id)
        return self._run.id if call is None or call.span is None else call.span.id

    def observe(self, event: RecordedEvent, at: float) -> None:
        """Handles the next event of the run, which happened at `at` (Unix seconds)."""
        match event:
            case StepStarted():
                self._step_started(event, at)
            case RateLimitHit() | Retrying() | RetriesExhausted() | QuotaHit():
                self._request_failed(event, at)
            case MessageAdded() | ReasoningAdded() | ProviderItemAdded() | ToolCallRequested():
                self._item_added(event, at)
            case ResponseCompleted():
                self._response_completed(event, at)
            case ToolApproved():
                self._tool_approved(event)
            case ToolStarted():
                self._tool_started(event, at)
            case ToolOutputRecorded():
                self._tool_ended(event, at)
            case StepCompleted():
                self._end_step(at)
            case StepInterrupted():
                # The terminal event of the run follows, with the reason.
                self._interrupted_at = at
            case JobStarted() | JobSettled():
                self._job_changed(event, at)
            case HandedOff():
                self.agent = event.agent
            case RunRequiresAction():
                self._awaited.update(event.call_ids)
            case RunCompleted() | RunIncomplete() | RunFailed() | RunCancelled() | RunExpired():
                self._run_ended(event, at)
            case _:
                pass  # requests to a run show in their effects
        # While jobs run, this process keeps the run in memory anyway.
        waits = not self.ended and not self._jobs and bool(self._awaited)
        if waits and self._calls.keys() <= self._awaited:
            self._suspend(at)

    def end(self, at: float) -> None:
        """Ends all open spans: no more events of this run will come."""
        self._end_step(at, INTERRUPTED)
        self._end_run(at, "unknown", {}, INTERRUPTED)

    # The run

    def _run_ended(self, event: TerminalEvent, at: float) -> None:
        status, error = _STATUSES[type(event)], ""
        attributes = _usage(event.usage)
        match event:
            case RunFailed():
                error = event.code
            case RunCompleted() | RunIncomplete():
                attributes["treadle.stop_reason"] = event.stop_reason
            case _:
                pass
        if self._said:
            attributes["gen_ai.output.messages"] = self._said
        self._end_step(at, error or status)
        self._end_run(at, status, attributes, error)

    def _suspend(self, at: float) -> None:
        """Ends the spans of a run that waits for an outside reply, which may take a month."""
        self.suspended = True
        self._end_step(at)
        self._end_run(at, "requires_action", {})

    def _end_run(
        self, at: float, status: str, attributes: dict[str, Value], error: str = ""
    ) -> None:
        self.ended = True
        self._end_jobs(at)
        at = max(at, self._run.began)
        attributes["treadle.run.status"] = status
        self._emit(
            SpanEnded(
                id=self._run.id,
                at=at,
                attributes=attributes,
                error=error,
                suspended=self.suspended,
            )
        )
        measured: dict[str, Value] = {"gen_ai.operation.name": "invoke_agent"}
        if self.agent:
            measured["gen_ai.agent.name"] = self.agent
        if error:
            measured["error.type"] = error
        self._emit(Measured("gen_ai.invoke_agent.duration", at - self._run.began, measured))

    # Steps

    def _step_started(self, event: StepStarted, at: float) -> None:
        self._end_step(at, INTERRUPTED)
        self._model = event.model
        name = f"step {event.step}"
        attributes: dict[str, Value] = {"treadle.loop.step": event.step}
        if self.agent:
            attributes["gen_ai.agent.name"] = self.agent
        self._step = self._begin(name, at, self._run.id, attributes)
        self._begin_chat(at)

    def _end_step(self, at: float, cut: str = INTERRUPTED) -> None:
        """Ends the step and all open spans in it, with `cut` as their error."""
        at = at if self._interrupted_at is None else self._interrupted_at
        self._interrupted_at = None
        if self._repeat_at is not None and self._repeat_at > at:
            self._repeat_at = None  # the step ended before the request was repeated
        chat = self._answering(at)
        if chat is not None:
            self._end_chat(chat, at, {}, cut)
        for call_id, call in self._calls.items():
            if call.span is not None:
                self._end_tool(call_id, call, call.span, at, {}, cut)
        self._calls.clear()
        self._awaited.clear()
        self._items.clear()
        if self._step is not None:
            self._end(self._step, at)
            self._step = None

    # Model calls

    def _begin_chat(self, at: float) -> _Chat:
        attributes = self._of_model()
        attributes["gen_ai.conversation.id"] = self.thread_id
        attributes["gen_ai.request.stream"] = True
        name = f"chat {self._model}".rstrip()
        span = self._begin(name, at, (self._step or self._run).id, attributes, is_request=True)
        self._chat = _Chat(span.id, span.began)
        return self._chat

    def _answering(self, at: float) -> _Chat | None:
        """Returns the request that is answered at `at`: the repeated one, if there is one."""
        if self._repeat_at is not None:
            # Event times and delays come from two clocks, so the repeat may seem to be early.
            began, self._repeat_at = min(self._repeat_at, at), None
            return self._begin_chat(began)
        return self._chat

    def _request_failed(
        self, event: RateLimitHit | Retrying | RetriesExhausted | QuotaHit, at: float
    ) -> None:
        chat = self._answering(at)
        if chat is not None:
            self._end_chat(chat, at, {}, _code_of(event))
        if isinstance(event, RateLimitHit | Retrying) and self._step is not None:
            self._repeat_at = at + event.delay

    def _item_added(
        self,
        event: MessageAdded | ReasoningAdded | ProviderItemAdded | ToolCallRequested,
        at: float,
    ) -> None:
        if isinstance(event, MessageAdded) and event.origin != "model":
            return
        self.delta_seen(at)
        if self._options.content:
            self._items.append(event.item)
        if isinstance(event, ToolCallRequested):
            self._calls.setdefault(event.item.call_id, _Call(at, event.item))

    def _response_completed(self, event: ResponseCompleted, at: float) -> None:
        chat = self._answering(at)
        if chat is None:
            return  # its span was cut off, or begun by another process
        attributes = _usage(event.usage)
        attributes["gen_ai.response.finish_reasons"] = [event.finish_reason]
        if event.cost:
            attributes["treadle.cost"] = event.cost
        if event.response_id:
            attributes["gen_ai.response.id"] = event.response_id
        if self._options.content:
            self._said = output_messages(self._items, event.finish_reason)
            attributes["gen_ai.output.messages"] = self._said
        self._end_chat(chat, at, attributes)
        for kind, tokens in (
            ("input", event.usage.input_tokens),
            ("output", event.usage.output_tokens),
        ):
            measured = {**self._of_model(), "gen_ai.token.type": kind}
            self._emit(Measured("gen_ai.client.token.usage", tokens, measured))

    def _end_chat(
        self, chat: _Chat, at: float, attributes: dict[str, Value], error: str = ""
    ) -> None:
        self._chat = None
        measured = self._of_model()
        if chat.first is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = chat.first
            metric = "gen_ai.client.operation.time_to_first_chunk"
            self._emit(Measured(metric, chat.first, measured))
        at = self._end(chat, at, attributes, error)
        if error:
            measured = {**measured, "error.type": error}
        self._emit(Measured("gen_ai.client.operation.duration", at - chat.began, measured))

    def _of_model(self) -> dict[str, Value]:
        attributes: dict[str, Value] = {"gen_ai.operation.name": "chat"}
        if provider := self._options.providers.get(self._model):
            attributes["gen_ai.provider.name"] = provider_name(provider)
        if self._model:
            attributes["gen_ai.request.model"] = self._model
        return attributes

    # Tools

    def _tool_approved(self, event: ToolApproved) -> None:
        self._awaited.discard(event.call_id)
        call = self._calls.get(event.call_id)
        if event.arguments and call is not None and call.item is not None:
            call.item = replace(call.item, arguments=event.arguments)

    def _tool_started(self, event: ToolStarted, at: float) -> None:
        call = self._calls.setdefault(event.call_id, _Call(at))
        call.attempts = event.attempt
        self._awaited.discard(event.call_id)
        if call.span is None:
            call.span = self._begin_tool(event.call_id, event.name, call, at, event.arguments)

    def _begin_tool(
        self, call_id: str, name: str, call: _Call, at: float, changed: str = ""
    ) -> _Open:
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": call_id,
            "gen_ai.tool.type": "function",
            "gen_ai.conversation.id": self.thread_id,
        }
        if self._options.content and call.item is not None:
            attributes["gen_ai.tool.call.arguments"] = changed or call.item.arguments
        parent = self._step or self._run
        return self._begin(f"execute_tool {name}", at, parent.id, attributes)

    def _tool_ended(self, event: ToolOutputRecorded, at: float) -> None:
        item = event.item
        call = self._calls.pop(item.call_id, None) or _Call(at)
        self._awaited.discard(item.call_id)
        # A call without a start was refused or answered from outside: it began with its request.
        span = call.span or self._begin_tool(item.call_id, event.name, call, call.asked)
        attributes = self._of_output(item)
        self._end_tool(
            item.call_id, call, span, at, attributes, TOOL_FAILED if item.is_error else ""
        )

    def _of_output(self, item: FunctionCallOutput) -> dict[str, Value]:
        return {"gen_ai.tool.call.result": item.text} if self._options.content else {}

    def _end_tool(
        self,
        call_id: str,
        call: _Call,
        span: _Open,
        at: float,
        attributes: dict[str, Value],
        error: str,
    ) -> None:
        attributes["treadle.tool.attempts"] = call.attempts
        at = self._end(span, at, attributes, error)
        measured: dict[str, Value] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": span.name.removeprefix("execute_tool "),
        }
        if error:
            measured["error.type"] = error
        self._emit(Measured("gen_ai.execute_tool.duration", at - span.began, measured))

    # Jobs

    def _job_changed(self, event: JobStarted | JobSettled, at: float) -> None:
        """Begins or ends the span of a job of the run; background jobs outlive it."""
        if isinstance(event, JobStarted):
            is_again = event.job_id in self._jobs  # after a crash
            if not event.background and not is_again:
                self._jobs[event.job_id] = self._begin_job(event, at)
            return
        span = self._jobs.pop(event.job_id, None)
        if span is not None:
            outcome: dict[str, Value] = {"treadle.job.outcome": event.outcome}
            error = event.code or ("" if event.outcome == "completed" else event.outcome)
            self._end(span, at, outcome, error)

    def _begin_job(self, event: JobStarted, at: float) -> _Open:
        attributes: dict[str, Value] = {
            "gen_ai.conversation.id": self.thread_id,
            "treadle.job.id": event.job_id,
        }
        if event.attempt > 1:
            attributes["treadle.job.attempt"] = event.attempt
        parent = self._jobs.get(event.parent, self._run)
        return self._begin(f"job {event.name}", at, parent.id, attributes)

    def _end_jobs(self, at: float) -> None:
        for span in reversed(self._jobs.values()):
            self._end(span, at, None, INTERRUPTED)
        self._jobs.clear()

    # Spans

    def _begin(
        self,
        name: str,
        at: float,
        parent: int | None,
        attributes: Attributes,
        *,
        is_request: bool = False,
        run_id: str = "",
        resumed: bool = False,
    ) -> _Open:
        span = _Open(self._new_id(), at, name)
        self._emit(
            SpanBegan(
                id=span.id,
                parent=parent,
                name=name,
                at=at,
                attributes=attributes,
                is_request=is_request,
                run_id=run_id,
                resumed=resumed,
            )
        )
        return span

    def _end(
        self,
        span: _Open,
        at: float,
        attributes: Attributes | None = None,
        error: str = "",
    ) -> float:
        """Ends `span`; returns its end time, which is never before its start."""
        at = max(at, span.began)
        self._emit(SpanEnded(id=span.id, at=at, attributes=attributes or {}, error=error))
        return at


def _code_of(event: RateLimitHit | Retrying | RetriesExhausted | QuotaHit) -> str:
    match event:
        case RateLimitHit():
            return "rate_limited"
        case QuotaHit():
            return "quota_exceeded"
        case _:
            return event.code


def _usage(usage: Usage) -> dict[str, Value]:
    counts = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        "treadle.usage.web_searches": usage.web_searches,
        "treadle.usage.file_searches": usage.file_searches,
        "treadle.usage.code_containers": usage.code_containers,
    }
    always = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
    found: dict[str, Value] = {n: count for n, count in counts.items() if count or n in always}
    if usage.cached_input_tokens:
        found["treadle.usage.cache_hit_rate"] = round(usage.cache_hit_rate, 4)
    return found
