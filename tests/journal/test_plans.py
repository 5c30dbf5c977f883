"""The plans of the queries whose cost must not grow with the number of all threads."""

import sqlite3
from collections.abc import Iterator, Sequence

import pytest
from msgspec.structs import replace

from treadle.domain.cursor import cursor
from treadle.journal import sql_changes, sql_lists, sql_runs
from treadle.journal.base import CallQuery, Direction, ThreadQuery
from treadle.journal.sql_journal import MARKS_OF_OWNER
from treadle.journal.sqlite_connection import INBOX
from treadle.journal.sqlite_file import _labels, _migrations


@pytest.fixture(scope="module")
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.create_function("treadle_labels", 2, _labels)
    for script in _migrations():
        connection.executescript(script)
    yield connection
    connection.close()


def plan(database: sqlite3.Connection, sql: str, values: Sequence[object] = ()) -> list[str]:
    """The steps of a plan, without what SQLite reads of the constants."""
    rows = database.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    return [detail for *_, detail in rows]


ACTIVITY_OF, THREAD_OF = (
    "SEARCH a USING INTEGER PRIMARY KEY (rowid=?)",
    "SEARCH t USING INTEGER PRIMARY KEY (rowid=?)",
)
SORTED = "USE TEMP B-TREE FOR ORDER BY"
OF_LABEL = "SEARCH label USING PRIMARY KEY (name=? AND value=?)"


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize(
    ("query", "first"),
    [
        ({}, "SCAN a USING INDEX activity_updated"),
        ({"owner": "ann"}, "SEARCH a USING INDEX activity_owner (owner=?)"),
        ({"order": "created"}, "SCAN t USING INDEX thread_created"),
        (
            {"order": "created", "owner": "ann"},
            "SEARCH t USING INDEX thread_owner (owner=?)",
        ),
    ],
)
def test_a_list_is_read_in_its_order(
    query: dict[str, object], first: str, sign: str, database: sqlite3.Connection
) -> None:
    order = sign + str(query.get("order", "updated"))
    asked = ThreadQuery(**{**query, "order": order})  # type: ignore[arg-type]
    found = plan(database, *sql_lists.statement(asked, None))
    second = ACTIVITY_OF if "created" in order else THREAD_OF
    assert found == [first, second]  # nothing is sorted
    asked = replace(asked, after=cursor(order, 1.0, 2))
    head, *rest = plan(database, *sql_lists.statement(asked, None))
    assert head.startswith(first.split(" (", maxsplit=1)[0].replace("SCAN", "SEARCH"))
    assert "updated_at" in head or "created_at" in head
    assert rest == [second]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ({"status": ["failed"]}, "activity USING COVERING INDEX activity_status (status=?)"),
        (
            {"status": ["failed"], "owner": "ann"},
            "activity USING COVERING INDEX activity_owner_status (owner=? AND status=?)",
        ),
        ({"metadata": {"a": 1}}, "label USING PRIMARY KEY (name=? AND value=?)"),
        ({"agent": "a", "owner": "ann"}, "label USING PRIMARY KEY (name=? AND value=?)"),
        ({"parent": "thread_1"}, "thread USING COVERING INDEX thread_parent (parent=?)"),
    ],
)
@pytest.mark.parametrize("order", ["-updated", "created"])
def test_few_threads_are_found_by_their_filter(
    query: dict[str, object], first: str, order: str, database: sqlite3.Connection
) -> None:
    asked = ThreadQuery(**{**query, "order": order})  # type: ignore[arg-type]
    steps = plan(database, *sql_lists.statement(asked, 0))
    assert steps == [f"SEARCH {first}", ACTIVITY_OF, THREAD_OF, SORTED]


@pytest.mark.parametrize("owner", [None, "ann"])
def test_shared_memories_are_found_without_the_threads(
    owner: str | None, database: sqlite3.Connection
) -> None:
    asked = ThreadQuery(memories=True, owner=owner, order="created")
    steps = plan(database, *sql_lists.statement(asked, 0))
    first = "SEARCH thread USING COVERING INDEX sqlite_autoindex_thread_1 (id>? AND id<?)"
    assert steps == [first, ACTIVITY_OF, THREAD_OF, SORTED]
    in_order = "SCAN t USING INDEX thread_created"
    if owner is not None:
        in_order = "SEARCH t USING INDEX thread_owner (owner=?)"
    assert plan(database, *sql_lists.statement(asked, None)) == [in_order, ACTIVITY_OF]


