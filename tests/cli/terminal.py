"""A command in a terminal of its own: a pseudo-terminal, read until something was written."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl
    import pty
    import struct
    import termios

PATIENCE = 45.0
"""Seconds after which what is waited for does not come; a loaded machine is slow."""

LEFT_OUT = {
    *("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "TREADLE_MODEL"),
    *("TREADLE_DATABASE", "NO_COLOR", "COLUMNS", "LINES"),
}
"""Variables of the tests that a command in a terminal does not have."""

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """A running command, and what it wrote: `text` without sequences, `raw` as it was."""

    def __init__(self, process: "subprocess.Popen[bytes]", file: int) -> None:
        self.process = process
        self.raw = ""
        self._file = file
        self._read = 0  # of the text, by `wait_for`

    @property
    def text(self) -> str:
        return _SEQUENCE.sub("", self.raw)

    def type(self, keys: str) -> None:
        """Types keys; a line ends with `\\r`, Ctrl-C is `\\x03`."""
        os.write(self._file, keys.encode())

    def wait_for(self, words: str) -> str:
        """Waits for words after those that were waited for before; returns the text up to them."""
        end = time.monotonic() + PATIENCE
        while (at := self.text.find(words, self._read)) < 0:
            assert self._more(end), f"{words!r} did not come:\n{self.text[self._read :]}"
        before, self._read = self._read, at + len(words)
        return self.text[before : self._read]

    def wait_for_end(self) -> int:
        """Waits for the end of the command; returns its exit code."""
        end = time.monotonic() + PATIENCE
        while self._more(end):
            pass
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Ends the process with SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _more(self, end: float) -> bool:
        left = end - time.monotonic()
        if left <= 0 or not select.select([self._file], [], [], left)[0]:
            return False
        try:
            data = os.read(self._file, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)


@contextmanager
def terminal(
    *arguments: str, folder: Path, columns: int = 80, environ: Mapping[str, str] | None = None
) -> Generator[Terminal]:
    """Runs `treadle` with arguments in a terminal, with its data in `folder`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    process: subprocess.Popen[Any] = subprocess.Popen(
        [sys.executable, "-m", "treadle", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={
            **inherited,
            "XDG_DATA_HOME": str(folder),
            "OLLAMA_HOST": "http://127.0.0.1:9",
            "TERM": "xterm-256color",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            **(environ or {}),
        },
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)
