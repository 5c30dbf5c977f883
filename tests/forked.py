"""Python programs in processes of their own, which start at once.

An interpreter takes 0.3 s of a core to import treadle, and tests run hundreds of programs. Here
each is forked from one process that has imported it. What is imported when, and what a terminal or
a signal does, needs an interpreter of its own.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

SECONDS = 50
_REQUEST_BYTES = 1_000_000


def run_program(
    arguments: Sequence[str | bytes | Path],
    *,
    env: Mapping[str, str],
    stdin: bytes = b"",
    cwd: Path | None = None,
    warn: str = "default",
) -> subprocess.CompletedProcess[bytes]:
    """Runs a file, or with `-m` a module, as `python` does; returns what it printed.

    `warn` is what becomes of its warnings, as `python -W` takes it.
    """
    with (
        tempfile.TemporaryFile() as read,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        read.write(stdin)
        read.seek(0)
        request = {
            "arguments": [os.fsdecode(one) for one in arguments],
            "env": dict(env),
            "cwd": str(cwd or Path.cwd()),
            "warn": warn,
        }
        code = _parent().run(request, [read.fileno(), out.fileno(), err.fileno()])
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, out.read(), err.read())


class _Parent:
    """The process that programs are forked from."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(SECONDS)
        with other:
            # It ends when this process does, because its end of the socket is closed then.
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno())], pass_fds=[other.fileno()]
            )

    def run(self, request: dict[str, Any], files: list[int]) -> int:
        socket.send_fds(self._socket, [json.dumps(request).encode()], files)
        child = int(self._socket.recv(100))
        try:
            return int(self._socket.recv(100))
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            self._socket.recv(100)
            raise subprocess.TimeoutExpired(request["arguments"], SECONDS) from None


@cache
def _parent() -> _Parent:
    return _Parent()


def _serve(requests: socket.socket) -> None:
    import treadle
    from treadle.cli.commands import COMMANDS

    for name in treadle.__all__:
        getattr(treadle, name)
    for place in COMMANDS.values():
        import_module(f"treadle.cli.{place.path.partition(':')[0]}")
    while True:
        data, files, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
        if not data:
            return
        child = os.fork()
        if child == 0:
            requests.close()
            _become(json.loads(data), files)
        for file in files:
            os.close(file)
        requests.send(str(child).encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        requests.send(str(status).encode())


def _become(request: dict[str, Any], files: list[int]) -> None:
    """Runs a program in this process, and ends it as an interpreter ends."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        number = ("stdin", "stdout", "stderr").index(stream)
        setattr(sys, stream, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    warnings.resetwarnings()
    warnings.simplefilter(request["warn"])
    code = 1
    try:
        _run(request["arguments"])
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if not isinstance(ended.code, int | None):
            print(ended.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 - its traceback is what an interpreter prints
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = str(Path.cwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
