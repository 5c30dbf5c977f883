"""Standard output: its width, and whether it shows colours."""

import os
import shutil
import sys

import click

NO_TERMINAL = 100
"""The width of output that is not a terminal, in columns."""


def width() -> int:
    """Returns the columns of the terminal."""
    return shutil.get_terminal_size((NO_TERMINAL, 24)).columns


def write(text: str) -> None:
    """Writes to standard output; without styles if it is not a terminal, or with NO_COLOR."""
    click.echo(text, nl=False, color=color(sys.stdout.isatty()))


def color(is_terminal: bool) -> bool:
    """Whether a stream shows styles."""
    return is_terminal and not os.environ.get("NO_COLOR")
