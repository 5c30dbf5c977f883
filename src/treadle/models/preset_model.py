"""Makes models of presets."""

from collections.abc import Mapping

from treadle.models.anthropic import AnthropicMessages
from treadle.models.bedrock import bedrock
from treadle.models.endpoint import Endpoint, endpoint
from treadle.models.gemini import Gemini
from treadle.models.http import HttpModel
from treadle.models.openai import OpenAIChat, OpenAIResponses
from treadle.models.presets import PRESETS, Preset
from treadle.models.transport import Transport
from treadle.models.wire.chat_dialects import for_model, host_of

# These name an API, which other servers offer as well. What such a server accepts is recognised by
# its URL; it can neither read nor sign what the provider itself has written.
_APIS = {"openai", "chat", "anthropic", "gemini"}


def preset_model(
    provider: str,
    name: str,
    url: str,
    environ: Mapping[str, str],
    transport: Transport | None = None,
) -> HttpModel:
    """Returns the model `provider:name[@url]` of a preset; raises `MissingKey`."""
    preset = PRESETS[provider]
    if preset.api == "converse":
        return bedrock(name, url, environ, transport)
    base_url, key = preset_endpoint(provider, preset, name, url, environ)
    host = host_of(base_url)
    is_api = provider in _APIS
    is_another = host != host_of(preset.base_url) and bool(url or is_api)
    mark = f"{provider}:{host}" if is_another else provider
    match preset.api:
        case "messages":
            return AnthropicMessages(
                name,
                api_key=key,
                base_url=base_url,
                provider=mark,
                ends=preset.ends,
                output_mode=preset.output_mode,
                transport=transport,
            )
        case "gemini":
            return Gemini(
                name,
                api_key=key,
                base_url=base_url,
                provider=mark,
                ends=preset.ends,
                output_mode=preset.output_mode,
                transport=transport,
            )
        case "responses":
            return OpenAIResponses(
                name,
                api_key=key,
                base_url=base_url,
                provider=mark,
                ends=preset.ends,
                output_mode=preset.output_mode,
                transport=transport,
            )
        case "chat":
            return OpenAIChat(
                name,
                api_key=key,
                base_url=base_url,
                provider=mark,
                dialect=None if is_api else for_model(preset.dialect, name),
                ends=preset.ends,
                output_mode=preset.output_mode,
                transport=transport,
            )


def preset_endpoint(
    provider: str, preset: Preset, name: str, url: str, environ: Mapping[str, str]
) -> Endpoint:
    """Returns where the model `provider:name[@url]` is, with its key; raises `MissingKey`."""
    if provider == "gemini" and not environ.get(preset.key, "").strip():
        # The name that Google's own SDK reads as well.
        environ = {**environ, preset.key: environ.get("GOOGLE_API_KEY", "")}
    found = endpoint(
        f"{provider}:{name}",
        url,
        environ,
        key=preset.key,
        default=preset.base_url,
        url_variable=preset.url_variable,
        needs_key=preset.needs_key,
    )
    if provider == "ollama" and not url:
        return Endpoint(f"{ollama_url(environ)}/v1", found.api_key)
    return found


def ollama_url(environ: Mapping[str, str]) -> str:
    """Returns the root URL of the local Ollama server, from OLLAMA_HOST if it is set."""
    host = environ.get("OLLAMA_HOST", "").strip() or PRESETS["ollama"].base_url
    return (host if "://" in host else f"http://{host}").rstrip("/").removesuffix("/v1")
