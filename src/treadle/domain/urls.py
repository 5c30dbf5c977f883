"""URLs: how they are shown, and what in them may be a secret."""

import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_plus, urlsplit

MASK = "***"
"""Stands where a secret was."""

SECRET_NAME = re.compile(
    r"auth|key|token|secret|cookie|passw|credential|bearer|header|pwd", re.IGNORECASE
)
"""Names of headers, options and parameters whose values are secrets."""

SHORTEST_KEY = 8
"""Shorter texts are no keys."""

_BEFORE_HOST = re.compile(r"^([^/:@\s]+://)?.*@", re.DOTALL)
_DATABASE_USER = re.compile(r"://([^/?#@:]*)[:@]")
# What is not a key in a place that may contain one: a path, an option, plain words.
_NO_KEY = re.compile(
    r"-.*|[./~].*|[a-zA-Z]:\\.*|[@a-zA-Z_.:/ -]*"
    r"|[\w.@/ -]+\.(?:py|js|mjs|ts|sh|jar|json|toml|ya?ml)",
    re.DOTALL,
)


def masked_url(url: str) -> str:
    """Returns `url` without user, password, query and fragment, to be shown."""
    # All before the last "@", because a password may contain any character.
    shown = _BEFORE_HOST.sub(rf"\1{MASK}@", url)
    return shown.partition("?")[0].partition("#")[0]


def masked_database(url: str) -> str:
    """Returns the URL of a database as `masked_url` does, with its user."""
    user = _DATABASE_USER.search(url)
    return masked_url(url).replace(f"//{MASK}@", f"//{user[1] if user else MASK}@")


def may_be_key(text: str) -> bool:
    """Returns whether a text is as long as a key and not made of plain words, such as a path."""
    return len(text) >= SHORTEST_KEY and not _NO_KEY.fullmatch(text)


def secrets_in_url(url: str) -> Iterator[str]:
    """Yields the user and password of a URL, and what its query names as a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    for text in (parts.username, parts.password):
        if text:
            yield from (text, unquote(text))
    for name, value in _fields(parts.query):
        if SECRET_NAME.search(name):
            yield from (value, unquote_plus(value))


def keys_in_url(url: str) -> Iterator[str]:
    """Yields what of a URL may be a key: its secrets, and parts of query and path that look so."""
    yield from secrets_in_url(url)
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    values = [value or name for name, value in _fields(parts.query)]
    for text in (*values, *parts.path.split("/")):
        if may_be_key(text):
            yield from (text, unquote_plus(text))


def _fields(query: str) -> Iterator[tuple[str, str]]:
    for field in query.split("&"):
        name, _, value = field.partition("=")
        yield name, value
