"""Events: what happened on a thread.

*Durable* events carry a `seq`, unique and without gaps within their thread, and are recorded
before a subscriber sees them; the state of a thread is their fold (`treadle.domain.fold`). *Live*
events are the deltas in between; they are not recorded one by one.
"""

from typing import ClassVar, Literal, cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.blocks import BlockRules
from treadle.domain.items import (
    Annotation,
    FunctionCall,
    FunctionCallOutput,
    HostedCall,
    Item,
    Message,
    ProviderItem,
    Reasoning,
)
from treadle.domain.options import RunOptions
from treadle.domain.schedules import Schedule
from treadle.domain.schema import JsonSchema
from treadle.domain.stop_reason import StopReason
from treadle.domain.usage import Usage

LimitScope = Literal["response", "run", "thread"]
"""The scope of a limit: one response of the provider, the run, or all runs of the thread."""

FinishReason = Literal["stop", "length", "content_filter", "pause"]
"""Why the provider ended a response.

After `pause` the request is repeated with the response so far at the end of the history, and the
model continues.
"""

Awaited = Literal["output", "approval"]
"""What a tool call needs from outside: its output, or the permission to run it."""

Origin = Literal["user", "model", "runtime", "hook", "job", "schedule"]
"""The source of a message: the caller, the model, treadle itself (a correction of invalid output,
a tool that must still be called), a hook, a background job that reports its end, or a schedule that
was due."""

JobOutcome = Literal["completed", "failed", "cancelled"]
"""How a job, with all that it started, came to its end."""

Announces = Literal["wake", "quiet", "never"]
"""How a background job reports its end to its thread.

`wake`: with a message that enters the history at the next safe point, or starts a run where none is
in progress. `quiet`: with a message that waits for the next run. `never`: only with its event.
"""


MemoryOperation = Literal[
    "create", "append", "replace", "insert", "rewrite", "configure", "delete", "undo"
]
"""The kind of a change of a memory block; `configure` changes its rules and not its text."""

MemoryAuthor = Literal["model", "user", "agent", "summary"]
"""The author of a change of the memory: a tool that the model called, a person or a program, the
definition of an agent, or the compaction that keeps its summary there."""

CompactionCause = Literal["after_run", "before_step", "overflow"]
"""When a history was compacted: after a run, before a request that would not have fitted, or after
the provider refused one."""

CountedBy = Literal["usage", "tokenizer", "estimate"]
"""How tokens were counted: from what the provider counted last, by a tokenizer, or by an estimate
from the length of the texts."""


ChangeReason = Literal[
    "tool_name",
    "arguments",
    "pairing",
    "image",
    "file",
    "audio",
    "media_type",
    "too_long",
    "provider_item",
]
"""Why a request differs from an item of the history.

`tool_name`: a name with other characters than the API accepts. `arguments`: arguments that are not
a JSON object. `pairing`: a call without an output, or the reverse. `image`, `file`, `audio`: one
that the API would refuse. `media_type`: an image of another type than it claims. `too_long`: a text
beyond the limit of the API. `provider_item`: an item of the provider that is not JSON.
"""


class DurableEvent(Struct, frozen=True, gc=False, kw_only=True):
    """The fields of every recorded event: its number, its time (Unix seconds) and its run."""

    seq: int = 0
    at: float = 0.0
    run_id: str


class EntryEvent(DurableEvent, frozen=True, kw_only=True):
    """An event that an entry may cause; `by` is the principal of that entry.

    A principal is any text that identifies a person or a program to the caller, "" without one.
    """

    by: str = ""


class MessageAdded(EntryEvent, frozen=True, tag="message.added"):
    """A message entered the history; `index` is its place in the response that wrote it."""

    type: ClassVar[Literal["message.added"]] = "message.added"
    item: Message
    origin: Origin
    index: int = 0


class ItemsAdded(EntryEvent, frozen=True, kw_only=True, omit_defaults=True, tag="items.added"):
    """Items that belong together, such as calls and their outputs, entered the history at once.

    The caller added them, for the run `run_id` if they begin its answer. `key` is the sender's
    idempotency key for all that it added, and `digest` identifies that.
    """

    type: ClassVar[Literal["items.added"]] = "items.added"
    run_id: str = ""
    items: tuple[Item, ...] = ()
    key: str = ""
    digest: str = ""


