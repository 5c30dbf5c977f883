"""Presets against real servers with a tiny model; not part of the usual run: make test-servers."""

import asyncio
import json
import urllib.request
from typing import Any

import pytest
from click.testing import CliRunner
from tests.client.proxy import cutting
from tests.servers.conftest import KEY
from tests.servers.table import ALL, CANNOT, SERVERS, UNBOUNDED

from treadle import (
    Agent,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Limits,
    ModelSettings,
    NamedTool,
    ReasoningDelta,
    StepInterrupted,
    TextDelta,
    tool,
)
from treadle.cli import model_choice
from treadle.cli.commands import cli
from treadle.domain.items import user_message
from treadle.errors import AccessDenied, BadRequest, ContextOverflow, LimitReached, ModelError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real_clock,
    pytest.mark.timeout(240),
    # The proxy that cuts a connection may still hold its other end when the event loop closes.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

GREETING = "Hello from a tiny model: Grüße, 你好 🌍!!"
KEYS = [f"{name.upper()}_API_KEY" for name in (*SERVERS, "openai", "anthropic")]
DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAE"
    "hQGAhKmMIQAAAABJRU5ErkJggg=="
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model string, with its server and the keys in the environment."""
    given, _, server = str(request.param).partition("@")
    place(request.getfixturevalue(server), server, monkeypatch)
    if server == "litellm":  # `treadle models` lists what both have
        monkeypatch.setenv("LLAMACPP_BASE_URL", f"{request.getfixturevalue('llamacpp')}/v1")
    for name in KEYS:
        monkeypatch.setenv(name, KEY)
    return given


def place(url: str, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leads the preset of a server, and those named after an API, to `url`."""
    for name in (server.upper(), "OPENAI"):
        monkeypatch.setenv(f"{name}_BASE_URL", f"{url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)


def each(*models: Any) -> Any:
    return pytest.mark.parametrize("model", models, indirect=True)


def all_for(feature: str) -> Any:
    """All models; those that cannot do it must fail, unless that takes minutes."""
    reasons = CANNOT[feature]

    def mark(reason: str) -> pytest.MarkDecorator:
        if reason == UNBOUNDED:
            return pytest.mark.skip(reason=reason)
        return pytest.mark.xfail(reason=reason, raises=(AssertionError, pytest.fail.Exception))

    return each(
        *[pytest.param(one, marks=mark(reasons[one]) if one in reasons else ()) for one in ALL]
    )


CALLED: list[tuple[str, str]] = []


@tool
async def get_weather(city: str) -> str:
    """Reports the weather in a city."""
    CALLED.append(("get_weather", city))
    return f"18 °C and sunny in {city}"


@tool
async def get_time(zone: str) -> str:
    """Reports the time in a zone."""
    CALLED.append(("get_time", zone))
    return "12:00"


def agent_of(model: str, *, max_output_tokens: int = 400, **options: Any) -> Agent[None, str]:
    settings = ModelSettings(max_output_tokens=max_output_tokens, **options)
    CALLED.clear()
    return Agent(
        model,
        instructions="Be brief.",
        tools=[get_weather, get_time],
        settings=settings,
        limits=Limits(max_steps=3),
    )


@all_for("text")
async def test_text_is_streamed_and_counted(model: str) -> None:
    agent = Agent[None, str](model, instructions="Be brief.")
    async with agent.stream("Hello") as run:
        texts = [event.delta async for event in run if isinstance(event, TextDelta)]
        result = await run.result()
    assert len(texts) > 5
    assert "".join(texts) == result.text == GREETING
    assert result.usage.input_tokens > 10
    assert 10 <= result.usage.output_tokens <= 14
    again = await agent.run("Hello again", history=result.history)
    assert again.text == GREETING
    assert again.usage.input_tokens > result.usage.input_tokens


@all_for("calls")
async def test_calls_are_made_and_answered(model: str) -> None:
    result = await agent_of(model).run("What is the weather in Paris?")
    assert CALLED == [("get_weather", "Paris")]
    assert result.text == "It is 18 °C and sunny now."
    assert result.steps == 2
    result = await agent_of(model).run("And both, please", history=result.history)
    assert CALLED == [("get_weather", "Rome"), ("get_time", "UTC")]
    assert result.text == "It is 18 °C and sunny now."


@all_for("one call")
async def test_a_call_of_one_tool_can_be_forced(model: str) -> None:
    """The model would greet; the grammar of the server makes it call."""
    agent = agent_of(model, tool_choice=NamedTool("get_time"))
    result = await agent.run("Hello", raise_on_incomplete=False)
    calls = [item for item in result.items if isinstance(item, FunctionCall)]
    assert {call.name for call in calls} == {"get_time"}
    assert isinstance(json.loads(calls[0].arguments)["zone"], str)


@all_for("broken calls")
async def test_a_broken_call_in_the_history_does_not_end_the_conversation(model: str) -> None:
    history = [
        user_message("weather"),
        FunctionCall("call_1", "get_weather", '{"city": '),
        FunctionCallOutput("call_1", "The arguments are not valid JSON.", is_error=True),
    ]
    result = await agent_of(model).run("Hello", history=history)
    # The Messages API of llama.cpp reads an output after the text of the same message.
    assert result.text in {GREETING, "It is 18 °C and sunny now."}


@all_for("reasoning")
async def test_reasoning_is_streamed_and_goes_back(model: str) -> None:
    agent = Agent[None, str](model)
    async with agent.stream("think") as run:
        thoughts = [event.delta async for event in run if isinstance(event, ReasoningDelta)]
        result = await run.result()
    assert "The user wants me to think." in "".join(thoughts)
    assert result.text.strip() == "Thought and done."
    assert (await agent.run("Hello", history=result.history)).text == GREETING


@all_for("interruption")
async def test_a_response_that_breaks_off_is_asked_for_again(
    model: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = request.node.callspec.params["model"].partition("@")[2]
    url = request.getfixturevalue(name)
    limits = iter([6000])
    async with cutting(url, lambda: next(limits, None)) as proxy:
        place(proxy.url, name, monkeypatch)
        settings = ModelSettings(max_output_tokens=200)
        agent = Agent[None, str](model, settings=settings, on_interruption="retry")
        async with agent.stream("long") as run:
            events = [event async for event in run]
            result = await run.result(raise_on_incomplete=False)
    assert any(isinstance(event, StepInterrupted) for event in events)
    assert "word1 word2" in result.text


@all_for("token limit")
async def test_a_response_ends_at_the_token_limit(model: str) -> None:
    agent = Agent[None, str](model, settings=ModelSettings(max_output_tokens=20))
    with pytest.raises(LimitReached) as caught:
        await agent.run("long")
    assert caught.value.result.stop_reason == "max_output_tokens"
    assert "word1 word2" in caught.value.result.text


@all_for("overflow")
async def test_a_request_longer_than_the_window_is_an_overflow(model: str) -> None:
    with pytest.raises(ContextOverflow):
        await Agent[None, str](model).run("in the rain " * 6000)


@all_for("wrong key")
async def test_a_wrong_key_is_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "sk-wrong")
    # LiteLLM looks the key up in a database, which it does not have here.
    with pytest.raises(BadRequest if model.startswith("litellm") else AccessDenied):
        await Agent[None, str](model).run("Hello")


@each(
    "litellm:no-such-model@litellm",
    "chat:no-such-model@transformers",
)
async def test_a_wrong_name_is_refused(model: str) -> None:
    with pytest.raises(BadRequest, match="no-such-model") as caught:
        await Agent[None, str](model).run("Hello")
    assert not caught.value.retryable


@each("llamacpp:no-such-model@llamacpp")
async def test_llamacpp_answers_for_any_name(model: str) -> None:
    assert (await Agent[None, str](model).run("Hello")).text == GREETING


@each("llamacpp:tiny@llamacpp")
async def test_an_image_that_the_model_cannot_read_fails(model: str) -> None:
    with pytest.raises(ModelError, match="image"):
        await Agent[None, str](model).run([InputText("Hello"), InputImage(DOT)])


def is_generating(url: str) -> bool:
    request = urllib.request.Request(f"{url}/slots", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=5) as response:
        return any(slot["is_processing"] for slot in json.load(response))


@each("llamacpp:tiny@llamacpp")
async def test_a_cancelled_response_ends_in_the_server(model: str, llamacpp: str) -> None:
    agent = Agent[None, str](model, settings=ModelSettings(max_output_tokens=100_000))
    async with agent.stream("long") as run:
        async for event in run:
            if isinstance(event, TextDelta):
                await run.cancel()
        await run.result(raise_on_incomplete=False)
    for _ in range(100):
        if not await asyncio.to_thread(is_generating, llamacpp):
            return
    pytest.fail("The server still generates.")


@each("litellm:tiny@litellm")
def test_treadle_models_lists_them(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_choice, "PROBE_SECONDS", 10.0)  # LiteLLM is slow on a busy machine
    shown = CliRunner().invoke(cli, ["models", "--json"])
    assert shown.exit_code == 0, shown.output
    usable = {one["model"] for one in map(json.loads, shown.output.splitlines()) if one["usable"]}
    assert {"llamacpp:tiny", "litellm:tiny", "litellm:tiny-messages"} <= usable
