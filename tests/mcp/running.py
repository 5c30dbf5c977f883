"""Starts real MCP servers, in processes of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

ODD = [sys.executable, str(Path(__file__).with_name("odd_server.py")), "none"]
COMMAND = [sys.executable, str(Path(__file__).with_name("server.py"))]


def free_port() -> int:
    """Returns a port of this machine without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def http_servers(*ports: int, legacy: Sequence[int] = ()) -> Generator[None]:
    """Runs the server on each port, on some as it was before 2026-07-28."""
    processes = [
        subprocess.Popen(
            [*COMMAND, str(port)], env={**os.environ, **({"LEGACY": "1"} if port in legacy else {})}
        )
        for port in ports
    ]
    try:
        for port in ports:
            _await(port)
        yield
    finally:
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


def _await(port: int) -> None:
    for _ in range(1000):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError("the server did not start")


def await_end(pid: int) -> None:
    """Waits until a process has ended; a zombie counts as ended."""
    while _is_alive(pid):
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
