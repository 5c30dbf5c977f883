import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.errors import (
    AccessDenied,
    BadRequest,
    ContextOverflow,
    ModelError,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
)
from treadle.models import overflow
from treadle.models.failure import ErrorBody, http_failure, stream_failure
from treadle.models.overflow import OVERFLOW_TEXTS

NOW = 1_800_000_000.0
ANSWERED = "The provider answered with HTTP status"


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
        (413, body(message="big", type="request_too_large"), ContextOverflow, "request_too_large"),
        (413, b"<html>Request Entity Too Large</html>", ContextOverflow, None),
        (402, body(message="pay", type="billing_error"), QuotaExceeded, "billing_error"),
        (408, b"", ServerFailed, None),
        (400, body(message="bad", code=400), BadRequest, "400"),
        (404, b'{"error": "model not found"}', BadRequest, None),
        (422, b'{"detail": [{"msg": "missing"}]}', BadRequest, None),
        (418, b"\xff\xfe", BadRequest, None),
        (401, body(message="no", code="invalid_api_key"), AccessDenied, "invalid_api_key"),
        (403, b"", AccessDenied, None),
        (500, body(message="Failed to parse tool call arguments as JSON: x"), BadRequest, None),
        (500, body(message="image input is not supported - hint"), BadRequest, None),
        (400, b"[" * 100_000, BadRequest, None),
        (400, b'[{"error": {"code": 400, "message": "bad"}}]', BadRequest, "400"),
    ],
)
def test_http_failures(
    status: int, content: bytes, kind: type[ModelError], code: str | None
) -> None:
    failure = http_failure(status, {}, content, NOW)
    assert type(failure) is kind
    assert (failure.status, failure.provider_code) == (status, code)
    assert failure.message


