"""`treadle demo`: what treadle does, without a key and without a network."""

import asyncio
import signal
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import msgspec

from treadle.cli.failure import debug_option
from treadle.cli.output import write
from treadle.cli.target import json_option
from treadle.errors import ConfigurationError


@click.group()
def demo() -> None:
    """Show what treadle does, without a key and without a network."""


@demo.command()
@json_option
@debug_option
def crash(as_json: bool) -> int:
    """Kill the process that answers in mid-text, start another, and compare what was read.

    One process runs an agent; this one reads the answer as it is written. The exit code is 1 if the
    text that was read is not that of the database, or if a tool ran twice.
    """
    if not hasattr(signal, "SIGKILL"):
        raise ConfigurationError("The demo ends a process with SIGKILL, which this system lacks.")
    # Imported when it is needed: it imports most of treadle.
    show = import_module("treadle.cli.crash").show
    with TemporaryDirectory(prefix="treadle-demo-") as folder:
        is_rich = sys.stdout.isatty() and not as_json
        outcome = asyncio.run(show(Path(folder), None if as_json else write, is_rich))
    if as_json:
        click.echo(msgspec.json.encode(outcome))
    return 0 if outcome.is_exact and outcome.tool_runs == 1 else 1
