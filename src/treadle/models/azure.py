"""Azure OpenAI by a model string: its v1 API is that of OpenAI.

https://learn.microsoft.com/en-us/azure/foundry/openai/api-version-lifecycle
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from treadle.errors import MissingKey
from treadle.models.endpoint import endpoint
from treadle.models.openai import OpenAIChat, OpenAIResponses
from treadle.models.transport import Transport

_ENDPOINT = "AZURE_OPENAI_ENDPOINT"
_KEY = "AZURE_OPENAI_API_KEY"
_PATH = "/openai/v1"


def azure(
    name: str, url: str, environ: Mapping[str, str], transport: Transport | None
) -> OpenAIResponses:
    """Returns the model `azure:name[@url]`, a deployment behind Responses."""
    base_url, key = _resource(f"azure:{name}", url, environ)
    return OpenAIResponses(name, api_key=key, base_url=base_url, transport=transport)


def azure_chat(
    name: str, url: str, environ: Mapping[str, str], transport: Transport | None
) -> OpenAIChat:
    """Returns the model `azure-chat:name[@url]`, a deployment behind Chat Completions."""
    base_url, key = _resource(f"azure-chat:{name}", url, environ)
    return OpenAIChat(name, api_key=key, base_url=base_url, transport=transport)


def _resource(model: str, url: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Returns the base URL and the key of a resource; raises `MissingKey`."""
    root = environ.get(_ENDPOINT, "").strip()
    if not (url or root):
        raise MissingKey(
            f"The model {model} needs the address of a resource: set {_ENDPOINT} to "
            "https://NAME.openai.azure.com."
        )
    base_url, key = endpoint(model, url, environ, key=_KEY, default=root, url_variable=_ENDPOINT)
    has_path = bool(urlsplit(base_url).path.strip("/"))
    return (base_url if has_path else base_url.rstrip("/") + _PATH), key
