"""What providers publish about their models: windows and list prices, as data.

Each table has the page on which the provider publishes them, and the day they were collected,
mostly from the public collections genai-prices and models.dev. They change; `Limits(prices=…)` and
`Limits(price=…)` replace a price, and `max_tokens` of a strategy (`treadle.memory`) replaces a
window. A price that depends on the length of the request is that of a short one. What a provider
grants for free is not subtracted. Models that several providers serve under one name, each at its
own price, have none here.
"""

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from treadle.domain.usage import Price

_M = 1_000_000


class ModelData(Struct, frozen=True):
    """A model of a provider.

    - `window`: the tokens that a request may have: the limit of the input if the provider publishes
      one, else the window, which input and response share.
    - `price`: in US dollars per million tokens; None if it is not published or differs.
    """

    name: str
    window: int
    price: Price | None = None


class ProviderModels(Struct, frozen=True):
    """The models of one preset, the page that publishes them, and the day they were collected."""

    provider: str
    source: str
    checked: str
    models: tuple[ModelData, ...]


def _model(name: str, window: int, *price: float) -> ModelData:
    """Returns a model; `price` is for input and output, then cached and written input."""
    return ModelData(name, window, Price(*price) if price else None)


def _with_tools(*models: ModelData, **prices: float) -> tuple[ModelData, ...]:
    """Returns models with the prices of hosted tools, of a thousand uses."""
    return tuple(
        replace(model, price=replace(model.price, **prices))
        for model in models
        if model.price is not None
    )


def _profiles(name: str, window: int, *price: float) -> tuple[ModelData, ModelData]:
    """Returns a model of Bedrock in all regions, and in those of one area for a tenth more."""
    more = [round(one * 1.1, 6) for one in price]
    return _model(f"global.{name}", window, *price), _model(f"us.{name}", window, *more)


