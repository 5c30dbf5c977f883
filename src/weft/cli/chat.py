"""`weft chat`: a conversation with an agent in the terminal."""

import asyncio
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, cast

from prompt_toolkit import PromptSession

from weft.agent import Agent
from weft.cli.failure import in_one_line
from weft.cli.transcript import Transcript
from weft.errors import ConfigurationError
from weft.items import Item
from weft.runtime.foreground import Run

HELP = "/help shows this, /quit leaves. Ctrl-C stops an answer, Ctrl-D leaves."
EXIT_CANCELLED = 130

AnyAgent = Agent[Any, Any]


async def answer_once(agent: AnyAgent, prompt: str, transcript: Transcript) -> int:
    """Answers one prompt; returns the exit code: 0, or 130 when it was interrupted.

    Raises the error of a run that failed.
    """
    async with agent.stream(prompt) as run:
        with _interrupt_cancels(run):
            async for event in run:
                transcript.show(event)
        result = await run.result()
    return EXIT_CANCELLED if result.status == "cancelled" else 0


async def converse(
    agent: AnyAgent, transcript: Transcript, session: PromptSession[str] | None = None
) -> None:
    """Asks and answers until the person leaves."""
    session = session or PromptSession[str]()
    history: Sequence[Item] = ()
    transcript.notice(HELP)
    while True:
        with suppress(KeyboardInterrupt, EOFError):
            text = (await session.prompt_async("> ")).strip()
            if text == "/quit":
                return
            if text == "/help":
                transcript.notice(HELP)
            elif text:
                history = await _turn(agent, text, history, transcript)
            continue
        return  # Ctrl-C or Ctrl-D at the prompt


async def _turn(
    agent: AnyAgent, text: str, history: Sequence[Item], transcript: Transcript
) -> Sequence[Item]:
    """Answers one line; returns the conversation, which goes on after a failure too."""
    try:
        async with agent.stream(text, history=history) as run:
            with _interrupt_cancels(run):
                try:
                    async for event in run:
                        transcript.show(event)
                except Exception as error:  # noqa: BLE001 - an agent's own code raises anything
                    _tell(error, transcript)
            return run.history
    except Exception as error:  # noqa: BLE001 - as above
        _tell(error, transcript)
        return history


def _tell(error: Exception, transcript: Transcript) -> None:
    if isinstance(error, BrokenPipeError):
        raise error  # nobody reads any more
    transcript.notice(f"Error: {in_one_line(error)}")


@contextmanager
def _interrupt_cancels(run: Run[Any]) -> Generator[None]:
    """While it is open, Ctrl-C cancels the run instead of ending the program."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    try:
        loop.add_signal_handler(signal.SIGINT, run.cancel)
    except (NotImplementedError, RuntimeError, ValueError):
        # No signals on this platform or in this thread: Ctrl-C ends the program as usual.
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


def load_agent(path: str) -> AnyAgent:
    """Returns the agent that `module:attribute` names, looked for in the current folder too.

    Raises `ConfigurationError`.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"{path!r} is not of the form module:attribute.")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:
        # A module runs when it is imported, and may raise anything.
        raise ConfigurationError(
            f"The module {module_name!r} cannot be imported: {in_one_line(error)}"
        ) from error
    try:
        found = getattr(module, attribute)
    except AttributeError as error:
        raise ConfigurationError(f"The module {module_name!r} has no {attribute!r}.") from error
    if not isinstance(found, Agent):
        raise ConfigurationError(f"{path} is a {type(found).__name__}, not a weft.Agent.")
    return cast("AnyAgent", found)
