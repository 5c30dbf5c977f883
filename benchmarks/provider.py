"""The processes that answer: the benchmark's server, started and stopped with a context."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.bench import ROOT

EXIT_SECONDS = 10.0


class ProviderNotStarted(Exception):
    """The server ended before it listened."""


@contextmanager
def provider(module: str) -> Iterator[str]:
    """Runs `python -m module`; yields the URL it prints."""
    with listening(module) as process:
        yield process["url"]


@contextmanager
def listening(module: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """Runs `python -m module arguments`; yields the URL and the pid that it prints.

    The process ends when its standard input is closed, also when this one is killed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise ProviderNotStarted(f"{module} ended before it listened.")
        yield json.loads(line)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