PROVIDER_MODELS: tuple[ProviderModels, ...] = (
    ProviderModels(
        "openai",
        "https://platform.openai.com/docs/pricing",
        "2026-11-30",
        _with_tools(
            _model("gpt-5-mini", 272_000, 0.25, 2.0, 0.025),
            _model("gpt-5", 272_000, 1.25, 10.0, 0.125),
            _model("gpt-5-nano", 272_000, 0.05, 0.4, 0.005),
            _model("gpt-5.1", 272_000, 1.25, 10.0, 0.125),
            _model("gpt-5.2", 272_000, 1.75, 14.0, 0.175),
            _model("gpt-5.3-codex", 272_000, 1.75, 14.0, 0.175),
            _model("gpt-5.4", 922_000, 2.5, 15.0, 0.25),
            _model("gpt-5.4-mini", 272_000, 0.75, 4.5, 0.075),
            _model("gpt-5.4-nano", 272_000, 0.2, 1.25, 0.02),
            _model("gpt-5.5", 922_000, 5.0, 30.0, 0.5),
            _model("gpt-5.6-sol", 922_000, 4.0, 20.0, 0.4, 5.0),
            _model("gpt-5.6-terra", 922_000, 2.0, 12.0, 0.2, 2.5),
            _model("gpt-5.6-luna", 922_000, 0.2, 1.2, 0.02, 0.25),
            _model("gpt-6-astra", 922_000, 10.0, 50.0, 1.0, 12.5),
            _model("gpt-6-sol", 922_000, 2.0, 10.0, 0.2, 2.5),
            _model("gpt-6-luna", 922_000, 0.1, 0.5, 0.01, 0.125),
            _model("gpt-6.1-sol", 922_000, 2.0, 10.0, 0.1, 2.5),
            _model("gpt-6.1-terra", 922_000, 1.0, 5.0, 0.05, 1.25),
            _model("gpt-4.1", 1_047_576, 2.0, 8.0, 0.5),
            _model("gpt-4.1-mini", 1_047_576, 0.4, 1.6, 0.1),
            _model("gpt-4.1-nano", 1_047_576, 0.1, 0.4, 0.025),
            _model("gpt-4o", 128_000, 2.5, 10.0, 1.25),
            _model("gpt-4o-mini", 128_000, 0.15, 0.6, 0.075),
            _model("o3", 200_000, 2.0, 8.0, 0.5),
            _model("o4-mini", 200_000, 1.1, 4.4, 0.275),
            web_search=10.0,
            file_search=2.5,
            code_container=30.0,
        ),
    ),
    ProviderModels(
        "anthropic",
        "https://platform.claude.com/docs/en/about-claude/pricing",
        "2026-11-30",
        _with_tools(
            _model("claude-sonnet-4-5", 200_000, 3.0, 15.0, 0.3, 3.75),
            _model("claude-fable-5", _M, 10.0, 50.0, 1.0, 12.5),
            _model("claude-fable-5-1", _M, 10.0, 50.0, 0.25, 12.5),
            _model("claude-fable-5-2", _M, 8.0, 40.0, 0.2, 10.0),
            _model("claude-opus-5-5", _M, 4.0, 20.0, 0.2, 5.0),
            _model("claude-opus-5", _M, 5.0, 25.0, 0.5, 6.25),
            _model("claude-opus-4-8", _M, 5.0, 25.0, 0.5, 6.25),
            _model("claude-opus-4-7", _M, 5.0, 25.0, 0.5, 6.25),
            _model("claude-opus-4-6", _M, 5.0, 25.0, 0.5, 6.25),
            _model("claude-opus-4-5", 200_000, 5.0, 25.0, 0.5, 6.25),
            _model("claude-opus-4-1", 200_000, 15.0, 75.0, 1.5, 18.75),
            _model("claude-opus-4-0", 200_000, 15.0, 75.0, 1.5, 18.75),
            _model("claude-opus-4", 200_000, 15.0, 75.0, 1.5, 18.75),
            _model("claude-sonnet-5-5", _M, 2.0, 10.0, 0.1, 2.5),
            _model("claude-sonnet-5", _M, 2.0, 10.0, 0.2, 2.5),
            _model("claude-sonnet-4-6", _M, 3.0, 15.0, 0.3, 3.75),
            _model("claude-sonnet-4-0", 200_000, 3.0, 15.0, 0.3, 3.75),
            _model("claude-sonnet-4", 200_000, 3.0, 15.0, 0.3, 3.75),
            _model("claude-haiku-5-5", _M, 0.1, 0.5, 0.01, 0.125),
            _model("claude-haiku-4-5", 200_000, 1.0, 5.0, 0.1, 1.25),
            web_search=10.0,
        ),
    ),
    ProviderModels(
        "gemini",
        "https://ai.google.dev/gemini-api/docs/pricing",
        "2026-11-30",
        (
            *_with_tools(
                # Without the introductory prices that end with the year 2026.
                _model("gemini-3.8-flash", 1_048_576, 1.5, 7.5, 0.15),
                _model("gemini-4-argon", 1_048_576, 4.0, 20.0, 0.2),
                _model("gemini-3.1-pro-preview", 1_048_576, 2.0, 12.0, 0.2),
                web_search=14.0,
            ),
            *_with_tools(
                _model("gemini-2.5-pro", 1_048_576, 1.25, 10.0, 0.125),
                _model("gemini-2.5-flash", 1_048_576, 0.3, 2.5, 0.03),
                _model("gemini-2.5-flash-lite", 1_048_576, 0.1, 0.4, 0.01),
                web_search=35.0,
            ),
        ),
    ),
    ProviderModels(
        "bedrock",
        "https://aws.amazon.com/bedrock/pricing/",
        "2026-11-30",
        (
            *_profiles("anthropic.claude-sonnet-5", _M, 2.0, 10.0, 0.2, 2.5),
            *_profiles("anthropic.claude-sonnet-5-5", _M, 2.0, 10.0, 0.1, 2.5),
            *_profiles("anthropic.claude-opus-5-5", _M, 4.0, 20.0, 0.2, 5.0),
            *_profiles("anthropic.claude-opus-5", _M, 5.0, 25.0, 0.5, 6.25),
            *_profiles("anthropic.claude-fable-5-2", _M, 8.0, 40.0, 0.2, 10.0),
            *_profiles("anthropic.claude-haiku-5-5", _M, 0.1, 0.5, 0.01, 0.125),
            *_profiles("anthropic.claude-opus-4-8", _M, 5.0, 25.0, 0.5, 6.25),
            *_profiles("anthropic.claude-sonnet-4-6", _M, 3.0, 15.0, 0.3, 3.75),
            *_profiles("anthropic.claude-sonnet-4-5-20250929-v1:0", 200_000, 3.0, 15.0, 0.3, 3.75),
            *_profiles("anthropic.claude-haiku-4-5-20251001-v1:0", 200_000, 1.0, 5.0, 0.1, 1.25),
            *_profiles("anthropic.claude-opus-4-5-20251101-v1:0", 200_000, 5.0, 25.0, 0.5, 6.25),
            _model("us.anthropic.claude-opus-4-1-20250805-v1:0", 200_000, 15.0, 75.0, 1.5, 18.75),
            *_profiles("amazon.nova-2-lite-v1:0", _M, 0.3, 2.5, 0.075),
            _model("us.amazon.nova-premier-v1:0", _M, 2.5, 12.5, 0.625),
            _model("amazon.nova-pro-v1:0", 300_000, 0.8, 3.2, 0.2),
            _model("amazon.nova-lite-v1:0", 300_000, 0.06, 0.24, 0.015),
            _model("amazon.nova-micro-v1:0", 128_000, 0.035, 0.14, 0.00875),
            *_profiles("openai.gpt-6-astra", 922_000, 10.0, 50.0, 1.0, 12.5),
            *_profiles("openai.gpt-5.6-sol", 922_000, 4.0, 20.0, 0.4, 5.0),
            *_profiles("openai.gpt-5.6-terra", 922_000, 2.0, 12.0, 0.2, 2.5),
            *_profiles("openai.gpt-5.6-luna", 922_000, 0.2, 1.2, 0.02, 0.25),
            _model("openai.gpt-oss-120b-1:0", 128_000, 0.15, 0.6),
            _model("openai.gpt-oss-20b-1:0", 128_000, 0.07, 0.3),
            _model("us.meta.llama4-maverick-17b-instruct-v1:0", _M, 0.24, 0.97),
            _model("us.meta.llama3-3-70b-instruct-v1:0", 128_000, 0.72, 0.72),
            _model("mistral.mistral-large-3-675b-instruct", 256_000, 0.5, 1.5),
            _model("deepseek.v3.2", 163_840, 0.62, 1.85),
            _model("qwen.qwen3-32b-v1:0", 32_000, 0.15, 0.6),
            _model("moonshotai.kimi-k2.5", 262_143, 0.6, 3.0),
            _model("zai.glm-5", 202_752, 1.0, 3.2),
            _model("minimax.minimax-m2.5", 196_608, 0.3, 1.2),
        ),
    ),
    ProviderModels(
        "groq",
        "https://console.groq.com/docs/models",
        "2026-11-30",
        (
            _model("llama-3.3-70b-versatile", 131_072, 0.59, 0.79),
            _model("llama-3.1-8b-instant", 131_072, 0.05, 0.08),
            _model("openai/gpt-oss-120b", 131_072),
            _model("openai/gpt-oss-20b", 131_072),
            _model("qwen/qwen3-32b", 131_072),
        ),
    ),
    ProviderModels(
        "mistral",
        "https://mistral.ai/pricing#api",
        "2026-11-30",
        (
            _model("mistral-medium-latest", 262_144, 1.5, 7.5, 0.15),
            _model("mistral-large-4", 1_048_576, 0.7, 2.1, 0.07),
            _model("mistral-large-2512", 262_144, 0.5, 1.5, 0.05),
            _model("mistral-medium-2604", 262_144, 1.5, 7.5, 0.15),
            _model("mistral-small-latest", 256_000, 0.15, 0.6, 0.015),
            _model("mistral-small-2603", 256_000, 0.15, 0.6, 0.015),
            _model("ministral-8b-latest", 262_144, 0.15, 0.15, 0.015),
            _model("ministral-8b-2512", 262_144, 0.15, 0.15, 0.015),
            _model("codestral-2508", 256_000, 0.3, 0.9, 0.03),
            _model("magistral-medium-latest", 128_000, 2.0, 5.0),
        ),
    ),
    ProviderModels(
        "deepseek",
        "https://api-docs.deepseek.com/quick_start/pricing",
        "2026-11-30",
        (
            # The two other names stand for deepseek-v4-flash without and with thinking.
            _model("deepseek-chat", _M, 0.3, 1.2, 0.006),
            _model("deepseek-reasoner", _M, 0.3, 1.2, 0.006),
            _model("deepseek-v4-flash", _M, 0.3, 1.2, 0.006),
            _model("deepseek-v4-pro", _M, 1.32, 3.96, 0.044),
        ),
    ),
    ProviderModels(
        "xai",
        "https://docs.x.ai/docs/models",
        "2026-11-30",
        (
            _model("grok-4.7", 500_000, 2.0, 6.0, 0.5),
            _model("grok-4.6", 500_000, 2.0, 6.0, 0.5),
            _model("grok-4.5", 500_000, 2.0, 6.0, 0.3),
            _model("grok-4.3", _M, 1.25, 2.5, 0.2),
            _model("grok-build-0.1", 256_000, 1.0, 2.0, 0.2),
        ),
    ),
    ProviderModels(
        "together",
        "https://docs.together.ai/docs/serverless-models",
        "2026-07-01",
        (
            _model("moonshotai/Kimi-K2.6", 262_144, 1.2, 4.5, 0.2),
            _model("deepseek-ai/DeepSeek-V4-Pro", 512_000, 1.74, 3.48, 0.2),
            _model("zai-org/GLM-5.2", 262_144, 1.4, 4.4, 0.26),
        ),
    ),
    ProviderModels(
        "fireworks",
        "https://fireworks.ai/pricing",
        "2026-07-01",
        (
            _model("accounts/fireworks/models/kimi-k2p6", 262_000, 0.95, 4.0, 0.16),
            _model("accounts/fireworks/models/deepseek-v4-pro", _M, 1.74, 3.48, 0.145),
            _model("accounts/fireworks/models/glm-5p2", 1_048_575, 1.4, 4.4, 0.26),
        ),
    ),
    ProviderModels(
        "cerebras",
        "https://inference-docs.cerebras.ai/models/overview",
        "2026-11-30",
        (_model("gpt-oss-120b", 131_072), _model("qwen-3.8-27b", 65_536, 0.99, 1.49)),
    ),
    ProviderModels(
        "moonshot",
        "https://platform.moonshot.ai/docs/pricing/chat",
        "2026-11-30",
        (
            _model("kimi-k2.6", 262_144, 0.95, 4.0, 0.16),
            _model("kimi-k2.7-code", 262_144, 0.95, 4.0, 0.19),
            _model("kimi-k3", 1_048_576, 3.0, 15.0, 0.3, 3.0),
            _model("kimi-k3.1-pro", 1_048_576, 2.0, 10.0, 0.2, 2.0),
        ),
    ),
    ProviderModels(
        "zai",
        "https://docs.z.ai/guides/overview/pricing",
        "2026-11-30",
        (
            _model("glm-5.3", _M, 1.4, 4.4, 0.26),
            _model("glm-5.2", _M, 1.4, 4.4, 0.26),
            _model("glm-5.1", 200_000, 1.4, 4.4, 0.26),
            _model("glm-5", 204_800, 1.0, 3.2, 0.2),
            _model("glm-4.7", 204_800, 0.6, 2.2, 0.11),
            _model("glm-4.6", 204_800, 0.6, 2.2, 0.11),
            _model("glm-4.5-air", 131_072, 0.2, 1.1, 0.03),
        ),
    ),
)
"""The models of each provider; the first one stands for it in `treadle models`."""


def all_models() -> Iterator[ModelData]:
    """Yields the models of all providers."""
    for provider in PROVIDER_MODELS:
        yield from provider.models
