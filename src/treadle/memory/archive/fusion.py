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


class Ranking:
    """Rows of the index, the best first, and what they got in each of the rankings.

    `text` and `vector` are the rankings of full text and of vectors, where there were any; with
    both, the rows are those of either, and newer ones come first where the scores are equal.
    """

    def __init__(self, text: Sequence[Hit] | None, vector: Sequence[Hit] | None) -> None:
        self._text = _places(text)
        self._vector = _places(vector)
        self.scores: dict[int, float]
        if text is not None and vector is not None:
            self.scores = _fused(text, vector)
        else:
            self.scores = {hit.n: hit.score for hit in text or vector or ()}
        self.rows: list[int] = list(self.scores)

    def text(self, n: int) -> tuple[int, float] | None:
        """Returns the rank of a row by full text, which counts from 1, and its score."""
        return self._text.get(n)

    def vector(self, n: int) -> tuple[int, float] | None:
        """Returns the rank of a row by vectors, which counts from 1, and its score."""
        return self._vector.get(n)


def _places(hits: Sequence[Hit] | None) -> dict[int, tuple[int, float]]:
    return {hit.n: (rank, hit.score) for rank, hit in enumerate(hits or (), 1)}


def _fused(text: Sequence[Hit], vector: Sequence[Hit]) -> dict[int, float]:
    scores: dict[int, float] = {}
    for hits in (text, vector):
        for rank, hit in enumerate(hits, DAMPING + 1):
            scores[hit.n] = scores.get(hit.n, 0.0) + 1 / rank
    return dict(sorted(scores.items(), key=lambda row: (-row[1], -row[0])))
