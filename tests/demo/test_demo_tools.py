import math
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.demo.calculator import evaluate
from treadle.demo.climate import typical_weather
from treadle.demo.demo_agent import current_time, demo_agent, file_tools
from treadle.demo.folder import MAX_BYTES, Folder
from treadle.testing import Call, ScriptedModel
from treadle.tools.function import Tool

NUMBERS = st.integers(0, 99).map(str)
OPERATORS = st.sampled_from(["+", "-", "*", "//", "%"])
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: (
        st.builds("({} {} {})".format, inner, OPERATORS, inner) | st.builds("-{}".format, inner)
    ),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_arithmetic_is_that_of_python(expression: str) -> None:
    try:
        expected = eval(expression)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="has no value"):
            evaluate(expression)
    else:
        assert evaluate(expression) == expected


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("17*23", 391),
        ("2^10", 1024),
        ("6 × 7 ÷ 2", 21),
        ("sqrt(2)", math.sqrt(2)),
        ("round(2.345, 2)", round(2.345, 2)),
        ("round(1234, -2)", 1200),
        ("max(1, min(5, 3)) + abs(-2) + round(pi)", 8),
        (" 1.5e3 ", 1500),
    ],
)
def test_arithmetic(expression: str, value: float) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "1 +",
        "__import__('os')",
        "().__class__",
        "open('x')",
        "'a' * 3",
        "True + 1",
        "x",
        "9**9**9",
        "2**1000*2**1000*2**1000*2**1000",
        "1/0",
        "sqrt(-1)",
        "(-1)**0.5",
        "max()",
        "round(1, ndigits=2)",
        "round(1, -20000000)",
        "round(1, 'a')",
        "round(1, 2, 3)",
        "(10**999)**1000",
        "1" * 300,
        "[1, 2]",
        "(" * 150,
    ],
)
def test_what_is_no_arithmetic(expression: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        evaluate(expression)


def test_the_weather_is_that_of_the_month() -> None:
    july, january = date(2026, 7, 1), date(2026, 1, 1)
    assert typical_weather(" paris", july)["temperature_celsius"] == 21
    assert typical_weather("Paris", january)["temperature_celsius"] == 5
    assert typical_weather("Paris", date(2026, 12, 1))["temperature_celsius"] == 8
    assert typical_weather("Paris", july)["note"] == "typical for July, not a measurement"
    with pytest.raises(ValueError, match="not in the table, which has"):
        typical_weather("Atlantis", july)


def test_the_time() -> None:
    assert current_time().endswith("UTC")
    assert current_time("utc").endswith("UTC")
    assert current_time("Tokyo").endswith("JST")
    assert current_time("New York")[-3:] in {"EST", "EDT"}
    with pytest.raises(ValueError, match="is unknown"):
        current_time("Mars/Base")
    with pytest.raises(ValueError, match="is unknown"):
        current_time("../../etc/passwd")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("alpha")
    (root / "sub" / "b.txt").write_text("beta")
    (root / ".hidden").write_text("secret")
    (root / "raw.bin").write_bytes(b"\xff\xfe")
    (tmp_path / "outside.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    return root


def test_files_are_listed_and_read(folder: Path) -> None:
    files = Folder(folder)
    assert files.files() == ["a.txt", "raw.bin", "sub/b.txt"]
    assert files.read("sub/b.txt") == "beta"
    assert files.read("sub/../a.txt") == "alpha"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../outside.txt", "outside the folder"),
        ("link.txt", "outside the folder"),
        ("/etc/passwd", "outside the folder"),
        ("sub", "not a file"),
        ("nothing", "not a file"),
        ("raw.bin", "not UTF-8"),
        ("a\0b", "not a valid path"),
    ],
)
def test_what_may_not_be_read(folder: Path, path: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Folder(folder).read(path)


def test_long_files_and_lists_are_cut(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("é" * MAX_BYTES)
    assert Folder(tmp_path).read("long.txt").endswith("bytes]")
    for number in range(250):
        (tmp_path / f"{number:03}.txt").touch()
    listed = Folder(tmp_path).files()
    assert len(listed) == 201
    assert "first 200" in listed[-1]


@pytest.mark.anyio
async def test_the_search_is_slow_and_finds(folder: Path) -> None:
    model = ScriptedModel([Call("slow_search", '{"query": "BETA", "seconds": 2}'), "Done."])
    result = await demo_agent(model, folder).run("search")
    assert '"found_in":["sub/b.txt"]' in result.items[2].text  # type: ignore[union-attr]


@pytest.mark.anyio
async def test_the_search_of_a_long_folder_counts_files_only(tmp_path: Path) -> None:
    for number in range(250):
        (tmp_path / f"{number:03}.txt").touch()
    model = ScriptedModel([Call("slow_search", '{"query": "x", "seconds": 0}'), "Done."])
    result = await demo_agent(model, tmp_path).run("search")
    assert '"files_searched":200' in result.items[2].text  # type: ignore[union-attr]


def test_the_demo_agent_has_strict_tools_only(folder: Path) -> None:
    agent = demo_agent(ScriptedModel([]), folder)
    assert len(agent.tools.names) == 6
    assert all(schema.strict and schema.description for schema in agent.tools.schemas)
    assert all(isinstance(tool, Tool) for tool in file_tools(folder))


def test_the_database_of_the_conversation_is_left_alone(tmp_path: Path) -> None:
    for name in ("treadle.db", "treadle.db-wal", "treadle.db-driver", "notes.txt"):
        (tmp_path / name).write_text("text")
    folder = Folder(tmp_path, tmp_path / "treadle.db")
    assert folder.files() == ["notes.txt"]
    with pytest.raises(ValueError, match="not a file"):
        folder.read("treadle.db-driver")


@pytest.mark.parametrize(("model", "window"), [("gpt-4o", 128_000), ("scripted", 32_000)])
def test_a_long_chat_stays_in_the_window_of_its_model(
    tmp_path: Path, model: str, window: int
) -> None:
    agent = demo_agent(ScriptedModel([], name=model), tmp_path)
    assert agent.budget is not None
    assert agent.budget.window == window
