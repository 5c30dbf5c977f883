"""`treadle chat`: a conversation with an agent in the terminal, on a thread that is kept."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from importlib import import_module
from typing import Any, assert_never, cast

from prompt_toolkit import PromptSession

from treadle.agent import Agent
from treadle.cli.failure import in_one_line
from treadle.cli.interrupt import InterruptCancels
from treadle.cli.plain_text import one_line
from treadle.cli.screen import Screen
from treadle.cli.transcript import Transcript
from treadle.domain.events import RunRequiresAction, TerminalEvent
from treadle.errors import ConfigurationError, ThreadError
from treadle.runtime.thread import PendingCall, Thread
from treadle.runtime.thread_run import ThreadRun

HELP = "/help shows this, /quit leaves. Ctrl-C stops an answer, Ctrl-D leaves."
EXIT_CANCELLED = 130
EXIT_WAITING = 3

AnyAgent = Agent[Any, Any]
Ask = Callable[[str], Awaitable[str]]


async def answer_once(
    thread: Thread, agent: AnyAgent, prompt: str, transcript: Transcript, ask: Ask | None = None
) -> int:
    """Answers one prompt; returns the exit code: 0, or 130 when it was interrupted.

    Without anyone to `ask`, a run that needs an approval is left waiting: the code is 3. Raises
    the error of a run that failed.
    """
    screen = Screen(thread, transcript, (await thread.state()).seq)
    async with InterruptCancels() as interrupt:
        run = await thread.send(prompt, agent=agent.name)
        answered = await _follow(screen, run, interrupt, ask)
    if not answered:
        transcript.notice(f"(The run waits for you; go on with: treadle chat --thread {thread.id})")
        return EXIT_WAITING
    result = await run.result()
    if jobs := [job for job in await thread.jobs() if not job.parent]:
        names = ", ".join(one_line(job.name) for job in jobs)
        transcript.notice(f"(In the background: {names}; see treadle chat --thread {thread.id})")
    return EXIT_CANCELLED if result.status == "cancelled" else 0


async def converse(
    thread: Thread,
    agent: AnyAgent,
    transcript: Transcript,
    after: int,
    session: PromptSession[str] | None = None,
) -> None:
    """Asks and answers until the person leaves; first goes on with a run that is not finished.

    `after` is the number of the event that was shown last. What happens on the thread while the
    person is asked, such as a run that a background job has started, is shown at once; what was
    typed stays in the prompt.
    """
    session = session or PromptSession[str]()
    screen = Screen(thread, transcript, after)
    transcript.notice(HELP)
    typed = ""
    while True:
        unfinished = await thread.active_run()
        if unfinished is not None:
            await _turn(screen, _already(unfinished), session)
        with suppress(KeyboardInterrupt, EOFError):
            try:
                text = await _next_line(screen, session, typed)
            except _Arrival as arrival:
                typed = arrival.typed
                await screen.catch_up()
                continue
            typed = ""
            if text == "/quit":
                return
            if text == "/help":
                transcript.notice(HELP)
            elif text:
                await _turn(screen, thread.send(text, agent=agent.name), session)
            continue
        return  # Ctrl-C or Ctrl-D at the prompt


class _Arrival(Exception):
    """Something has happened on the thread while the person wrote `typed`."""

    def __init__(self, typed: str) -> None:
        super().__init__("Something has happened on the thread.")
        self.typed = typed


async def _next_line(screen: Screen, session: PromptSession[str], typed: str) -> str:
    """Returns what the person says; raises `_Arrival` where something is to be shown first."""
    app = session.app
    arrival = asyncio.create_task(screen.arrival())

    def give_way() -> None:
        if arrival.done() and app.is_running and not app.is_done:
            app.erase_when_done = True
            app.exit(exception=_Arrival(session.default_buffer.text))

    arrival.add_done_callback(lambda _: give_way())
    try:
        return (await session.prompt_async("> ", default=typed, pre_run=give_way)).strip()
    finally:
        app.erase_when_done = False
        arrival.cancel()
        await asyncio.wait([arrival])
        if not arrival.cancelled():
            arrival.exception()  # what the thread failed with is raised where it is shown


async def _already(run: ThreadRun) -> ThreadRun:
    return run


async def _turn(screen: Screen, sending: Awaitable[ThreadRun], session: PromptSession[str]) -> None:
    """Shows a run from its sending to its end; the conversation goes on after a failure too."""
    try:
        async with InterruptCancels() as interrupt:
            run = await sending
            await _follow(screen, run, interrupt, session.prompt_async)
        await run.result()
    except Exception as error:  # noqa: BLE001 - an agent's own code raises anything
        _tell(error, screen.transcript)


async def _follow(
    screen: Screen, run: ThreadRun, interrupt: InterruptCancels, ask: Ask | None
) -> bool:
    """Shows a run, and what comes before it; returns False where nobody can be asked."""
    interrupt.watch(run)
    if ask is not None:  # what was asked for may have been shown already
        await _answer_calls(screen, run, ask)
        interrupt.arm()  # the prompt has taken Ctrl-C for itself
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


async def _answer_calls(screen: Screen, run: ThreadRun, ask: Ask) -> None:
    """Asks the person about each call that waits."""
    thread, transcript = screen.thread, screen.transcript
    for pending in await thread.pending_calls():
        transcript.line(f"? {transcript.written(pending.call)}")
        try:
            await _answer_call(thread, pending, ask)
        except (KeyboardInterrupt, EOFError):
            await run.cancel()
            return
        except ThreadError:
            pass  # somebody else has answered it meanwhile


async def _answer_call(thread: Thread, pending: PendingCall, ask: Ask) -> None:
    call_id = pending.call.call_id
    match pending.awaits:
        case "output":
            await thread.submit_tool_output(call_id, await ask("Its output: "))
        case "approval":
            answer = (await ask("Allow it? [y/N, or a reason against] ")).strip()
            if answer.casefold() in {"y", "yes"}:
                await thread.approve(call_id)
            else:
                reason = "" if answer.casefold() in {"n", "no"} else answer
                await thread.deny(call_id, reason)
        case _ as unreachable:
            assert_never(unreachable)


def _tell(error: Exception, transcript: Transcript) -> None:
    if isinstance(error, BrokenPipeError):
        raise error  # nobody reads any more
    transcript.notice(f"Error: {in_one_line(error)}")


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
        raise ConfigurationError(f"{path} is a {type(found).__name__}, not a treadle.Agent.")
    return cast("AnyAgent", found)
