"""Which databases a version of treadle can use."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.errors import JournalTooNew
from treadle.journal import postgres_database, sqlite_file
from treadle.journal.schema_version import ADDITIVE, SchemaVersion, require_usable, version_of

BREAKING, ADDED = "CREATE TABLE a (x);", f"{ADDITIVE}\nCREATE TABLE a (x);"
numbers = st.integers(1, 0x7FFF)


@given(st.tuples(numbers, numbers))
def test_a_version_is_one_number(both: tuple[int, int]) -> None:
    version = SchemaVersion(min(both), max(both))
    assert SchemaVersion.unpack(version.pack()) == version
    assert 0 < version.pack() < 1 << 31  # `user_version` has a sign


@given(numbers)
def test_a_plain_number_is_a_breaking_version(number: int) -> None:
    assert SchemaVersion.unpack(number) == SchemaVersion(number, number)
    assert SchemaVersion(number, number).pack() == number


@given(st.lists(st.sampled_from([BREAKING, ADDED]), max_size=8), st.data())
def test_a_treadle_uses_what_has_only_additive_migrations_more(
    later: list[str], data: st.DataObject
) -> None:
    scripts = [BREAKING, *later]  # the first one makes the tables
    known = data.draw(st.integers(1, len(scripts)))
    version = SchemaVersion.unpack(version_of(scripts).pack())
    if BREAKING in scripts[known:]:
        with pytest.raises(JournalTooNew, match=f"supports at most {known}"):
            require_usable(version, known, "treadle.db")
    else:
        require_usable(version, known, "treadle.db")


def test_additive_migrations_change_nothing_that_exists() -> None:
    for scripts in (sqlite_file._migrations(), postgres_database._migrations()):
        assert scripts[0].split("\n")[0] != ADDITIVE
        for script in scripts:
            if script.split("\n")[0] == ADDITIVE:
                # What functions and keys do when rows are deleted changes nothing now.
                script = re.sub(r"\$\$.*?\$\$|(ON|AFTER) DELETE ", "", script, flags=re.DOTALL)
                for word in ("DROP ", "RENAME ", "ALTER COLUMN ", "DELETE "):
                    assert word not in script.upper()
