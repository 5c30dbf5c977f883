"""Where requests go, and with which key and which fields."""

import pytest

from treadle.domain.items import user_message
from treadle.domain.settings import ModelSettings
from treadle.models.base import ModelRequest
from treadle.models.endpoint import is_azure, is_openai, request_url
from treadle.models.http import HttpModel
from treadle.models.openai import OpenAIChat, OpenAIResponses
from treadle.models.transport import HttpRequest, HttpResponse

pytestmark = pytest.mark.anyio

PATH = "/chat/completions"
AZURE = "https://me.openai.azure.com/openai"


class Refused(Exception):
    pass


class Caught:
    """A transport that keeps the request."""

    request: HttpRequest

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.request = request
        raise Refused


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://h/v1", "http://h/v1/chat/completions"),
        ("http://h/v1/", "http://h/v1/chat/completions"),
        ("http://h/v1//", "http://h/v1/chat/completions"),
        ("http://h", "http://h/chat/completions"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
        ("http://h/v1/chat/completions/", "http://h/v1/chat/completions"),
        ("http://[::1]:8/v1?a=b", "http://[::1]:8/v1/chat/completions?a=b"),
        (
            f"{AZURE}/deployments/d?api-version=2025-01-01",
            f"{AZURE}/deployments/d/chat/completions?api-version=2025-01-01",
        ),
        (f"{AZURE}/v1/", f"{AZURE}/v1/chat/completions"),
    ],
)
def test_the_url_of_an_endpoint(base_url: str, url: str) -> None:
    assert request_url(base_url, PATH) == url


@pytest.mark.parametrize(
    ("host", "azure", "openai"),
    [
        ("api.openai.com", False, True),
        ("eu.api.openai.com", False, True),
        ("me.openai.azure.com", True, True),
        ("me.cognitiveservices.azure.com", True, True),
        ("me.services.ai.azure.com", True, True),
        ("openai.azure.com.evil.org", False, False),
        ("notapi.openai.com.org", False, False),
        ("me.azure.com", False, False),
        ("127.0.0.1", False, False),
    ],
)
def test_which_hosts_are_openai(host: str, *, azure: bool, openai: bool) -> None:
    assert (is_azure(host), is_openai(host)) == (azure, openai)


async def sent(model: type[HttpModel], base_url: str, **options: object) -> HttpRequest:
    caught = Caught()
    settings = ModelSettings(max_output_tokens=9)
    request = ModelRequest(items=[user_message("hi")], settings=settings)
    with pytest.raises(Refused):
        async for _ in model("m", base_url=base_url, transport=caught, **options).stream(request):  # type: ignore[arg-type,call-arg]
            pass
    return caught.request


@pytest.mark.parametrize(
    ("base_url", "options", "field"),
    [
        ("https://api.openai.com/v1", {}, b"max_completion_tokens"),
        ("https://api.openai.com/v1/", {}, b"max_completion_tokens"),
        (f"{AZURE}/v1", {}, b"max_completion_tokens"),
        ("http://h/v1", {}, b"max_tokens"),
        ("http://h/v1", {"max_tokens_field": "max_completion_tokens"}, b"max_completion_tokens"),
        ("https://api.openai.com/v1", {"max_tokens_field": "max_tokens"}, b"max_tokens"),
    ],
)
async def test_the_field_that_limits_the_output(
    base_url: str, options: dict[str, object], field: bytes
) -> None:
    request = await sent(OpenAIChat, base_url, api_key="k" * 9, **options)
    assert b'"%b":9' % field in request.body


@pytest.mark.parametrize("model", [OpenAIChat, OpenAIResponses])
async def test_azure_gets_a_key_as_a_key_and_a_token_as_a_token(model: type[HttpModel]) -> None:
    key = await sent(model, f"{AZURE}/v1", api_key=" secret-key ")
    assert key.headers["api-key"] == "secret-key"
    assert "Authorization" not in key.headers
    token = await sent(model, f"{AZURE}/v1", api_key="eyJhbGciOi.x.y")
    assert token.headers["Authorization"] == "Bearer eyJhbGciOi.x.y"
    other = await sent(model, "http://h/v1", api_key="secret-key")
    assert other.headers["Authorization"] == "Bearer secret-key"
