"""All errors of treadle: a stable `code`, a `retryable` flag, and a message for people.

```text
TreadleError
├── ConfigurationError            the program is set up in a way that cannot work
│   ├── UnknownModel              a model string that names no provider
│   ├── MissingKey                no API key in the environment or the call
│   ├── ToolUnsupported           the provider of the model does not have a hosted tool
│   ├── InvalidTool               a function that cannot become a tool
│   ├── InvalidHook               a function that cannot be a hook
│   ├── DuplicateTool             two tools of one agent have the same name
│   └── MissingExtra              an optional dependency of treadle is not installed
├── InvalidInput                  an empty message, a value of another form, text not in UTF-8
│   ├── ExportInvalid             the export of a thread is damaged, cut, or of a newer version
│   └── OptionNotAllowed          an option of a run that the agent does not let callers change
├── FetchFailed                   a file could not be fetched from the web, or must not be
├── ModelRetry                    raised by programs: the model must try again
├── ModelError                    a model provider failed or refused
│   ├── ConnectionFailed          retryable: refused, reset, name not found
│   ├── ModelTimeout              retryable: while connecting, before or between chunks
│   ├── RateLimited               retryable: HTTP 429 or its equivalent in a stream
│   ├── ServerFailed              retryable: HTTP 5xx, overloaded
│   ├── QuotaExceeded             the account has no budget left
│   ├── BadRequest                any other HTTP 4xx
│   │   ├── AccessDenied          HTTP 401 or 403: the key is missing, wrong or not allowed to
│   │   ├── ItemRefused           an item of the history is not accepted
│   │   └── ContextOverflow       the request is longer than the model's window
│   ├── StreamIncomplete          retryable: the stream ended without its terminal event
│   └── StreamInvalid             retryable: not the expected format, or too long
├── RunError                      a run failed
│   ├── ToolFailed                a tool declared with on_error="raise" failed
│   ├── OutputInvalid             the structured output stayed invalid after its corrections
│   ├── InputUnsupported          the model does not read a file, an image or audio of the message
│   ├── OutputRefused             the model refused to give a structured output
│   ├── HookFailed                a hook raised
│   ├── JobFailed                 a job of the run failed while no code awaited it
│   ├── RuleBroken                the model answered without a required tool call
│   ├── AgentsTooDeep             agents called agents deeper than the limit
│   ├── BudgetUsedUp              the run has no budget left for another agent
│   ├── SpendingLimitReached      the owner has used up what it may spend in the period
│   ├── RunStopped                a run ended without an output; it has the result so far
│   │   ├── LimitReached          a limit stopped it
│   │   ├── ContentFiltered       the provider filtered the response
│   │   ├── ReplyOverdue          no output or approval arrived in time
│   │   ├── CancelRequested       it was cancelled
│   │   └── OutputMissing         it was finished, or ended by a tool, before there was an output
│   └── RunInterrupted            retryable: the driver of the run ended before the run did
├── ToolSourceError               a source of tools failed
│   ├── ToolSourceFailed          retryable: it could not be started or reached, or it ended
│   └── RemoteToolFailed          it answered a call with an error
├── ThreadError                   a request to a thread cannot be fulfilled
│   ├── ThreadNotFound            the thread does not exist, or was deleted
│   ├── RunNotFound               the thread has no run with that id
│   ├── ItemNotFound              the thread has no item with that id
│   ├── RunInProgress             a run is active, and on_busy="reject" was asked for
│   ├── RunNotInProgress          no run is waiting for the submitted answer
│   ├── NotDriven                 retryable: no process drives the threads
│   ├── VerdictUnknown            retryable: the driving node has not decided yet
│   ├── RunTimeout                retryable: the run has not ended in the given time
│   ├── UnknownToolCall           the run has no call with that id
│   ├── UnknownMessage            the history has no message with that id
│   ├── UnknownFile               the owner has no file with that id
│   ├── Conflict                  another answer, another message of a key, or a newer event
│   ├── TooManySchedules          the thread has reached its limit of schedules
│   ├── UnknownAgent              the runtime was opened without this agent
│   └── UnknownOption             ... without a model, tool or output type of the run
├── JournalError                  the journal could not store or load events
│   ├── JournalFull               retryable: no space left on the disk
│   ├── JournalLocked             retryable: another process drives or locks the database
│   ├── JournalUnavailable        retryable: the server of the database cannot be reached
│   ├── JournalReadOnly           the database cannot be written to
│   ├── JournalCorrupt            the file is not a treadle database, or is damaged
│   │   └── ThreadDamaged         an event of one thread cannot be read
│   ├── JournalTooNew             a newer version of treadle wrote the database or thread
│   ├── JournalClosed             the runtime was shut down
│   └── StaleWriter               another driver has claimed the thread
├── JobError                      a request to a tree of jobs cannot be fulfilled
│   ├── NodeClosed                the node has settled, or is being cancelled
│   ├── NodeReused                a job or handler was submitted twice
│   ├── NodeCancelled             the awaited node was cancelled
│   ├── NodeDeadlock              a node waits for itself or for an ancestor
│   ├── TooManyJobs               retryable: the thread has reached its limit of open jobs
│   ├── JobNotRestartable         a stored job cannot be created again
│   ├── TooManySteps              a graph took more steps than its max_steps
│   ├── UnknownStep               a condition returned a step that its edge does not list
│   ├── CommanderRunning          run() was called while the commander is running
│   └── CommanderNotRunning       a job was submitted while the commander is not running
├── MemoryFailed                  a request to a memory failed; nothing has changed
│   ├── UnknownBlock              no block has that label
│   ├── BlockExists               a block with that label exists already
│   ├── BlockReadOnly             a model tried to change a read-only block
│   ├── BlockChanged              retryable: the block has changed since the model read it
│   ├── BlockTooLong              the text would exceed the limit of the block
│   ├── TextNotFound              the text to be replaced is not in the block
│   ├── TextNotUnique             the text to be replaced occurs more than once
│   ├── ChangeNotUndoable         a later change overlaps the one to be undone
│   ├── UnknownPassage            the archive has no passage with that id
│   ├── ArchiveFailed             the index of the archive cannot be read or written
│   ├── EmbeddingFailed           retryable: an embedder raised, or could not be reached
│   └── EmbeddingInvalid          an embedder returned vectors of the wrong number, size or value
├── RequestFailed                 a treadle server refused a request, or failed
│   ├── NotAuthenticated          the key is missing, unknown, revoked or expired
│   ├── ScopeMissing              the key does not allow this
│   └── ServerUnreachable         retryable: no connection, or no answer in time
├── InvalidTransition             an event does not fit the state of its thread
└── TestingError                  raised by treadle.testing only
    ├── UnexpectedRequest         the script or the recording has no such request
    ├── UnconsumedSteps           a part of the script or recording was not used
    ├── RecordingInvalid          a recording is missing, damaged or of another version
    └── NetworkForbidden          a real provider was called where tests forbid it
```
"""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from treadle.domain.result import RunResult


