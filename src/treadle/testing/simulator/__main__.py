"""`python -m treadle.testing.simulator [--port N]`: serves until standard input ends.

Prints one line of JSON, `{"url": "http://127.0.0.1:PORT/v1", "pid": N}`, when it listens.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading

import msgspec

from treadle.testing.simulator.process import Listening
from treadle.testing.simulator.server import ProviderSimulator


def main() -> None:
    """Parses the arguments and serves until end of input, SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m treadle.testing.simulator", description=__doc__
    )
    parser.add_argument("--port", type=int, default=0, help="0 means any free one")
    asyncio.run(_serve(parser.parse_args().port))


async def _serve(port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
    _watch_input(loop, stop)
    async with ProviderSimulator(keep=100, port=port) as simulator:
        _announce(Listening(simulator.base_url, os.getpid()))
        await stop.wait()


def _announce(listening: Listening) -> None:
    sys.stdout.write(msgspec.json.encode(listening).decode() + "\n")
    sys.stdout.flush()


def _watch_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Sets `stop` when standard input ends, whatever it is: pipe, terminal, file or null."""
    watcher = threading.Thread(target=_until_input_ends, args=(loop, stop), daemon=True)
    watcher.start()


def _until_input_ends(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # Not `sys.stdin`: its lock, held here forever, would break the interpreter's exit.
    while os.read(0, 4096):
        pass
    try:
        loop.call_soon_threadsafe(stop.set)
    except RuntimeError:
        # The loop is closed already, because the process ends for another reason.
        return


if __name__ == "__main__":
    main()