class RunQueued(EntryEvent, frozen=True, omit_defaults=True, tag="run.queued"):
    """A run waits for the one before it; `item` is the message it will start with.

    `before` are messages that enter the history right before it, and `so_far` items right after it,
    with which the answer begins. `key` is the sender's idempotency key. `urgent` puts it before
    those that wait already. `options` are those of the run, None without any. `schedule_id` is set
    if a schedule was due.
    """

    type: ClassVar[Literal["run.queued"]] = "run.queued"
    item: Message
    agent: str
    key: str = ""
    urgent: bool = False
    options: RunOptions | None = None
    before: tuple[Message, ...] = ()
    schedule_id: str = ""
    so_far: tuple[Item, ...] = ()


class RunStarted(EntryEvent, frozen=True, gc=False, omit_defaults=True, tag="run.started"):
    """A run began to work with the agent `agent`; `agent_hash` identifies its definition.

    `key` is the sender's idempotency key, `options` are those of the run, None without any.
    `schedule_id` is set if a schedule was due.
    """

    type: ClassVar[Literal["run.started"]] = "run.started"
    agent: str
    agent_hash: str = ""
    key: str = ""
    options: RunOptions | None = None
    schedule_id: str = ""


class MessageQueued(EntryEvent, frozen=True, omit_defaults=True, tag="message.queued"):
    """A message for the run in progress, which enters the history at the next safe point.

    `key` is the sender's idempotency key.
    """

    type: ClassVar[Literal["message.queued"]] = "message.queued"
    item: Message
    key: str = ""


class RunFinishing(EntryEvent, frozen=True, gc=False, tag="run.finishing"):
    """The run was asked to end after the step it is in."""

    type: ClassVar[Literal["run.finishing"]] = "run.finishing"


class RunCancelling(EntryEvent, frozen=True, gc=False, tag="run.cancelling"):
    """The run was asked to end now."""

    type: ClassVar[Literal["run.cancelling"]] = "run.cancelling"


class StepStarted(DurableEvent, frozen=True, gc=False, tag="step.started"):
    """A request is about to be sent to the model; steps count from 1 in each run."""

    type: ClassVar[Literal["step.started"]] = "step.started"
    step: int
    model: str


class ReasoningAdded(DurableEvent, frozen=True, tag="reasoning.added"):
    """The model finished a reasoning item."""

    type: ClassVar[Literal["reasoning.added"]] = "reasoning.added"
    item: Reasoning
    index: int = 0


class ProviderItemAdded(DurableEvent, frozen=True, tag="provider_item.added"):
    """The model finished an item that only its provider understands, such as a hosted call."""

    type: ClassVar[Literal["provider_item.added"]] = "provider_item.added"
    item: ProviderItem
    index: int = 0


class ToolCallRequested(DurableEvent, frozen=True, omit_defaults=True, tag="tool.requested"):
    """The model finished a tool call; its arguments are complete.

    `awaits` is what the call needs from outside, if anything. `to_user` names the argument that is
    shown to the user while the model writes it, if there is one. `parameters` is the JSON Schema of
    the arguments of a call that needs approval, because it may be approved with other arguments.
    """

    type: ClassVar[Literal["tool.requested"]] = "tool.requested"
    item: FunctionCall
    index: int = 0
    awaits: Awaited | None = None
    to_user: str = ""
    parameters: JsonSchema | None = None

    @property
    def said(self) -> str:
        """The text for the user in the arguments of this call."""
        said = (self.arguments or {}).get(self.to_user) if self.to_user else None
        return said if isinstance(said, str) else ""

    @property
    def arguments(self) -> dict[str, object] | None:
        """The arguments, decoded; None where the model did not write a JSON object."""
        return object_in(self.item.arguments or "{}")


def object_in(text: str) -> dict[str, object] | None:
    """Returns the JSON object that a model wrote, or None if the text is something else."""
    try:
        decoded = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return cast("dict[str, object]", decoded) if isinstance(decoded, dict) else None


class RunRequiresAction(DurableEvent, frozen=True, omit_defaults=True, tag="run.requires_action"):
    """The run waits for the outputs or approvals of `call_ids`, which come from outside.

    It expires at `expires_at` (Unix seconds), or never. `seconds` is the time its step took so far.
    """

    type: ClassVar[Literal["run.requires_action"]] = "run.requires_action"
    call_ids: tuple[str, ...]
    expires_at: float | None = None
    seconds: float = 0.0