TOO_LONG = [
    # OpenAI: Responses, Chat Completions
    (400, {"message": "Too much.", "code": "context_length_exceeded"}),
    (400, {"message": "Your input exceeds the context window of this model. Please adjust."}),
    (400, {"message": "This model's maximum context length is 8192 tokens. However, your …"}),
    # Anthropic
    (400, {"type": "invalid_request_error", "message": "prompt is too long: 208310 tokens > 2"}),
    (
        400,
        {"message": "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000"},
    ),
    (413, {"type": "request_too_large", "message": "Request exceeds the maximum size"}),
    # vLLM, with the code as a number
    (
        400,
        {
            "message": "This model's maximum context length is 6048 tokens. However, you requested "
            "6616 tokens (568 in the messages, 6048 in the completion).",
            "type": "BadRequestError",
            "code": 400,
        },
    ),
    # llama.cpp, of several versions
    (400, {"type": "exceed_context_size_error", "message": "request (4390 tokens) …", "code": 400}),
    (400, {"message": "the request exceeds the available context size, try increasing it"}),
    (500, {"type": "server_error", "message": "Context size has been exceeded.", "code": 500}),
    (500, {"message": "Requested tokens (2285) exceed context window of 2048"}),
    # Mistral, Gemini, xAI, SGLang, LM Studio, Text Generation Inference, Bedrock, Kimi
    (
        400,
        {
            "message": "Prompt contains 37000 tokens and 0 draft tokens, too large for model with "
            "32768 maximum context length",
            "type": "invalid_request_prompt",
        },
    ),
    (
        400,
        {
            "message": "The input token count (1200293) exceeds the maximum number of tokens "
            "allowed (1048576).",
            "code": 400,
        },
    ),
    (400, {"message": "This model's maximum prompt length is 131072 but the request contains 5."}),
    (400, {"message": "Input length 131393 exceeds the maximum allowed input length of 131040."}),
    (
        400,
        {"message": "The input (265330 tokens) is longer than the model's context length (2)."},
    ),
    (
        400,
        {"message": "The number of tokens to keep is greater than the context length."},
    ),
    (422, {"message": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"}),
    (400, {"message": "Input is too long for requested model."}),
    (400, {"message": "Invalid request: Your request exceeded model token limit: 8192"}),
    # vLLM by its parameter, DashScope, Z.AI, MiniMax, Cohere, Ollama, GitHub Models
    (
        400,
        {"message": "The decoder prompt (length 9) is longer than the maximum model length of 8."},
    ),
    (
        400,
        {
            "code": "invalid_parameter_error",
            "message": "Range of input length should be [1, 30720]",
        },
    ),
    (400, {"code": "1261", "message": "Prompt exceeds max length"}),
    (400, {"message": "invalid params, context window exceeds limit (2013)"}),
    (
        400,
        {
            "message": "too many tokens: total number of tokens in the request cannot exceed "
            "128000 - received 140000"
        },
    ),
    (400, {"message": "the input length exceeds the context length"}),
    (413, {"code": "tokens_limit_reached", "message": "Request body too large for gpt-4o model."}),
]


@pytest.mark.parametrize(("status", "error"), TOO_LONG)
def test_a_request_that_is_too_long_is_known_as_such(status: int, error: dict[str, object]) -> None:
    failure = http_failure(status, {}, body(**error), NOW)
    assert type(failure) is ContextOverflow
    assert (failure.retryable, failure.status) == (False, status)
    if status != 413:
        inside = ErrorBody(error.get("message"), error.get("code"), error.get("type"))  # type: ignore[arg-type]
        assert type(stream_failure(inside)) is ContextOverflow


@pytest.mark.parametrize(
    "message",
    [
        "Invalid 'max_output_tokens': integer below minimum value.",
        "The model `gpt-9` does not exist.",
        "Invalid value: 'input_file'. Supported values are: 'input_text'.",
        "The maximum number of tools is 128.",
        "messages: at least one message is required",
        "max_tokens is too large: 64000. This model supports at most 16384 completion tokens.",
        "`max_tokens` must be greater than `thinking.budget_tokens`.",
        "Invalid 'tools': array too long. Expected an array with maximum length 128.",
        "Rate limit of 50000 per 60s exceeded for input tokens.",
    ],
)
def test_other_refusals_are_not_taken_for_it(message: str) -> None:
    assert type(http_failure(400, {}, body(message=message), NOW)) is BadRequest
    assert type(stream_failure(ErrorBody(message))) is BadRequest


def test_a_server_that_says_it_in_another_way_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "Dieser Auftrag ist zu lang."
    assert type(http_failure(400, {}, body(message=message), NOW)) is BadRequest
    monkeypatch.setattr(overflow, "OVERFLOW_TEXTS", [*OVERFLOW_TEXTS, "auftrag ist zu lang"])
    assert type(http_failure(400, {}, body(message=message), NOW)) is ContextOverflow
    assert type(stream_failure(ErrorBody(message))) is ContextOverflow


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (400, b'{"detail": "Server is pinned."}', "Server is pinned."),
        (422, b'{"detail": [{"loc": ["body", "n"], "msg": "Field required"}]}',
         "body.n: Field required"),
        (500, b"Internal Server Error",
         "The provider answered with HTTP status 500: Internal Server Error."),
        (502, b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>",
         "The provider answered with HTTP status 502: 502 Bad Gateway."),
        (502, b"<p>upstream <b>is</b> down</p>",
         "The provider answered with HTTP status 502: upstream is down."),
        (500, b"", "The provider answered with HTTP status 500."),
        (500, b'{"err', "The provider answered with HTTP status 500."),
        (401, b"", f"{ANSWERED} 401. Check the API key and what it may be used for."),
        (404, b'"Not Found"', "Not Found"),
        (404, b"Not Found",
         f"{ANSWERED} 404: Not Found. Check the base URL and the name of the model."),
        (400, b'{"error": {"message": {"text": "no"}}}', "no"),
        (400, b'{"error": {"message": null}, "message": "outer"}', "outer"),
        (400, b'{"message": "m", "error": ""}', "m"),
        (400, b'{"errors": ["a", {"message": "b"}]}', "a; b"),
    ],
)  # fmt: skip
def test_what_a_body_says(status: int, content: bytes, message: str) -> None:
    assert http_failure(status, {}, content, NOW).message == message


@given(st.binary(max_size=60), st.integers(400, 599))
def test_any_body_is_an_error_of_the_tree(content: bytes, status: int) -> None:
    assert http_failure(status, {}, content, NOW).message


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
        (ErrorBody("m", 402), QuotaExceeded),
        (ErrorBody("m", type="UNAVAILABLE"), ServerFailed),
        (ErrorBody("m", type="authentication_error"), AccessDenied),
        (ErrorBody("m", "invalid_api_key"), AccessDenied),
        (ErrorBody("m", 403), AccessDenied),
        (ErrorBody(None, "mystery"), BadRequest),
        (ErrorBody("m", "invalid_prompt"), BadRequest),
        (ErrorBody(), BadRequest),
    ],
)
def test_failures_in_a_stream(error: ErrorBody, kind: type[ModelError]) -> None:
    failure = stream_failure(error)
    assert type(failure) is kind
    assert failure.message
