import json

import pytest

from weft.errors import BadRequest, ModelError, QuotaExceeded, RateLimited, ServerFailed
from weft.models.failure import ErrorBody, http_failure, stream_failure

NOW = 1_800_000_000.0


def body(**error: object) -> bytes:
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("status", "content", "kind", "code"),
    [
        (429, body(message="slow", code="rate_limit_exceeded"), RateLimited, "rate_limit_exceeded"),
        (429, body(message="pay", code="insufficient_quota"), QuotaExceeded, "insufficient_quota"),
        (429, body(message="pay", type="insufficient_quota"), QuotaExceeded, "insufficient_quota"),
        (402, b'{"message": "pay"}', QuotaExceeded, None),
        (500, b"<html>oops</html>", ServerFailed, None),
        (529, body(message="busy", type="overloaded_error"), ServerFailed, "overloaded_error"),
        (504, body(message="late", type="timeout_error"), ServerFailed, "timeout_error"),
        (413, body(message="big", type="request_too_large"), BadRequest, "request_too_large"),
        (402, body(message="pay", type="billing_error"), QuotaExceeded, "billing_error"),
        (408, b"", ServerFailed, None),
        (400, body(message="bad", code=400), BadRequest, "400"),
        (404, b'{"error": "model not found"}', BadRequest, None),
        (422, b'{"detail": [{"msg": "missing"}]}', BadRequest, None),
        (418, b"\xff\xfe", BadRequest, None),
    ],
)
def test_http_failures(
    status: int, content: bytes, kind: type[ModelError], code: str | None
) -> None:
    failure = http_failure(status, {}, content, NOW)
    assert type(failure) is kind
    assert (failure.status, failure.provider_code) == (status, code)
    assert failure.message


def test_the_providers_words_are_kept_and_bounded() -> None:
    assert http_failure(400, {}, body(message="The model is unknown."), NOW).message == (
        "The model is unknown."
    )
    assert http_failure(404, {}, b'{"error": "not here"}', NOW).message == "not here"
    assert "missing" in http_failure(422, {}, b'{"detail": "missing"}', NOW).message
    assert "HTTP status 503" in http_failure(503, {}, b"", NOW).message
    assert len(http_failure(400, {}, body(message="x" * 5000), NOW).message) < 1100


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 -0000"}, 30.0),
        ({"retry-after": "Fri, 15 Jan 2021 08:00:30 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert http_failure(429, headers, b"", NOW).retry_after == seconds


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ErrorBody("m", "insufficient_quota"), QuotaExceeded),
        (ErrorBody("m", "rate_limit_exceeded"), RateLimited),
        (ErrorBody("m", 429), RateLimited),
        (ErrorBody("m", type="overloaded_error"), ServerFailed),
        (ErrorBody("m", type="timeout_error"), ServerFailed),
        (ErrorBody("m", type="billing_error"), QuotaExceeded),
        (ErrorBody("m", 502), ServerFailed),
        (ErrorBody("m", "invalid_prompt"), BadRequest),
        (ErrorBody(), BadRequest),
    ],
)
def test_failures_in_a_stream(error: ErrorBody, kind: type[ModelError]) -> None:
    failure = stream_failure(error)
    assert type(failure) is kind
    assert failure.message
