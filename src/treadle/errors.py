"""Every error of treadle: a stable `code`, a `retryable` flag, a message that says what to do.

```text
TreadleError
├── ConfigurationError            what the program asks for cannot work
│   ├── UnknownModel              a model string that names no provider
│   ├── MissingKey                no API key in the environment or the call
│   ├── InvalidTool               a function that cannot become a tool
│   ├── InvalidHook               a function that cannot be a hook
│   ├── DuplicateTool             two tools of one name
│   └── MissingExtra              an optional dependency of treadle is not installed
├── InvalidInput                  an empty message, text that is not UTF-8
├── ModelError                    a model provider did not answer as it should
│   ├── ConnectionFailed          retryable: refused, reset, name not found
│   ├── ModelTimeout              retryable: connect, first byte or between chunks
│   ├── RateLimited               retryable: HTTP 429 or its equivalent in a stream
│   ├── ServerFailed              retryable: HTTP 5xx, overloaded
│   ├── QuotaExceeded             the account has no budget left
│   ├── BadRequest                any other HTTP 4xx
│   │   └── ContextOverflow       the request is longer than the model's window
│   ├── StreamIncomplete          retryable: the stream ended without its terminal event
│   └── StreamInvalid             retryable: not the announced format, or too long
├── RunError                      a run that could not go on
│   ├── ToolFailed                a tool declared with on_error="raise" failed
│   ├── OutputInvalid             the structured output stayed invalid after its corrections
│   ├── OutputRefused             the model refused to give a structured output
│   ├── HookFailed                a hook raised
│   ├── JobFailed                 a job of the run failed, and nobody waited for it
│   ├── RuleBroken                the model did not call a tool that it must call before its answer
│   ├── AgentsTooDeep             agents called agents deeper than the limit
│   ├── BudgetUsedUp              the run has nothing left for another agent to work with
│   └── RunInterrupted            retryable: the driver of the run ended before the run did
├── ToolSourceError               what serves tools from elsewhere did not do as it should
│   ├── ToolSourceFailed          retryable: it could not be started, or reached, or it ended
│   └── RemoteToolFailed          it answered a call with an error
├── ThreadError                   what was asked of a thread cannot be done
│   ├── ThreadNotFound            no thread of that id, or it was deleted
│   ├── RunNotFound               no run of that id on the thread
│   ├── RunInProgress             a run is active, and on_busy="reject" was asked for
│   ├── RunNotInProgress          no run waits for what was submitted
│   ├── UnknownToolCall           the run has no call of that id
│   ├── UnknownMessage            the history has no message of that id
│   ├── Conflict                  the call was already answered with something else
│   └── UnknownAgent              the runtime was opened without the agent of the thread
├── JournalError                  the journal could not keep or give what was asked
│   ├── JournalFull               retryable: no space left on the disk
│   ├── JournalLocked             retryable: another process drives, or holds, the database
│   ├── JournalReadOnly           the database cannot be written to
│   ├── JournalCorrupt            the file is no database of treadle, or is damaged
│   ├── JournalTooNew             the database was made by a newer treadle
│   ├── JournalClosed             the runtime was shut down
│   └── StaleWriter               another driver has taken the thread over
├── JobError                      what was asked of a tree of jobs cannot be done
│   ├── NodeClosed                the node has settled, or is being cancelled
│   ├── NodeReused                a job or handler was submitted twice
│   ├── NodeCancelled             the node that was awaited was cancelled
│   ├── NodeDeadlock              a node waits for itself or for one it belongs to
│   ├── TooManyJobs               retryable: a thread has as many open jobs as it can keep
│   ├── JobNotRestartable         a stored job cannot be made again from what is known of it
│   ├── TooManySteps              a graph took more steps than its max_steps
│   ├── UnknownStep               a condition chose a step that its edge does not list
│   ├── CommanderRunning          run() of a commander that is running
│   └── CommanderNotRunning       something was submitted to a commander that is not running
├── MemoryFailed                  what was asked of a memory cannot be done; nothing changed
│   ├── UnknownBlock              no block of that label
│   ├── BlockExists               a block of that label is there already
│   ├── BlockReadOnly             a model tried to change a block that it may only read
│   ├── BlockChanged              retryable: it is another since the model read it
│   ├── BlockTooLong              the text would be longer than the block's limit
│   ├── TextNotFound              the text to be replaced is not in the block
│   ├── TextNotUnique             the text to be replaced is in the block more than once
│   ├── ChangeNotUndoable         later changes stand where the one to be undone did
│   ├── UnknownPassage            no passage of that id in the archive
│   ├── ArchiveFailed             the index of the archive cannot be read or written
│   ├── EmbeddingFailed           retryable: an embedder raised, or could not be reached
│   └── EmbeddingInvalid          an embedder returned vectors of the wrong number, size or value
├── InvalidTransition             an event that cannot follow the thread's state
└── TestingError                  raised by treadle.testing only
    ├── UnexpectedRequest         asked what the script or the recording does not have
    ├── UnconsumedSteps           asked less often than scripted or recorded
    ├── RecordingInvalid          a recording that is missing, damaged or of another version
    └── NetworkForbidden          a real provider was called where tests forbid it
```
"""

