"""The echo of the terminal, which is off while an answer is written.

What is typed then does not stand in the middle of the answer: it is in the next prompt.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any


@contextmanager
def no_echo() -> Generator[None]:
    """Turns the echo of the terminal off inside the block, if standard input is one."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    termios: Any = import_module("termios")
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal was closed
            termios.tcsetattr(terminal, termios.TCSANOW, before)
