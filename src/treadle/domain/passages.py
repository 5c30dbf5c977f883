"""Passages: the texts of the archive, the filters of a search, and its results."""

from typing import Literal

from msgspec import Struct

from treadle.domain.items import Role

Kind = Literal["archive", "message"]
"""The source of a text: it was put into the archive, or it is a message of a thread."""

By = Literal["both", "text", "vector"]
"""How a search finds: by the words of the query, by its vector, or by both, combined."""


class NewPassage(Struct, frozen=True):
    """A text for the archive; `created_at` (Unix seconds) is set if it is older."""

    id: str
    text: str
    tags: tuple[str, ...] = ()
    created_at: float | None = None


class Passage(Struct, frozen=True, kw_only=True):
    """A text of the archive, or a message of a conversation.

    `id` is that of the passage or of the message, `seq` the number of its event on the thread
    `thread_id`. `created_at` is in Unix seconds.
    """

    id: str
    text: str
    kind: Kind
    thread_id: str
    seq: int
    created_at: float
    run_id: str = ""
    role: Role | None = None
    tags: tuple[str, ...] = ()


class Found(Struct, frozen=True, kw_only=True):
    """A passage that a search found, and how well it fits.

    `score` is higher for what fits better, and comparable within one search only: for both ways
    combined the sum of 1 / (60 + rank), else the BM25 or the cosine. `text_rank` and `vector_rank`
    count from 1 and are None where that way did not find it; their scores are the BM25, and the
    cosine of the angle to the query.
    """

    passage: Passage
    score: float
    text_rank: int | None = None
    text_score: float | None = None
    vector_rank: int | None = None
    vector_score: float | None = None

    @property
    def text(self) -> str:
        """The text that was found."""
        return self.passage.text


class Period(Struct, frozen=True):
    """From `since` to `until`, both included, in Unix seconds; None leaves that end open."""

    since: float | None = None
    until: float | None = None


class Filters(Struct, frozen=True):
    """Conditions for a passage to be found; it must meet all that are given.

    It has one of `any_tags` and each of `all_tags`; it is a message of one of `roles`, on the
    thread `thread_id`, in the `period`. Without a `thread_id`, messages on the threads of agents
    that work for a run are left out.
    """

    kind: Kind | None = None
    thread_id: str = ""
    roles: tuple[Role, ...] = ()
    any_tags: tuple[str, ...] = ()
    all_tags: tuple[str, ...] = ()
    period: Period = Period()
