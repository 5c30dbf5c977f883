"""Converts a provider's error, in a response or inside a stream, to an error of treadle."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from html import unescape

from msgspec import Struct

from treadle.errors import (
    AccessDenied,
    BadRequest,
    ContextOverflow,
    ModelError,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
)
from treadle.models.overflow import is_overflow
from treadle.models.wire.loose_json import fields_of, list_of, read_json, string_of

_QUOTA_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "insufficient_balance",
    "billing_error",
    "402",
    "servicequotaexceededexception",  # Bedrock
}
_RATE_CODES = {
    "rate_limit_exceeded",
    "rate_limit_error",
    "rate_limited",
    "too_many_requests",
    "resource_exhausted",  # Gemini
    "ratelimitreached",  # Azure
    "429",
    "throttlingexception",  # Bedrock, as are the following with "exception"
    "modelnotreadyexception",
}
_SERVER_CODES = {
    "server_error",
    "internal_error",
    "internal_server_error",
    "internalservererror",
    "overloaded_error",
    "overloaded",
    "api_error",
    "service_unavailable",
    "timeout",
    "timeout_error",
    "internal",  # Gemini, as are the following
    "unavailable",
    "deadline_exceeded",
    "408",
    "internalserverexception",
    "modelerrorexception",
    "modelstreamerrorexception",
    "modeltimeoutexception",
    "serviceunavailableexception",
}
_ACCESS_CODES = {
    "invalid_api_key",
    "authentication_error",
    "permission_error",
    "permission_denied",
    "unauthenticated",
    "401",
    "403",
    "accessdeniedexception",
    "expiredtokenexception",
    "unrecognizedclientexception",
}
_INVALID_KEY = "api_key_invalid"  # Google, with the status 400
_PER_DAY = "perday"
_TOO_MANY_A_DAY = "too many tokens per day"  # Bedrock, with the status 429
# What servers answer with a status of 500 although the same request fails in the same way again.
_REFUSED = re.compile(
    r"failed to parse tool call arguments"  # llama.cpp
    r"|(?:image|audio) input is not supported",  # llama.cpp
    re.IGNORECASE,
)
_PAYMENT_REQUIRED = 402
_REQUEST_TIMEOUT = 408
_MODEL_FAILED = 424  # Bedrock
_TOO_LARGE = 413
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_NOT_FOUND = 404
_MESSAGE_LIMIT = 1000
_MAX_DEPTH = 5
_MESSAGES = ("message", "Message", "msg", "detail", "error", "errors", "error_description")

_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_SPACE = re.compile(r"\s+")


class ErrorBody(Struct, frozen=True):
    """The error object of a provider in the common shapes; any field may be missing.

    `reasons` and `retry_after` (in seconds) are from the details of errors of Google.
    """

    message: str | None = None
    code: str | int | None = None
    type: str | None = None
    reasons: frozenset[str] = frozenset()
    retry_after: float | None = None


def http_failure(status: int, headers: Mapping[str, str], body: bytes, now: float) -> ModelError:
    """Returns the error that an HTTP response with an error `status` stands for.

    `now` is Unix time in seconds; it turns a `Retry-After` date (RFC 9110, 10.2.3) into seconds.
    """
    error = _error_in_body(body)
    # AWS names the kind of an error in a header, and more of it behind a colon.
    code = _code(error) or headers.get("x-amzn-errortype", "").partition(":")[0] or None
    message = _limited(error.message or _without_message(status, body))
    kinds = _kinds(error, code)
    if status == _PAYMENT_REQUIRED or kinds & _QUOTA_CODES:
        return QuotaExceeded(message, status=status, provider_code=code)
    if status == _TOO_MANY_REQUESTS:
        wait = _retry_after(headers, now)
        wait = error.retry_after if wait is None else wait
        return RateLimited(message, status=status, provider_code=code, retry_after=wait)
    if status == _TOO_LARGE or is_overflow(kinds, error.message):
        # Some servers answer with 500, but repeating the same request cannot help.
        return ContextOverflow(message, status=status, provider_code=code)
    if status in {_UNAUTHORIZED, _FORBIDDEN} or _INVALID_KEY in kinds:
        return AccessDenied(message, status=status, provider_code=code)
    is_server_error = status >= _SERVER_ERRORS or status in {_REQUEST_TIMEOUT, _MODEL_FAILED}
    if is_server_error and not _REFUSED.search(message):
        wait = _retry_after(headers, now)
        return ServerFailed(message, status=status, provider_code=code, retry_after=wait)
    return BadRequest(message, status=status, provider_code=code)


def stream_failure(error: ErrorBody) -> ModelError:
    """Returns the error that an error object inside a stream stands for."""
    code = _code(error)
    message = _limited(error.message or _nameless(code))
    kinds = _kinds(error, code)
    if kinds & _QUOTA_CODES:
        return QuotaExceeded(message, provider_code=code)
    if kinds & _RATE_CODES:
        return RateLimited(message, provider_code=code, retry_after=error.retry_after)
    if is_overflow(kinds, error.message):
        return ContextOverflow(message, provider_code=code)
    if kinds & _ACCESS_CODES or _INVALID_KEY in kinds:
        return AccessDenied(message, provider_code=code)
    is_server_error = kinds & _SERVER_CODES or any(kind.startswith("5") for kind in kinds)
    if is_server_error and not _REFUSED.search(message):
        return ServerFailed(message, provider_code=code)
    return BadRequest(message, provider_code=code)


def error_in(document: object, *, is_error: bool = False) -> ErrorBody | None:
    """Returns the error that a decoded JSON document reports, in whatever shape; None without one.

    With `is_error` the document is known to be an error, for example by the name of its event.
    """
    if isinstance(document, str) and document and is_error:
        return error_body(document)
    fields = fields_of(document)
    for name in ("error", "errors"):
        if not _is_empty(fields.get(name)):
            return error_body(fields[name], fields)
    marks = "error" in [fields.get(name) for name in ("type", "object", "status")]
    has_code = bool(fields.get("message")) and "code" in fields
    if marks or has_code or fields.get("detail") or (is_error and fields):
        return error_body(fields)
    return None


def error_body(value: object, around: Mapping[str, object] | None = None) -> ErrorBody:
    """Returns what an error `value` of any shape contains.

    `around` is the object that it was found in, which may hold what the value lacks.
    """
    fields = fields_of(value)
    if not fields:
        fields = {"message": value}
    message = _first_text(fields, *_MESSAGES)
    code = fields.get("code", fields.get("status_code"))
    kind = string_of(fields.get("type")) or _status_word(fields.get("status"))
    if around is not None:
        message = message or _first_text(around, "message", "detail")
        code = around.get("code") if code is None else code
    upstream = string_of(fields_of(fields.get("metadata")).get("raw"))  # OpenRouter
    if upstream and upstream not in message:
        message = f"{message}: {upstream}" if message else upstream
    reasons, wait = _details(fields.get("details"))
    return ErrorBody(message or None, _scalar(code), kind or None, reasons, wait)


def _details(details: object) -> tuple[frozenset[str], float | None]:
    """Returns the reasons in the details of an error of Google, and the seconds to wait.

    A quota of a day counts as one that is used up.
    https://cloud.google.com/apis/design/errors#error_details
    """
    reasons: set[str] = set()
    wait: float | None = None
    for detail in map(fields_of, list_of(details)):
        if reason := string_of(detail.get("reason")):
            reasons.add(reason.lower())
        delay = string_of(detail.get("retryDelay"))
        if delay.endswith("s"):
            wait = _number(delay[:-1])
        for violation in map(fields_of, list_of(detail.get("violations"))):
            if _PER_DAY in string_of(violation.get("quotaId")).lower():
                reasons.add("insufficient_quota")
    return frozenset(reasons), wait


def _is_empty(value: object) -> bool:
    """Whether an `error` says nothing: null, "", {}, or an object without values."""
    fields = fields_of(value)
    return not value or (bool(fields) and not any(fields.values()))


def _first_text(fields: Mapping[str, object], *names: str) -> str:
    return next((text for name in names if (text := _text(fields.get(name)))), "")


def _text(value: object, depth: int = 0) -> str:
    """Returns the text in a message of any shape, such as FastAPI's list of invalid fields."""
    if value is None or isinstance(value, str | int | float) or depth > _MAX_DEPTH:
        return string_of(value)
    fields = fields_of(value)
    if not fields:
        parts = [_text(one, depth + 1) for one in list_of(value) if one is not value]
        return "; ".join(part for part in parts if part)
    for name in ("message", "msg", "text", "detail", "error", "content", "description"):
        if text := _text(fields.get(name), depth + 1):
            place = ".".join(string_of(part) for part in list_of(fields.get("loc")))
            return f"{place}: {text}" if place else text
    return json.dumps(value)


