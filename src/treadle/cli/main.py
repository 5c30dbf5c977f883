"""The `treadle` command."""

import asyncio
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import click
from prompt_toolkit import PromptSession

import treadle
from treadle.cli.answers import answer, approve, calls, deny
from treadle.cli.chat import AnyAgent, Ask, answer_once, converse, load_agent
from treadle.cli.conversation import (
    list_threads,
    show_blocks,
    show_thread,
    show_tree,
    watch_thread,
)
from treadle.cli.damage import repair as repair_thread
from treadle.cli.damage import stored_events, write_events
from treadle.cli.database import (
    database_option,
    database_path,
    find_thread,
    last_option,
    open_for_chat,
    open_for_reading,
)
from treadle.cli.doctor import doctor
from treadle.cli.failure import debug_option
from treadle.cli.keys import keys
from treadle.cli.messages import cancel, send
from treadle.cli.model_choice import choose_model
from treadle.cli.plain_text import clean
from treadle.cli.serve import serve
from treadle.cli.stdin import read_text
from treadle.cli.target import AnyRuntime, AnyThread, json_option, url_option, with_target
from treadle.cli.transcript import Transcript
from treadle.client.client import Client
from treadle.demo.demo_agent import demo_agent
from treadle.domain.items import user_message
from treadle.domain.state import RunStatus
from treadle.errors import ConfigurationError
from treadle.journal.backup import backup as write_backup

SHOWN_AGAIN = 200
"""How many events of a conversation are shown when it is continued."""


@click.group()
@click.version_option(treadle.__version__, prog_name="treadle")
def cli() -> None:
    """An agent runtime for Python."""


@cli.command()
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
) -> int:
    """Chat with an agent; with PROMPT, or text on standard input, answer once.

    Without --agent, a demo agent with a few tools answers. Without --model, the model is the one
    named by TREADLE_MODEL, else one for OPENAI_API_KEY or ANTHROPIC_API_KEY, else the first model
    of a local Ollama, else the built-in demo model. The conversation is stored: list it with
    treadle threads, continue it with --last. With --url, an agent of the server answers; --agent is
    its name then.
    """
    if model is not None and agent_path is not None:
        raise ConfigurationError("Use only one of --model and --agent: an agent has its own model.")
    if (thread_id is not None) + last + memory > 1:
        raise ConfigurationError("Use only one of --thread, --last and --memory.")
    text = _text(prompt)
    if text is not None:
        user_message(text)  # refuses an empty text before the database is created
    if url is not None:
        if model is not None or memory or database is not None:
            raise ConfigurationError("--url does not go with --model, --memory and --database.")
        remote = _Conversation(None, thread_id, last)
        return asyncio.run(_chat_with_server(url, text, agent_path or "", remote))
    agent = None if agent_path is None else load_agent(agent_path)
    place = None if memory else database_path(database, os.environ)
    return asyncio.run(_chat(text, agent, model, folder, _Conversation(place, thread_id, last)))


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
) -> int:
    """Answers `text`, or converses if it is None; returns the exit code."""
    if agent is None:
        choice = await choose_model(model, os.environ)
        agent = demo_agent(choice.model, folder, conversation.database)
        note = click.style(clean(choice.note), dim=True)
        click.echo(note, err=True, color=_color(sys.stderr.isatty()))
    async with open_for_chat(conversation.database, [agent]) as runtime:
        thread = await _thread_of(runtime, conversation, agent.name)
        again = "" if conversation.database is None else f"treadle chat --thread {thread.id}"
        return await _converse(thread, agent.name, text, again)


async def _chat_with_server(
    url: str, text: str | None, agent: str, conversation: _Conversation
) -> int:
    async with Client(url) as client:
        thread = await _thread_of(client, conversation, agent)
        again = f"treadle chat --url {client.url} --thread {thread.id}"
        return await _converse(thread, agent, text, again)


async def _thread_of(runtime: AnyRuntime, conversation: _Conversation, agent: str) -> AnyThread:
    if conversation.thread_id is not None or conversation.last:
        return await find_thread(runtime, conversation.thread_id)
    return await runtime.create_thread(agent)


async def _converse(thread: AnyThread, agent: str, text: str | None, again: str) -> int:
    """Answers `text`, or converses if it is None; `again` is the command that continues it."""
    transcript = Transcript(_write, _width())
    if text is not None:
        return await answer_once(thread, agent, text, transcript, _ask())
    echo = Transcript(_write, _width(), echo=True)
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


@cli.command()
@click.option("--limit", default=20, show_default=True, help="How many to list.")
@click.option("--status", help="Only those with this status, such as requires_action.")
@click.option("--agent", default="", metavar="NAME", help="Only those of this agent.")
@click.option("--owner", help="Only those of this owner.")
@url_option
@json_option
@database_option
@debug_option
def threads(
    limit: int,
    status: RunStatus | None,
    agent: str,
    owner: str | None,
    url: str | None,
    as_json: bool,
    database: Path | None,
) -> int:
    """List the conversations, the most recent first."""

    async def work(runtime: AnyRuntime) -> int:
        infos = await runtime.threads(limit=limit, status=status or (), agent=agent, owner=owner)
        list_threads(infos, _write, as_json=as_json)
        return 0

    return asyncio.run(with_target(url, database, work))


