"""An HTTP error, with a body in the style of AWS.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html#API_runtime_ConverseStream_Errors
"""

from collections.abc import Mapping

import msgspec

from treadle.testing.simulator.rejection import Rejected

TYPES: Mapping[int, str] = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
CODES: Mapping[str, str] = {
    "insufficient_quota": "ServiceQuotaExceededException",
    "invalid_api_key": TYPES[403],
}


def converse_status(error: Rejected) -> int:
    """Returns the HTTP status that the provider gives `error`."""
    if error.detail.code == "insufficient_quota":
        return 400
    return 403 if error.status == 401 else error.status


def converse_headers(error: Rejected) -> dict[str, str]:
    """Returns the headers of the answer, which name the kind of the error."""
    other = TYPES[500] if error.status >= 500 else TYPES[400]
    kind = CODES.get(error.detail.code or "") or TYPES.get(error.status, other)
    return {**error.headers, "x-amzn-errortype": f"{kind}:http://internal.amazon.com/coral/"}


def converse_body(error: Rejected) -> bytes:
    """Returns the JSON body of the answer."""
    return msgspec.json.encode({"message": error.detail.message})
