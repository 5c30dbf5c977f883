"""An HTTP error, with a body in Anthropic's style.

https://platform.claude.com/docs/en/api/errors
"""

from collections.abc import Mapping

import msgspec

from treadle.testing.simulator.rejection import Rejected

TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# Anthropic has a status of its own for an account without budget.
STATUSES: Mapping[str, int] = {"insufficient_quota": 402}


def messages_status(error: Rejected) -> int:
    """Returns the HTTP status that the provider gives `error`."""
    return STATUSES.get(error.detail.code or "", error.status)


def messages_body(error: Rejected, request_id: str) -> bytes:
    """Returns the JSON body of the answer."""
    status = messages_status(error)
    other = "api_error" if status >= 500 else TYPES[400]
    detail = {"type": TYPES.get(status, other), "message": error.detail.message}
    return msgspec.json.encode({"type": "error", "error": detail, "request_id": request_id})
