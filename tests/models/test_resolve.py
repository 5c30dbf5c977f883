import pytest

from treadle.errors import MissingKey, UnknownModel
from treadle.models.anthropic import AnthropicMessages
from treadle.models.gemini import Gemini
from treadle.models.http import HttpModel
from treadle.models.openai import OpenAIChat, OpenAIResponses
from treadle.models.resolve import resolve_model
from treadle.testing import ScriptedModel

KEYS = {
    "OPENAI_API_KEY": "sk-1",
    "ANTHROPIC_API_KEY": "sk-2",
    "TREADLE_API_KEY": "sk-3",
    "GEMINI_API_KEY": "sk-4",
}
GOOGLE = "https://generativelanguage.googleapis.com/v1beta"


@pytest.mark.parametrize(
    ("text", "kind", "url", "provider"),
    [
        ("openai:gpt-5", OpenAIResponses, "https://api.openai.com/v1/responses", "openai"),
        ("chat:gpt-5", OpenAIChat, "https://api.openai.com/v1/chat/completions", "chat"),
        ("chat:qwen3@http://h:1/v1", OpenAIChat, "http://h:1/v1/chat/completions", "chat:h"),
        ("openai:m@http://h:1/v1/", OpenAIResponses, "http://h:1/v1/responses", "openai:h"),
        (
            "anthropic:claude",
            AnthropicMessages,
            "https://api.anthropic.com/v1/messages",
            "anthropic",
        ),
        (
            "anthropic:m@http://h:1/v1/",
            AnthropicMessages,
            "http://h:1/v1/messages",
            "anthropic:h",
        ),
        ("gemini:g-3", Gemini, f"{GOOGLE}/models/g-3:streamGenerateContent", "gemini"),
        ("gemini:g@http://h:1", Gemini, "/h:1/v1beta/models/g:streamGenerateContent", "gemini:h"),
        ("ollama:qwen3:8b", OpenAIChat, "http://127.0.0.1:11434/v1/chat/completions", "ollama"),
    ],
)
def test_strings(text: str, kind: type[HttpModel], url: str, provider: str) -> None:
    model = resolve_model(text, KEYS)
    assert type(model) is kind
    assert url in repr(model)
    assert model.provider == provider
    assert "sk-" not in repr(model)


def test_addresses_from_the_environment() -> None:
    environ = {
        **KEYS,
        "OPENAI_BASE_URL": "http://proxy/v1",
        "ANTHROPIC_BASE_URL": "http://proxy/claude",
        "OLLAMA_HOST": "box:9",
    }
    claude = resolve_model("anthropic:m", environ)
    assert "http://proxy/claude/v1/messages" in repr(claude)
    assert claude._api_key == "sk-2"  # type: ignore[attr-defined]
    assert "http://proxy/v1/responses" in repr(resolve_model("openai:m", environ))
    assert "http://box:9/v1" in repr(resolve_model("ollama:m", environ))


@pytest.mark.parametrize("provider", ["openai", "chat", "anthropic"])
def test_a_named_server_gets_no_key_of_the_provider(provider: str) -> None:
    keys = {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2"}
    model = resolve_model(f"{provider}:m@http://h/v1", keys)
    assert isinstance(model, HttpModel)
    assert model._api_key == ""
    other = resolve_model(f"{provider}:m@http://h/v1", KEYS)
    assert other._api_key == "sk-3"  # type: ignore[attr-defined]


def test_the_other_name_of_a_key_of_google() -> None:
    for keys, expected in (
        ({"GOOGLE_API_KEY": "a"}, "a"),
        ({"GOOGLE_API_KEY": "a", "GEMINI_API_KEY": "b"}, "b"),
    ):
        assert resolve_model("gemini:m", keys)._api_key == expected  # type: ignore[attr-defined]
    url = "gemini:m@http://h"
    assert resolve_model(url, {"GOOGLE_API_KEY": "a"})._api_key == ""  # type: ignore[attr-defined]


def test_a_model_is_returned_as_it_is() -> None:
    model = ScriptedModel([])
    assert resolve_model(model) is model


@pytest.mark.parametrize("text", ["", "gpt-5", "openai:", "nowhere:x", "demo:x", ":", "openai"])
def test_unknown_strings(text: str) -> None:
    with pytest.raises(UnknownModel, match="openai:NAME") as caught:
        resolve_model(text, KEYS)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("text", ["openai:gpt-5", "chat:m", "anthropic:claude"])
def test_missing_keys(text: str) -> None:
    with pytest.raises(MissingKey, match="_API_KEY"):
        resolve_model(text, {"OPENAI_API_KEY": "  "})
