"""`treadle chat`: the options of a chat, and the conversation they choose."""

import asyncio
import os
import re
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import click
from prompt_toolkit import PromptSession

from treadle.cli.chat import (
    Ask,
    answer_as_json,
    answer_once,
    converse,
    load_agent,
    source_of,
)
from treadle.cli.conversation import show_thread
from treadle.cli.database import Database, database_file, database_option, find_thread
from treadle.cli.failure import debug_option
from treadle.cli.model_choice import choose_model
from treadle.cli.output import color, width, write
from treadle.cli.plain_text import clean
from treadle.cli.sharing import ChatAgent, NotShared, open_shared
from treadle.cli.slash import Chat
from treadle.cli.stdin import read_text
from treadle.cli.target import AnyRuntime, AnyThread, json_option, url_option
from treadle.cli.transcript import Transcript
from treadle.client.client import Client
from treadle.demo.demo_agent import FOLDER, demo_agent
from treadle.domain.items import user_message
from treadle.errors import ConfigurationError
from treadle.runtime.runtime import open as open_runtime

DEMO = "demo"
"""The name of the demo agent, and where it is from."""

SHOWN_AGAIN = 200
"""How many events of a conversation are shown when it is continued."""


@click.command()
@click.argument("prompt", required=False)
@click.option("--model", help='The model, such as "openai:gpt-5", "ollama:qwen3" or "demo".')
@click.option("--agent", "agent_path", metavar="MODULE:NAME", help="Your own agent.")
@click.option("--thread", "thread_id", metavar="ID", help="Continue this conversation.")
@click.option("--last", is_flag=True, help="Continue the most recent conversation.")
@click.option("--memory", is_flag=True, help="Do not store this conversation.")
@url_option
@database_option
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="The folder that the demo agent may read. Default: the current folder.",
)
@json_option
@debug_option
def chat(
    prompt: str | None,
    model: str | None,
    agent_path: str | None,
    thread_id: str | None,
    last: bool,
    memory: bool,
    url: str | None,
    database: Database | None,
    folder: Path,
    as_json: bool,
) -> int:
    """Chat with an agent; with PROMPT, or text on standard input, answer once.

    Without --agent, a demo agent with a few tools answers. Without --model, the model is the one
    named by TREADLE_MODEL, else one for OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY, else
    the first model of a local Ollama, else the built-in demo model. The conversation is stored:
    list it with treadle threads, continue it with --last. With --url, an agent of the server
    answers; --agent is its name then. With --json, each line is an event of the answer with its
    position.
    """
    if model is not None and agent_path is not None:
        raise ConfigurationError("Use only one of --model and --agent: an agent has its own model.")
    if (thread_id is not None) + last + memory > 1:
        raise ConfigurationError("Use only one of --thread, --last and --memory.")
    text = _text(prompt)
    if text is not None:
        user_message(text)  # refuses an empty text before the database is created
    elif as_json:
        raise ConfigurationError("--json is for one answer: give a PROMPT, or standard input.")
    if url is not None:
        if model is not None or memory or database is not None:
            raise ConfigurationError("--url does not go with --model, --memory and --database.")
        wish = _Wish(thread_id, last)
        return asyncio.run(_chat_with_server(url, text, agent_path or "", wish, as_json=as_json))
    chosen = _Chosen(agent_path, model, folder.resolve())
    if memory:
        return asyncio.run(_chat_in_memory(text, chosen, as_json=as_json))
    wish = _Wish(thread_id, last)
    instead = "start treadle serve on it, and chat with --url"
    place = database_file(database, instead)
    return asyncio.run(
        _chat(text, chosen, wish, place, is_named=database is not None, as_json=as_json)
    )


class _Wish(NamedTuple):
    """Which conversation to continue, if any."""

    thread_id: str | None
    last: bool

    @property
    def is_new(self) -> bool:
        """Whether a new conversation is asked for."""
        return self.thread_id is None and not self.last


class _Chosen(NamedTuple):
    """The agent that the options choose: one of the user's own, or the demo agent with a model."""

    path: str | None
    model: str | None
    folder: Path

    @property
    def command(self) -> str:
        """The command that begins such a chat."""
        return "treadle chat" if self.path is None else f"treadle chat --agent {self.path}"


class _Ready(NamedTuple):
    """The agents of a chat, that of the chat first, and what its messages and threads get."""

    agents: list[ChatAgent]
    model: str
    metadata: dict[str, object]