def test_what_passes_other_filters_is_found_by_keys(database: sqlite3.Connection) -> None:
    asked = ThreadQuery(status=["failed"], metadata={"a": 1, "b": 2}, owner="ann")
    steps = plan(database, *sql_lists.statement(asked, 1))
    assert [step for step in steps if "SCAN" in step] == []
    assert "SEARCH label USING PRIMARY KEY (name=? AND value=? AND n=?)" in steps


def test_the_unfinished_are_found_without_the_others(database: sqlite3.Connection) -> None:
    steps = plan(database, sql_lists.UNFINISHED)
    assert "SEARCH activity USING COVERING INDEX activity_status (status=?)" in steps
    scanned = [step for step in steps if step.startswith("SCAN")]
    assert scanned == ["SCAN activity USING INDEX activity_jobs", "SCAN one"]


def test_a_search_reads_the_threads_of_its_owner(database: sqlite3.Connection) -> None:
    steps = plan(database, MARKS_OF_OWNER, (1, 2, 3, "ann"))
    assert steps[0] == "SEARCH t USING INDEX thread_owner (owner=?)"


def test_an_inbox_is_read_by_its_thread(database: sqlite3.Connection) -> None:
    steps = plan(database, f"SELECT body FROM {INBOX} WHERE n = ? ORDER BY number", (1,))
    assert steps == ["SEARCH inbox USING INDEX inbox_thread (n=?)"]


def test_a_run_is_found_by_its_id(database: sqlite3.Connection) -> None:
    steps = plan(database, f"{sql_runs.RUN_BY_ID} ORDER BY r.n LIMIT 1", ("run_1",))
    assert steps == ["SEARCH r USING INDEX run_id (id=?)", THREAD_OF]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_runs_are_read_in_their_order(order: Direction, database: sqlite3.Connection) -> None:
    steps = plan(database, *sql_runs.runs_statement(1, 50, "", order))
    assert sorted(steps) == ["SEARCH r USING INDEX run_seq (n=?)", THREAD_OF]
    after = cursor(f"runs {order}", 4, "run_1")
    steps = plan(database, *sql_runs.runs_statement(1, 50, after, order))
    sign = "<" if order == "desc" else ">"
    assert f"SEARCH r USING INDEX run_seq (n=? AND (seq,id){sign}(?,?))" in steps
    assert not [step for step in steps if "B-TREE" in step]


def test_the_runs_of_a_thread_are_read_only_if_one_is_open(database: sqlite3.Connection) -> None:
    steps = plan(database, sql_runs.OPEN_RUNS, (1,))
    assert steps == [ACTIVITY_OF, THREAD_OF, "SEARCH r USING INDEX run_seq (n=?)"]


@pytest.mark.parametrize(("owner", "first"), [(None, "SCAN c USING"), ("ann", "SEARCH c USING")])
def test_waiting_calls_are_read_in_their_order(
    owner: str | None, first: str, database: sqlite3.Connection
) -> None:
    steps = plan(database, *sql_runs.calls_statement(CallQuery(owner=owner), INBOX))
    index = "call_since" if owner is None else "call_owner (owner=?)"
    assert steps[0] == f"{first} INDEX {index}"
    assert not [step for step in steps if "B-TREE" in step or ("SCAN" in step and step != steps[0])]


def test_a_desk_reads_what_is_behind_its_position(database: sqlite3.Connection) -> None:
    steps = plan(database, f"{sql_changes.CHANGES} ORDER BY c.number LIMIT 9", (1, 2))
    assert steps[0] == "SEARCH c USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
    assert not [step for step in steps if "SCAN" in step or "B-TREE" in step]


FIRST = (float("-inf"), "", "", 0)


@pytest.mark.parametrize("kind", [None, "schedule"])
def test_due_times_are_read_in_their_order(kind: str | None, database: sqlite3.Connection) -> None:
    steps = plan(database, sql_lists.DUE, (*FIRST, kind, 9))
    assert steps == ["SEARCH d USING INDEX due_at ((at,kind,id,n)>(?,?,?,?))", THREAD_OF]
    steps = plan(database, sql_lists.DUE_OF_OWNER, (*FIRST, kind, "ann", 9))
    assert steps == [
        "SEARCH t USING INDEX thread_owner (owner=?)",
        "SEARCH d USING PRIMARY KEY (n=?)",
        SORTED,
    ]


def test_what_an_owner_spent_is_read_from_its_index(database: sqlite3.Connection) -> None:
    steps = plan(database, sql_lists.SPENDING, ("ann", 1, 9))
    assert steps == ["SEARCH spending USING PRIMARY KEY (owner=? AND slot>? AND slot<?)"]
