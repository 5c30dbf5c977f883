"""Writes `docs/reference/providers.md`: what each preset can do, as its requests show.

python -m tests.models.matrix            writes it
python -m tests.models.matrix --print    prints the table

Each cell is read from a request that the model of the preset encodes. `test_matrix.py` sends the
same requests to the rules of the server, so that no cell claims what the server would refuse.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.servers.table import CANNOT, MODELS, SERVERS

from treadle.domain.files import InputAudio, InputFile
from treadle.domain.hosted_tools import (
    CodeInterpreter,
    FileSearch,
    HostedTool,
    RemoteMCP,
    WebFetch,
    WebSearch,
)
from treadle.domain.items import InputImage, InputText, Message
from treadle.domain.schema import ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.errors import UnknownModel
from treadle.memory.archive.resolve_embedder import resolve_embedder
from treadle.models import Gemini, HttpModel, resolve_model
from treadle.models.base import ModelRequest, output_mode_of
from treadle.models.model_data import PROVIDER_MODELS
from treadle.models.presets import CHECKED, PRESETS
from treadle.models.wire.sendable import EncodedRequest

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "providers.md"

NAMES = [name for name in PRESETS if name != "chat"]
TOOLS = (
    ToolSchema("look", "Looks.", {"type": "object"}, strict=False),
    ToolSchema("draw", "Draws.", {"type": "object"}, strict=False),
)
STRICT = (
    ToolSchema(
        "look",
        "Looks.",
        {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        strict=True,
    ),
)
PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="
PDF = "data:application/pdf;base64,JVBERi0xLjQK"
WAV = "data:audio/wav;base64,UklGRiQAAABXQVZFZm10IA=="
# A model of each provider that can be told how much to reason.
REASONING = {
    "openai": "gpt-5",
    "anthropic": "claude-sonnet-5",
    "groq": "openai/gpt-oss-120b",
    "cerebras": "gpt-oss-120b",
    "mistral": "mistral-small-latest",
}
EMPTY = {"", "–"}

Json = dict[str, Any]


def model_of(name: str) -> HttpModel:
    """The model of a preset, made from its string alone."""
    known = {one.provider: one.models[0].name for one in PROVIDER_MODELS}
    text = f"{name}:{REASONING.get(name) or known.get(name, 'qwen3')}"
    environ = {preset.key: "k" for preset in PRESETS.values()}
    model = resolve_model(text, environ | {"AWS_REGION": "us-east-1"})
    assert isinstance(model, HttpModel)
    return model


def encode(model: HttpModel, request: ModelRequest) -> EncodedRequest:
    return model._wire.encode(model.name, request)


def body_of(encoded: EncodedRequest) -> Json:
    return json.loads(encoded.body)


def plain(**settings: Any) -> ModelRequest:
    asked = Message("user", "hi", id="msg_1")  # one id, so that only the settings differ
    return ModelRequest(items=[asked], tools=TOOLS, settings=ModelSettings(**settings))


def shows(part: Any) -> ModelRequest:
    return ModelRequest(items=[Message("user", (InputText("see"), part))])


HOSTED: Mapping[str, HostedTool] = {
    "search": WebSearch(),
    "fetch": WebFetch(),
    "files": FileSearch(stores=["vs_1"]),
    "code": CodeInterpreter(),
    "MCP": RemoteMCP(url="https://mcp.example.com/mcp", name="docs", needs_approval=False),
}

REQUESTS: Mapping[str, ModelRequest] = {
    "any call": plain(tool_choice="required"),
    "one call": plain(tool_choice=NamedTool("look")),
    "parallel calls": plain(parallel_tool_calls=False),
    "strict schema": ModelRequest(items=plain().items, tools=STRICT),
    "images": shows(InputImage(PNG)),
    "PDF": shows(InputFile(PDF, filename="a.pdf")),
    "audio": shows(InputAudio(WAV)),
    "effort": plain(reasoning_effort="high"),
    "budget": plain(reasoning_effort=5_000),
}


def output(model: HttpModel) -> str:
    with_tools = output_mode_of(model, with_tools=True)
    return model.output_mode if with_tools == model.output_mode else f"native, {with_tools}"


def forced(model: HttpModel) -> str:
    is_asked = body_of(encode(model, REQUESTS["any call"])) != body_of(encode(model, plain()))
    return "yes" if is_asked else "–"


def named(model: HttpModel) -> str:
    if forced(model) == "–":
        return "–"
    return "by name" if b"Draws." in encode(model, REQUESTS["one call"]).body else "alone"


def parallel(model: HttpModel) -> str:
    asked = body_of(encode(model, REQUESTS["parallel calls"]))
    return "yes" if asked == body_of(encode(model, plain())) else "yes, off"


def strict(model: HttpModel) -> str:
    tools = ["tools"] if b'"strict":true' in encode(model, REQUESTS["strict schema"]).body else []
    output = ["output"] if model.output_mode == "native" else []
    return ", ".join([*tools, *output]) or "–"


def media(kind: str) -> Callable[[HttpModel], str]:
    return lambda model: "–" if encode(model, REQUESTS[kind]).changes else "yes"


def reasoning(model: HttpModel) -> str:
    before, given = (body_of(encode(model, plain(**s))) for s in ({}, {"reasoning_effort": "high"}))
    budget = json.dumps(body_of(encode(model, REQUESTS["budget"])))
    if given == before:
        return "–"
    text = json.dumps({k: v for k, v in given.items() if before.get(k) != v})
    found = "effort" if "effort" in text or "Level" in text else "on, off"
    return f"{found}, budget" if "5000" in budget else found


def cache(model: HttpModel) -> str:
    encoded = encode(model, plain())
    if b"cache_control" in encoded.body or b"cachePoint" in encoded.body:
        return "marks"
    if isinstance(model, Gemini):
        return "by itself, on request"
    is_keyed = b"prompt_cache_key" in encoded.body or encoded.headers
    return "key" if is_keyed else "by itself"


def embeddings(name: str) -> str:
    try:
        resolve_embedder(f"{name}:m", {preset.key: "k" for preset in PRESETS.values()})
    except UnknownModel:
        return "–"
    return "yes"


def hosted_tools(model: HttpModel) -> tuple[HostedTool, ...]:
    """The hosted tools that the provider has."""
    return tuple(tool for tool in HOSTED.values() if not model.tool_refusal(tool))


def hosted(model: HttpModel) -> str:
    found = hosted_tools(model)
    return ", ".join(name for name, tool in HOSTED.items() if tool in found) or "–"


COLUMNS: Mapping[str, Callable[[HttpModel], str]] = {
    "output": output,
    "any call": forced,
    "one call": named,
    "parallel calls": parallel,
    "strict schema": strict,
    "images": media("images"),
    "PDF": media("PDF"),
    "audio": media("audio"),
    "reasoning": reasoning,
    "cache": cache,
    "hosted tools": hosted,
}


def table() -> list[list[str]]:
    """The rows of the matrix, the names of the columns first."""
    rows = [["provider", "API", *COLUMNS, "embeddings"]]
    for name in NAMES:
        model = model_of(name)
        cells = [column(model) for column in COLUMNS.values()]
        rows.append([f"`{name}`", PRESETS[name].api, *cells, embeddings(name)])
    return rows


def real_table() -> list[list[str]]:
    """The rows of what real servers were seen to do, the names of the columns first."""
    rows = [["server", "model", *CANNOT]]
    for server, models in MODELS.items():
        for model in models:
            cells = ["–" if f"{model}@{server}" in cannot else "yes" for cannot in CANNOT.values()]
            rows.append([SERVERS[server], f"`{model}`", *cells])
    return rows


def reasons() -> str:
    """Why a real server cannot do it."""
    lines = [
        f"- `{model}`, {SERVERS[server]}: {feature}: {reason}"
        for feature, cannot in CANNOT.items()
        for name, reason in cannot.items()
        for model, _, server in [name.partition("@")]
    ]
    return "\n".join(lines)


def markdown(rows: list[list[str]]) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rest])


def page() -> str:
    """The page of the documentation."""
    sources = "\n".join(f"- `{name}`: <{PRESETS[name].source}>" for name in NAMES)
    return PAGE_TEXT.format(
        table=markdown(table()),
        real=markdown(real_table()),
        reasons=reasons(),
        checked=CHECKED,
        sources=sources,
    )


PAGE_TEXT = """# Providers