class ToolApproved(EntryEvent, frozen=True, gc=False, tag="tool.approved"):
    """A call that needed approval may run.

    `arguments` is set if it was approved with other arguments than the model wrote: the JSON that
    is the call's from then on.
    """

    type: ClassVar[Literal["tool.approved"]] = "tool.approved"
    call_id: str
    arguments: str = ""


class ToolStarted(DurableEvent, frozen=True, gc=False, omit_defaults=True, tag="tool.started"):
    """A tool is about to be called; `attempt` counts from 1.

    `arguments` is set if a hook changed the arguments: the JSON that the tool is called with.
    """

    type: ClassVar[Literal["tool.started"]] = "tool.started"
    call_id: str
    name: str
    attempt: int
    arguments: str = ""


class ToolDelegated(DurableEvent, frozen=True, gc=False, tag="tool.delegated"):
    """The agent `agent` works on a call, on the thread `thread_id` of its own."""

    type: ClassVar[Literal["tool.delegated"]] = "tool.delegated"
    call_id: str
    agent: str
    thread_id: str


class ToolOutputRecorded(EntryEvent, frozen=True, tag="tool.output"):
    """A tool call has its output. `seconds` is the time the tool took."""

    type: ClassVar[Literal["tool.output"]] = "tool.output"
    item: FunctionCallOutput
    name: str
    seconds: float = 0.0


class ItemAdaptation(Struct, frozen=True, gc=False):
    """How the model reads an item of the history; `text` describes it in a sentence."""

    item_id: str
    reason: ChangeReason
    text: str


class RequestAdapted(DurableEvent, frozen=True, tag="request.adapted"):
    """The API would refuse some items, so a request of this run left parts of them out.

    The history is unchanged. A run reports each item once.
    """

    type: ClassVar[Literal["request.adapted"]] = "request.adapted"
    items: tuple[ItemAdaptation, ...]


class ToolChoiceIgnored(DurableEvent, frozen=True, gc=False, tag="tool_choice.ignored"):
    """The response contains no call of `tool`, which the request forced; "" is any tool."""

    type: ClassVar[Literal["tool_choice.ignored"]] = "tool_choice.ignored"
    tool: str


class ResponseCompleted(DurableEvent, frozen=True, omit_defaults=True, tag="response.completed"):
    """The response of the model is complete; its calls may still be running.

    `cost` is its price, 0 if the price of the model is unknown. `frame_tokens` estimates how many
    tokens of the request were instructions, tools and output schema instead of items; it is 0 if
    the agent's context makes no estimate.
    """

    type: ClassVar[Literal["response.completed"]] = "response.completed"
    response_id: str
    finish_reason: FinishReason
    usage: Usage
    cost: float = 0.0
    frame_tokens: int = 0


class UsageAdded(DurableEvent, frozen=True, omit_defaults=True, tag="usage.added"):
    """The usage of an agent that worked for the run, on the thread `thread_id`.

    Without a thread, it is that of a prompt cache that was made for the run.
    If it worked for the background job `job_id`, its usage counts for the thread and not the run.
    """

    type: ClassVar[Literal["usage.added"]] = "usage.added"
    usage: Usage
    cost: float = 0.0
    calls: int = 0
    thread_id: str = ""
    job_id: str = ""


class StepCompleted(DurableEvent, frozen=True, gc=False, omit_defaults=True, tag="step.completed"):
    """The response is complete and every call of it is answered.

    `seconds` is the time it took, without the time it waited for outputs or approvals from outside.
    """

    type: ClassVar[Literal["step.completed"]] = "step.completed"
    step: int
    seconds: float = 0.0


class StepInterrupted(
    DurableEvent, frozen=True, gc=False, omit_defaults=True, tag="step.interrupted"
):
    """The response broke off: discard its unfinished text; finished items stand."""

    type: ClassVar[Literal["step.interrupted"]] = "step.interrupted"
    step: int
    reason: str
    seconds: float = 0.0


class HistoryReplaced(DurableEvent, frozen=True, tag="history.replaced"):
    """A hook replaced the history by `items`; the earlier events still contain the old one."""

    type: ClassVar[Literal["history.replaced"]] = "history.replaced"
    items: tuple[Item, ...]


