"""The entry point of the `treadle` command."""

import os
import signal
import sys
from importlib import import_module


def main() -> None:
    """Runs the command; the entry point of the package."""
    # While modules are imported, Ctrl-C ends the process without a traceback. The command sets the
    # handler that raises when it begins; see `commands.LazyGroup`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    commands = import_module("treadle.cli.commands")
    try:
        commands.cli()
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does. Buffered output must not raise at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while threads and the interpreter end


if __name__ == "__main__":
    main()
