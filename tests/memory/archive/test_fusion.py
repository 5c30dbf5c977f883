"""Two rankings made one."""

import pytest

from treadle.memory.archive.fusion import Hit, Ranking


def test_one_ranking_stays_as_it_is() -> None:
    hits = [Hit(3, 2.5), Hit(1, 1.5)]
    by_text, by_vector = Ranking(hits, None), Ranking(None, hits)
    assert by_text.rows == by_vector.rows == [3, 1]
    assert by_text.text(1) == by_vector.vector(1) == (2, 1.5)
    assert by_text.vector(3) is None
    assert by_vector.text(3) is None
    assert by_text.scores == {3: 2.5, 1: 1.5}
    assert Ranking(None, None).rows == []


def test_what_both_find_comes_first() -> None:
    ranking = Ranking([Hit(1, 9.0), Hit(2, 8.0)], [Hit(3, 0.9), Hit(2, 0.8)])
    assert ranking.rows == [2, 3, 1]  # of equal ones the newer first
    assert ranking.scores[2] == pytest.approx(2 / 62)
    assert ranking.scores[1] == ranking.scores[3] == pytest.approx(1 / 61)
    assert (ranking.text(2), ranking.vector(2), ranking.vector(1)) == ((2, 8.0), (2, 0.8), None)


def test_without_hits_of_one_the_other_counts() -> None:
    assert Ranking([], [Hit(1, 0.5)]).scores == {1: pytest.approx(1 / 61)}