class RunContinued(DurableEvent, frozen=True, gc=False, tag="run.continued"):
    """A hook made the run continue although the model had finished."""

    type: ClassVar[Literal["run.continued"]] = "run.continued"


class HandedOff(DurableEvent, frozen=True, gc=False, tag="run.handed_off"):
    """Another agent, `agent`, continues the run; `agent_hash` identifies its definition."""

    type: ClassVar[Literal["run.handed_off"]] = "run.handed_off"
    agent: str
    agent_hash: str = ""


class JobStarted(DurableEvent, frozen=True, omit_defaults=True, tag="job.started"):
    """A job was placed in the thread's tree, and starts in its turn.

    It belongs to the job `parent`, or to the run without one. A `background` job and its
    descendants belong to the thread and may outlive the run that started them; `agent` is the agent
    of that run.

    A job that may be started again after a crash has its class in `kind`, and its fields as JSON in
    `arguments`; `attempt` counts its starts from 1.
    """

    type: ClassVar[Literal["job.started"]] = "job.started"
    job_id: str
    name: str
    parent: str = ""
    background: bool = False
    agent: str = ""
    announces: Announces = "wake"
    kind: str = ""
    arguments: str = ""
    attempt: int = 1


class JobDelegated(DurableEvent, frozen=True, gc=False, tag="job.delegated"):
    """The agent `agent` works for a job, on the thread `thread_id` of its own."""

    type: ClassVar[Literal["job.delegated"]] = "job.delegated"
    job_id: str
    agent: str
    thread_id: str


class JobSettled(EntryEvent, frozen=True, omit_defaults=True, tag="job.settled"):
    """A job and all its descendants have ended.

    `output` is the beginning of its result as text. `code` and `message` are those of the error it
    failed with, `problems` the errors of its callbacks. `seconds` is the time it took. `fails_run`
    is set if its failure fails the run, because no code awaited the job.

    A background job may have an `announcement` of its end, which enters the history at the next
    safe point; with `wakes` it starts a run if none is in progress.
    """

    type: ClassVar[Literal["job.settled"]] = "job.settled"
    job_id: str
    outcome: JobOutcome
    output: str = ""
    code: str = ""
    message: str = ""
    problems: tuple[str, ...] = ()
    seconds: float = 0.0
    announcement: Message | None = None
    wakes: bool = False
    fails_run: bool = False


class MemoryUpdated(
    EntryEvent, frozen=True, kw_only=True, omit_defaults=True, tag="memory.updated"
):
    """A memory block changed: at character `position`, `removed` was replaced by `added`.

    `was` and `becomes` are the rules of the block before and after, if it was made, deleted or
    configured. `key` identifies a change, so that a repeated request has no second effect. An undo
    names the change that it took back in `undoes`; `before` is the change of the block that an undo
    would have taken back until now.

    `thread_id` is set if a run of that other thread made the change. `memory` is set if the block
    belongs to that other thread: the event then records what a run of this thread changed there.
    """

    type: ClassVar[Literal["memory.updated"]] = "memory.updated"
    run_id: str = ""
    label: str
    operation: MemoryOperation
    author: MemoryAuthor
    position: int = 0
    removed: str = ""
    added: str = ""
    was: BlockRules | None = None
    becomes: BlockRules | None = None
    key: str = ""
    undoes: int = 0
    before: int = 0
    thread_id: str = ""
    memory: str = ""

    @property
    def diff(self) -> str:
        """The change, line by line: removed text after a minus, added text after a plus.

        Of a line that changed in part, only that part is shown. If the rules of the block changed
        instead of its text, the lines show the rules.
        """
        left, came = self.removed, self.added
        if self.was is not None and self.becomes is not None:
            left, came = _rules_that_differ(self.was, self.becomes)
        return "\n".join([*_marked("-", left), *_marked("+", came)])


def _rules_that_differ(was: BlockRules, becomes: BlockRules) -> tuple[str, str]:
    pairs = [(name, getattr(was, name), getattr(becomes, name)) for name in was.__struct_fields__]
    differ = [(f"{name}: {old}", f"{name}: {new}") for name, old, new in pairs if old != new]
    return "\n".join(old for old, _ in differ), "\n".join(new for _, new in differ)


