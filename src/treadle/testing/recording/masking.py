"""Keeps keys out of the bytes of a recording; pure."""

from collections.abc import Sequence

from treadle.models.secrets import spellings
from treadle.streaming.event_stream import with_checksums


def holds_secret(body: bytes, secrets: Sequence[str]) -> bool:
    """Whether the JSON of a request contains one of the secrets."""
    return any(spelled in body for secret in secrets for spelled in spellings(secret))


def masked_chunks(chunks: Sequence[bytes], secrets: Sequence[str]) -> tuple[bytes, ...]:
    """Returns the pieces of a body with masked secrets, even if two pieces share one.

    Each byte is replaced by one byte, so the sizes of the pieces do not change. The messages of an
    event stream of AWS get the checksums of what they are then.
    """
    whole = body = b"".join(chunks)
    for secret in secrets:
        for spelled in spellings(secret):
            body = body.replace(spelled, b"*" * len(spelled))
    if body == whole:
        return tuple(chunks)
    body = with_checksums(body)
    cut: list[bytes] = []
    for chunk in chunks:
        cut.append(body[: len(chunk)])
        body = body[len(chunk) :]
    return tuple(cut)
