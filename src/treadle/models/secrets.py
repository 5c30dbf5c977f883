"""Finds and masks secrets: keys in the headers of a request, passwords in URLs; pure."""

import re
from collections.abc import Iterable, Mapping

MASK = "***"

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
    return sorted((secret for secret in found if len(secret) >= _SHORTEST), key=len, reverse=True)


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


def masked_url(url: str) -> str:
    """Returns `url` without user, password and query, to be shown."""
    # All before the last "@", because a password may contain any character.
    return re.sub(r"^([^/:@\s]+://)?.*@", rf"\1{MASK}@", url, flags=re.DOTALL).partition("?")[0]
