"""Errors as RFC 9457 problems: https://www.rfc-editor.org/rfc/rfc9457."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from msgspec import Struct

from treadle.errors import (
    ArchiveFailed,
    BlockChanged,
    BlockExists,
    BlockReadOnly,
    ChangeNotUndoable,
    ConfigurationError,
    Conflict,
    EmbeddingFailed,
    InvalidInput,
    ItemNotFound,
    JobError,
    JournalClosed,
    JournalError,
    JournalLocked,
    JournalReadOnly,
    MemoryFailed,
    NotDriven,
    OptionNotAllowed,
    RunInProgress,
    RunNotFound,
    ThreadError,
    ThreadNotFound,
    TreadleError,
    UnknownAgent,
    UnknownBlock,
    UnknownFile,
    UnknownMessage,
    UnknownPassage,
    UnknownToolCall,
    VerdictUnknown,
)

RETRY_SECONDS = 1

_STATUSES: dict[type[TreadleError], int] = {
    ArchiveFailed: 503,
    BlockChanged: 409,
    BlockExists: 409,
    BlockReadOnly: 403,
    ChangeNotUndoable: 409,
    ConfigurationError: 400,
    Conflict: 409,
    EmbeddingFailed: 503,
    InvalidInput: 400,
    ItemNotFound: 404,
    JobError: 409,
    JournalClosed: 503,
    JournalError: 503,
    JournalLocked: 503,
    JournalReadOnly: 500,
    MemoryFailed: 400,
    NotDriven: 503,
    VerdictUnknown: 503,
    OptionNotAllowed: 403,
    RunNotFound: 404,
    ThreadError: 409,
    ThreadNotFound: 404,
    UnknownAgent: 404,
    UnknownBlock: 404,
    UnknownFile: 404,
    UnknownMessage: 404,
    UnknownPassage: 404,
    UnknownToolCall: 404,
}
"""The status of each kind of error; those that are not listed have that of their parent."""


class RequestRefused(TreadleError):
    """A request that is refused before the runtime sees it."""

    code = "request_refused"

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after: int = RETRY_SECONDS,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after
        self.headers = headers


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as JSON.

    `run_id` is the active run, if that is why a request was refused, and `seq` the number of the
    last event of the thread, if an event came that the sender did not expect. `by` is the principal
    that answered first, for an answer that came too late.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    run_id: str = ""
    seq: int = 0
    by: str = ""


class ErrorFormat(Struct, frozen=True):
    """How the errors of an API look: their media type, their type, and what makes one."""

    media_type: str
    kind: type[Any]
    make: Callable[[Problem, BaseException], object]


PROBLEMS = ErrorFormat("application/problem+json", Problem, lambda problem, _: problem)
"""The errors of the API of treadle itself."""


def problem_of(error: BaseException) -> Problem:
    """Returns what a caller may know of an error.

    The text of an error of the server itself may name files or hosts, so only its kind is told.
    """
    if not isinstance(error, TreadleError):
        return _problem(
            500, "internal", "The server failed; its log has the reason under the x-request-id."
        )
    status = _status(error)
    detail = error.message
    if status >= 500 and not isinstance(error, RequestRefused):
        detail = f"{(type(error).__doc__ or '').partition(chr(10))[0]}"
    return _problem(
        status,
        error.code,
        detail,
        retryable=error.retryable,
        run_id=error.run_id if isinstance(error, RunInProgress) else "",
        seq=error.seq if isinstance(error, Conflict) else 0,
        by=error.by if isinstance(error, Conflict) else "",
    )


def _status(error: TreadleError) -> int:
    if isinstance(error, RequestRefused):
        return error.status
    for kind in type(error).__mro__:
        if kind in _STATUSES:
            status = _STATUSES[kind]
            # A retry helps against a full disk, and not against a damaged database.
            is_permanent = isinstance(error, JournalError) and not error.retryable
            return 500 if is_permanent and not isinstance(error, JournalClosed) else status
    return 500


def _problem(
    status: int,
    code: str,
    detail: str,
    *,
    retryable: bool = False,
    run_id: str = "",
    seq: int = 0,
    by: str = "",
) -> Problem:
    return Problem(
        type=f"urn:treadle:error:{code}",
        title=code.replace("_", " ").capitalize() if code else HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        retryable=retryable,
        run_id=run_id,
        seq=seq,
        by=by,
    )


def retry_headers(
    problem: Problem, is_repeatable: bool, retry_after: int
) -> list[tuple[bytes, bytes]]:
    """Returns the headers that tell a client whether to send the same request again.

    `is_repeatable` says that the request cannot do something twice, whatever became of the first;
    `retry_after` is in seconds.
    """
    retries = problem.retryable and is_repeatable
    headers = [(b"x-should-retry", b"true" if retries else b"false")]
    if problem.status in {429, 503}:
        headers.append((b"retry-after", str(retry_after).encode()))
    return headers
