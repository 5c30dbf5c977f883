"""How the command starts: the list of commands, and Ctrl-C before a command has begun."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from treadle.cli.commands import COMMANDS, cli
from treadle.cli.serving import tune_collector

LIGHT = """
import sys
from treadle.cli.commands import cli
cli(["--help"], standalone_mode=False)
heavy = {name for name in sys.modules if name.startswith("treadle.")}
heavy |= {"asyncio", "prompt_toolkit", "msgspec", "pydantic", "aiohttp"} & set(sys.modules)
assert heavy == {"treadle.cli", "treadle.cli.commands", "treadle.lazy_names"}, heavy
"""
# A module that is imported by the command waits until it is interrupted.
WAITS = """
import sys, threading
sys.stderr.write("here")
sys.stderr.flush()
threading.Event().wait()
"""


def all_commands() -> list[tuple[str, click.Command]]:
    """Every command with its name, those in groups included."""
    context = click.Context(cli)
    found: list[tuple[str, click.Command]] = []
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += [(f"{name} {below}", one) for below, one in command.commands.items()]
        else:
            found.append((name, command))
    return found


def test_the_list_of_commands_is_that_of_their_modules() -> None:
    for name, command in all_commands():
        assert command.help, name
    context = click.Context(cli)
    for name, place in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.help is not None
        # The same first words, up to what names an argument.
        assert command.help.split()[0] == place.help.split()[0], name


def test_every_command_prints_json() -> None:
    for name, command in all_commands():
        assert "--json" in {flag for one in command.params for flag in one.opts}, name


def test_help_and_an_unknown_command() -> None:
    shown = CliRunner().invoke(cli, ["--help"])
    assert shown.exit_code == 0
    for name, place in COMMANDS.items():
        assert f"  {name} " in shown.output
        assert place.help.split(",")[0][:30] in shown.output
    refused = CliRunner().invoke(cli, ["chatt"])
    assert refused.exit_code == 2
    assert "No such command" in refused.output


@pytest.mark.real_clock
def test_help_imports_no_command() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, check=False)
    assert not done.returncode, done.stderr.decode()


@pytest.mark.real_clock
@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("module", ["click", "asyncio", "msgspec"])
def test_ctrl_c_while_modules_are_imported_is_quiet(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text(WAITS)
    process = subprocess.Popen(
        [sys.executable, "-m", "treadle", "threads"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.read(4) == b"here"
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=50)
    assert (out, errors) == (b"", b"")
    assert process.returncode == -signal.SIGINT


def test_a_server_tunes_the_collector_of_its_process() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        tune_collector()
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_freeze_count() > frozen
    finally:
        gc.set_threshold(*before)
