"""From the problem that a server answers with to the error that the runtime would have raised."""

import msgspec

from treadle.errors import (
    Conflict,
    InvalidInput,
    RequestFailed,
    RunInProgress,
    ServerUnreachable,
    TreadleError,
    subclasses,
)
from treadle.server.problems import Problem

_INVALID = frozenset({"invalid_request", "invalid_input"})

_BY_CODE: dict[str, type[TreadleError]] = {
    kind.code: kind for kind in subclasses(TreadleError) if kind is not ServerUnreachable
}
_DECODER = msgspec.json.Decoder(Problem)


def decode_problem(body: bytes) -> Problem | None:
    """Returns the problem in an answer; None if it is not one of treadle, but of a proxy."""
    try:
        return _DECODER.decode(body)
    except msgspec.MsgspecError:
        return None


def error_of_problem(problem: Problem) -> TreadleError:
    """Returns the error for a problem: of the class that has its code."""
    kind = InvalidInput if problem.code in _INVALID else _BY_CODE.get(problem.code, RequestFailed)
    error = kind(problem.detail)
    error.code, error.retryable = problem.code, problem.retryable
    if isinstance(error, RequestFailed):
        error.status = problem.status
    if isinstance(error, Conflict):
        error.seq, error.by = problem.seq, problem.by
    if isinstance(error, RunInProgress):
        error.run_id = problem.run_id
    return error


def error_of_answer(status: int, content_type: str) -> RequestFailed:
    """Returns the error for an answer that is not one of a treadle server."""
    error = RequestFailed(
        f"The server answered {status} ({content_type[:60] or 'no content'}), not as a treadle "
        "server does; check that the URL leads to `treadle serve`, and the proxies on the way."
    )
    error.status, error.retryable = status, status in {408, 429, 502, 503, 504}
    return error