def _status_word(value: object) -> str:
    """Returns a status such as Gemini's `RESOURCE_EXHAUSTED`, which tells the kind of error."""
    return value if isinstance(value, str) and value != "error" else ""


def _scalar(value: object) -> str | int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return string_of(value) or None


def _error_in_body(body: bytes) -> ErrorBody:
    try:
        document = next(iter(list_of(read_json(body))), None)  # Gemini's is in a list
        return error_in(document, is_error=True) or ErrorBody()
    except (ValueError, RecursionError):  # a text, or an error page of a proxy
        return ErrorBody()


def _without_message(status: int, body: bytes) -> str:
    """Returns a message with what the body contains as text, and with what to check."""
    text = body[: _MESSAGE_LIMIT * 16].decode(errors="replace")
    if text.lstrip().startswith("<"):
        title = _TITLE.search(text)
        text = unescape(title[1] if title else _TAG.sub(" ", text))
    text = _SPACE.sub(" ", text).strip()
    said = f"The provider answered with HTTP status {status}"
    if text and not text.startswith(("{", "[")):
        said += f": {text.rstrip('.')}"
    if status in {_UNAUTHORIZED, _FORBIDDEN}:
        return f"{said}. Check the API key and what it may be used for."
    if status == _NOT_FOUND:
        return f"{said}. Check the base URL and the name of the model."
    return f"{said}."


def _nameless(code: str | None) -> str:
    if code is None:
        return "The provider reported an error without a message."
    return f'The provider reported the error "{code}" without a message.'


def _kinds(error: ErrorBody, code: str | None) -> set[str]:
    given = (code, error.type, str(error.code or ""))
    kinds = {kind.lower() for kind in given if kind} | error.reasons
    is_used_up = _TOO_MANY_A_DAY in (error.message or "").lower()
    return kinds | {"insufficient_quota"} if is_used_up else kinds


def _code(error: ErrorBody) -> str | None:
    """Returns the code of an error: of Google, the name of its status instead of the number."""
    is_named = error.type is not None and error.type.isupper() and str(error.code).isdigit()
    code = error.type if error.code is None or is_named else error.code
    return None if code is None else str(code)


def _limited(message: str) -> str:
    return message if len(message) <= _MESSAGE_LIMIT else message[:_MESSAGE_LIMIT] + " …"


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:  # neither seconds nor a date: ignored
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.fromtimestamp(now, UTC)).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None
