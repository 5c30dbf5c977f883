"""Converts a provider's error, in a response or inside a stream, to an error of treadle."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec
from msgspec import Struct

from treadle.errors import (
    BadRequest,
    ContextOverflow,
    ModelError,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
)

_QUOTA_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "insufficient_balance",
    "billing_error",
}
_RATE_CODES = {"rate_limit_exceeded", "rate_limit_error", "rate_limited", "too_many_requests"}
_SERVER_CODES = {
    "server_error",
    "internal_error",
    "internal_server_error",
    "overloaded_error",
    "overloaded",
    "api_error",
    "service_unavailable",
    "timeout",
    "timeout_error",
}
_OVERFLOW_CODES = {
    "context_length_exceeded",  # OpenAI, and many that are compatible
    "exceed_context_size_error",  # llama.cpp
    "request_too_large",  # Anthropic, for more bytes than any window holds
    "model_max_prompt_tokens_exceeded",
}
# The messages of servers that send no code for an overflow, or an ambiguous one.
_OVERFLOW = re.compile(
    r"(?:prompt|input|request|conversation) is too long"  # Anthropic, Bedrock, Cohere
    r"|exceeds? (?:the )?context (?:limit|window|length|size)"  # OpenAI Responses, Anthropic
    r"|exceeds? (?:the )?(?:available|model'?s?) context"  # llama.cpp
    r"|context (?:length|window|size) (?:has been |is |was )?exceed"  # llama.cpp, vLLM, MiniMax
    r"|context (?:length|window) of (?:only )?\d"  # LM Studio
    r"|maximum context length"  # OpenAI Chat, vLLM, OpenRouter, DeepSeek, Mistral
    r"|maximum (?:allowed )?(?:input|prompt) length"  # xAI, Poolside
    r"|exceeds (?:the )?max(?:imum)?(?: number of)?[ _](?:tokens|seq_len|model_len)"  # Gemini, TGI
    r"|(?:exceeds|greater than) the context length"  # LM Studio
    r"|longer than the model'?s context length"  # SGLang
    r"|`inputs` tokens \+ `max_new_tokens` must be"  # Text Generation Inference
    r"|exceeded model token limit",  # Kimi
    re.IGNORECASE,
)
_PAYMENT_REQUIRED = 402
_REQUEST_TIMEOUT = 408
_TOO_LARGE = 413
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500
_MESSAGE_LIMIT = 1000


class ErrorBody(Struct, frozen=True):
    """The error object of the OpenAI-compatible APIs and of Anthropic; any field may be missing."""

    message: str | None = None
    code: str | int | None = None
    type: str | None = None


class _Envelope(Struct, frozen=True):
    error: ErrorBody | str | None = None
    message: str | None = None
    detail: msgspec.Raw = msgspec.Raw()


def http_failure(status: int, headers: Mapping[str, str], body: bytes, now: float) -> ModelError:
    """Returns the error that an HTTP response with an error `status` stands for.

    `now` is Unix time in seconds; it turns a `Retry-After` date (RFC 9110, 10.2.3) into seconds.
    """
    error = _error_in(body)
    code = _code(error)
    message = _limited(error.message or f"The provider answered with HTTP status {status}.")
    if status == _PAYMENT_REQUIRED or code in _QUOTA_CODES or error.type in _QUOTA_CODES:
        return QuotaExceeded(message, status=status, provider_code=code)
    if status == _TOO_MANY_REQUESTS:
        wait = _retry_after(headers, now)
        return RateLimited(message, status=status, provider_code=code, retry_after=wait)
    if status == _TOO_LARGE or _is_overflow(error, code):
        # Some servers answer with 500, but repeating the same request cannot help.
        return ContextOverflow(message, status=status, provider_code=code)
    if status >= _SERVER_ERRORS or status == _REQUEST_TIMEOUT:
        wait = _retry_after(headers, now)
        return ServerFailed(message, status=status, provider_code=code, retry_after=wait)
    return BadRequest(message, status=status, provider_code=code)


def stream_failure(error: ErrorBody) -> ModelError:
    """Returns the error that an error object inside a stream stands for."""
    code = _code(error)
    message = _limited(error.message or "The provider reported an error without a message.")
    kinds = {code, error.type}
    if kinds & _QUOTA_CODES:
        return QuotaExceeded(message, provider_code=code)
    if kinds & _RATE_CODES or code == str(_TOO_MANY_REQUESTS):
        return RateLimited(message, provider_code=code)
    if _is_overflow(error, code):
        return ContextOverflow(message, provider_code=code)
    if kinds & _SERVER_CODES or (code or "").startswith("5"):
        return ServerFailed(message, provider_code=code)
    return BadRequest(message, provider_code=code)


def _error_in(body: bytes) -> ErrorBody:
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError):  # an error page of a proxy, for example
        return ErrorBody()
    if isinstance(envelope.error, str):
        return ErrorBody(message=envelope.error)
    if envelope.error is not None:
        return envelope.error
    detail = bytes(envelope.detail).decode(errors="replace")
    return ErrorBody(message=envelope.message or detail or None)


def _is_overflow(error: ErrorBody, code: str | None) -> bool:
    if {code, error.type} & _OVERFLOW_CODES:
        return True
    return error.message is not None and _OVERFLOW.search(error.message) is not None


def _code(error: ErrorBody) -> str | None:
    code = error.code if error.code is not None else error.type
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
