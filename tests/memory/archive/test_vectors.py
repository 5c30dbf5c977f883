"""Vectors in slots, and their exact search."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from treadle.memory.archive.vectors import Matrix, VectorFile

DIMENSIONS = 6


def some(number: int, seed: int = 1) -> Matrix:
    rows = np.random.default_rng(seed).standard_normal((number, DIMENSIONS)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=["memory", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "v.f32" if request.param == "file" else None


@pytest.mark.parametrize("step", [1, 3, 50])
def test_the_scores_are_those_of_all(path: Path | None, step: int) -> None:
    """A few of many slots are gathered; otherwise all are multiplied in place."""
    file, rows, query = VectorFile(path, DIMENSIONS), some(10_000), some(1, 2)[0]
    file.write(range(6_000), rows[:6_000])
    file.write(range(6_000, 10_000), rows[6_000:])
    slots = np.arange(10_000, dtype=np.int64)[::-1][::step]
    scores = file.scores(slots, query)
    assert np.allclose(scores, rows[slots] @ query, atol=1e-6)
    best = file.best(scores, slots, 5)
    assert [hit.n for hit in best] == list(slots[np.argsort(-(rows[slots] @ query))][:5])
    assert file.scores(slots[:0], query).shape == (0,)
    assert file.best(scores[:0], slots[:0], 5) == []


def test_equal_scores_come_the_newest_first(path: Path | None) -> None:
    scores = np.array([0.5, 0.7, 0.5, 0.5], np.float32)
    hits = VectorFile.best(scores, np.array([1, 2, 3, 4], np.int64), 3)
    assert [hit.n for hit in hits] == [2, 4, 3]


def test_a_slot_that_was_never_written_is_detected(path: Path | None) -> None:
    file = VectorFile(path, DIMENSIONS)
    assert not file.is_written(np.array([0, 3], np.int64)).any()
    file.write([1, 2, 5], some(3))
    slots = np.array([0, 1, 2, 3, 4, 5, 6, 99], np.int64)
    written = [False, True, True, False, False, True, False, False]
    assert file.is_written(slots).tolist() == written
    file.write([5000], some(1))
    assert file.is_written(slots).tolist() == written
    assert file.is_written(np.array([5000], np.int64)).all()


def test_another_holder_of_the_file_sees_what_is_written(tmp_path: Path) -> None:
    one, two = (VectorFile(tmp_path / "v.f32", DIMENSIONS) for _ in range(2))
    rows = some(4)
    one.write([0, 1], rows[:2])
    assert two.is_written(np.array([0, 1, 2], np.int64)).tolist() == [True, True, False]
    one.write([1, 2, 3], rows[1:])
    assert two.is_written(np.arange(4, dtype=np.int64)).all()
    assert np.allclose(two.scores(np.arange(4, dtype=np.int64), rows[3]), rows @ rows[3])


def test_without_numpy_the_extra_is_named() -> None:
    program = """
import asyncio, sys
sys.modules["numpy"] = None
import treadle
from treadle.errors import MissingExtra
from treadle.memory import HashingEmbedder

async def main():
    async with treadle.open() as runtime:
        await runtime.archive().insert("blue shoes")
        (found,) = await runtime.archive().search("shoes")
    async with treadle.open(embedder=HashingEmbedder()) as runtime:
        try:
            await runtime.archive().insert("blue shoes")
        except MissingExtra as error:
            assert "treadle[memory]" in str(error)
        else:
            raise AssertionError

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)
