"""The command in a real terminal: several chats at once, killed chats, narrow screens, Ctrl-C."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals of Unix", allow_module_level=True)

from tests.cli.terminal import terminal

import treadle
from treadle import Agent
from treadle.testing import ScriptedModel

pytestmark = [pytest.mark.real_clock, pytest.mark.timeout(240)]


def test_two_chats_of_which_the_second_takes_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "here.txt").write_text("needle")
    with terminal("chat", folder=tmp_path) as first:
        first.wait_for(">")
        first.type("what is 17*23?\r")
        first.wait_for("391.")
        first.wait_for(">")
        with terminal("chat", "--folder", str(tmp_path / "a"), folder=tmp_path) as second:
            second.wait_for(">")
            second.type("which files are here?\r")
            # Through the first chat, in the folder of the second.
            assert "here.txt" in second.wait_for("According to")
            second.wait_for(">")
            second.type("search slowly for needle\r")
            second.wait_for("● slow_search")
            first.kill()
            second.wait_for("Interrupted")
            second.wait_for(">")
            second.type("what is 2**10?\r")
            second.wait_for("1024.")
            second.wait_for(">")
            # What is sent from elsewhere is shown with its answer.
            with terminal("chat", "--last", "what is 5*5?", folder=tmp_path) as third:
                assert third.wait_for_end() == 0
            second.wait_for("> what is 5*5?")
            second.wait_for("25.")
            second.wait_for(">")
            second.type("\x04")
            assert second.wait_for_end() == 0
            assert "Continue with: treadle chat --thread thread_" in second.text


AGENTS = """
from treadle import Agent
from treadle.testing import ScriptedModel
one = Agent(ScriptedModel(["First.", "Second."]), name="one")
two = Agent(ScriptedModel(["Other."]), name="two")
"""


def test_chats_with_agents_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(AGENTS)
    with terminal("chat", "--agent", "own:one", folder=tmp_path) as first:
        first.wait_for(">")
        first.type("hi\r")
        first.wait_for("First.")
        with terminal("chat", "--agent", "own:one", "hi", folder=tmp_path) as same:
            assert same.wait_for_end() == 0
            assert "Second." in same.text  # of the model in the first process
        with terminal("chat", "--agent", "own:two", "hi", folder=tmp_path) as other:
            assert other.wait_for_end() == 0
            assert "Other." in other.text
            assert "treadle-two.db" in other.text.replace("\n", "")
        with terminal("chat", "what is 17*23?", folder=tmp_path) as demo:
            assert demo.wait_for_end() == 0
            assert "391." in demo.text


LONG = """
from treadle import Agent
from treadle.testing import Pause, ScriptedModel, Text
words = "A **bold** text with `code`, and words that wrap at their spaces: " + "word " * 60
slow = Agent(ScriptedModel([[Text("One"), Pause(600)], "Next."]), name="slow")
long = Agent(ScriptedModel([words] * 3), name="long")
"""


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_words_wrap_at_spaces(tmp_path: Path, columns: int) -> None:
    (tmp_path / "own.py").write_text(LONG)
    with terminal("chat", "--agent", "own:long", "hi", folder=tmp_path, columns=columns) as chat:
        assert chat.wait_for_end() == 0
    lines = chat.text.splitlines()
    assert max(map(len, lines)) <= columns
    assert {word for line in lines for word in line.split()} >= {"bold", "code,", "word"}
    assert all(re.fullmatch(r"[A-Za-z,:]+", word) for line in lines for word in line.split())
    assert "\x1b[1mbold\x1b[0m" in chat.raw
    # The same text in a pipe is what the model wrote.
    piped = subprocess.run(
        [sys.executable, "-m", "treadle", "show", "--last"],
        env={"PATH": "", "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True,
        check=True,
    ).stdout.decode()
    assert "A **bold** text with `code`," in piped
    assert "\x1b" not in piped


def test_ctrl_c_at_bad_moments(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(LONG)
    with terminal("chat", "--agent", "own:slow", folder=tmp_path) as chat:
        chat.wait_for(">")
        chat.type("hi\r")
        chat.wait_for("One")
        chat.type("\x03")
        chat.wait_for("(Cancelled.)")
        chat.wait_for(">")
        chat.type("\x03")
        chat.wait_for("once more")
        chat.type("again\r")
        chat.wait_for("Next.")
        chat.wait_for(">")
        chat.type("\x03\x03")
        assert chat.wait_for_end() == 0
    assert "Traceback" not in chat.text
    assert "Exception" not in chat.text


def test_a_conversation_is_deleted_once_its_deletion_is_confirmed(tmp_path: Path) -> None:
    database = tmp_path / "treadle" / "treadle.db"
    database.parent.mkdir()

    async def make() -> str:
        agent = Agent(ScriptedModel(["Hello."]))
        async with treadle.open(f"sqlite:///{database}", agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            await (await thread.send("red\x1b[2J\nor blue?")).result()
            return thread.id

    id = asyncio.run(make())
    question = f"Delete {id} (red\ufffd[2J or blue?)? This cannot be undone. [y/N]: "
    for keys, code, said in (
        ("\r", 1, "Nothing was deleted."),
        ("\x04", 130, question),  # Ctrl-D; for Ctrl-C, Python may not be reading yet
        ("y\r", 0, f"Deleted the conversation {id}."),
    ):
        with terminal("delete", id, folder=tmp_path, columns=200) as asked:
            asked.wait_for(question)
            asked.type(keys)
            assert asked.wait_for_end() == code
            assert asked.text.rstrip("\n").endswith(said)


def test_json_of_an_answer(tmp_path: Path) -> None:
    with terminal("chat", "--json", "what is 17*23?", folder=tmp_path, columns=200) as chat:
        assert chat.wait_for_end() == 0
    events = [json.loads(line) for line in chat.text.splitlines()]
    assert events[-1]["event"]["type"] == "run.completed"
    assert events[0]["position"] == "1"
