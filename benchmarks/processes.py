"""The processes of a benchmark, which are asked for figures by lines of text."""

import asyncio
import json
import subprocess
import sys
from typing import Any


def started(module: str, role: str, url: str, load: tuple[Any, ...]) -> "subprocess.Popen[str]":
    """Starts a process that has a role under a load."""
    command = [sys.executable, "-m", module, role, url, json.dumps(load)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def write(process: "subprocess.Popen[str]", line: str) -> None:
    """Writes a line to a process."""
    assert process.stdin is not None
    process.stdin.write(line.strip() + "\n")
    process.stdin.flush()


def read(process: "subprocess.Popen[str]") -> str:
    """Returns the next line that a process prints; raises `SystemExit` if it has ended."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("A process has ended.")
    return line


def figures(process: "subprocess.Popen[str]") -> dict[str, float]:
    """Returns the figures of a process."""
    write(process, "figures")
    return json.loads(read(process))


def say(value: Any) -> None:
    """Prints a line for the process that has started this one."""
    print(json.dumps(value), flush=True)


async def asked() -> bool:
    """Waits until this process is asked for figures; returns False if it is to end."""
    return (await asyncio.to_thread(sys.stdin.readline)).strip() == "figures"