class TreadleError(Exception):
    """The base class of all errors of treadle.

    `code` is stable and meant for programs, `message` is meant for people. `retryable` is true if
    the same call may succeed later without a change.
    """

    code: str = "error"
    retryable: bool = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigurationError(TreadleError):
    """The program is set up in a way that cannot work; raised where that is defined."""

    code = "configuration"


class UnknownModel(ConfigurationError):
    """A model string does not name a known provider."""

    code = "unknown_model"


class MissingKey(ConfigurationError):
    """No API key was found in the environment or given by the caller."""

    code = "missing_key"


class ToolUnsupported(ConfigurationError):
    """The provider of the model does not have a hosted tool; the message names those that do."""

    code = "tool_unsupported"


class InvalidTool(ConfigurationError):
    """A function cannot become a tool; the message contains the reason."""

    code = "invalid_tool"


class DuplicateTool(ConfigurationError):
    """Two tools of one agent have the same name."""

    code = "duplicate_tool"


class MissingExtra(ConfigurationError, ImportError):
    """An optional dependency of treadle is not installed; the message names the extra."""

    code = "missing_extra"


class InvalidHook(ConfigurationError):
    """A function cannot be a hook; the message contains its name and the reason."""

    code = "invalid_hook"


class InvalidInput(TreadleError):
    """An argument that cannot be sent to a model or stored, such as an empty message."""

    code = "invalid_input"


