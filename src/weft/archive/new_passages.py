"""Texts on their way into the archive: what they may be; pure."""

import math
from collections.abc import Sequence

from weft.errors import InvalidInput
from weft.passages import NewPassage

MAX_CHARS = 100_000
MAX_TAGS = 50
MAX_TAG_CHARS = 200


def new_passage(
    id: str, text: str, tags: Sequence[str] = (), created_at: float | None = None
) -> NewPassage:
    """Returns a passage, its tags once each; raises `InvalidInput` for what cannot be one.

    That is a text that is empty, too long or no UTF-8, tags that are empty, too long or too many,
    and a time that is no number.
    """
    if not text.strip():
        raise InvalidInput("The text is empty; the archive would never find it.")
    if len(text) > MAX_CHARS:
        raise InvalidInput(
            f"The text has {len(text)} characters, and may have {MAX_CHARS}; split it."
        )
    _require_utf8(text)
    if isinstance(tags, str):
        raise InvalidInput(f"Tags are a list of texts; write tags=[{tags[:50]!r}].")
    if len(tags) > MAX_TAGS:
        raise InvalidInput(f"The text has {len(tags)} tags, and may have {MAX_TAGS}.")
    for tag in tags:
        if not tag.strip() or len(tag) > MAX_TAG_CHARS:
            raise InvalidInput(f"A tag has from 1 to {MAX_TAG_CHARS} characters, not {tag[:50]!r}.")
        _require_utf8(tag)
    if created_at is not None and not math.isfinite(created_at):
        raise InvalidInput("The time of a text must be a number of seconds.")
    return NewPassage(id, text, tuple(dict.fromkeys(tags)), created_at)


def _require_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"The text is not valid UTF-8 at character {error.start}; decode it before."
        ) from error
