"""The presets: where they go, with which key, and that each server accepts what it gets."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.wire.odd_histories import histories
from tests.models.wire.preset_servers import SERVERS, check_preset
from tests.models.wire.strict_servers import parsed

import treadle
from treadle import Agent, tool
from treadle.cli.chat import answer_once
from treadle.cli.model_choice import choose_model
from treadle.cli.slash import Chat
from treadle.cli.transcript import Transcript
from treadle.demo.demo_agent import demo_agent
from treadle.domain.files import InputFile
from treadle.domain.items import InputImage, InputText, Message
from treadle.domain.schema import ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.errors import ConfigurationError, MissingKey
from treadle.models import PRESETS, ChatDialect, FallbackModel, Preset, resolve_model
from treadle.models.base import ModelRequest
from treadle.models.endpoint import endpoint
from treadle.models.model_data import PROVIDER_MODELS
from treadle.models.presets import dialect_of
from treadle.models.wire.chat_dialects import for_model
from treadle.models.wire.chat_request import ChatOptions, encode_request
from treadle.testing import ProviderSimulator, ScriptedModel

pytestmark = pytest.mark.anyio

CHAT = sorted(name for name, preset in PRESETS.items() if preset.api == "chat" and name != "chat")
TOOL = ToolSchema("look", "Looks.", {"type": "object"}, strict=False)
PDF = "data:application/pdf;base64,JVBERi0xLjQK"
PNG = "data:image/png;base64,iVBORw0KGgo="
CHOICES = [None, "auto", "none", "required", NamedTool("look"), NamedTool("x")]


def encoded(name: str, request: ModelRequest, model: str = "m") -> bytes:
    dialect = for_model(PRESETS[name].dialect, model)
    return encode_request(model, request, ChatOptions(provider=name, dialect=dialect)).body


def test_every_preset_has_the_rules_of_its_server() -> None:
    assert sorted(SERVERS) == CHAT
    assert {one.provider for one in PROVIDER_MODELS} <= PRESETS.keys()
    assert all(preset.source.startswith("https://") for preset in PRESETS.values())


@settings(max_examples=50)
@given(
    st.builds(
        ModelRequest,
        items=histories(),
        instructions=st.sampled_from(["", "Be brief."]),
        tools=st.sampled_from([(), (TOOL,)]),
        settings=st.builds(
            ModelSettings,
            tool_choice=st.sampled_from(CHOICES),
            max_output_tokens=st.sampled_from([None, 100]),
            parallel_tool_calls=st.sampled_from([None, True, False]),
        ),
    )
)
def test_any_history_is_accepted_by_each_server(request: ModelRequest) -> None:
    for name in CHAT:
        check_preset(name, parsed(encoded(name, request)))


@pytest.mark.parametrize("name", CHAT)
def test_what_a_server_cannot_read_is_replaced_by_a_text(name: str) -> None:
    parts = (InputText("see"), InputImage(PNG), InputFile(PDF, filename="a.pdf"))
    body = encoded(name, ModelRequest(items=[Message("user", parts)]))
    check_preset(name, parsed(body))
    media = PRESETS[name].dialect.media
    assert (b'"image_url"' in body) is media.images
    assert (b'"type":"file"' in body) is ("application/pdf" in media.files)
    assert body.count(b"was left out here") == 2 - media.images - ("application/pdf" in media.files)


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"bedrock"}))  # see test_bedrock
def test_the_key_goes_to_the_provider_alone(name: str) -> None:
    preset = PRESETS[name]
    if preset.needs_key:
        with pytest.raises(MissingKey, match=preset.key):
            resolve_model(f"{name}:m", {})
    else:
        assert resolve_model(f"{name}:m", {})._api_key == ""  # type: ignore[attr-defined]
    model = resolve_model(f"{name}:m", {preset.key: "secret-key"})
    assert model._api_key == "secret-key"  # type: ignore[attr-defined]
    assert preset.base_url in repr(model)
    assert model.provider == name
    other = resolve_model(f"{name}:m@http://h:1/v1", {preset.key: "secret-key"})
    assert other._api_key == ""  # type: ignore[attr-defined]
    assert other.provider == f"{name}:h"


@pytest.mark.parametrize("name", CHAT)
def test_a_class_with_the_url_accepts_the_same(name: str) -> None:
    preset = PRESETS[name]
    if preset.needs_key:
        assert dialect_of(preset.base_url, "m") == preset.dialect
    else:  # any server may listen there
        assert dialect_of(preset.base_url, "m") == ChatDialect()


def test_models_of_mistral_get_its_ids_at_every_server() -> None:
    assert for_model(PRESETS["groq"].dialect, "mistral-saba-24b").call_ids == "nine"
    assert for_model(PRESETS["groq"].dialect, "llama-3").call_ids == "any"


def test_a_preset_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "own", Preset("https://models.example.com/v1", key="OWN_API_KEY"))
    model = resolve_model("own:big", {"OWN_API_KEY": "k", "OWN_BASE_URL": "https://h/v2"})
    assert "https://h/v2/chat/completions" in repr(model)
    assert endpoint("", "", {}, key="", default="https://h", needs_key=False).api_key == ""


def test_a_preset_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "own", Preset("http://127.0.0.1:1/v1"))
    assert "http://127.0.0.1:1/v1/" in repr(resolve_model("own:big", {"_BASE_URL": "http://h"}))
    monkeypatch.setitem(PRESETS, "own", Preset("models.example.com"))
    with pytest.raises(ConfigurationError, match="not of the form http"):
        resolve_model("own:big", {})


@dataclass
class Place:
    name: str


@pytest.mark.parametrize(
    ("name", "plain", "with_tools"),
    [
        ("openai", "native", "native"),
        ("xai", "native", "native"),
        ("ollama", "native", "tool"),
        ("vllm", "native", "tool"),
        ("lmstudio", "native", "tool"),
        ("deepseek", "tool", "tool"),
    ],
)
def test_how_an_output_is_asked_for(name: str, plain: str, with_tools: str) -> None:
    def look(place: str) -> str:
        """Looks at a place."""
        return place

    model = resolve_model(f"{name}:m", {PRESETS[name].key: "k"})
    assert Agent(model, output=Place).output_mode == plain
    assert Agent(model, output=Place, tools=[look]).output_mode == with_tools
    both = FallbackModel(model, ScriptedModel([]))
    assert Agent(both, output=Place, tools=[look]).output_mode == with_tools


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator() as simulator:
        yield simulator


def simulated(name: str, simulator: ProviderSimulator, monkeypatch: pytest.MonkeyPatch) -> Preset:
    """Returns a preset, whose server is the simulator from now on."""
    preset = PRESETS[name]
    monkeypatch.setenv(preset.key, "secret-key")
    variable = preset.url_variable or preset.key.replace("_API_KEY", "_BASE_URL")
    monkeypatch.setenv(variable, simulator.base_url)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    return preset


@pytest.mark.real_clock
@pytest.mark.parametrize("name", sorted(PRESETS))
async def test_an_agent_works_at_each_preset(
    name: str, simulator: ProviderSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model string alone leads to text, parallel calls and their outputs."""
    preset = simulated(name, simulator, monkeypatch)
    asked: list[str] = []

    @tool
    def look(place: str) -> str:
        """Looks at a place.

        Args:
            place: where.
        """
        asked.append(place)
        return "Sunny."

    agent = Agent(f"{name}:sim:calls=2,rounds=1,reasoning=2,deltas=3", tools=[look])
    result = await agent.run("How is it?")
    assert result.output
    assert len(asked) == 2
    assert result.usage.requests == 2
    # A server that counts by itself is asked for nothing; the simulator counts only if asked.
    assert (result.usage.output_tokens > 0) is preset.dialect.counts_when_asked
    headers = {"anthropic": "x-api-key", "gemini": "x-goog-api-key"}
    assert simulator.requests[-1].headers[headers.get(name, "authorization")]


@pytest.mark.real_clock
@pytest.mark.parametrize("name", sorted(PRESETS))
async def test_the_terminal_chats_with_each_preset(
    name: str, simulator: ProviderSimulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What `treadle chat --model NAME:MODEL PROMPT` does: its agent, its reasoning, its text."""
    simulated(name, simulator, monkeypatch)
    given: list[str] = []
    choice = await choose_model(f"{name}:sim:calls=1,rounds=1,reasoning=2,deltas=3", os.environ)
    agent = demo_agent(choice.model, tmp_path, tmp_path / "chat.db")
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        chat = Chat(runtime, thread, Transcript(given.append), agent=agent, command="treadle chat")
        assert await answer_once(chat, "How is it?") == 0
    assert "river" in "".join(given)
    assert simulator.statistics().rejected == 0
