"""An HTTP error, with a body in OpenAI's style.

https://platform.openai.com/docs/guides/error-codes/api-errors
"""

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from treadle.errors import TestingError
from treadle.testing.simulator.faults import Fault, is_status

QUOTA = "You exceeded your current quota, please check your plan and billing details."
OVERLOADED = "The engine is currently overloaded, please try again later."
MESSAGES: Mapping[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", None, "You are not allowed to use this model."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    408: ("server_error", None, "The request took too long."),
    409: ("invalid_request_error", None, "The resource was changed by another request."),
    413: ("invalid_request_error", None, "The request is too large."),
    422: ("invalid_request_error", None, "The request cannot be processed."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("server_error", None, OVERLOADED),
}


class Rejected(TestingError):
    """A request that the simulator answers with the HTTP error `status`."""

    code = "rejected"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(message, kind, param, code)
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Returns the JSON body of the answer."""
        return msgspec.json.encode({"error": self.detail})


class ErrorDetail(Struct, frozen=True):
    """The object under `error` in the body of an HTTP error."""

    message: str
    type: str
    param: str | None
    code: str | None


def rejection(faults: Iterable[Fault]) -> Rejected | None:
    """Returns the HTTP error that one of the faults asks for, if any does."""
    for fault in faults:
        if fault.name == "quota":
            return Rejected(429, QUOTA, kind="insufficient_quota", code="insufficient_quota")
        if fault.name == "context":
            message = "Your input exceeds the context window of this model."
            return Rejected(400, message, code="context_length_exceeded", param="input")
        if fault.name == "429-after":
            return _status(429, {"retry-after": fault.value or "1"})
        if is_status(fault.name):
            return _status(int(fault.name), {})
    return None


def _status(status: int, headers: Mapping[str, str]) -> Rejected:
    other = MESSAGES[500] if status >= 500 else MESSAGES[400]
    kind, code, message = MESSAGES.get(status, other)
    return Rejected(status, message, kind=kind, code=code, headers=headers)
