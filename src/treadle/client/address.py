"""Where a server is, and the key for it."""

import os
from urllib.parse import quote, urlsplit

from treadle.domain.urls import masked_url
from treadle.errors import ConfigurationError, TreadleError

URL_VARIABLE = "TREADLE_URL"
KEY_VARIABLE = "TREADLE_KEY"


def server_url(url: str | None) -> str:
    """Returns the URL of a server without a slash at its end, by default that of `TREADLE_URL`.

    Raises `ConfigurationError`.
    """
    given = os.environ.get(URL_VARIABLE, "").strip() if url is None else url
    if not given:
        raise ConfigurationError(
            f'No server is named; pass its URL, such as "http://127.0.0.1:8000", or set '
            f"{URL_VARIABLE}."
        )
    try:
        parts = urlsplit(given)
        is_valid = parts.port != 0
    except ValueError:  # its text may contain a password
        parts, is_valid = urlsplit(""), False
    if parts.username or parts.password or parts.query or parts.fragment:
        # What is in it ends up in logs, so the message does not show it.
        raise ConfigurationError(
            "The URL of the server contains a user, a password, a query or a fragment; pass only "
            'the address, such as "http://127.0.0.1:8000", and the key as key=….'
        )
    if not is_valid or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(
            f"{masked_url(given)[:200]!r} is not the URL of a server; it looks like "
            '"http://127.0.0.1:8000".'
        )
    return given.rstrip("/").removesuffix("/api/v1")


def server_key(key: str | None) -> str:
    """Returns the key, by default that of `TREADLE_KEY`; "" sends none."""
    given = os.environ.get(KEY_VARIABLE, "").strip() if key is None else key.strip()
    if not (given.isascii() and given.isprintable()):
        raise ConfigurationError("The key of the server contains a character that no key has.")
    return given


def segment(value: str, error: type[TreadleError], noun: str) -> str:
    """Returns an id as a part of a path; raises `error` for one that cannot be an id.

    An id that comes from outside must not lead to another path.
    """
    if not value or value in {".", ".."} or "/" in value:
        raise error(f"There is no {noun} {value[:100]!r}.")
    return quote(value, safe="")