async def _ready(chosen: _Chosen, place: Path | None, *, as_json: bool) -> _Ready:
    """Makes the agents; the demo agent is always one, so that other chats can join.

    Its model and its folder are those of the message and of the conversation, not those of the
    process that drives.
    """
    if chosen.path is not None:
        agent = load_agent(chosen.path)
        agents = [ChatAgent(agent, source_of(chosen.path))]
        if agent.name != DEMO:
            demo = demo_agent("demo", chosen.folder, place, of_thread=True)
            agents.append(ChatAgent(demo, DEMO))
        return _Ready(agents, "", {})
    choice = await choose_model(chosen.model, os.environ)
    agent = demo_agent(choice.model, chosen.folder, place, of_thread=True)
    if not as_json:
        is_terminal = sys.stderr.isatty()
        words = click.wrap_text(clean(choice.note), width()) if is_terminal else clean(choice.note)
        note = click.style(words, dim=True)
        click.echo(note, err=True, color=color(is_terminal))
    return _Ready([ChatAgent(agent, DEMO)], choice.model, {FOLDER: str(chosen.folder)})


async def _chat(
    text: str | None, chosen: _Chosen, wish: _Wish, place: Path, *, is_named: bool, as_json: bool
) -> int:
    """Answers `text`, or converses if it is None; returns the exit code."""
    ready = await _ready(chosen, place, as_json=as_json)
    agent = ready.agents[0].agent
    async with AsyncExitStack() as stack:
        try:
            shared = await stack.enter_async_context(open_shared(place, ready.agents))
        except NotShared:
            if is_named or not wish.is_new:
                raise
            # A chat must not fail because of another one: it gets a database of its own.
            busy, place = place, _own_database(place, agent.name)
            shared = await stack.enter_async_context(open_shared(place, ready.agents))
            is_named = True
            click.echo(
                f"{busy.name} is in use without the agent {agent.name!r}: this conversation is "
                f"kept in {place}.",
                err=True,
            )
        runtime = shared.runtime
        thread = await _thread_of(runtime, wish, agent.name, ready.metadata)
        if ready.metadata.items() - (await thread.info()).metadata.items():
            await thread.update(metadata=ready.metadata)
        command = chosen.command + (f" --database {place}" if is_named else "")
        chat = Chat(
            runtime,
            thread,
            _transcript(),
            agent=agent,
            model=ready.model,
            command=command,
            metadata=ready.metadata,
        )
        return await _converse(chat, text, as_json=as_json)


def _own_database(place: Path, agent: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", agent)[:40]
    return place.with_name(f"{place.stem}-{name}{place.suffix}")


async def _chat_in_memory(text: str | None, chosen: _Chosen, *, as_json: bool) -> int:
    ready = await _ready(chosen, None, as_json=as_json)
    agent = ready.agents[0].agent
    async with open_runtime(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent, metadata=ready.metadata)
        chat = Chat(
            runtime,
            thread,
            _transcript(),
            agent=agent,
            model=ready.model,
            metadata=ready.metadata,
        )
        return await _converse(chat, text, as_json=as_json)


async def _chat_with_server(
    url: str, text: str | None, agent: str, wish: _Wish, *, as_json: bool
) -> int:
    async with Client(url) as client:
        thread = await _thread_of(client, wish, agent, {})
        command = f"treadle chat --url {client.url}"
        chat = Chat(client, thread, _transcript(), agent_name=agent, command=command)
        return await _converse(chat, text, as_json=as_json)


async def _thread_of(
    runtime: AnyRuntime, wish: _Wish, agent: str, metadata: dict[str, object]
) -> AnyThread:
    if wish.is_new:
        return await runtime.create_thread(agent, metadata=metadata)
    return await find_thread(runtime, wish.thread_id)


def _transcript(*, echo: bool = False) -> Transcript:
    return Transcript(write, width(), echo=echo, rich=sys.stdout.isatty())


async def _converse(chat: Chat, text: str | None, *, as_json: bool) -> int:
    """Answers `text`, or converses if it is None."""
    if text is not None and as_json:
        return await answer_as_json(chat, text)
    if text is not None:
        return await answer_once(chat, text, _ask())
    shown = await show_thread(chat.thread, _transcript(echo=True), SHOWN_AGAIN)
    await converse(chat, shown)
    if chat.again and await chat.thread.history():
        chat.transcript.notice(f"Continue with: {chat.again}")
    return 0


def _ask() -> Ask | None:
    """Returns how to ask the user, or None without a terminal."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return PromptSession[str]().prompt_async
    return None


def _text(prompt: str | None) -> str | None:
    """Returns the text to answer; None means an interactive chat."""
    if prompt is not None or sys.stdin.isatty():
        return prompt
    return read_text()
