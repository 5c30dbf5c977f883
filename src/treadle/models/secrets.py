"""Finds and masks secrets: keys in the headers of a request, passwords in texts; pure."""

import re
from collections.abc import Iterable, Mapping

import msgspec

from treadle.domain.urls import MASK

_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|passw|credential", re.IGNORECASE)
_CREDENTIALS = re.compile(r"//[^/\s@]*@")
# Shorter ones are placeholders such as "none" or "ollama", which also occur in ordinary text.
_SHORTEST = 8


def secrets_of(headers: Mapping[str, str]) -> list[str]:
    """Returns the keys in the headers of a request, the longest first."""
    found: set[str] = set()
    for name, value in headers.items():
        if _SECRET_HEADER.search(name):
            # "Bearer KEY": the key without its scheme is a secret as well.
            found |= {value.strip(), value.strip().rpartition(" ")[2]}
    return list(long_enough(found))


def long_enough(secrets: Iterable[str]) -> tuple[str, ...]:
    """Returns the secrets that are looked for in texts, the longest first."""
    found = {secret for secret in secrets if len(secret) >= _SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def spellings(secret: str) -> set[bytes]:
    """Returns the ways to write a secret in JSON."""
    escaped = msgspec.json.encode(secret)[1:-1]
    return {secret.encode(), escaped, escaped.replace(b"/", b"\\/")}


def masked(text: str, secrets: Iterable[str]) -> str:
    """Returns `text` without `secrets`, and without users and passwords in URLs."""
    for secret in secrets:
        text = _without_head(text.replace(secret, MASK), secret)
    return _CREDENTIALS.sub(f"//{MASK}@", text)


def _without_head(text: str, secret: str) -> str:
    """Returns `text` without a beginning of `secret` at its end, left over where it was cut."""
    whole = text.rstrip(" …")
    for length in range(len(secret) - 1, _SHORTEST - 1, -1):
        if whole.endswith(secret[:length]):
            return whole[:-length] + MASK + text[len(whole) :]
    return text