def _marked(mark: str, text: str) -> list[str]:
    # A leading newline ends the line before the change; it adds no line of its own.
    lines = text.removeprefix("\n").splitlines() or [""] * bool(text)
    return [mark + line for line in lines]


class ContextCompacted(
    DurableEvent, frozen=True, kw_only=True, omit_defaults=True, tag="context.compacted"
):
    """The model reads less of the history from now on; the history itself is unchanged.

    Items before number `cut` are left out, except those that are `kept`. `shortened` pairs items
    with the number of characters that are still read. `summary` replaces the omitted items, unless
    the summary is in a memory block.

    `tokens_before` and `tokens_after` are the sizes of the next request, counted as `counted_by`
    specifies; `left_out` is the number of items that are newly left out. `model` wrote the summary.
    `fallback` is the reason if the result is not what the `strategy` would make.
    """

    type: ClassVar[Literal["context.compacted"]] = "context.compacted"
    run_id: str = ""
    cut: int
    kept: tuple[int, ...] = ()
    shortened: tuple[tuple[int, int], ...] = ()
    summary: Message | None = None
    strategy: str
    cause: CompactionCause
    tokens_before: int
    tokens_after: int
    counted_by: CountedBy
    left_out: int = 0
    model: str = ""
    fallback: str = ""
    usage: Usage = Usage()
    cost: float = 0.0
    seconds: float = 0.0


class MessagePinned(
    EntryEvent, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="message.pinned"
):
    """A message was pinned, so that compaction never leaves it out, or unpinned."""

    type: ClassVar[Literal["message.pinned"]] = "message.pinned"
    run_id: str = ""
    message_id: str
    pinned: bool = True


class MemoryTended(DurableEvent, frozen=True, kw_only=True, gc=False, tag="memory.tended"):
    """The sleep agent of job `job_id` has read the history up to item `until` and edited memory."""

    type: ClassVar[Literal["memory.tended"]] = "memory.tended"
    run_id: str = ""
    until: int
    job_id: str


class ItemRemoved(EntryEvent, frozen=True, kw_only=True, tag="item.removed"):
    """Items were removed from the history: the events with the numbers `events` lost their content.

    `keys` identify the items, so that a reader can drop what it holds of them; they contain no text
    of theirs.
    """

    type: ClassVar[Literal["item.removed"]] = "item.removed"
    run_id: str = ""
    events: tuple[int, ...]
    keys: tuple[str, ...]


class EventRemoved(
    DurableEvent, frozen=True, kw_only=True, omit_defaults=True, tag="event.removed"
):
    """An event stood here whose content was removed, or could not be read any more.

    It keeps its number. `event` is what the state of the thread needs of it, without content.
    """

    type: ClassVar[Literal["event.removed"]] = "event.removed"
    run_id: str = ""
    event: "RecordedEvent | None" = None


class PassageAdded(
    EntryEvent, frozen=True, kw_only=True, omit_defaults=True, tag="archive.inserted"
):
    """A text was put into the archive; `written_at` (Unix seconds) is set if it is older."""

    type: ClassVar[Literal["archive.inserted"]] = "archive.inserted"
    run_id: str = ""
    passage_id: str
    text: str
    author: MemoryAuthor
    tags: tuple[str, ...] = ()
    written_at: float | None = None


class PassageRemoved(EntryEvent, frozen=True, kw_only=True, gc=False, tag="archive.removed"):
    """A text was taken out of the archive."""

    type: ClassVar[Literal["archive.removed"]] = "archive.removed"
    run_id: str = ""
    passage_id: str


class ThreadUpdated(
    EntryEvent, frozen=True, kw_only=True, omit_defaults=True, tag="thread.updated"
):
    """The title, the metadata or the expiry of the thread changed; None if they did not.

    Of the metadata it contains the fields that changed; those with the value None were removed.
    `expires_at` is when the thread is deleted, in Unix seconds.
    """

    type: ClassVar[Literal["thread.updated"]] = "thread.updated"
    run_id: str = ""
    title: str | None = None
    metadata: dict[str, object] | None = None
    expires_at: float | Literal["never"] | None = None


class ScheduleCreated(
    EntryEvent, frozen=True, kw_only=True, omit_defaults=True, tag="schedule.created"
):
    """A message is to be sent to the thread at a later time."""

    type: ClassVar[Literal["schedule.created"]] = "schedule.created"
    run_id: str = ""
    schedule: Schedule


