"""Runs that are looked for while they leave the inbox."""

from collections.abc import Sequence
from typing import Any, cast

from treadle.journal.sql_connection import Connection
from treadle.journal.sql_runs import find_run

ROW = ("t", "run_1", "a", "", "queued", 0, 0, 1, "m", 0.0, 0.0, 0.0, None, None, None, "{}")


class Moving:
    """A connection that reads the rows before the run is taken, and the inbox after it."""

    inbox = "inbox"

    def __init__(self) -> None:
        self.answers: list[Sequence[Any]] = [[], [], [ROW]]

    def execute(self, sql: str, values: object = ()) -> "Moving":
        self.rows = self.answers.pop(0)
        return self

    def fetchone(self) -> Any:
        return next(iter(self.rows), None)

    def fetchall(self) -> Sequence[Any]:
        return self.rows


def test_a_run_that_leaves_the_inbox_meanwhile_is_found() -> None:
    found = find_run(cast("Connection", Moving()), "run_1", None, "t", inbox=True)
    assert found is not None
    assert found.id == "run_1"
