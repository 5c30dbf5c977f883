"""A chat, and the commands in it that begin with a slash."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from treadle.agent import Agent
from treadle.cli.conversation import show_tree
from treadle.cli.plain_text import one_line
from treadle.cli.target import AnyRun, AnyRuntime, AnyThread
from treadle.cli.transcript import Transcript
from treadle.models.resolve import resolve_model

_COMMAND = re.compile(r"/\w*(?=\s|$)")

HELP = """\
/new           begin another conversation
/fork          continue in a copy of this conversation
/model [NAME]  show the model, or use another one from the next message on
/tools         list the tools of the agent
/tree          show what has run: answers, jobs and agents
/usage         show the tokens and the cost so far
/quit          end the chat, as Ctrl-D does
Ctrl-C stops an answer. A message that begins with a slash: put a space before it."""


class Chat:
    """A conversation in the terminal: its thread, the agent that answers, and the model it uses.

    - `agent`: the agent if it is known here, `agent_name` in any case ("" is that of the thread).
    - `model`: a model string for the next messages, "" for the model of the agent.
    - `command`: the command that continues the conversation, without its id; "" if it is not kept.
    - `metadata`: that of new conversations.
    """

    def __init__(
        self,
        runtime: AnyRuntime,
        thread: AnyThread,
        transcript: Transcript,
        *,
        agent: Agent[Any, Any] | None = None,
        agent_name: str = "",
        model: str = "",
        command: str = "",
        metadata: dict[str, object] | None = None,
    ) -> None:
        self.runtime = runtime
        self.thread = thread
        self.transcript = transcript
        self.agent = agent
        self.agent_name = agent.name if agent is not None else agent_name
        self.model = model
        self.metadata = metadata
        self._command = command

    @property
    def again(self) -> str:
        """The command that continues this conversation."""
        return f"{self._command} --thread {self.thread.id}" if self._command else ""

    async def send(self, text: str) -> AnyRun:
        """Sends a message; returns the run that answers it."""
        run: AnyRun
        if self.model:
            run = await self.thread.send(text, agent=self.agent_name, model=self.model)
        else:
            run = await self.thread.send(text, agent=self.agent_name)
        self.transcript.typed.add(run.id)
        return run


def is_command(text: str) -> bool:
    """Whether a line begins with a command, such as `/help`; the path of a file is none."""
    return _COMMAND.match(text) is not None


async def run_command(chat: Chat, words: Sequence[str]) -> bool:
    """Runs a command; returns False if it ends the chat. An unknown one is refused."""
    name, *arguments = words
    if name == "/quit":
        return False
    command = _COMMANDS.get(name)
    if command is None:
        chat.transcript.notice(f"There is no command {one_line(name)}; /help lists them.")
    elif arguments and name != "/model":
        chat.transcript.notice(f"{name} takes no argument; /help lists the commands.")
    else:
        await command(chat, arguments)
    return True


async def _help(chat: Chat, _: Sequence[str]) -> None:
    chat.transcript.notice(HELP)


async def _new(chat: Chat, _: Sequence[str]) -> None:
    chat.thread = await chat.runtime.create_thread(chat.agent_name, metadata=chat.metadata)
    chat.transcript.notice("(A new conversation.)")


async def _fork(chat: Chat, _: Sequence[str]) -> None:
    if not await chat.thread.last_seq():
        chat.transcript.notice("There is nothing to copy yet.")
        return
    original = f" The original: {chat.again}" if chat.again else ""
    chat.thread = await chat.thread.fork()
    chat.transcript.notice(f"(This is a copy now.{original})")


async def _model(chat: Chat, arguments: Sequence[str]) -> None:
    if arguments:
        name = " ".join(arguments)
        resolve_model(name)  # raises what is wrong with it now, and not with the next message
        chat.model = name
    own = f"that of the agent {chat.agent_name}" if chat.agent_name else "that of the agent"
    chat.transcript.notice(f"Model: {chat.model or own}.")


async def _tools(chat: Chat, _: Sequence[str]) -> None:
    if chat.agent is None:
        chat.transcript.notice("The tools of an agent of a server are not shown.")
        return
    lines = [
        f"{tool.name}  {one_line(tool.schema.description)}"
        if tool.schema.description
        else tool.name
        for tool in chat.agent.tools
    ]
    if chat.agent.sources:
        lines.append("and those of its sources, which are asked before each step")
    chat.transcript.notice("\n".join(lines) or "The agent has no tools.")


async def _tree(chat: Chat, _: Sequence[str]) -> None:
    await show_tree(chat.runtime, chat.thread, chat.transcript.write, chat.transcript.width)


async def _usage(chat: Chat, _: Sequence[str]) -> None:
    spent = await chat.thread.usage()
    usage = spent.usage
    uses = {
        "web searches": usage.web_searches,
        "file searches": usage.file_searches,
        "containers of code": usage.code_containers,
    }
    paid = "".join(f", {count:,} {name}" for name, count in uses.items() if count)
    cost = f", cost {spent.cost:.4f}" if spent.cost else ""
    chat.transcript.notice(
        f"{usage.input_tokens:,} tokens read, {usage.output_tokens:,} written, in "
        f"{usage.requests:,} requests{paid}{cost}."
    )


_COMMANDS: dict[str, Callable[[Chat, Sequence[str]], Awaitable[None]]] = {
    "/help": _help,
    "/new": _new,
    "/fork": _fork,
    "/model": _model,
    "/tools": _tools,
    "/tree": _tree,
    "/usage": _usage,
}
