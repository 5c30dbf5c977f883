"""Words for the full text."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.memory.archive.words import MAX_TERMS, TOKENIZER, indexed, pieces, terms


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("The cat", ['"the"', '"cat"']),
        ("cat CAT Cat", ['"cat"']),
        ("don't e-mail a_b", ['"don"', '"t"', '"e"', '"mail"', '"a"', '"b"']),
        ('x OR y AND ("z" NEAR/2 text:w*', ['"x"', '"or"', '"y"', '"and"', '"z"', '"near"', '"2"',
                                            '"text"', '"w"']),
        ("東京都", ['"東 京"', '"京 都"']),
        ("猫", ['"猫"']),
        ("go東京now", ['"go"', '"東 京"', '"now"']),
        ("😀🎉", ['"😀"', '"🎉"']),
        ("5µm", ['"5µm"']),
        ("", []),
        ("?! … — „“ 。", []),
        ("\u0301", []),
    ],
)  # fmt: skip
def test_terms_of_a_query(query: str, found: list[str]) -> None:
    assert terms(query) == found


def test_scripts_without_spaces_are_indexed_by_characters() -> None:
    assert indexed("plain text") == "plain text"
    assert indexed("im 東京 bei") == "im  東  京  bei"
    assert list(pieces("สวัสดี")) == ["ส ว", "ว ั", "ั ส", "ส ด", "ด ี"]


def test_a_query_has_a_bound() -> None:
    assert len(terms(" ".join(f"w{n}" for n in range(1000)))) == MAX_TERMS


@given(query=st.text(max_size=60), text=st.text(max_size=60))
def test_any_text_is_a_query_and_finds_itself(query: str, text: str) -> None:
    table = f'CREATE VIRTUAL TABLE words USING fts5 (text, content = "", tokenize = "{TOKENIZER}")'
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(table)
        for n, one in enumerate((query, text), 1):
            connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (n, indexed(one)))
        looked_for = terms(query)
        if not looked_for:
            return
        rows = connection.execute(
            "SELECT rowid FROM words WHERE words MATCH ?", (f"text : ({' OR '.join(looked_for)})",)
        )
        found = {n for (n,) in rows}
    if any(word.isascii() and word.isalnum() for word in query.split()):
        assert 1 in found


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Wir wohnen in Köln", "KOLN"),
        ("the running dogs", "dog run"),
        ("私は東京都に住んでいます", "京都"),
        ("저는 학교에서 공부합니다", "학교"),
        ("हिन्दी में", "हिन्दी"),
        ("party 🎉 tonight", "🎉"),
        ("call +49 221 1234", "1234"),
        ("Привет, мир", "МИР"),
    ],
)
def test_what_is_found(text: str, query: str) -> None:
    table = f'CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = "{TOKENIZER}")'
    match = f"text : ({' OR '.join(terms(query))})"
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(table)
        connection.execute("INSERT INTO words VALUES (?)", (indexed(text),))
        assert connection.execute("SELECT 1 FROM words WHERE words MATCH ?", (match,)).fetchone()