class FetchFailed(TreadleError):
    """A file could not be fetched from the web, or must not be: see `treadle.fetch_file`.

    `retryable` is set if the server or the network failed.
    """

    code = "fetch_failed"

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class ExportInvalid(InvalidInput):
    """The export of a thread cannot be imported: line `line` (from 1) is damaged, or the last one.

    Nothing was added.
    """

    code = "export_invalid"

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class OptionNotAllowed(InvalidInput):
    """A caller gave `option` for a run, which is not in `Agent.overridable`, or another value."""

    code = "option_not_allowed"

    def __init__(self, message: str, option: str = "") -> None:
        super().__init__(message)
        self.option = option


class ModelRetry(TreadleError):
    """Raise it in an output validator or a tool to make the model try again.

    The model reads the message. For an output validator it is a correction, of which a run has
    `Agent.max_corrections`; for a tool it is the output of the call, without a retry.
    """

    code = "model_retry"


class ModelError(TreadleError):
    """A model provider failed or refused.

    - `status`: the HTTP status, if there was a response.
    - `retry_after`: the pause that the provider asks for, in seconds.
    - `provider_code`: the provider's error code, as received.
    - `attempts`: the number of requests made before the error was raised.
    - `retry_once`: the same request usually fails in the same way, so that a retry is tried once.
    """

    code = "model_error"
    retry_once = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        provider_code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.provider_code = provider_code
        self.retry_after = retry_after
        self.attempts = 1


class ConnectionFailed(ModelError):
    """The provider could not be reached, or the connection broke."""

    code = "connection_failed"
    retryable = True


class ModelTimeout(ModelError):
    """The provider sent nothing, or nothing of an answer, for longer than one of the `Timeouts`."""

    code = "model_timeout"
    retryable = True


class RateLimited(ModelError):
    """Too many requests; `retry_after` is the requested pause, if the provider sent one."""

    code = "rate_limited"
    retryable = True


class ServerFailed(ModelError):
    """The provider failed or is overloaded."""

    code = "server_failed"
    retryable = True


class QuotaExceeded(ModelError):
    """The account has no budget left; a retry does not help."""

    code = "quota_exceeded"


class BadRequest(ModelError):
    """The provider refused the request; the message is the provider's own."""

    code = "bad_request"


class AccessDenied(BadRequest):
    """The provider does not accept the key, or not for this model: HTTP 401 or 403."""

    code = "access_denied"


class ItemRefused(BadRequest):
    """An item of the history is not accepted: by the provider, or by a model with `strict=True`.

    `item` is the item. On a thread, `seq` is the number of its event, which
    `Thread.remove_event` takes out of the history; 0 if it has none.
    """

    code = "item_refused"

    def __init__(
        self,
        message: str,
        item: object = None,
        *,
        status: int | None = None,
        provider_code: str | None = None,
    ) -> None:
        super().__init__(message, status=status, provider_code=provider_code)
        self.item = item
        self.seq = 0


class ContextOverflow(BadRequest):
    """The request is longer than the model's window; see `treadle.memory.Summarize`."""

    code = "context_overflow"


class StreamIncomplete(ModelError):
    """The stream ended without its terminal event."""

    code = "stream_incomplete"
    retryable = True


class StreamInvalid(ModelError):
    """The response does not have the expected format, or exceeds a limit.

    The same request usually fails in the same way, so it is repeated at most once.
    """

    code = "stream_invalid"
    retryable = True
    retry_once = True


class RunError(TreadleError):
    """A run failed."""

    code = "run_error"


class ToolFailed(RunError):
    """A tool declared with `on_error="raise"` failed; every call has an output."""

    code = "tool_failed"


class OutputInvalid(RunError):
    """The structured output stayed invalid after all corrections."""

    code = "output_invalid"


class InputUnsupported(RunError):
    """The API of the model does not read a file, an image or audio of the message.

    No request was made. The message is part of the history; later requests contain a text in place
    of the file.
    """

    code = "input_unsupported"


