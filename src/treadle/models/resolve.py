"""Makes a model from a string such as `"openai:gpt-5"`.

    openai:NAME         OpenAI Responses          key: OPENAI_API_KEY, URL: OPENAI_BASE_URL
    chat:NAME           Chat Completions          key: OPENAI_API_KEY, URL: OPENAI_BASE_URL
    anthropic:NAME      Anthropic Messages        key: ANTHROPIC_API_KEY, URL: ANTHROPIC_BASE_URL
    gemini:NAME         Google Gemini             key: GEMINI_API_KEY, URL: GEMINI_BASE_URL
    vertex:NAME         Gemini at Vertex AI       GOOGLE_CLOUD_PROJECT, GOOGLE_CLOUD_LOCATION
    bedrock:ID          Amazon Bedrock            AWS_BEARER_TOKEN_BEDROCK, or credentials of AWS,
                                                  AWS_REGION
    azure:NAME          Azure OpenAI, Responses   key: AZURE_OPENAI_API_KEY, AZURE_OPENAI_ENDPOINT
    azure-chat:NAME     Azure OpenAI, Chat        as azure:NAME
    ollama:NAME         a local Ollama            URL: OLLAMA_HOST
    groq:NAME, …        the other presets         see `treadle.models.PRESETS`
    demo                the built-in demo model, inside this process

`NAME@URL` names another server, which gets no key unless TREADLE_API_KEY holds one.
"""

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

from treadle.domain.urls import masked_url
from treadle.errors import UnknownModel
from treadle.models.base import Model
from treadle.models.presets import PRESETS
from treadle.models.transport import Transport

Factory = Callable[[str, str, Mapping[str, str], Transport | None], Model]
"""Makes a model from its name, its URL (or ""), the environment and its transport."""

# Imported when first named: an HTTP client takes longer to import than all of treadle.
_FACTORIES = {
    "azure": "treadle.models.azure:azure",
    "azure-chat": "treadle.models.azure:azure_chat",
    "vertex": "treadle.models.gemini:vertex",
    "demo": "treadle.demo.demo_model:demo",
}
_KNOWN = "openai:NAME, chat:NAME@URL, anthropic:NAME, ollama:NAME or demo"


def resolve_model(
    model: Model | str,
    environ: Mapping[str, str] = os.environ,
    *,
    transport: Transport | None = None,
) -> Model:
    """Returns the model that a string names; a model is returned as it is.

    `environ` holds keys and base URLs. `transport` sends the requests of a model named by a
    string; by default the runtime's transport does, else the network.

    Raises `UnknownModel` for a string of another form and `MissingKey` without an API key.
    """
    if not isinstance(model, str):
        return model
    provider, _, rest = model.strip().partition(":")
    name, _, url = rest.partition("@")
    is_known = provider in _FACTORIES or provider in PRESETS
    if not is_known or bool(name) == (provider == "demo"):
        shown = model if not url else f"{provider}:{name}@{masked_url(url)}"
        more = (PRESETS.keys() | _FACTORIES) - {"openai", "chat", "anthropic", "ollama", "demo"}
        others = ", ".join(sorted(more))
        raise UnknownModel(
            f"{shown!r} is not a model name; use {_KNOWN}. Instead of openai also: {others}."
        )
    if provider in PRESETS:
        preset_model = import_module("treadle.models.preset_model").preset_model
        return cast("Model", preset_model(provider, name, url, environ, transport))
    module, _, function = _FACTORIES[provider].partition(":")
    factory = cast("Factory", getattr(import_module(module), function))
    return factory(name, url, environ, transport)
