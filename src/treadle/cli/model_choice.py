"""Which model `treadle chat` uses, and the line that explains the choice."""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
import msgspec
from msgspec import Struct

from treadle.models.openai import ollama_url

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
    if name := await _first_ollama_model(ollama_url(environ)):
        return ModelChoice(f"ollama:{name}", f"Model: ollama:{name} (found in a local Ollama).")
    return ModelChoice(
        "demo",
        "No API key and no Ollama found: using the built-in demo model. "
        "Set OPENAI_API_KEY, ANTHROPIC_API_KEY or TREADLE_MODEL for a real model.",
    )


async def _first_ollama_model(url: str) -> str | None:
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
        return None
    return models[0].name if models else None