class ScheduleCancelled(
    EntryEvent, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="schedule.cancelled"
):
    """A schedule starts no further run."""

    type: ClassVar[Literal["schedule.cancelled"]] = "schedule.cancelled"
    run_id: str = ""
    schedule_id: str


class ScheduleFired(
    DurableEvent, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="schedule.fired"
):
    """A schedule was due at `due_at`, and is due again at `next_at` (Unix seconds), or never.

    `run_id` is the run that it starts; empty if its run before has not begun yet, so that there is
    no second one.
    """

    type: ClassVar[Literal["schedule.fired"]] = "schedule.fired"
    run_id: str = ""
    schedule_id: str
    due_at: float
    next_at: float | None = None


class RateLimitHit(DurableEvent, frozen=True, gc=False, tag="rate_limited"):
    """The provider asked to wait; the request is repeated after `delay` seconds."""

    type: ClassVar[Literal["rate_limited"]] = "rate_limited"
    delay: float
    retries_remaining: int
    message: str


class Retrying(DurableEvent, frozen=True, gc=False, tag="retrying"):
    """A request failed and is repeated after `delay` seconds; `code` is that of the error."""

    type: ClassVar[Literal["retrying"]] = "retrying"
    code: str
    delay: float
    retries_remaining: int
    message: str


class RetriesExhausted(DurableEvent, frozen=True, gc=False, tag="retries_exhausted"):
    """A request failed for the last time that the retry policy allows; the run fails."""

    type: ClassVar[Literal["retries_exhausted"]] = "retries_exhausted"
    code: str
    attempts: int
    message: str


class QuotaHit(DurableEvent, frozen=True, gc=False, tag="quota_exceeded"):
    """The account at the provider has no budget left; the run fails."""

    type: ClassVar[Literal["quota_exceeded"]] = "quota_exceeded"
    message: str


class ValidatedOutput(Struct, frozen=True, gc=False):
    """An output that a validator changed: as JSON, or as text if the output is a text.

    `items` are the keys of the items that it was made of, for their removal.
    """

    text: str
    items: tuple[str, ...]


class RunCompleted(DurableEvent, frozen=True, omit_defaults=True, tag="run.completed"):
    """The run reached its end. `output` is set if a validator changed the output.

    Here and in the other events that end a run, `seconds` is the time that it waited for its jobs
    since its last step.
    """

    type: ClassVar[Literal["run.completed"]] = "run.completed"
    stop_reason: StopReason
    usage: Usage
    seconds: float = 0.0
    output: ValidatedOutput | None = None


class RunIncomplete(DurableEvent, frozen=True, tag="run.incomplete"):
    """The run was stopped by the limit `stop_reason`, which applies to `scope`."""

    type: ClassVar[Literal["run.incomplete"]] = "run.incomplete"
    stop_reason: StopReason
    usage: Usage
    scope: LimitScope = "run"
    seconds: float = 0.0


class RunFailed(DurableEvent, frozen=True, tag="run.failed"):
    """The run failed; `code` and `retryable` are those of the error."""

    type: ClassVar[Literal["run.failed"]] = "run.failed"
    code: str
    message: str
    retryable: bool
    usage: Usage
    seconds: float = 0.0


class RunCancelled(EntryEvent, frozen=True, tag="run.cancelled"):
    """The run was cancelled."""

    type: ClassVar[Literal["run.cancelled"]] = "run.cancelled"
    usage: Usage
    seconds: float = 0.0


class RunExpired(DurableEvent, frozen=True, tag="run.expired"):
    """The run waited too long for an output or an approval."""

    type: ClassVar[Literal["run.expired"]] = "run.expired"
    usage: Usage
    seconds: float = 0.0


class UnknownEvent(DurableEvent, frozen=True, kw_only=True, tag="unknown"):
    """An event of a type that this version does not know: a newer version of treadle recorded it.

    `original_type` is the `type` in its JSON, and `raw` is that JSON. Readers may ignore the event.
    The state of a thread cannot be computed past it, so a thread with such an event is not driven.
    """

    type: ClassVar[Literal["unknown"]] = "unknown"
    run_id: str = ""
    original_type: str
    raw: bytes


