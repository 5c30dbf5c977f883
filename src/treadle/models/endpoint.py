"""Where a request goes and with which key: from a model string, the environment, or a base URL."""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from treadle.errors import MissingKey

_AZURE = re.compile(r"\.(?:openai|cognitiveservices|services\.ai)\.azure\.com", re.IGNORECASE)
_OPENAI = re.compile(r"(?:.+\.)?api\.openai\.com", re.IGNORECASE)
_AUTHORIZATION = "Authorization"
_JWT = "eyJ"  # the beginning of a JSON Web Token


class Endpoint(NamedTuple):
    """The base URL of an API and the key for it."""

    base_url: str
    api_key: str


def endpoint(
    model: str,
    url: str,
    environ: Mapping[str, str],
    *,
    key: str,
    default: str,
    url_variable: str = "",
    needs_key: bool = True,
) -> Endpoint:
    """Returns the endpoint of the string `model`, which contains `url` (or "").

    Without a URL, the URL is that of `url_variable`, else `default`, and the key is that of the
    variable `key`; raises `MissingKey` if it is needed and not set. A server named by the caller
    gets TREADLE_API_KEY or no key, never the provider's.
    """
    if url:
        return Endpoint(url, environ.get("TREADLE_API_KEY", ""))
    found = environ.get(key, "").strip()
    if needs_key and key and not found:
        raise MissingKey(f'The model {model} needs a key: set {key}. The model "demo" needs none.')
    if key and not url_variable:
        url_variable = f"{key.removesuffix('_API_KEY')}_BASE_URL"
    return Endpoint(environ.get(url_variable, "").strip() or default, found)


def request_url(base_url: str, path: str) -> str:
    """Returns the URL of the endpoint `path` below the root `base_url`.

    The root may end with slashes or with the path itself. Its query stays at the end:
    `https://NAME.openai.azure.com/openai/deployments/NAME?api-version=…`.
    """
    parts = urlsplit(base_url)
    root = parts.path.rstrip("/").removesuffix(path).rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, root + path, parts.query, ""))


def is_openai(host: str) -> bool:
    """Whether `host` is OpenAI's or serves OpenAI's models at Azure."""
    return _OPENAI.fullmatch(host) is not None or is_azure(host)


def is_azure(host: str) -> bool:
    """Whether `host` is a resource of Azure OpenAI."""
    match = _AZURE.search(host)
    return match is not None and match.end() == len(host)


def key_headers(headers: Mapping[str, str], host: str, api_key: str) -> dict[str, str]:
    """Returns the `headers` that authorise a request, as `host` expects them.

    Azure takes a key in `api-key`, and only tokens of Entra ID as bearer tokens.
    https://learn.microsoft.com/en-us/azure/ai-services/openai/reference#authentication
    """
    if not is_azure(host) or api_key.startswith(_JWT):
        return dict(headers)
    others = {name: value for name, value in headers.items() if name != _AUTHORIZATION}
    return {**others, "api-key": api_key} if _AUTHORIZATION in headers else others