class SpendingLimitReached(RunError):
    """The owner of the thread has reached a `SpendingLimit`; no request was made.

    Send again after `resets_at`.
    """

    code = "spending_limit_reached"

    @property
    def resets_at(self) -> datetime | None:
        """When the limit is reset, in its time zone; None if the message does not end with it.

        It is read from the message, with which the error is stored and sent.
        """
        try:
            return datetime.fromisoformat(self.message.rpartition(" ")[2])
        except ValueError:
            return None


class OutputRefused(RunError):
    """The model refused to give the requested structured output."""

    code = "output_refused"


class HookFailed(RunError):
    """A hook, or another function of the program, raised the exception that is the cause.

    Other functions are those for instructions and for deps.
    """

    code = "hook_failed"


class JobFailed(RunError):
    """A job of the run failed while no code awaited it; its exception is the cause."""

    code = "job_failed"


class RuleBroken(RunError):
    """The model answered without a required tool call, after all corrections."""

    code = "rule_broken"


class AgentsTooDeep(RunError):
    """Agents called agents deeper than `Limits.max_depth`."""

    code = "agents_too_deep"


class BudgetUsedUp(RunError):
    """The run has no budget left for another agent."""

    code = "budget_used_up"


class RunStopped(RunError):
    """A run ended without an output, although nothing failed.

    Raised where the result of a run is asked for; `raise_on_incomplete=False` returns the result
    instead. `result` contains what there is: the text, the items, the history and the usage. Its
    `output` is None.
    """

    code = "run_stopped"
    result: "RunResult[Any]"

    def __init__(self, message: str, result: "RunResult[Any] | None" = None) -> None:
        super().__init__(message)
        if result is not None:
            self.result = result


class LimitReached(RunStopped):
    """A limit stopped the run: `result.stop_reason` names it, such as "max_steps"."""

    code = "limit_reached"


class ContentFiltered(RunStopped):
    """The provider filtered the response of the model, and ended it early."""

    code = "content_filtered"


class ReplyOverdue(RunStopped):
    """The run waited longer than `Agent.action_timeout` for an output or an approval."""

    code = "reply_overdue"


class CancelRequested(RunStopped):
    """The run was cancelled, or taken out of the queue."""

    code = "cancel_requested"


class OutputMissing(RunStopped):
    """The run was told to finish, or ended by a terminal tool, before there was an output."""

    code = "output_missing"


class RunInterrupted(RunError):
    """The driver of the run ended before the run did."""

    code = "run_interrupted"
    retryable = True


class ToolSourceError(TreadleError):
    """A source of tools, such as an MCP server, failed."""

    code = "tool_source_error"


class ToolSourceFailed(ToolSourceError):
    """A source of tools could not be started or reached, or it ended."""

    code = "tool_source_failed"
    retryable = True


class RemoteToolFailed(ToolSourceError):
    """A source of tools answered a call with an error; the message is the source's own."""

    code = "remote_tool_failed"


class ThreadError(TreadleError):
    """A request to a thread cannot be fulfilled."""

    code = "thread_error"


class ThreadNotFound(ThreadError):
    """The thread does not exist, or was deleted."""

    code = "thread_not_found"


class RunNotFound(ThreadError):
    """The thread has no run with that id."""

    code = "run_not_found"


class ItemNotFound(ThreadError):
    """The thread has no item with that id, or it was removed."""

    code = "item_not_found"


