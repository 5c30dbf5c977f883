"""What must not be shown: keys in the headers of a request, passwords in URLs; pure."""

import re
from collections.abc import Iterable, Mapping

MASK = "***"

_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|passw|credential", re.IGNORECASE)
_CREDENTIALS = re.compile(r"//[^/\s@]*@")
# Shorter ones are placeholders such as "none" or "ollama", which stand in ordinary text too.
_SHORTEST = 8


def secrets_of(headers: Mapping[str, str]) -> list[str]:
    """Returns the keys in the headers of a request, the longest first."""
    found: set[str] = set()
    for name, value in headers.items():
        if _SECRET_HEADER.search(name):
            # "Bearer KEY": the key itself counts, whatever stands before it.
            found |= {value.strip(), value.strip().rpartition(" ")[2]}
    return sorted((secret for secret in found if len(secret) >= _SHORTEST), key=len, reverse=True)


def masked(text: str, secrets: Iterable[str]) -> str:
    """Returns `text` without `secrets`, and without users and passwords in URLs."""
    for secret in secrets:
        text = _without_head(text.replace(secret, MASK), secret)
    return _CREDENTIALS.sub(f"//{MASK}@", text)


def _without_head(text: str, secret: str) -> str:
    """Returns `text` without the beginning of `secret` that is left where it was cut short."""
    whole = text.rstrip(" …")
    for length in range(len(secret) - 1, _SHORTEST - 1, -1):
        if whole.endswith(secret[:length]):
            return whole[:-length] + MASK + text[len(whole) :]
    return text


def masked_url(url: str) -> str:
    """Returns `url` as it may be shown: without user, password and query."""
    # All before the last "@": a password may hold any character.
    return re.sub(r"^([^/:@\s]+://)?.*@", rf"\1{MASK}@", url, flags=re.DOTALL).partition("?")[0]
