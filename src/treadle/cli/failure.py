"""An error as one line for the user of the command, or for a program that reads JSON."""

import functools
import sys
from collections.abc import Callable

import click
import msgspec

from treadle.cli.plain_text import clean, one_line
from treadle.errors import TreadleError

EXIT_INTERRUPTED = 130


def in_one_line(error: BaseException) -> str:
    """Returns the message; of an error that is not treadle's own, with the type."""
    if isinstance(error, TreadleError):
        return clean(one_line(error.message))
    return clean(one_line(f"{type(error).__name__}: {error}".rstrip(": ")))


def _as_text(error: Exception) -> str:
    return f"Error: {in_one_line(error)}"


def _as_json(error: Exception) -> bytes:
    is_known = isinstance(error, TreadleError)
    shown = {
        "code": error.code if is_known else "error",
        "message": in_one_line(error),
        "retryable": is_known and error.retryable,
    }
    return msgspec.json.encode({"error": shown})


def debug_option(command: Callable[..., int]) -> Callable[..., None]:
    """Makes a command from a function that returns an exit code; errors print one line.

    The option --debug prints their traceback instead. With the option --json (the parameter
    `as_json`), the line is a JSON object.
    """

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def run(*, debug: bool, **options: object) -> None:
        try:
            code = command(**options)
        except (BrokenPipeError, click.ClickException):
            raise
        except click.Abort:  # Ctrl-C or Ctrl-D at a question, in whose line the cursor is
            click.echo(err=True)
            code = EXIT_INTERRUPTED
        except Exception as error:
            if debug:
                raise
            click.echo(_as_json(error) if options.get("as_json") else _as_text(error), err=True)
            code = 1
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        sys.exit(code)

    return run