from collections.abc import Iterator
from typing import ClassVar, Literal


class TreadleError(Exception):
    """The root of all errors of treadle.

    `code` is stable and meant for programs; the message is meant for people; `retryable` says
    whether the same call may succeed later without a change.
    """

    code: str = "error"
    retryable: bool = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigurationError(TreadleError):
    """What the program asks for cannot work; found where it is defined."""

    code = "configuration"


class UnknownModel(ConfigurationError):
    """A model string that names no provider."""

    code = "unknown_model"


class MissingKey(ConfigurationError):
    """No API key was found in the environment or given by the caller."""

    code = "missing_key"


class InvalidTool(ConfigurationError):
    """A function whose signature cannot become a tool."""

    code = "invalid_tool"


class DuplicateTool(ConfigurationError):
    """Two tools of one agent share a name."""

    code = "duplicate_tool"


class MissingExtra(ConfigurationError, ImportError):
    """An optional dependency of treadle is not installed; the message names the extra."""

    code = "missing_extra"


class InvalidHook(ConfigurationError):
    """A function cannot be a hook; the message names it and what is wrong."""

    code = "invalid_hook"


class InvalidInput(TreadleError):
    """Input that no model can be given, such as an empty message."""

    code = "invalid_input"


class ModelError(TreadleError):
    """A model provider did not answer as it should.

    `status` is the HTTP status, where there was one. `retry_after` is the provider's own wish in
    seconds. `provider_code` is the provider's error code, kept as received. `attempts` counts the
    requests made before the error was raised.
    """

    code = "model_error"

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
    """The provider was silent for too long: while connecting, before or between chunks."""

    code = "model_timeout"
    retryable = True


class RateLimited(ModelError):
    """Too many requests; `retry_after` holds the provider's wish, if it gave one."""

    code = "rate_limited"
    retryable = True


class ServerFailed(ModelError):
    """The provider failed or is overloaded."""

    code = "server_failed"
    retryable = True


class QuotaExceeded(ModelError):
    """The account has no budget left; waiting does not help."""

    code = "quota_exceeded"


class BadRequest(ModelError):
    """The provider refused the request; the message is the provider's own."""

    code = "bad_request"


class ContextOverflow(BadRequest):
    """The request is longer than the window of the model; see `treadle.memory.Summarize`."""

    code = "context_overflow"


class StreamIncomplete(ModelError):
    """The stream ended without its terminal event."""

    code = "stream_incomplete"
    retryable = True


class StreamInvalid(ModelError):
    """The stream is not of the announced format, or exceeds a limit."""

    code = "stream_invalid"
    retryable = True


class RunError(TreadleError):
    """A run that could not go on."""

    code = "run_error"


class ToolFailed(RunError):
    """A tool declared with `on_error="raise"` failed; every call was answered first."""

    code = "tool_failed"


class OutputInvalid(RunError):
    """The structured output stayed invalid after all corrections."""

    code = "output_invalid"


class OutputRefused(RunError):
    """The model refused to give the structured output it was asked for."""

    code = "output_refused"


class HookFailed(RunError):
    """A hook raised; its cause is what it raised."""

    code = "hook_failed"


class JobFailed(RunError):
    """A job of the run failed, and nobody waited for it; its cause is what it raised."""

    code = "job_failed"


class RuleBroken(RunError):
    """The model gave its answer again and again without a tool that it must call before."""

    code = "rule_broken"


class AgentsTooDeep(RunError):
    """Agents called agents deeper than `Limits.max_depth`."""

    code = "agents_too_deep"


class BudgetUsedUp(RunError):
    """The run has nothing left for another agent to work with."""

    code = "budget_used_up"


class RunInterrupted(RunError):
    """The driver of the run ended before the run did."""

    code = "run_interrupted"
    retryable = True


class ToolSourceError(TreadleError):
    """What serves tools from elsewhere did not do as it should."""

    code = "tool_source_error"


class ToolSourceFailed(ToolSourceError):
    """A source of tools could not be started or reached, or it ended."""

    code = "tool_source_failed"
    retryable = True


class RemoteToolFailed(ToolSourceError):
    """A source of tools answered a call with an error; the message is its own."""

    code = "remote_tool_failed"


class ThreadError(TreadleError):
    """What was asked of a thread cannot be done."""

    code = "thread_error"


class ThreadNotFound(ThreadError):
    """There is no thread of that id, or it was deleted."""

    code = "thread_not_found"


class RunNotFound(ThreadError):
    """The thread has no run of that id."""

    code = "run_not_found"


