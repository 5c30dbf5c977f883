"""`treadle models`: which models can be used here, and which one `treadle chat` uses."""

import asyncio
import os
from collections.abc import Iterator, Mapping

import click
import msgspec
from msgspec import Struct

from treadle.cli.failure import debug_option
from treadle.cli.model_choice import choose_model, ollama_models, served_models
from treadle.cli.plain_text import clean
from treadle.cli.target import json_option
from treadle.domain.usage import Price
from treadle.errors import MissingKey, TreadleError
from treadle.models.endpoint import endpoint
from treadle.models.model_data import PROVIDER_MODELS, ModelData
from treadle.models.presets import PRESETS, Preset
from treadle.models.prices import price_of
from treadle.models.resolve import resolve_model
from treadle.models.windows import window_of

_K, _M = 1_000, 1_000_000


class Usable(Struct, frozen=True):
    """A model string, whether it can be used here, and why; `chosen` by `treadle chat`.

    `window` is in tokens, `price` in US dollars per million tokens; None if they are not known.
    """

    model: str
    usable: bool
    note: str
    chosen: bool = False
    window: int | None = None
    price: Price | None = None


@click.command()
@json_option
@debug_option
def models(as_json: bool) -> int:
    """List the models that can be used here; treadle chat uses the one marked with *.

    Of a provider, the models with a known window are listed. Others can be used by their names:
    treadle chat --model openai:NAME.
    """
    found = asyncio.run(usable_models(os.environ))
    width = max(len(one.model) for one in found)
    for one in found:
        mark = "*" if one.chosen else " "
        line = f"{mark} {one.model:{width}}  {'; '.join(_facts(one))}"
        click.echo(msgspec.json.encode(one) if as_json else clean(line))
    return 0


async def usable_models(environ: Mapping[str, str]) -> list[Usable]:
    """Returns the models that can be named without a further setting, and what the others need."""
    chosen = (await choose_model(None, environ)).model
    local = [name for name, preset in PRESETS.items() if not preset.needs_key]
    served = await asyncio.gather(*(_served(name, environ) for name in local))
    notes = {chosen: "from TREADLE_MODEL", **dict(_hosted(environ))}
    for name, names in zip(local, served, strict=True):
        notes |= {f"{name}:{model}": f"in a local {name}" for model in names}
    notes["demo"] = "built in; a small program of fixed rules"
    found = [_usable(model, note, environ, chosen) for model, note in notes.items()]
    found += [
        Usable(f"{name}:NAME", False, f"no server at {_root(PRESETS[name], environ)}")
        for name, names in zip(local, served, strict=True)
        if not names
    ]
    return found


def _hosted(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields the models of the providers with a key, and one of each provider without."""
    known = {one.provider: one.models for one in PROVIDER_MODELS}
    for name, preset in PRESETS.items():
        if not preset.needs_key or name == "chat":  # the models of OpenAI, once
            continue
        has_key = bool(environ.get(preset.key, "").strip())
        models = known.get(name) or (ModelData("NAME", 0),)
        # Only Bedrock can be used without its key.
        note = f"{preset.key} is set" if has_key else "if there are credentials of AWS"
        for model in models if has_key else models[:1]:
            yield f"{name}:{model.name}", note


async def _served(name: str, environ: Mapping[str, str]) -> list[str]:
    if name == "ollama":
        return await ollama_models(environ)
    key = environ.get(PRESETS[name].key, "").strip()
    return await served_models(_root(PRESETS[name], environ), key)


def _root(preset: Preset, environ: Mapping[str, str]) -> str:
    """Returns the base URL of a local server."""
    return endpoint(
        "",
        "",
        environ,
        key=preset.key,
        default=preset.base_url,
        url_variable=preset.url_variable,
        needs_key=False,
    ).base_url


def _usable(model: str, note: str, environ: Mapping[str, str], chosen: str) -> Usable:
    name = model.partition(":")[2]
    window, price = window_of(name), price_of(name)
    try:
        resolve_model(model, environ)
    except MissingKey:
        note = f"needs a key: set {PRESETS[model.partition(':')[0]].key}"
        return Usable(model, False, note, model == chosen, window, price)
    except TreadleError as error:
        return Usable(model, False, error.message, model == chosen, window, price)
    return Usable(model, True, note, model == chosen, window, price)


def _facts(one: Usable) -> Iterator[str]:
    if one.usable and one.window:
        yield f"{_short(one.window)} tokens"
    if one.usable and one.price:
        yield f"${one.price.input:g} in, ${one.price.output:g} out per million"
    yield one.note


def _short(tokens: int) -> str:
    return f"{tokens / _M:.3g}M" if tokens >= _M else f"{tokens // _K}K"
