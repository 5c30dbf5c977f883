"""`treadle chat`: the options of a chat, and the conversation they choose."""

import asyncio
import os
import sys
from pathlib import Path
from typing import NamedTuple

import click
from prompt_toolkit import PromptSession

from treadle.cli.chat import (
    AnyAgent,
    Ask,
    answer_as_json,
    answer_once,
    converse,
    load_agent,
)
from treadle.cli.conversation import show_thread
from treadle.cli.database import database_option, database_path, find_thread, open_for_chat
from treadle.cli.failure import debug_option
from treadle.cli.model_choice import choose_model
from treadle.cli.output import color, width, write
from treadle.cli.plain_text import clean
from treadle.cli.stdin import read_text
from treadle.cli.target import AnyRuntime, AnyThread, json_option, url_option
from treadle.cli.transcript import Transcript
from treadle.client.client import Client
from treadle.demo.demo_agent import demo_agent
from treadle.domain.items import user_message
from treadle.errors import ConfigurationError

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
    database: Path | None,
    folder: Path,
    as_json: bool,
) -> int:
    """Chat with an agent; with PROMPT, or text on standard input, answer once.

    Without --agent, a demo agent with a few tools answers. Without --model, the model is the one
    named by TREADLE_MODEL, else one for OPENAI_API_KEY or ANTHROPIC_API_KEY, else the first model
    of a local Ollama, else the built-in demo model. The conversation is stored: list it with
    treadle threads, continue it with --last. With --url, an agent of the server answers; --agent is
    its name then. With --json, each line is an event of the answer with its position.
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
        remote = _Conversation(None, thread_id, last)
        return asyncio.run(_chat_with_server(url, text, agent_path or "", remote, as_json=as_json))
    agent = None if agent_path is None else load_agent(agent_path)
    place = None if memory else database_path(database, os.environ)
    conversation = _Conversation(place, thread_id, last)
    return asyncio.run(_chat(text, agent, model, folder, conversation, as_json=as_json))


class _Conversation(NamedTuple):
    """Where the conversation is stored, and which one to continue."""

    database: Path | None
    thread_id: str | None
    last: bool


async def _chat(
    text: str | None,
    agent: AnyAgent | None,
    model: str | None,
    folder: Path,
    conversation: _Conversation,
    *,
    as_json: bool,
) -> int:
    """Answers `text`, or converses if it is None; returns the exit code."""
    if agent is None:
        choice = await choose_model(model, os.environ)
        agent = demo_agent(choice.model, folder, conversation.database)
        if not as_json:
            note = click.style(clean(choice.note), dim=True)
            click.echo(note, err=True, color=color(sys.stderr.isatty()))
    async with open_for_chat(conversation.database, [agent]) as runtime:
        thread = await _thread_of(runtime, conversation, agent.name)
        again = "" if conversation.database is None else f"treadle chat --thread {thread.id}"
        return await _converse(thread, agent.name, text, again, as_json=as_json)


async def _chat_with_server(
    url: str, text: str | None, agent: str, conversation: _Conversation, *, as_json: bool
) -> int:
    async with Client(url) as client:
        thread = await _thread_of(client, conversation, agent)
        again = f"treadle chat --url {client.url} --thread {thread.id}"
        return await _converse(thread, agent, text, again, as_json=as_json)


async def _thread_of(runtime: AnyRuntime, conversation: _Conversation, agent: str) -> AnyThread:
    if conversation.thread_id is not None or conversation.last:
        return await find_thread(runtime, conversation.thread_id)
    return await runtime.create_thread(agent)


async def _converse(
    thread: AnyThread, agent: str, text: str | None, again: str, *, as_json: bool
) -> int:
    """Answers `text`, or converses if it is None; `again` is the command that continues it."""
    if text is not None and as_json:
        return await answer_as_json(thread, agent, text)
    transcript = Transcript(write, width())
    if text is not None:
        return await answer_once(thread, agent, text, transcript, _ask())
    echo = Transcript(write, width(), echo=True)
    shown = await show_thread(thread, echo, SHOWN_AGAIN)
    await converse(thread, agent, transcript, shown)
    if again and await thread.history():
        transcript.notice(f"Continue with: {again}")
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
