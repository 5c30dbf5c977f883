"""Which model `treadle chat` uses, and the line that explains the choice."""

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

import msgspec
from msgspec import Struct

OPENAI_DEFAULT = "openai:gpt-5-mini"
ANTHROPIC_DEFAULT = "anthropic:claude-sonnet-4-5"
PROBE_SECONDS = 0.3
MAX_TAGS_BYTES = 1_000_000


class ModelChoice(NamedTuple):
    """A model string, and a note for the user on why it was chosen."""

    model: str
    note: str


class _OllamaModel(Struct):
    name: str


class _OllamaTags(Struct):
    models: list[_OllamaModel] = msgspec.field(default_factory=list[_OllamaModel])


async def choose_model(option: str | None, environ: Mapping[str, str]) -> ModelChoice:
    """Returns the model of the option, else of the environment, else an available one."""
    if option:
        return ModelChoice(option, f"Model: {option}.")
    if named := environ.get("TREADLE_MODEL", "").strip():
        return ModelChoice(named, f"Model: {named} (from TREADLE_MODEL).")
    for variable, model in (
        ("OPENAI_API_KEY", OPENAI_DEFAULT),
        ("ANTHROPIC_API_KEY", ANTHROPIC_DEFAULT),
    ):
        if environ.get(variable, "").strip():
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
    # Imported when it is needed: an HTTP client takes longer to import than the rest of treadle.
    aiohttp = import_module("aiohttp")
    url = import_module("treadle.models.openai").ollama_url(environ)
    try:
        async with (
            asyncio.timeout(PROBE_SECONDS),
            aiohttp.ClientSession() as session,
            session.get(f"{url}/api/tags") as response,
        ):
            body = await response.content.read(MAX_TAGS_BYTES)
            models = msgspec.json.decode(body, type=_OllamaTags).models
    except (aiohttp.ClientError, OSError, ValueError):
        # TimeoutError is an OSError, and msgspec's errors are ValueErrors: no Ollama in any case.
        return []
    return [model.name for model in models]
