"""`treadle models`: which models can be used here, and which one `treadle chat` uses."""

import asyncio
import os
from collections.abc import Mapping

import click
import msgspec
from msgspec import Struct

from treadle.cli.failure import debug_option
from treadle.cli.model_choice import (
    ANTHROPIC_DEFAULT,
    OPENAI_DEFAULT,
    choose_model,
    ollama_models,
)
from treadle.cli.plain_text import clean
from treadle.cli.target import json_option
from treadle.errors import TreadleError
from treadle.models.resolve import resolve_model


class Usable(Struct, frozen=True):
    """A model string, whether it can be used here, and why; `chosen` by `treadle chat`."""

    model: str
    usable: bool
    note: str
    chosen: bool = False


@click.command()
@json_option
@debug_option
def models(as_json: bool) -> int:
    """List the models that can be used here; treadle chat uses the one marked with *.

    Of a provider, one model stands for all: treadle chat --model openai:NAME uses another one.
    """
    found = asyncio.run(usable_models(os.environ))
    width = max(len(one.model) for one in found)
    for one in found:
        mark = "*" if one.chosen else " "
        line = f"{mark} {one.model:{width}}  {one.note}"
        click.echo(msgspec.json.encode(one) if as_json else clean(line))
    return 0


async def usable_models(environ: Mapping[str, str]) -> list[Usable]:
    """Returns the models that can be named without a further setting, and what the others need."""
    chosen = (await choose_model(None, environ)).model
    names = {
        chosen: "from TREADLE_MODEL",
        OPENAI_DEFAULT: "OPENAI_API_KEY is set",
        ANTHROPIC_DEFAULT: "ANTHROPIC_API_KEY is set",
        **{f"ollama:{name}": "in a local Ollama" for name in await ollama_models(environ)},
        "demo": "built in; a small program of fixed rules",
    }
    return [_usable(model, note, environ, chosen) for model, note in names.items()]


def _usable(model: str, note: str, environ: Mapping[str, str], chosen: str) -> Usable:
    try:
        resolve_model(model, environ)
    except TreadleError as error:
        return Usable(model, False, error.message, model == chosen)
    return Usable(model, True, note, model == chosen)
