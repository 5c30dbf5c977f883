"""`treadle demo crash`: a process is killed in mid-text, and the reader has the exact text."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from treadle.cli.commands import cli
from treadle.cli.crash import KILLED_AFTER, Outcome
from treadle.demo.crash_agent import ANSWER

if sys.platform == "win32":
    pytest.skip("SIGKILL", allow_module_level=True)

from tests.cli.terminal import terminal

pytestmark = [pytest.mark.real_clock, pytest.mark.timeout(120)]


def test_in_a_terminal(tmp_path: Path) -> None:
    with terminal("demo", "crash", folder=tmp_path, columns=60) as demo:
        demo.wait_for("● look_up")
        demo.wait_for("A loom keeps its pattern")
        demo.wait_for("was killed with SIGKILL in mid-text.")
        demo.wait_for("was started")
        # After a kill the text is read from its beginning, in full.
        shown = demo.wait_for("The tool ran once.")
        assert demo.wait_for_end() == 0
    words = ANSWER.replace("**", "").replace("*", "").replace("\n- ", "\n• ").split()
    assert " ".join(words) in " ".join(shown.split())
    assert f"The {len(ANSWER)} characters that the reader" in " ".join(shown.split())
    assert "\x1b[1mloom\x1b[0m" in demo.raw
    assert max(map(len, demo.text.splitlines())) <= 60


def test_json_and_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for tool_runs in (1, 2):

        async def shown(*_: object, tool_runs: int = tool_runs) -> Outcome:
            return Outcome(True, 9, tool_runs, KILLED_AFTER, 1.5)

        monkeypatch.setattr("treadle.cli.crash.show", shown)
        result = CliRunner().invoke(cli, ["demo", "crash", "--json"])
        assert result.exit_code == tool_runs - 1
        assert json.loads(result.output)["killed_after"] == KILLED_AFTER


def test_a_process_that_answers_and_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treadle.cli import crash
    from treadle.errors import JournalError

    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(JournalError, match="could not start"):
        asyncio.run(crash.show(tmp_path, None, False))
