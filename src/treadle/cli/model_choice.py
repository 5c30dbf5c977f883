"""Which model `treadle chat` uses, and the line that explains the choice."""

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from treadle.models.model_data import PROVIDER_MODELS
from treadle.models.presets import PRESETS

PROBE_SECONDS = 0.3
MAX_LIST_BYTES = 1_000_000

T = TypeVar("T")


class ModelChoice(NamedTuple):
    """A model string, and a note for the user on why it was chosen."""

    model: str
    note: str


class _OllamaModel(Struct):
    name: str


class _OllamaTags(Struct):
    models: list[_OllamaModel] = msgspec.field(default_factory=list[_OllamaModel])


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model] = msgspec.field(default_factory=list[_Model])


async def choose_model(option: str | None, environ: Mapping[str, str]) -> ModelChoice:
    """Returns the model of the option, else of the environment, else an available one."""
    if option:
        return ModelChoice(option, f"Model: {option}.")
    if named := environ.get("TREADLE_MODEL", "").strip():
        return ModelChoice(named, f"Model: {named} (from TREADLE_MODEL).")
    for provider in PROVIDER_MODELS:
        variable = PRESETS[provider.provider].key
        if environ.get(variable, "").strip():
            model = f"{provider.provider}:{provider.models[0].name}"
            return ModelChoice(model, f"Model: {model} ({variable} is set).")
    if names := await ollama_models(environ):
        model = f"ollama:{names[0]}"
        return ModelChoice(model, f"Model: {model} (found in a local Ollama).")
    return ModelChoice(
        "demo",
        "No API key and no Ollama found: using the built-in demo model. "
        "Set OPENAI_API_KEY, ANTHROPIC_API_KEY or TREADLE_MODEL for a real model.",
    )


async def ollama_models(environ: Mapping[str, str]) -> list[str]:
    """Returns the names of the models of a local Ollama; none if there is no Ollama."""
    url = import_module("treadle.models.preset_model").ollama_url(environ)
    tags = await _answer(f"{url}/api/tags", "", _OllamaTags)
    return [] if tags is None else [model.name for model in tags.models]


async def served_models(base_url: str, api_key: str) -> list[str]:
    """Returns the names of the models of a server with OpenAI's API; none without a server."""
    listed = await _answer(f"{base_url.rstrip('/')}/models", api_key, _Models)
    return [] if listed is None else [model.id for model in listed.data]


async def _answer(url: str, api_key: str, kind: type[T]) -> T | None:
    # Imported when it is needed: an HTTP client takes longer to import than the rest of treadle.
    aiohttp = import_module("aiohttp")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with (
            asyncio.timeout(PROBE_SECONDS),
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            body = await response.content.read(MAX_LIST_BYTES)
            return msgspec.json.decode(body, type=kind)
    except (aiohttp.ClientError, OSError, ValueError):
        # TimeoutError is an OSError, and msgspec's errors are ValueErrors: no server in any case.
        return None
