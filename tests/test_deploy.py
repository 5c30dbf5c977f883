"""The files in deploy/ name commands, options, settings and paths that exist."""

import asyncio
import configparser
import contextlib
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec
import pytest
import yaml
from tests.server.serving import serving

import treadle
from treadle import Agent, NodeListener
from treadle.cli.commands import cli
from treadle.runtime.runtime import is_postgres
from treadle.server import ServerSettings, load_settings
from treadle.server.open_requests import LAST_SECONDS
from treadle.testing import ScriptedModel

DEPLOY = Path(__file__).parent.parent / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
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


def nodes() -> dict[str, dict[str, Any]]:
    """The servers in the compose file, by their names."""
    services = COMPOSE["services"]
    return {name: one for name, one in services.items() if name.startswith("node")}


def test_the_nodes_of_the_compose_file() -> None:
    assert len(nodes()) == 3
    (image,) = map(variables, instructions("ENV"))
    found = set()
    for name, node in nodes().items():
        settings = settings_of({**image, **node["environment"]})
        assert settings.node_name == name
        assert is_postgres(settings.database)
        found.add(msgspec.structs.replace(settings, node_name=""))
        assert (DEPLOY / node["build"]["context"] / node["build"]["dockerfile"]).samefile(
            DEPLOY / "Dockerfile"
        )
        assert "command" not in node  # it is that of the image
        assert int(node["stop_grace_period"].removesuffix("s")) > (
            settings.grace_seconds + 3 * LAST_SECONDS
        )
    (settings,) = found  # all others are the same for each
    (volume,) = instructions("VOLUME")
    for file in (settings.keys, settings.node_certificate, settings.node_key):
        assert Path(file).parent == Path(volume)
    for service in (*nodes().values(), COMPOSE["services"]["setup"]):
        assert service["volumes"] == [f"shared:{volume}"]
    database = COMPOSE["services"]["database"]["environment"]
    url = urlsplit(settings.database.replace(database["POSTGRES_PASSWORD"], "secret"))
    assert (url.username, url.password) == (database["POSTGRES_USER"], "secret")
    assert (url.hostname, url.path) == ("database", f"/{database['POSTGRES_USER']}")
    (network,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    assert settings.trusted_proxies == (network["subnet"],)
    assert "[postgres]" in DOCKERFILE


def test_the_setup_of_the_compose_file(tmp_path: Path) -> None:
    """It makes the key and the certificate that the nodes are told of, and makes them once."""
    *shell, script = COMPOSE["services"]["setup"]["command"]
    certificate = re.search(r"openssl req .*", script)
    assert certificate is not None
    names = re.findall(r"DNS:(\w+)", certificate[0])
    assert names == list(nodes())
    program = tmp_path / "treadle"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m treadle "$@"\n')
    program.chmod(0o755)
    here = script.replace("/data/", f"{tmp_path}/")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    if shutil.which("openssl") is None:
        here = here.replace(certificate[0], "true")
    made = [
        subprocess.run([*shell, here], capture_output=True, env=environment, check=True).stdout
        for _ in range(2)
    ]
    assert made[0]  # the key, which is shown once
    assert made[1] == b""
    assert '"first"' in (tmp_path / "keys.json").read_text()
    if shutil.which("openssl") is not None:
        pem, key = tmp_path / "node.pem", tmp_path / "node.key"
        for name in names:
            assert is_accepted(NodeListener.with_certificate(pem, key, pem, name=name))


def is_accepted(node: NodeListener) -> bool:
    """Whether both ends of a connection to the node accept each other's certificate."""
    assert node.client_tls is not None
    assert node.server_tls is not None
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        node.client_tls.wrap_bio(back, there, server_hostname=node.name),
        node.server_tls.wrap_bio(there, back, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return all(end.getpeercert() for end in ends)


def test_the_balancer_of_the_compose_file() -> None:
    text = COMPOSE["configs"]["balancer"]["content"]
    (port,) = instructions("EXPOSE")
    assert re.findall(r"server (\S+) resolve;", text) == [f"{name}:{port}" for name in nodes()]
    assert COMPOSE["services"]["balancer"]["ports"] == [f"{port}:{port}"]
    assert f"listen {port};" in text
    settings = ServerSettings()
    seconds, size = re.search(r"read_timeout (\d+)s", text), re.search(r"body_size (\d+)m", text)
    assert seconds is not None
    assert int(seconds[1]) > max(settings.max_wait_seconds, settings.keep_alive_seconds)
    assert size is not None
    assert int(size[1]) << 20 > max(settings.max_file_bytes, settings.max_body_bytes)
    assert not re.search("ip_hash|sticky", text)
    assert "proxy_buffering off" in text
    assert not re.search(r"(?<!\$)\$(?!\$)", text)  # compose would replace a single one


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
