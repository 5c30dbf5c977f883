"""One setting for how much a model reasons, in the words of each provider."""

import json
from typing import Any

import pytest

from treadle.domain.items import user_message
from treadle.domain.settings import ModelSettings
from treadle.errors import ConfigurationError
from treadle.models.base import ModelRequest
from treadle.models.presets import PRESETS
from treadle.models.wire.anthropic_request import AnthropicOptions
from treadle.models.wire.anthropic_request import encode_request as encode_messages
from treadle.models.wire.chat_request import ChatOptions, encode_request
from treadle.models.wire.responses_request import encode_request as encode_responses

Json = dict[str, Any]
ENABLED = {"thinking": {"type": "enabled"}}
DISABLED = {"thinking": {"type": "disabled"}}


def request(**settings: Any) -> ModelRequest:
    return ModelRequest(items=[user_message("hi")], settings=ModelSettings(**settings))


def chat_fields(preset: str, model: str, setting: Any) -> Json:
    """What the setting adds to a request of a preset."""
    options = ChatOptions(dialect=PRESETS[preset].dialect)
    plain = json.loads(encode_request(model, request(), options).body)
    body = json.loads(encode_request(model, request(reasoning_effort=setting), options).body)
    return {
        name: value
        for name, value in body.items()
        if plain.get(name) != value and name not in {"prompt_cache_key", "messages"}
    }


@pytest.mark.parametrize(
    ("preset", "model", "setting", "fields"),
    [
        ("chat", "gpt-5", "minimal", {"reasoning_effort": "minimal"}),
        ("chat", "gpt-5", 3_000, {"reasoning_effort": "low"}),
        ("chat", "gpt-5.1", 0, {"reasoning_effort": "none"}),
        ("chat", "gpt-5.1", 1_000_000, {"reasoning_effort": "high"}),
        ("openrouter", "any/model", "xhigh", {"reasoning": {"effort": "xhigh"}}),
        ("openrouter", "any/model", 5_000, {"reasoning": {"max_tokens": 5_000}}),
        ("openrouter", "any/model", 0, {"reasoning": {"effort": "none"}}),
        ("groq", "openai/gpt-oss-120b", "xhigh", {"reasoning_effort": "high"}),
        ("groq", "openai/gpt-oss-120b", "none", {"reasoning_effort": "low"}),
        ("groq", "qwen/qwen3-32b", "none", {"reasoning_effort": "none"}),
        ("groq", "qwen/qwen3-32b", "high", {"reasoning_effort": "default"}),
        ("groq", "llama-3.3-70b-versatile", "high", {}),
        ("mistral", "mistral-small-latest", "low", {"reasoning_effort": "high"}),
        ("mistral", "mistral-small-latest", "none", {"reasoning_effort": "none"}),
        ("mistral", "magistral-medium-latest", "high", {}),
        ("deepseek", "deepseek-v4-pro", "none", DISABLED),
        ("deepseek", "deepseek-v4-pro", "low", {**ENABLED, "reasoning_effort": "high"}),
        ("deepseek", "deepseek-v4-pro", "xhigh", {**ENABLED, "reasoning_effort": "max"}),
        ("xai", "grok-3-mini", "medium", {"reasoning_effort": "low"}),
        ("xai", "grok-4.3", "none", {"reasoning_effort": "none"}),
        ("xai", "grok-4.7", "none", {"reasoning_effort": "low"}),
        ("xai", "grok-4-0709", "high", {}),
        ("together", "Qwen/Qwen3.5-9B", "none", {"reasoning": {"enabled": False}}),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "high", {}),
        ("fireworks", "accounts/fireworks/models/kimi-k2p6", "low", ENABLED),
        ("fireworks", "accounts/fireworks/models/minimax-m3", "low", {"reasoning_effort": "low"}),
        ("cerebras", "zai-glm-4.7", "none", {"reasoning_effort": "none"}),
        ("cerebras", "zai-glm-4.7", "high", {}),
        ("moonshot", "kimi-k2.6", "none", DISABLED),
        ("moonshot", "kimi-k2.7-code", "none", {}),
        ("zai", "glm-4.7", "low", ENABLED),
        ("zai", "glm-5.2", "xhigh", {**ENABLED, "reasoning_effort": "max"}),
        ("zai", "glm-5.3", "none", {"reasoning_effort": "low"}),
        ("ollama", "qwen3", "minimal", {"reasoning_effort": "low"}),
        (
            "vllm",
            "qwen3",
            "none",
            {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
        ),
        ("sglang", "openai/gpt-oss-20b", "medium", {"reasoning_effort": "medium"}),
        (
            "llamacpp",
            "qwen3",
            "high",
            {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}},
        ),
        ("lmstudio", "qwen3", "high", {}),
        ("litellm", "claude", "high", {"reasoning_effort": "high"}),
    ],
)
def test_chat(preset: str, model: str, setting: Any, fields: Json) -> None:
    assert chat_fields(preset, model, setting) == fields


def test_what_a_model_needs_in_each_request() -> None:
    options = ChatOptions(dialect=PRESETS["groq"].dialect)
    for setting in (None, "none", "high"):
        body = encode_request("qwen/qwen3-32b", request(reasoning_effort=setting), options).body
        assert json.loads(body)["reasoning_format"] == "parsed"


def test_a_budget_in_responses_is_an_effort() -> None:
    body = json.loads(encode_responses("gpt-5", request(reasoning_effort=9_000)).body)
    assert body["reasoning"] == {"effort": "high"}
    assert body["include"] == ["reasoning.encrypted_content"]


def test_a_summary_is_asked_for_in_responses() -> None:
    body = json.loads(encode_responses("m", request(reasoning_summary="auto")).body)
    assert body["reasoning"] == {"summary": "auto"}
    assert body["include"] == ["reasoning.encrypted_content"]
    with pytest.raises(ConfigurationError, match="reasoning_summary is 'long'; use auto"):
        request(reasoning_summary="long")


def test_messages_take_a_budget_as_it_is_or_as_an_effort() -> None:
    def sent(model: str, setting: Any) -> Json:
        options = AnthropicOptions()
        return json.loads(encode_messages(model, request(reasoning_effort=setting), options).body)

    old, new = sent("claude-sonnet-4-5", 5_000), sent("claude-sonnet-5", 5_000)
    assert old["thinking"] == {"type": "enabled", "budget_tokens": 5_000}
    assert "output_config" not in old
    assert new["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert new["output_config"] == {"effort": "medium"}
    assert sent("claude-sonnet-5", 0)["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize("setting", [-1, True, 1.5, "much"])
def test_what_is_not_a_setting(setting: Any) -> None:
    with pytest.raises(ConfigurationError, match="or a number of tokens"):
        request(reasoning_effort=setting)
