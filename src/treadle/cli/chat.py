"""`treadle chat`: a conversation with an agent in the terminal, on a stored thread."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from importlib import import_module
from typing import Any, assert_never, cast

from prompt_toolkit import PromptSession

from treadle.agent import Agent
from treadle.cli.conversation import print_event
from treadle.cli.echo import no_echo
from treadle.cli.failure import in_one_line
from treadle.cli.interrupt import InterruptCancels
from treadle.cli.plain_text import one_line
from treadle.cli.screen import Screen
from treadle.cli.slash import Chat, is_command, run_command
from treadle.cli.target import AnyRun, AnyThread
from treadle.cli.transcript import Transcript
from treadle.domain.events import RunRequiresAction, TerminalEvent
from treadle.errors import ConfigurationError, ThreadError
from treadle.runtime.thread import PendingCall

HINT = "/help lists the commands, Ctrl-C stops an answer, Ctrl-D ends the chat."
EXIT_CANCELLED = 130
EXIT_WAITING = 3

AnyAgent = Agent[Any, Any]
Ask = Callable[[str], Awaitable[str]]


async def answer_once(chat: Chat, prompt: str, ask: Ask | None = None) -> int:
    """Answers one prompt; returns the exit code.

    It is 0, or 130 when it was interrupted.

    With `ask=None`, a run that needs an approval is left waiting, and the code is 3. Raises the
    error of a failed run.
    """
    thread, transcript = chat.thread, chat.transcript
    screen = Screen(thread, transcript, await thread.last_seq())
    async with InterruptCancels() as interrupt:
        run = await chat.send(prompt)
        answered = await _follow(screen, run, interrupt, ask)
    if not answered:
        transcript.notice(f"(The run waits for an answer; continue with: {chat.again})")
        return EXIT_WAITING
    result = await run.result(raise_on_incomplete=False)
    if jobs := [job for job in await thread.jobs() if not job.parent]:
        names = ", ".join(one_line(job.name) for job in jobs)
        transcript.notice(f"(In the background: {names}; see {chat.again})")
    return EXIT_CANCELLED if result.status == "cancelled" else 0


async def answer_as_json(chat: Chat, prompt: str) -> int:
    """Answers one prompt and prints each event as a line of JSON; returns what `answer_once` does.

    Raises the error of a failed run.
    """
    after = await chat.thread.last_seq()
    async with InterruptCancels() as interrupt:
        run = await chat.send(prompt)
        interrupt.watch(run)
        async with chat.thread.subscribe(after) as events:
            async for envelope in events.envelopes():
                print_event(envelope)
                event = envelope.event
                if isinstance(event, RunRequiresAction):
                    return EXIT_WAITING
                if isinstance(event, TerminalEvent) and event.run_id == run.id:
                    break
    result = await run.result(raise_on_incomplete=False)
    return EXIT_CANCELLED if result.status == "cancelled" else 0


async def converse(chat: Chat, after: int, session: PromptSession[str] | None = None) -> None:
    """Asks and answers until the user leaves; first continues an unfinished run.

    `after` is the number of the event shown last. Events that arrive at the prompt, for example
    from a run started by a background job, are shown at once; the typed text stays in the prompt.
    """
    session = session or PromptSession[str]()
    screen = Screen(chat.thread, chat.transcript, after)
    chat.transcript.notice(HINT)
    typed = ""
    is_leaving = False
    while True:
        if screen.thread.id != chat.thread.id:  # a command has chosen another one
            screen = Screen(chat.thread, chat.transcript, await chat.thread.last_seq())
        unfinished = await chat.thread.active_run()
        if unfinished is not None:
            await _turn(screen, _already(unfinished), session)
        try:
            text = await _next_line(screen, session, typed)
        except _Arrival as arrival:
            typed = arrival.typed
            await screen.catch_up()
            continue
        except EOFError:
            return
        except KeyboardInterrupt:
            if is_leaving:
                return
            # It clears what was typed. A Ctrl-C that was meant for an answer must not end the chat.
            typed, is_leaving = "", not session.default_buffer.text
            if is_leaving:
                chat.transcript.notice("(Ctrl-C once more, or Ctrl-D, ends the chat.)")
            continue
        typed, is_leaving = "", False
        if is_command(text):
            try:
                if not await run_command(chat, text.split()):
                    return
            except Exception as error:  # noqa: BLE001 - a runtime's own code raises anything
                _tell(error, chat.transcript)
        elif text.strip():
            await _turn(screen, chat.send(text.strip()), session)


class _Arrival(Exception):
    """Events have arrived on the thread while the user typed `typed`."""

    def __init__(self, typed: str) -> None:
        super().__init__("Events have arrived on the thread.")
        self.typed = typed


async def _next_line(screen: Screen, session: PromptSession[str], typed: str) -> str:
    """Returns the next line typed; raises `_Arrival` if events must be shown first."""
    app = session.app
    arrival = asyncio.create_task(screen.arrival())

    def give_way() -> None:
        if arrival.done() and app.is_running and not app.is_done:
            app.erase_when_done = True
            app.exit(exception=_Arrival(session.default_buffer.text))

    arrival.add_done_callback(lambda _: give_way())
    try:
        return await session.prompt_async("> ", default=typed, pre_run=give_way)
    finally:
        app.erase_when_done = False
        arrival.cancel()
        await asyncio.wait([arrival])
        if not arrival.cancelled():
            arrival.exception()  # marks it as seen; showing the thread raises it again


async def _already(run: AnyRun) -> AnyRun:
    return run


async def _turn(screen: Screen, sending: Awaitable[AnyRun], session: PromptSession[str]) -> None:
    """Sends a message and shows its run to the end; the chat continues after a failure."""
    try:
        with no_echo():
            async with InterruptCancels() as interrupt:
                run = await sending
                await _follow(screen, run, interrupt, session.prompt_async)
        await run.result(raise_on_incomplete=False)
    except Exception as error:  # noqa: BLE001 - an agent's own code raises anything
        _tell(error, screen.transcript)


async def _follow(
    screen: Screen, run: AnyRun, interrupt: InterruptCancels, ask: Ask | None
) -> bool:
    """Shows a run and the events before it; returns False if it needs an answer without `ask`."""
    interrupt.watch(run)
    # The request may have been shown already, by an earlier chat.
    if ask is not None and await screen.thread.pending_calls():
        if await _show_so_far(screen, run):
            return True
        await _answer_calls(screen, run, ask)
        interrupt.arm()  # the prompt has replaced the handler of Ctrl-C
    async with aclosing(screen.events()) as events:
        async for event in events:
            if isinstance(event, TerminalEvent) and event.run_id == run.id:
                break
            if isinstance(event, RunRequiresAction):
                if ask is None:
                    return False
                await _answer_calls(screen, run, ask)
                interrupt.arm()
    return True


async def _show_so_far(screen: Screen, run: AnyRun) -> bool:
    """Shows what comes before the waiting calls; returns whether the run has ended meanwhile."""
    async with aclosing(screen.so_far()) as events:
        async for event in events:
            if isinstance(event, TerminalEvent) and event.run_id == run.id:
                return True
    return False


async def _answer_calls(screen: Screen, run: AnyRun, ask: Ask) -> None:
    """Asks the user about each waiting call."""
    thread, transcript = screen.thread, screen.transcript
    for pending in await thread.pending_calls():
        transcript.question(pending.call)
        try:
            await _answer_call(thread, pending, ask)
        except (KeyboardInterrupt, EOFError):
            await run.cancel()
            return
        except ThreadError:
            pass  # another process has answered it in the meantime


async def _answer_call(thread: AnyThread, pending: PendingCall, ask: Ask) -> None:
    call_id = pending.call.call_id
    match pending.awaits:
        case "output":
            await thread.submit_tool_output(call_id, await ask("Output of the call: "))
        case "approval":
            answer = (await ask("Allow this call? [y/N, or a reason to deny it] ")).strip()
            if answer.casefold() in {"y", "yes"}:
                await thread.approve(call_id)
            else:
                reason = "" if answer.casefold() in {"n", "no"} else answer
                await thread.deny(call_id, reason)
        case _ as unreachable:
            assert_never(unreachable)


def _tell(error: Exception, transcript: Transcript) -> None:
    if isinstance(error, BrokenPipeError):
        raise error  # the reader of the output has left
    transcript.notice(f"Error: {in_one_line(error)}")


def load_agent(path: str) -> AnyAgent:
    """Imports the agent `module:attribute`; the current folder is on the path.

    Raises `ConfigurationError`.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(
            f"{path!r} is not of the form module:attribute, such as my_agents:support."
        )
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:
        # Importing executes the module, which may raise anything.
        raise ConfigurationError(
            f"The module {module_name!r} cannot be imported: {in_one_line(error)}"
        ) from error
    try:
        found = getattr(module, attribute)
    except AttributeError as error:
        raise ConfigurationError(
            f"The module {module_name!r} has no attribute {attribute!r}."
        ) from error
    if not isinstance(found, Agent):
        raise ConfigurationError(f"{path} is a {type(found).__name__}, not a treadle.Agent.")
    return cast("AnyAgent", found)


def source_of(path: str) -> str:
    """Returns where an agent that was loaded is from: the file of its module, and its name there.

    Two chats have the same agent if they loaded it from the same place.
    """
    module_name, _, attribute = path.partition(":")
    file = getattr(sys.modules[module_name], "__file__", None) or module_name
    return f"{os.path.realpath(file)}:{attribute}"
