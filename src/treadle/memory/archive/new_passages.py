"""Texts on their way into the archive: what they may be; pure."""

import math
from collections.abc import Sequence

from treadle.domain.passages import NewPassage
from treadle.errors import InvalidInput
from treadle.memory.archive.filters import require_utf8, tags_of

MAX_CHARS = 100_000


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
    require_utf8(text)
    kept = tags_of(tags)
    if created_at is not None and not math.isfinite(created_at):
        raise InvalidInput("The time of a text must be a number of seconds.")
    return NewPassage(id, text, kept, created_at)