class RunInProgress(ThreadError):
    """A run is active, and the caller would not wait; `run_id` names it."""

    code = "run_in_progress"

    def __init__(self, message: str, *, run_id: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id


class RunNotInProgress(ThreadError):
    """No run waits for what was submitted."""

    code = "run_not_in_progress"


class UnknownToolCall(ThreadError):
    """The run in progress has no call of that id that could be answered."""

    code = "unknown_tool_call"


class UnknownMessage(ThreadError):
    """The history has no message of that id."""

    code = "unknown_message"


class Conflict(ThreadError):
    """The call was already answered, with something else."""

    code = "conflict"


class UnknownAgent(ThreadError):
    """The runtime was opened without the agent that the thread needs."""

    code = "unknown_agent"


class JournalError(TreadleError):
    """The journal could not keep, or give, what was asked; nothing of it became visible."""

    code = "journal_error"
    retryable = True


class JournalFull(JournalError):
    """No space is left on the disk."""

    code = "journal_full"


class JournalLocked(JournalError):
    """Another process drives the database, or holds it for too long."""

    code = "journal_locked"


class JournalReadOnly(JournalError):
    """The database cannot be written to."""

    code = "journal_read_only"
    retryable = False


class JournalCorrupt(JournalError):
    """The file is no database of treadle, or is damaged."""

    code = "journal_corrupt"
    retryable = False


class JournalTooNew(JournalError):
    """The database was made by a newer version of treadle."""

    code = "journal_too_new"
    retryable = False


class JournalClosed(JournalError):
    """The runtime was shut down."""

    code = "journal_closed"
    retryable = False


class StaleWriter(JournalError):
    """Another driver has taken the thread over."""

    code = "stale_writer"
    retryable = False


class JobError(TreadleError):
    """What was asked of a tree of jobs cannot be done."""

    code = "job_error"


class NodeClosed(JobError):
    """The node takes no more children: it has settled, or it is being cancelled."""

    code = "node_closed"


class NodeReused(JobError):
    """A job or a handler was submitted twice; each is one node of one tree."""

    code = "node_reused"


class NodeCancelled(JobError):
    """The node that was awaited was cancelled, so it has no result."""

    code = "node_cancelled"


class NodeDeadlock(JobError):
    """A node waits for itself, or for one that cannot settle before it."""

    code = "node_deadlock"


class TooManyJobs(JobError):
    """A thread has as many open jobs as it can keep; some of them must settle first."""

    code = "too_many_jobs"
    retryable = True


class JobNotRestartable(JobError):
    """A stored job cannot be made again: its class is not known here, or has changed."""

    code = "job_not_restartable"


class TooManySteps(JobError):
    """A graph took more steps than its `max_steps`."""

    code = "too_many_steps"


class UnknownStep(JobError):
    """The condition of an edge chose a step that the edge does not list."""

    code = "unknown_step"


class CommanderRunning(JobError):
    """A commander runs one tree at a time."""

    code = "commander_running"


class CommanderNotRunning(JobError):
    """Only a commander that is running takes jobs."""

    code = "commander_not_running"


class MemoryFailed(TreadleError):
    """What was asked of a memory cannot be done; nothing was changed."""

    code = "memory_failed"


class UnknownBlock(MemoryFailed):
    """There is no memory block of that label."""

    code = "unknown_block"


class BlockExists(MemoryFailed):
    """There is a memory block of that label already."""

    code = "block_exists"


class BlockReadOnly(MemoryFailed):
    """A model tried to change a memory block that it may only read."""

    code = "block_read_only"


class BlockChanged(MemoryFailed):
    """A memory block is another since the model read it, so that it knows not what it replaces."""

    code = "block_changed"
    retryable = True


class BlockTooLong(MemoryFailed):
    """The text would be longer than the memory block may be."""

    code = "block_too_long"


class TextNotFound(MemoryFailed):
    """The text to be replaced is not in the memory block."""

    code = "text_not_found"


class TextNotUnique(MemoryFailed):
    """The text to be replaced is in the memory block more than once; the message tells where."""

    code = "text_not_unique"


class ChangeNotUndoable(MemoryFailed):
    """A later change stands where the one to be undone did."""

    code = "change_not_undoable"


class UnknownPassage(MemoryFailed):
    """There is no passage of that id in the archive, or it was removed."""

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


class InvalidTransition(TreadleError):
    """An event that cannot follow the thread's state: a defect of the caller of `apply`."""

    code = "invalid_transition"


class TestingError(TreadleError):
    """Raised by `treadle.testing` only."""

    __test__: ClassVar[Literal[False]] = False
    code = "testing"


class UnexpectedRequest(TestingError):
    """A model was asked more often than scripted, or what the recording does not have."""

    code = "unexpected_request"


class UnconsumedSteps(TestingError):
    """A model was asked less often than scripted or recorded."""

    code = "unconsumed_steps"


class RecordingInvalid(TestingError):
    """A recording is missing, damaged or of another version, or could not be made."""

    code = "recording_invalid"


class NetworkForbidden(TestingError):
    """A real provider was called where the tests forbid it."""

    code = "network_forbidden"


def error_of(code: str, message: str, *, retryable: bool) -> TreadleError:
    """Returns the error that a failed run was recorded with, of its own class where it has one."""
    kinds = [kind for root in (ModelError, RunError) for kind in _kinds(root)]
    kind = next((kind for kind in kinds if kind.code == code), RunError)
    error = kind(message)
    error.code, error.retryable = code, retryable
    return error


def _kinds(kind: type[TreadleError]) -> Iterator[type[TreadleError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)
