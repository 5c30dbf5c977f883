"""Makes an embedder from a string such as `"openai:text-embedding-3-small"`.

    openai:NAME, mistral:NAME, ollama:NAME, …   a preset with an API for embeddings
    gemini:NAME                                 Google; key: GEMINI_API_KEY
    local:NAME                                  in this process, with treadle[embeddings]

`NAME@URL` names another server, which gets no key unless TREADLE_API_KEY holds one.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

from treadle.domain.urls import masked_url
from treadle.errors import UnknownModel
from treadle.models.presets import PRESETS, Preset
from treadle.models.transport import Transport

if TYPE_CHECKING:
    from treadle.memory.archive.embedders import Embedder

_LOCAL = "local"
_BATCH = 100
"""The most texts that Gemini takes at once; the others take more."""
# The API for embeddings of these is that of OpenAI as well. The others serve none.
_SERVERS = ("openai", "mistral", "together", "fireworks", "openrouter", "litellm")
_LOCAL_SERVERS = ("ollama", "vllm", "sglang", "llamacpp", "lmstudio")
_GEMINI = Preset(
    "https://generativelanguage.googleapis.com/v1beta/openai",
    key="GEMINI_API_KEY",
    url_variable="GEMINI_EMBEDDINGS_URL",
    source="https://ai.google.dev/gemini-api/docs/openai#embeddings",
)


def resolve_embedder(
    embedder: str,
    environ: Mapping[str, str] = os.environ,
    *,
    transport: Transport | None = None,
) -> "Embedder":
    """Returns the embedder that a string names.

    Raises `UnknownModel` for a string of another form, `MissingKey` without a key that is needed,
    and `MissingExtra` for a local model without the extra.
    """
    provider, _, rest = embedder.strip().partition(":")
    name, _, url = rest.partition("@")
    known = (*_SERVERS, "gemini", *_LOCAL_SERVERS)
    if not name or provider not in {*known, _LOCAL}:
        shown = embedder if not url else f"{provider}:{name}@{masked_url(url)}"
        raise UnknownModel(
            f"{shown!r} is not an embedding model; use PROVIDER:NAME with one of "
            f"{', '.join(known)}, or {_LOCAL}:NAME."
        )
    if provider == _LOCAL:
        kind = import_module("treadle.memory.archive.local_embedder").LocalEmbedder
        return cast("Embedder", kind(rest))
    # Imported when it is needed: it imports an HTTP client.
    preset_endpoint = import_module("treadle.models.preset_model").preset_endpoint
    preset = _GEMINI if provider == "gemini" else PRESETS[provider]
    base_url, key = preset_endpoint(provider, preset, name, url, environ)
    kind = import_module("treadle.memory.archive.openai_embedder").OpenAIEmbedder
    found = kind(name, base_url=base_url, api_key=key, batch=_BATCH, transport=transport)
    return cast("Embedder", found)