class TextDelta(Struct, frozen=True, gc=False, tag="text.delta"):
    """Growth of the text of the message `item_id`."""

    type: ClassVar[Literal["text.delta"]] = "text.delta"
    item_id: str
    delta: str


class ReasoningDelta(Struct, frozen=True, gc=False, tag="reasoning.delta"):
    """Growth of the reasoning (or its summary) of the item `item_id`."""

    type: ClassVar[Literal["reasoning.delta"]] = "reasoning.delta"
    item_id: str
    delta: str


class RefusalDelta(Struct, frozen=True, gc=False, tag="refusal.delta"):
    """Growth of the refusal of the message `item_id`."""

    type: ClassVar[Literal["refusal.delta"]] = "refusal.delta"
    item_id: str
    delta: str


class ToolCallStarted(Struct, frozen=True, gc=False, tag="tool.call_started"):
    """The model began to write a tool call."""

    type: ClassVar[Literal["tool.call_started"]] = "tool.call_started"
    item_id: str
    call_id: str
    name: str


class ToolArgumentsDelta(Struct, frozen=True, gc=False, tag="tool.arguments.delta"):
    """Growth of the raw JSON arguments of the call `call_id`."""

    type: ClassVar[Literal["tool.arguments.delta"]] = "tool.arguments.delta"
    item_id: str
    call_id: str
    delta: str


class ToUserDelta(Struct, frozen=True, gc=False, tag="to_user.delta"):
    """Growth of the text for the user in the arguments of the call `call_id`, decoded."""

    type: ClassVar[Literal["to_user.delta"]] = "to_user.delta"
    item_id: str
    call_id: str
    delta: str


class FieldDelta(Struct, frozen=True, gc=False, tag="field.delta"):
    """Growth of the string `field`, decoded, of the arguments of the call `call_id`.

    Without a `call_id` it is a field of the structured output, whose message is `item_id`.
    """

    type: ClassVar[Literal["field.delta"]] = "field.delta"
    item_id: str
    call_id: str
    field: str
    delta: str


class ToolProgress(Struct, frozen=True, gc=False, tag="tool.progress"):
    """A running tool reported progress."""

    type: ClassVar[Literal["tool.progress"]] = "tool.progress"
    call_id: str
    name: str
    message: str


class HostedCallProgress(
    Struct, frozen=True, gc=False, omit_defaults=True, tag="hosted_call.progress"
):
    """A call of a hosted tool began, or more of it is known; `call` contains all of that.

    `is_partial`: the arguments are the lines of the code that the model has written so far. It ends
    with the `provider_item.added` of the same `call_id`.
    """

    type: ClassVar[Literal["hosted_call.progress"]] = "hosted_call.progress"
    call: HostedCall
    is_partial: bool = False

    @property
    def item_id(self) -> str:
        """The id of the item that the call becomes."""
        return self.call.call_id


class CitationAdded(Struct, frozen=True, gc=False, tag="citation.added"):
    """A source of the text of the message `item_id`, which is being written.

    The message contains it as one of the `annotations` of its text, with all others.
    """

    type: ClassVar[Literal["citation.added"]] = "citation.added"
    item_id: str
    annotation: Annotation


class AgentEvent(Struct, frozen=True, gc=False, tag="agent.event"):
    """An event of the thread `thread_id`, on which `agent` works for the call `call_id`.

    `call_id` is empty if the agent works for a job or a hook.
    """

    type: ClassVar[Literal["agent.event"]] = "agent.event"
    call_id: str
    agent: str
    thread_id: str
    event: "Event"


Delta = TextDelta | ReasoningDelta | RefusalDelta | ToolArgumentsDelta | ToUserDelta | FieldDelta
"""Growth of a text that the model writes; the deltas with one `delta_key` make up one text."""

DeltaKey = tuple[type[Delta], str, str]
"""The key of a text: the kind of its deltas, the item, and the field."""

