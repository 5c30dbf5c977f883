"""Keeps keys out of recordings: finds them and overwrites them; pure."""

import re
from collections.abc import Mapping, Sequence

import msgspec

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


def masked_text(text: str, secrets: Sequence[str]) -> str:
    """Returns `text` without secrets, and without users and passwords in URLs."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return _CREDENTIALS.sub(f"//{MASK}@", text)


def holds_secret(body: bytes, secrets: Sequence[str]) -> bool:
    """Whether one of the secrets stands in the JSON of a request."""
    return any(spelled in body for secret in secrets for spelled in _spellings(secret))


def masked_chunks(chunks: Sequence[bytes], secrets: Sequence[str]) -> tuple[bytes, ...]:
    """Returns the pieces of a body with the secrets in it overwritten, also across two pieces.

    Each byte becomes one byte, so the pieces stay what they were.
    """
    whole = body = b"".join(chunks)
    for secret in secrets:
        for spelled in _spellings(secret):
            body = body.replace(spelled, b"*" * len(spelled))
    if body == whole:
        return tuple(chunks)
    cut: list[bytes] = []
    for chunk in chunks:
        cut.append(body[: len(chunk)])
        body = body[len(chunk) :]
    return tuple(cut)


def _spellings(secret: str) -> set[bytes]:
    """The ways in which JSON may write a string."""
    plain = secret.encode()
    escaped = msgspec.json.encode(secret)[1:-1]
    return {plain, escaped, escaped.replace(b"/", b"\\/")}
