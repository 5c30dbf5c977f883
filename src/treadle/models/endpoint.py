"""Where a named model is reached and with which key, from its string and the environment."""

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
    """Returns the endpoint of the string `model`, in which `url` (or "") is named.

    Without a URL it is that of `{prefix}_BASE_URL`, else `default`, with the key of
    `{prefix}_API_KEY`; raises `MissingKey` where that is not set. A server the caller names gets a
    key meant for it (TREADLE_API_KEY, or none), never the provider's.
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
