"""An HTTP error, with a body in Google's style.

https://ai.google.dev/gemini-api/docs/troubleshooting, https://google.aip.dev/193
"""

from collections.abc import Mapping

import msgspec

from treadle.testing.simulator.rejection import Rejected

Object = dict[str, object]

STATUSES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
RETRY_AFTER = "retry-after"
_RPC = "type.googleapis.com/google.rpc"
_PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"


def gemini_headers(error: Rejected) -> dict[str, str]:
    """Returns the headers of the answer: Google puts the time to wait into the body."""
    return {name: value for name, value in error.headers.items() if name != RETRY_AFTER}


def gemini_body(error: Rejected) -> bytes:
    """Returns the JSON body of the answer."""
    details: list[Object] = []
    if error.detail.code == "insufficient_quota":
        violation = {"quotaId": _PER_DAY}
        details.append({"@type": f"{_RPC}.QuotaFailure", "violations": [violation]})
    if seconds := error.headers.get(RETRY_AFTER):
        details.append({"@type": f"{_RPC}.RetryInfo", "retryDelay": f"{seconds}s"})
    return msgspec.json.encode({"error": error_object(error.status, error.detail.message, details)})


def error_object(status: int, message: str, details: list[Object] | None = None) -> Object:
    """Returns the object under `error`."""
    other = STATUSES[500] if status >= 500 else STATUSES[400]
    found: Object = {
        "code": status,
        "message": message,
        "status": STATUSES.get(status, other),
    }
    return found | ({"details": details} if details else {})
