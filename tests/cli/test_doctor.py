"""`treadle doctor`."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from treadle.cli.commands import cli

AGENT = "from treadle import Agent\nagent = Agent('demo', name='mine')\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "doctored.py").write_text(AGENT)
    return tmp_path


def run(*arguments: str) -> Result:
    options = ("--database", "treadle.db", "--port", "0")
    return CliRunner().invoke(cli, ["doctor", *options, *arguments])


def test_all_is_well(folder: Path) -> None:
    result = run("doctored:agent")
    assert result.exit_code == 0, result.output
    assert "agents: ok (mine)" in result.output
    assert "will be created" in result.output
    assert not (folder / "treadle.db").exists()
    assert CliRunner().invoke(cli, ["keys", "create", "--database", "treadle.db"]).exit_code == 0
    assert "keys: ok (1 in" in run("doctored:agent").output


def test_each_check_fails_on_its_own(folder: Path) -> None:
    (folder / "treadle.db").write_text("not a database, but long enough to be taken for one" * 100)
    keys = folder / "treadle.db-keys.json"
    CliRunner().invoke(cli, ["keys", "create", "--database", "treadle.db"])
    keys.chmod(0o644)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("doctored:nope", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 1
    for name in ("agents", "database", "keys", "address"):
        (line,) = [line for line in result.output.splitlines() if line.startswith(f"{name}:")]
        assert "ok" not in line
    assert "run chmod 600" in result.output
    result = run("--host", "0.0.0.0", "--no-auth")
    assert "needs keys" in result.output