What each [preset](../how-to/choose-a-model.md#a-provider-by-its-name) can do. Made from the
requests that treadle encodes, by `python -m tests.models.matrix`; a test sends each of them to the
rules of the server. Text and streamed reasoning work with all of them, if the model has them; a
test runs an agent with each against the simulator.

{table}

- `output`: how agents ask for structured output unless they set `output_mode`; the second word is
  for agents with tools.
- `any call`, `one call`: `tool_choice` `"required"` and `NamedTool`. `alone`: the tool is the only
  one of the request, because the server takes no name. Without it the choice is left to the model,
  and `tool_choice.ignored` reports a response without a call.
- `parallel calls`: several calls in one response are made at the same time. `off`: the setting
  `parallel_tool_calls=False` is sent; elsewhere the API has no field for it.
- `strict schema`: what the server is asked to hold to its JSON Schema: the arguments of tools that
  are strict, and structured output. treadle validates both in any case.
- `images`, `PDF`, `audio`: sent as such; otherwise a text stands in their place. Whether a model
  reads them depends on the model.
- `reasoning`: what `reasoning_effort` becomes, for models that can be told.
- `cache`: marks in the request, a key of the conversation, or nothing, because the provider caches
  by itself, if it does. `on request`: `prompt_cache` makes [explicit
  caches](../how-to/choose-a-model.md#explicit-caches-of-gemini).

## Checked against real servers

`make test-servers` runs these servers with a tiny model of random weights and tests each cell. The
other presets, and the columns above that are not in this table, were tested against the simulator
and the rules of the servers only.

{real}

- `text`: streamed, counted, with several turns. `broken calls`: a conversation continues after a
  call whose arguments are not JSON. `interruption`: a response that breaks off is asked for again.

What they cannot do:

{reasons}

## Sources

The facts were collected on {checked} from these pages, public reports and recorded streams:

{sources}
"""


if __name__ == "__main__":
    if "--print" in sys.argv:
        print("\n".join("".join(f"{cell:13}" for cell in row) for row in table()))
    else:
        PAGE.write_text(page())