@cli.command()
@click.argument("thread_id", metavar="ID", required=False)
@last_option
@click.option("--tree", is_flag=True, help="Print its runs, jobs and agents as a tree.")
@click.option("--blocks", is_flag=True, help="Print its memory blocks.")
@database_option
@debug_option
def show(thread_id: str | None, last: bool, tree: bool, blocks: bool, database: Path | None) -> int:
    """Print the conversation ID, or with --last the most recent one."""
    named = _named(thread_id, last)
    if tree and blocks:
        raise ConfigurationError("Use only one of --tree and --blocks.")
    if tree:
        return asyncio.run(_show_tree(named, database))
    if blocks:
        return asyncio.run(_show_blocks(named, database))
    return asyncio.run(_show(named, database))


@cli.command()
@click.argument("thread_id", metavar="ID", required=False)
@last_option
@click.option("--after", default="0", metavar="POSITION", help="Begin after this position.")
@url_option
@json_option
@database_option
@debug_option
def watch(
    thread_id: str | None,
    last: bool,
    after: str,
    url: str | None,
    as_json: bool,
    database: Path | None,
) -> int:
    """Print a conversation as treadle show does, and follow it live until Ctrl-C.

    With --json, each line is an event with its position.
    """
    named = _named(thread_id, last)

    async def work(runtime: AnyRuntime) -> int:
        thread = await find_thread(runtime, named)
        transcript = None if as_json else Transcript(_write, _width(), echo=True)
        await watch_thread(thread, transcript, after)
        return 0

    return asyncio.run(with_target(url, database, work))


async def _show(thread_id: str | None, database: Path | None) -> int:
    async with open_for_reading(database) as runtime:
        thread = await find_thread(runtime, thread_id)
        await show_thread(thread, Transcript(_write, _width(), echo=True))
    return 0


async def _show_tree(thread_id: str | None, database: Path | None) -> int:
    async with open_for_reading(database) as runtime:
        thread = await find_thread(runtime, thread_id)
        await show_tree(runtime, thread, _write, _width() if sys.stdout.isatty() else None)
    return 0


async def _show_blocks(thread_id: str | None, database: Path | None) -> int:
    async with open_for_reading(database) as runtime:
        await show_blocks(await find_thread(runtime, thread_id), _write)
    return 0


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@database_option
@debug_option
def backup(file: Path, database: Path | None) -> int:
    """Copy the database to the new FILE; it may be in use meanwhile."""
    size = write_backup(database_path(database, os.environ), file)
    click.echo(f"Wrote {size / 1e6:.1f} MB to {file}.")
    return 0


@cli.command()
@click.argument("thread_id", metavar="ID")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@database_option
@debug_option
def export(thread_id: str, file: Path | None, database: Path | None) -> int:
    """Print the events of the conversation ID as JSON lines, or write them to the new FILE."""
    write_events(asyncio.run(stored_events(thread_id, database)), file)
    return 0


@cli.command()
@click.argument("thread_id", metavar="ID")
@database_option
@debug_option
def repair(thread_id: str, database: Path | None) -> int:
    """Remove what cannot be read of the conversation ID, so that it can continue."""
    removed = asyncio.run(repair_thread(thread_id, database))
    numbers = ", ".join(map(str, removed.events))
    if removed.events:
        click.echo(f"Removed {_several(len(removed.events), 'damaged event')}: {numbers}.")
    if removed.entries:
        entries = _several(removed.entries, "damaged entry", "damaged entries")
        click.echo(f"Removed {entries} from its inbox.")
    if not removed.events and not removed.entries:
        click.echo("Nothing is damaged.")
    return 0


cli.add_command(send)
cli.add_command(cancel)
cli.add_command(calls)
cli.add_command(approve)
cli.add_command(deny)
cli.add_command(answer)
cli.add_command(serve)
cli.add_command(keys)
cli.add_command(doctor)


def _several(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _named(thread_id: str | None, last: bool) -> str | None:
    """Returns the given id; None means the most recent conversation."""
    if (thread_id is None) != last:
        raise ConfigurationError("Give the ID of a conversation (see treadle threads), or --last.")
    return thread_id


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns


def _text(prompt: str | None) -> str | None:
    """Returns the text to answer; None means an interactive chat."""
    if prompt is not None or sys.stdin.isatty():
        return prompt
    return read_text()


def _write(text: str) -> None:
    click.echo(text, nl=False, color=_color(sys.stdout.isatty()))


def _color(is_terminal: bool) -> bool:
    return is_terminal and not os.environ.get("NO_COLOR")


def main() -> None:
    """Runs the command; the entry point of the package."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    # The command prints what its user needs; logs are for programs, so they stay silent here.
    logging.getLogger("treadle").addHandler(logging.NullHandler())
    try:
        cli()
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does. Buffered output must not raise at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
