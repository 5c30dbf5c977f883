"""A runtime on each kind of journal."""

from collections.abc import Callable
from pathlib import Path

import pytest

import weft
from weft import Runtime
from weft.journal.memory import MemoryJournal
from weft.journal.sqlite import SqliteJournal


@pytest.fixture(params=["memory", "sqlite"])
def open_runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Runtime]:
    """Opens a runtime; opened again, it finds what was there before."""
    memory = MemoryJournal()

    def open_one(*agents: weft.Agent, **options: object) -> Runtime:
        sqlite = SqliteJournal(tmp_path / "weft.db")
        journal = memory if request.param == "memory" else sqlite
        return Runtime(journal, agents=agents, **options)  # type: ignore[arg-type]

    return open_one