LiveEvent = Delta | ToolCallStarted | ToolProgress | HostedCallProgress | CitationAdded | AgentEvent
TerminalEvent = RunCompleted | RunIncomplete | RunFailed | RunCancelled | RunExpired
RecordedEvent = (
    MessageAdded
    | ItemsAdded
    | RunQueued
    | RunStarted
    | MessageQueued
    | RunFinishing
    | RunCancelling
    | StepStarted
    | ReasoningAdded
    | ProviderItemAdded
    | ToolCallRequested
    | RunRequiresAction
    | ToolApproved
    | ToolStarted
    | ToolDelegated
    | ToolOutputRecorded
    | RequestAdapted
    | ToolChoiceIgnored
    | ResponseCompleted
    | UsageAdded
    | StepCompleted
    | StepInterrupted
    | HistoryReplaced
    | RunContinued
    | HandedOff
    | JobStarted
    | JobDelegated
    | JobSettled
    | MemoryUpdated
    | ContextCompacted
    | MessagePinned
    | MemoryTended
    | ItemRemoved
    | EventRemoved
    | PassageAdded
    | PassageRemoved
    | ThreadUpdated
    | ScheduleCreated
    | ScheduleCancelled
    | ScheduleFired
    | RateLimitHit
    | Retrying
    | RetriesExhausted
    | QuotaHit
    | RunCompleted
    | RunIncomplete
    | RunFailed
    | RunCancelled
    | RunExpired
    | UnknownEvent
)
Event = RecordedEvent | LiveEvent


def brings(event: RecordedEvent, item: Item) -> bool:
    """Whether an event brings `item` into the history, or what compaction made of it."""
    match event:
        case HistoryReplaced() | ItemsAdded():
            return any(_is_same(one, item) for one in event.items)
        case ContextCompacted():
            return event.summary is not None and _is_same(event.summary, item)
        case (
            MessageAdded()
            | ReasoningAdded()
            | ProviderItemAdded()
            | ToolCallRequested()
            | ToolOutputRecorded()
        ):
            return _is_same(event.item, item)
        case _:
            return False


def _is_same(one: Item, other: Item) -> bool:
    if type(one) is not type(other) or isinstance(one, ProviderItem):
        return one == other
    # Without an id it is recognised by its content; a shortened item keeps its id.
    id = one.id
    return id == other.id if id and not isinstance(other, ProviderItem) else one == other


def delta_in(event: Event) -> Delta | None:
    """Returns the delta in an event, even if it comes from the thread of another agent, or None."""
    while isinstance(event, AgentEvent):
        event = event.event
    return event if isinstance(event, Delta) else None


def delta_key(delta: Delta) -> DeltaKey:
    """Returns the key of the text that `delta` extends: only deltas of one text may be joined."""
    if type(delta) is FieldDelta:
        return FieldDelta, delta.item_id, delta.field
    return type(delta), delta.item_id, ""


def streamed(event: Event) -> list[LiveEvent]:
    """Returns what a reader sees of an item of the model before `event`, which makes it durable.

    Each text is one delta: all deltas of the text add up to it. Streamed fields are not among them,
    because the event does not tell which fields these are.
    """
    match event:
        case MessageAdded(origin="model", item=item):
            whole: list[LiveEvent] = [TextDelta(item.id, item.text)]
            whole.append(RefusalDelta(item.id, item.refusal))
        case ReasoningAdded(item=item):
            whole = [ReasoningDelta(item.id, item.text)]
        case ToolCallRequested(item=item):
            whole = [
                ToolCallStarted(item.id, item.call_id, item.name),
                ToolArgumentsDelta(item.id, item.call_id, item.arguments),
                ToUserDelta(item.id, item.call_id, event.said),
            ]
        case _:
            return []
    return [one for one in whole if not isinstance(one, Delta) or one.delta]


def field_in(event: Event, field: str) -> str:
    """Returns a text in the arguments of a call, or in the structured output of a message.

    Empty if `event` does not add the item, or the field is missing or is not a text.
    """
    match event:
        case ToolCallRequested():
            fields = event.arguments
        case MessageAdded():
            fields = object_in(event.item.text)
        case _:
            return ""
    value = (fields or {}).get(field)
    return value if isinstance(value, str) else ""


def text_key(event: Event) -> object:
    """Returns the key of the text that an event extends, here or on another agent's thread.

    None for an event without a delta.
    """
    if isinstance(event, AgentEvent):
        key = text_key(event.event)
        return None if key is None else (event.thread_id, key)
    return delta_key(event) if isinstance(event, Delta) else None


def with_delta(event: Event, text: str) -> Event:
    """Returns an event with `text` in place of its delta: several of one text, joined."""
    if isinstance(event, AgentEvent):
        return replace(event, event=with_delta(event.event, text))
    return replace(event, delta=text)
