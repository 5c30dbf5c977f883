"""Keys that a function returns: at Vertex AI, at Azure, and everywhere else."""

import asyncio
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from treadle import Agent, tool
from treadle.domain.items import user_message
from treadle.errors import (
    AccessDenied,
    ConfigurationError,
    ConnectionFailed,
    MissingKey,
    ModelTimeout,
    QuotaExceeded,
)
from treadle.models import ApiKey, VertexGemini, resolve_model
from treadle.models.anthropic import AnthropicMessages
from treadle.models.api_key import current_key
from treadle.models.base import ModelRequest
from treadle.models.gemini import Gemini
from treadle.models.google_token import DefaultToken
from treadle.models.http import HttpModel, Timeouts
from treadle.models.openai import OpenAIChat, OpenAIResponses
from treadle.models.transport import HttpRequest, HttpResponse
from treadle.testing import ProviderSimulator

pytestmark = pytest.mark.anyio


class Refused(Exception):
    pass


class Caught:
    """A transport that keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        raise Refused


async def sent(model: HttpModel, transport: Caught) -> HttpRequest:
    with pytest.raises(Refused):
        async for _ in model.stream(ModelRequest(items=[user_message("hi")])):
            pass
    return transport.requests[-1]


def plain(tokens: list[str]) -> ApiKey:
    def token() -> str:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()  # it may block: it runs in a thread
        return tokens.pop(0)

    return token


def async_(tokens: list[str]) -> ApiKey:
    async def token() -> str:
        await asyncio.sleep(1)
        return tokens.pop(0)

    return token


def awaitable(tokens: list[str]) -> ApiKey:
    """A plain function that returns what is to be awaited, as a partial of an async one does."""

    async def token() -> str:
        return tokens.pop(0)

    return partial(token)


@pytest.mark.parametrize("make", [plain, async_, awaitable])
@pytest.mark.parametrize(
    ("kind", "header"),
    [
        (OpenAIResponses, "Authorization"),
        (OpenAIChat, "Authorization"),
        (AnthropicMessages, "x-api-key"),
        (Gemini, "x-goog-api-key"),
    ],
)
async def test_each_request_has_the_current_key(
    kind: Callable[..., HttpModel], header: str, make: Callable[[list[str]], ApiKey]
) -> None:
    transport = Caught()
    model = kind("m", api_key=make(["one", " two\n"]), transport=transport)
    assert "one" not in repr(model)
    first, second = await sent(model, transport), await sent(model, transport)
    assert [first.headers[header][-3:], second.headers[header][-3:]] == ["one", "two"]


async def test_azure_gets_tokens_as_bearer_and_keys_in_a_header_of_its_own() -> None:
    url = "https://me.openai.azure.com/openai/v1"
    for given, expected in (
        ("key", {"api-key": "key"}),
        ("eyJ.x.y", {"Authorization": "Bearer eyJ.x.y"}),
        (lambda: "eyJ.x.y", {"Authorization": "Bearer eyJ.x.y"}),
    ):
        transport = Caught()
        model = OpenAIResponses("d", api_key=given, base_url=url, transport=transport)
        request = await sent(model, transport)
        names = {"api-key", "Authorization"}
        assert {k: v for k, v in request.headers.items() if k in names} == expected


def raising(error: Exception) -> ApiKey:
    def token() -> str:
        raise error

    return token


@pytest.mark.parametrize(
    ("key", "kind", "words"),
    [
        (raising(ValueError("no login")), AccessDenied, "ValueError: no login"),
        (raising(OSError("no network")), ConnectionFailed, "no network"),
        (raising(TimeoutError("slow")), ConnectionFailed, "slow"),
        (raising(QuotaExceeded("none left")), QuotaExceeded, "none left"),
        (lambda: None, AccessDenied, "returned a NoneType"),
        (lambda: b"key", AccessDenied, "returned a bytes"),
        (lambda: " ", AccessDenied, "returned a str"),
        (lambda: "k\u00e9y", AccessDenied, "ASCII"),
        (lambda: "a\nb", AccessDenied, "ASCII"),
    ],
)
async def test_a_function_that_fails(key: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        await current_key(key, "host", 5)
    assert type(caught.value) is kind


async def test_a_function_that_hangs() -> None:
    with pytest.raises(ModelTimeout, match="nothing for 5 s"):
        await current_key(lambda: asyncio.Event().wait(), "host", 5)  # type: ignore[arg-type,return-value]


@pytest.mark.real_clock
async def test_functions_that_hang_take_no_threads_of_the_program() -> None:
    released = threading.Event()

    def hang() -> str:
        released.wait(30)
        return "late"

    asked = [current_key(hang, "host", 0.05) for _ in range(40)]
    failures = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(failure) for failure in failures} == {ModelTimeout}
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 1) == "free"
    assert await current_key(lambda: "token", "host", 1) == "token"
    released.set()


async def test_a_cancel_reaches_the_function() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def token() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    task = asyncio.create_task(current_key(token, "host", 5))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_run_whose_key_fails() -> None:
    model = Gemini("m", api_key=raising(ValueError("no login")), base_url="http://127.0.0.1:9")
    with pytest.raises(AccessDenied, match="no login"):
        await Agent(model).run("hi")


# Vertex AI


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator() as simulator:
        yield simulator


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
    ],
)
async def test_how_vertex_is_addressed(location: str, host: str) -> None:
    transport = Caught()
    model = VertexGemini(
        "gemini-3.8-flash", project="p-1", location=location, token="t", transport=transport
    )
    request = await sent(model, transport)
    path = f"/v1/projects/p-1/locations/{location}/publishers/google/models/gemini-3.8-flash"
    assert request.url == f"https://{host}{path}:streamGenerateContent?alt=sse"
    assert request.headers["Authorization"] == "Bearer t"
    assert "x-goog-api-key" not in request.headers
    assert (model.provider, model.output_mode) == ("vertex", "native")


@pytest.mark.parametrize(
    "more", [{"project": ""}, {"project": "a/b"}, {"project": "p", "location": "x y"}]
)
def test_a_project_and_a_location_are_ids(more: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="without a path"):
        VertexGemini("m", token="t", **more)  # type: ignore[arg-type]


async def test_a_conversation_at_vertex(simulator: ProviderSimulator) -> None:
    tokens = ["one", "two", "three"]
    model = VertexGemini(
        "sim:calls=2,rounds=1,deltas=3",
        project="p",
        token=lambda: tokens.pop(0),
        base_url=simulator.base_url.removesuffix("/v1"),
    )

    @tool
    def look(at: str) -> str:
        """Looks."""
        return at

    result = await Agent(model, tools=[look]).run("hi")
    assert result.text
    assert tokens == ["three"]
    assert simulator.statistics().rejected == 0
    assert {request.headers["authorization"] for request in simulator.requests} == {"***"}


def test_vertex_by_a_string() -> None:
    with pytest.raises(MissingKey, match="GOOGLE_CLOUD_PROJECT"):
        resolve_model("vertex:m", {})
    model = resolve_model("vertex:m", {"GOOGLE_CLOUD_PROJECT": "p"})
    assert isinstance(model._api_key, DefaultToken)  # type: ignore[attr-defined]
    assert "https://aiplatform.googleapis.com/v1/projects/p/locations/global/" in repr(model)
    environ = {"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_CLOUD_LOCATION": "us", "TREADLE_API_KEY": "k"}
    there = resolve_model("vertex:m@http://h:1/x", environ)
    assert "http://h:1/x/v1/projects/p/locations/us/" in repr(there)
    assert there._api_key == "k"  # type: ignore[attr-defined]
    assert there.provider == "vertex:h"


def google(monkeypatch: pytest.MonkeyPatch, valid: list[bool]) -> list[object]:
    """Stands in for google-auth: credentials that are valid or not when asked."""
    refreshed: list[object] = []

    class Credentials:
        token = "first"

        @property
        def valid(self) -> bool:
            return valid.pop(0)

        def refresh(self, request: object) -> None:
            refreshed.append(request)
            self.token = "second"

    auth, requests = types.ModuleType("google.auth"), types.ModuleType("requests")
    auth.default = lambda scopes: (Credentials(), "project")  # type: ignore[attr-defined]
    requests.Request = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.auth", auth)
    monkeypatch.setitem(sys.modules, "google.auth.transport", types.ModuleType("transport"))
    monkeypatch.setitem(sys.modules, "google.auth.transport.requests", requests)
    return refreshed


async def test_the_default_token_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    refreshed = google(monkeypatch, [True, False])
    token = DefaultToken()
    assert await current_key(token, "host", 5) == "first"
    assert not refreshed
    assert await current_key(token, "host", 5) == "second"
    assert len(refreshed) == 1


async def test_the_default_token_is_asked_for_once_however_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refreshed = google(monkeypatch, [False])
    token = DefaultToken()
    found = await asyncio.gather(*(current_key(token, "host", 5) for _ in range(50)))
    assert (set(found), len(refreshed)) == ({"second"}, 1)


async def test_without_google_auth_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)
    model = VertexGemini("m", project="p", timeouts=Timeouts(first_byte=5))
    with pytest.raises(MissingKey, match=r"treadle\[vertex\]"):
        await Agent(model).run("hi")


# Azure


@pytest.mark.parametrize(
    ("text", "endpoint", "url"),
    [
        ("azure:d", "https://me.openai.azure.com/", "/openai/v1/responses"),
        ("azure-chat:d", "https://me.openai.azure.com", "/openai/v1/chat/completions"),
        ("azure:d", "https://me.openai.azure.com/openai/v1/", "/openai/v1/responses"),
    ],
)
def test_azure_by_a_string(text: str, endpoint: str, url: str) -> None:
    environ = {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": endpoint}
    model = resolve_model(text, environ)
    assert f"https://me.openai.azure.com{url}" in repr(model)
    assert model._api_key == "k"  # type: ignore[attr-defined]
    assert model.provider.endswith(":me.openai.azure.com")
    there = resolve_model(f"{text}@https://you.openai.azure.com", environ)
    assert "https://you.openai.azure.com/openai/v1" in repr(there)
    assert there._api_key == ""  # type: ignore[attr-defined]


def test_what_azure_needs() -> None:
    with pytest.raises(MissingKey, match="AZURE_OPENAI_ENDPOINT"):
        resolve_model("azure:d", {"AZURE_OPENAI_API_KEY": "k"})
    with pytest.raises(MissingKey, match="AZURE_OPENAI_API_KEY"):
        resolve_model("azure:d", {"AZURE_OPENAI_ENDPOINT": "https://me.openai.azure.com"})
