"""Two rankings made one, by reciprocal rank fusion; pure.

The scores of full text and of vectors cannot be compared, their ranks can: each ranking gives
1 / (60 + rank), as in Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet
and individual Rank Learning Methods", SIGIR 2009.
"""

from collections.abc import Sequence

from msgspec import Struct

DAMPING = 60


class Hit(Struct, frozen=True):
    """The row `n` of the index, with its score in one ranking."""

    n: int
    score: float


class Ranked(Struct, frozen=True):
    """The row `n` of the index, with its score and its ranks, which count from 1."""

    n: int
    score: float
    text_rank: int | None = None
    text_score: float | None = None
    vector_rank: int | None = None
    vector_score: float | None = None


def by_text(hits: Sequence[Hit]) -> list[Ranked]:
    """Returns the ranking of full text as it is."""
    return [
        Ranked(hit.n, hit.score, text_rank=rank, text_score=hit.score)
        for rank, hit in enumerate(hits, 1)
    ]


def by_vector(hits: Sequence[Hit]) -> list[Ranked]:
    """Returns the ranking of vectors as it is."""
    return [
        Ranked(hit.n, hit.score, vector_rank=rank, vector_score=hit.score)
        for rank, hit in enumerate(hits, 1)
    ]


def fused(text: Sequence[Hit], vector: Sequence[Hit]) -> list[Ranked]:
    """Returns both rankings as one, the best first; newer rows come first where they are equal."""
    texts = {ranked.n: ranked for ranked in by_text(text)}
    vectors = {ranked.n: ranked for ranked in by_vector(vector)}
    rows = [_both(n, texts.get(n), vectors.get(n)) for n in {**texts, **vectors}]
    return sorted(rows, key=lambda row: (-row.score, -row.n))


def _both(n: int, text: Ranked | None, vector: Ranked | None) -> Ranked:
    text, vector = text or Ranked(n, 0.0), vector or Ranked(n, 0.0)
    score = sum(
        1 / (DAMPING + rank) for rank in (text.text_rank, vector.vector_rank) if rank is not None
    )
    return Ranked(
        n, score, text.text_rank, text.text_score, vector.vector_rank, vector.vector_score
    )
