"""The URL and key of a named model, from its string and the environment."""

from collections.abc import Mapping
from typing import NamedTuple

from treadle.errors import MissingKey


class Endpoint(NamedTuple):
    """The base URL of an API and the key for it."""

    base_url: str
    api_key: str


def endpoint(
    model: str, url: str, environ: Mapping[str, str], *, prefix: str, default: str
) -> Endpoint:
    """Returns the endpoint of the string `model`, which contains `url` (or "").

    Without a URL, the URL is `{prefix}_BASE_URL`, else `default`, and the key is
    `{prefix}_API_KEY`; raises `MissingKey` if that is not set. A server named by the caller gets
    TREADLE_API_KEY or no key, never the provider's.
    """
    if url:
        return Endpoint(url, environ.get("TREADLE_API_KEY", ""))
    variable = f"{prefix}_API_KEY"
    key = environ.get(variable, "").strip()
    if not key:
        raise MissingKey(
            f'The model {model} needs a key: set {variable}. The model "demo" needs none.'
        )
    return Endpoint(environ.get(f"{prefix}_BASE_URL") or default, key)