class RunInProgress(ThreadError):
    """A run is active, and `on_busy="reject"` was given; `run_id` is the active run."""

    code = "run_in_progress"

    def __init__(self, message: str, *, run_id: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id


class RunNotInProgress(ThreadError):
    """No run is waiting for the submitted answer; `by` is the principal that cancelled the run."""

    code = "run_not_in_progress"

    def __init__(self, message: str, *, by: str = "") -> None:
        super().__init__(message)
        self.by = by


class NotDriven(ThreadError):
    """No process drives the threads, so the run does not begin, or the entry is not decided.

    What was sent stays in the inbox, and is taken by the next process that drives the database.
    """

    code = "not_driven"
    retryable = True


class VerdictUnknown(ThreadError):
    """The node that drives the thread has not decided in time what becomes of an entry.

    The entry waits in the inbox and may still be accepted: send it again with the same key.
    """

    code = "verdict_unknown"
    retryable = True


class RunTimeout(ThreadError):
    """The run has not ended in the time that its caller waited for; it continues."""

    code = "run_timeout"
    retryable = True


class UnknownToolCall(ThreadError):
    """The active run has no open call with that id."""

    code = "unknown_tool_call"


class UnknownMessage(ThreadError):
    """The history has no message with that id."""

    code = "unknown_message"


class UnknownFile(ThreadError):
    """No file has that id, or it belongs to another owner."""

    code = "unknown_file"


class Conflict(ThreadError):
    """The call has a different answer, the key a different message, or an event came between.

    `by` is the principal that answered first, "" for the program itself. `seq` is the number of
    the last event of the thread if one came between, else 0.
    """

    code = "conflict"

    def __init__(self, message: str, *, by: str = "", seq: int = 0) -> None:
        super().__init__(message)
        self.by = by
        self.seq = seq


class TooManySchedules(ThreadError):
    """The thread has as many schedules as it may have; cancel one first."""

    code = "too_many_schedules"


class UnknownAgent(ThreadError):
    """The runtime was opened without the agent that the thread needs."""

    code = "unknown_agent"


class UnknownOption(ThreadError):
    """The runtime was opened without a model, tool or output type that the run names."""

    code = "unknown_option"


class JournalError(TreadleError):
    """The journal could not store or load events; subscribers have not seen them."""

    code = "journal_error"
    retryable = True


class JournalFull(JournalError):
    """No space is left on the disk."""

    code = "journal_full"


class JournalLocked(JournalError):
    """Another process drives the database, or has locked it for too long."""

    code = "journal_locked"


class JournalUnavailable(JournalError):
    """The server of the database cannot be reached, for longer than the journal waits for it."""

    code = "journal_unavailable"


class JournalReadOnly(JournalError):
    """The database cannot be written to."""

    code = "journal_read_only"
    retryable = False


class JournalCorrupt(JournalError):
    """The file is not a treadle database, or is damaged."""

    code = "journal_corrupt"
    retryable = False


class ThreadDamaged(JournalCorrupt):
    """An event of a thread cannot be read; other threads are not affected.

    `thread_id` and `seq` name the event. `Thread.export` returns what is stored, `Thread.repair`
    removes damaged events, `Thread.delete` removes the thread.
    """

    code = "thread_damaged"

    def __init__(self, message: str, *, thread_id: str = "", seq: int = 0) -> None:
        super().__init__(message)
        self.thread_id = thread_id
        self.seq = seq


class JournalTooNew(JournalError):
    """The database, or an event of the thread, was written by a newer version of treadle.

    Nothing is damaged: install that version. The events of such a thread can still be read.
    """

    code = "journal_too_new"
    retryable = False


class JournalClosed(JournalError):
    """The runtime was shut down."""

    code = "journal_closed"
    retryable = False


class StaleWriter(JournalError):
    """Another driver has claimed the thread."""

    code = "stale_writer"
    retryable = False


class JobError(TreadleError):
    """A request to a tree of jobs cannot be fulfilled."""

    code = "job_error"


class NodeClosed(JobError):
    """The node accepts no more children: it has settled, or it is being cancelled."""

    code = "node_closed"


class NodeReused(JobError):
    """A job or a handler was submitted twice; each is one node of one tree."""

    code = "node_reused"


class NodeCancelled(JobError):
    """The awaited node was cancelled, so it has no result."""

    code = "node_cancelled"


class NodeDeadlock(JobError):
    """A node waits for itself, or for a node that cannot settle before it."""

    code = "node_deadlock"


class TooManyJobs(JobError):
    """A thread has reached its limit of open jobs; some of them must settle first."""

    code = "too_many_jobs"
    retryable = True


class JobNotRestartable(JobError):
    """A stored job cannot be created again: its class is unknown here, or has changed."""

    code = "job_not_restartable"


class TooManySteps(JobError):
    """A graph took more steps than its `max_steps`."""

    code = "too_many_steps"


class UnknownStep(JobError):
    """The condition of an edge returned a step that the edge does not list."""

    code = "unknown_step"


class CommanderRunning(JobError):
    """A commander runs one tree at a time."""

    code = "commander_running"


class CommanderNotRunning(JobError):
    """A job was submitted while the commander is not running."""

    code = "commander_not_running"


class MemoryFailed(TreadleError):
    """A request to a memory failed; nothing has changed."""

    code = "memory_failed"


class UnknownBlock(MemoryFailed):
    """No memory block has that label."""

    code = "unknown_block"


class BlockExists(MemoryFailed):
    """A memory block with that label exists already."""

    code = "block_exists"


class BlockReadOnly(MemoryFailed):
    """A model tried to change a read-only memory block."""

    code = "block_read_only"


class BlockChanged(MemoryFailed):
    """The memory block has changed since the model read it; the model must read it again."""

    code = "block_changed"
    retryable = True


class BlockTooLong(MemoryFailed):
    """The text would exceed the limit of the memory block."""

    code = "block_too_long"


class TextNotFound(MemoryFailed):
    """The text to be replaced is not in the memory block."""

    code = "text_not_found"


class TextNotUnique(MemoryFailed):
    """The text to be replaced occurs more than once; the message lists the lines."""

    code = "text_not_unique"


class ChangeNotUndoable(MemoryFailed):
    """A later change overlaps the one to be undone; undo the later one first."""

    code = "change_not_undoable"


class UnknownPassage(MemoryFailed):
    """The archive has no passage with that id, or it was removed."""

    code = "unknown_passage"


class ArchiveFailed(MemoryFailed):
    """The index of the archive cannot be read or written."""

    code = "archive_failed"


class EmbeddingFailed(MemoryFailed):
    """An embedder raised, or could not be reached."""

    code = "embedding_failed"
    retryable = True


class EmbeddingInvalid(MemoryFailed):
    """An embedder returned vectors of the wrong number, size or value."""

    code = "embedding_invalid"


class RequestFailed(TreadleError):
    """A treadle server refused a request, or failed; see `treadle.client`.

    `code` is that of the server's answer, `status` its HTTP status, 0 without an answer. What the
    runtime of the server refused has the class that it has there, such as `ThreadNotFound`.
    """

    code = "request_failed"
    status: int = 0


class NotAuthenticated(RequestFailed):
    """The key for the server is missing, unknown, revoked or expired."""

    code = "not_authenticated"


class ScopeMissing(RequestFailed):
    """The key for the server does not allow the request; the message names the scope."""

    code = "scope_missing"


class ServerUnreachable(RequestFailed):
    """The server could not be reached, or did not answer, for as long as the client tries."""

    code = "server_unreachable"
    retryable = True


class InvalidTransition(TreadleError):
    """An event does not fit the state of its thread: a defect in the caller of `apply`."""

    code = "invalid_transition"


class TestingError(TreadleError):
    """Raised by `treadle.testing` only."""

    __test__: ClassVar[Literal[False]] = False
    code = "testing"


class UnexpectedRequest(TestingError):
    """The script of a model has ended, or a recording has no such request."""

    code = "unexpected_request"


class UnconsumedSteps(TestingError):
    """A part of the script or recording was not used."""

    code = "unconsumed_steps"


class RecordingInvalid(TestingError):
    """A recording is missing, damaged, of another version, or could not be written."""

    code = "recording_invalid"


class NetworkForbidden(TestingError):
    """A real provider was called inside `forbid_network`."""

    code = "network_forbidden"


def error_of(code: str, message: str, *, retryable: bool) -> TreadleError:
    """Rebuilds the error of a recorded failed run; an unknown code gives a `RunError`."""
    kinds = [kind for root in (ModelError, RunError) for kind in subclasses(root)]
    kind = next((kind for kind in kinds if kind.code == code), RunError)
    error = kind(message)
    error.code, error.retryable = code, retryable
    return error


def subclasses(kind: type[TreadleError]) -> Iterator[type[TreadleError]]:
    """Yields a kind of errors, and all narrower ones."""
    yield kind
    for narrower in kind.__subclasses__():
        yield from subclasses(narrower)
