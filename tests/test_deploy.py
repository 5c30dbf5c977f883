"""The files in deploy/ name commands, options, settings and paths that exist."""

import asyncio
import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.server.serving import serving

import treadle
from treadle import Agent
from treadle.cli.commands import cli
from treadle.server import ServerSettings, load_settings
from treadle.server.open_requests import LAST_SECONDS
from treadle.testing import ScriptedModel

DEPLOY = Path(__file__).parent.parent / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
UNIT = (DEPLOY / "treadle.service").read_text()
PYTHON = {"PYTHONUNBUFFERED"}


def parsed(words: list[str]) -> click.Context:
    """Parses a command line as the program does, without calling the command."""
    name, *rest = words
    assert Path(name).name == "treadle"
    context, command = click.Context(cli), cli
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        context, command = click.Context(found, parent=context), found
    return command.make_context(command.name, rest, parent=context.parent)


def instructions(name: str) -> list[str]:
    """The arguments of the instructions of that name."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def variables(text: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in shlex.split(text))
    return {name: value for name, _, value in pairs}


def settings_of(given: dict[str, str]) -> ServerSettings:
    """The settings from variables; one with a wrong name would have no effect."""
    for name in given.keys() - PYTHON:
        assert name.removeprefix("TREADLE_").lower() in ServerSettings.__struct_fields__
    return load_settings({}, given)


@pytest.mark.parametrize("text", [DOCKERFILE, UNIT], ids=["Dockerfile", "treadle.service"])
def test_each_command_is_one_of_the_program(text: str) -> None:
    words = text.replace('", "', " ")
    found = re.findall(r"[\w/]*treadle (?:serve|keys)(?: [a-z:]+)+", words)
    assert len(found) == 2
    for line in found:
        assert parsed(shlex.split(line)).params


def test_the_image() -> None:
    (environment,), (port,), (volume,) = map(instructions, ("ENV", "EXPOSE", "VOLUME"))
    settings = settings_of(variables(environment))
    assert (settings.host, settings.port) == ("0.0.0.0", int(port))
    assert Path(settings.database).parent == Path(volume)
    assert parsed(json.loads(instructions("CMD")[0])).params["target"] == "app:agent"
    # The folder of the volume belongs to the user, and is made before it becomes a volume.
    (user,) = instructions("USER")
    assert f"mkdir {volume} && chown {user} {volume}" in instructions("RUN")[0]
    assert "COPY dist/*.whl" in DOCKERFILE
    stop = re.search(r"--stop-timeout (\d+)", DOCKERFILE)
    assert stop is not None
    assert int(stop[1]) > settings.grace_seconds + 3 * LAST_SECONDS


@pytest.mark.anyio
@pytest.mark.parametrize("is_ready", [True, False])
async def test_the_image_is_healthy_while_it_serves(is_ready: bool) -> None:
    (check,) = instructions("HEALTHCHECK")
    python, *arguments = json.loads(check.partition("CMD ")[2])
    assert python == "python"
    runtime = treadle.open(agents=[Agent(ScriptedModel([]), name="a")])
    async with serving(runtime) as client:
        port = client.http.base_url.port if is_ready else 9  # where nothing listens
        assert "127.0.0.1:8000" in arguments[1]
        code = arguments[1].replace(":8000", f":{port}")
        done = await asyncio.create_subprocess_exec(
            sys.executable, arguments[0], code, stderr=asyncio.subprocess.DEVNULL
        )
        assert (await done.wait() == 0) == is_ready


def test_the_unit() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT)
    service = unit["Service"]
    settings = settings_of(variables(service["Environment"]))
    assert Path(settings.database).parent == Path("/var/lib") / service["StateDirectory"]
    assert parsed(shlex.split(service["ExecStart"])).params["target"] == "app:agent"
    assert int(service["TimeoutStopSec"]) > settings.grace_seconds + 3 * LAST_SECONDS
    assert f"TREADLE_DATABASE={settings.database} " in UNIT


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    command = f"{sys.executable} -m treadle"
    unit = tmp_path / "treadle.service"
    unit.write_text(UNIT.replace("/opt/treadle/bin/treadle", command))
    if verify is not None:  # elsewhere, its parts are tested above
        done = subprocess.run(
            [verify, "verify", "--man=no", str(unit)], capture_output=True, timeout=50, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
