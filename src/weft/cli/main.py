"""The `weft` command."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import click

import weft
from weft.cli.chat import AnyAgent, answer_once, converse, load_agent
from weft.cli.demo_agent import demo_agent
from weft.cli.failure import in_one_line
from weft.cli.model_choice import choose_model
from weft.cli.plain_text import clean
from weft.cli.transcript import Transcript
from weft.errors import ConfigurationError, InvalidInput

MAX_STDIN_BYTES = 10_000_000


@click.group()
@click.version_option(weft.__version__, prog_name="weft")
def cli() -> None:
    """An agent runtime for Python."""


@cli.command()
@click.argument("prompt", required=False)
@click.option("--model", help='The model, such as "openai:gpt-5", "ollama:qwen3" or "demo".')
@click.option("--agent", "agent_path", metavar="MODULE:NAME", help="An agent of your own.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="The folder the demo agent may read. Default: the current one.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def chat(
    prompt: str | None, model: str | None, agent_path: str | None, folder: Path, debug: bool
) -> None:
    """Chat with an agent; with PROMPT, or text on standard input, answer once.

    Without --agent it is a demo agent with a few tools. Without --model the model is that of
    WEFT_MODEL, else one for OPENAI_API_KEY or ANTHROPIC_API_KEY, else a local Ollama's, else the
    built-in demo model.
    """
    try:
        if model is not None and agent_path is not None:
            raise ConfigurationError("Give --model or --agent: an agent has its own model.")
        text = _text(prompt)
        agent = None if agent_path is None else load_agent(agent_path)
        code = asyncio.run(_chat(text, agent, model, folder))
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            raise
        click.echo(f"Error: {in_one_line(error)}", err=True)
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


async def _chat(text: str | None, agent: AnyAgent | None, model: str | None, folder: Path) -> int:
    """Answers `text`, or converses where there is none; returns the exit code."""
    if agent is None:
        choice = await choose_model(model, os.environ)
        agent = demo_agent(choice.model, folder)
        note = click.style(clean(choice.note), dim=True)
        click.echo(note, err=True, color=_color(sys.stderr.isatty()))
    transcript = Transcript(_write, shutil.get_terminal_size((100, 24)).columns)
    if text is not None:
        return await answer_once(agent, text, transcript)
    await converse(agent, transcript)
    return 0


def _text(prompt: str | None) -> str | None:
    """What is to be answered; None where a person is there to be asked."""
    if prompt is not None or sys.stdin.isatty():
        return prompt
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise InvalidInput(f"Standard input has more than {MAX_STDIN_BYTES:,} bytes.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"The text on standard input is not UTF-8 (byte {error.start}); convert it first."
        ) from error


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
    try:
        cli()
    except BrokenPipeError:
        # The reader has left, as `head` does. What is still buffered must not raise at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
