"""Sentences of the demo model: made from the outputs of tools, or honest small talk; pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import msgspec

from treadle.demo.wishes import Wish, speaking_parameter
from treadle.domain.items import FunctionCall
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.tools.example import example, kind_of, properties, required, resolve

MAX_TEXT = 600
MAX_ECHO = 120
MAX_TOOLS = 12
SELF = (
    "I am a small demo model: a program of fixed rules that is part of treadle, not a language "
    "model. I find simple wishes in your words and call the declared tools for them."
)
_NAME = re.compile(r"\bmy name is\s+([^\W\d_][\w'\u2019-]{0,40})", re.IGNORECASE)
_ASKS_NAME = re.compile(r"what(?:'s| is) my name|who am i\b", re.IGNORECASE)
_PHRASES = (
    (r"\b(?:thanks|thank you)\b", "You are welcome."),
    (
        r"^\W*(?:bye|goodbye|good night)\b",
        "Goodbye. This conversation is kept; come back any time.",
    ),
)
_GREETING = re.compile(
    r"^\W*(?:hi|hello|hey|good (?:morning|day|evening))\b|(?:who|what) are you|your(?:self| name)"
    r"|what can you do|\bhelp\b",
    re.IGNORECASE,
)
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
}


class Result(NamedTuple):
    """A call and its output."""

    name: str
    arguments: dict[str, object]
    output: str
    is_error: bool


def arguments_of(call: FunctionCall) -> dict[str, object]:
    """Returns the arguments of a call; none if they are not a JSON object."""
    value = _decoded(call.arguments)
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def reply(
    question: str,
    results: Sequence[Result],
    missing: Iterable[Wish],
    said: Sequence[str],
    tools: Sequence[ToolSchema],
) -> str:
    """Returns the answer to `question`: what tools returned, what they need, or small talk.

    `said` has all messages of the user, oldest first.
    """
    parts: list[str] = []
    if len(results) == 1:
        parts.append(f"According to {_sentence(results[0])}")
    elif results:
        lines = [f"- {_sentence(result)}" for result in results]
        parts.append("\n".join(["Here is what the tools returned:", *lines]))
    for wish in missing:
        names = " and ".join(f"`{name}`" for name in wish.missing)
        parts.append(f"To call `{wish.tool.name}` I need {names}.")
    return "\n\n".join(parts) or _small_talk(question, said, tools)


def structured(output: OutputSchema, results: Sequence[Result], text: str) -> str:
    """Returns JSON that fits `output`: values of calls and outputs, `text`, else examples."""
    known: dict[str, object] = {}
    for result in results:
        value = _decoded(result.output)
        known |= result.arguments
        known |= cast("dict[str, object]", value) if isinstance(value, dict) else {"result": value}
    schema = resolve(output.schema, output.schema)
    declared = properties(schema)
    values: dict[str, object] = {}
    for name in required(schema) or declared:
        shape = resolve(declared[name], output.schema)
        kind, value = kind_of(shape), known.get(name)
        is_free = kind == "string" and not shape.keys() & {"enum", "const", "format"}
        fits = isinstance(value, _TYPES.get(kind, ())) and isinstance(value, bool) == (
            kind == "boolean"
        )
        values[name] = value if fits else text if is_free else example(shape, output.schema)
    return msgspec.json.encode(values).decode()


def _sentence(result: Result) -> str:
    given = [str(v)[:80] for v in result.arguments.values() if isinstance(v, str | int | float)]
    about = f" for {', '.join(given)}" if given else ""
    if result.is_error:
        return f"`{result.name}`{about}, the call failed: {_clipped(result.output)}"
    value = _decoded(result.output)
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value).items()
        value = {key: field for key, field in fields if str(field) not in given}
    shown = _clipped(_plain(value))
    return f"`{result.name}`{about}: {shown}{'' if shown.endswith(('.', '!', '…')) else '.'}"


def _decoded(output: str) -> object:
    try:
        return msgspec.json.decode(output)
    except msgspec.DecodeError:  # plain text, as most tools return
        return output.strip()


def _plain(value: object) -> str:
    match value:
        case dict():
            fields = cast("dict[str, object]", value).items()
            return ", ".join(f"{key.replace('_', ' ')} {_plain(field)}" for key, field in fields)
        case list():
            return ", ".join(map(_plain, cast("list[object]", value))) or "nothing"
        case None | "":
            return "nothing"
        case _:
            return str(value)


def _clipped(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT].rstrip()}… ({len(text)} characters in all)"


def _small_talk(question: str, said: Sequence[str], tools: Sequence[ToolSchema]) -> str:
    if _ASKS_NAME.search(question):
        names = [found[1] for text in said for found in _NAME.finditer(text)]
        if not names:
            return "You have not told me your name in this conversation."
        return f"Your name is {names[-1]}: you told me earlier in this conversation."
    if told := _NAME.search(question):
        return f"Nice to meet you, {told[1]}."
    for pattern, answer in _PHRASES:
        if re.search(pattern, question, re.IGNORECASE):
            return answer
    if _GREETING.search(question):
        return f"Hello! {SELF} {_abilities(tools)}"
    flat = " ".join(question.split())
    echo = flat if len(flat) <= MAX_ECHO else f"{flat[:MAX_ECHO].rstrip()}…"
    return f"You said: “{echo}” {SELF} That one is beyond me. {_abilities(tools)}"


def _abilities(tools: Sequence[ToolSchema]) -> str:
    if not tools:
        return "This agent declares no tools, so I can only talk."
    lines = [f"- {_signature(tool)}: {tool.description.strip()[:MAX_ECHO]}" for tool in tools]
    more = [f"- and {len(tools) - MAX_TOOLS} more"] if len(tools) > MAX_TOOLS else []
    return "\n".join(["With the tools of this agent I can call:", *lines[:MAX_TOOLS], *more])


def _signature(tool: ToolSchema) -> str:
    needed, speaking = required(tool.parameters), speaking_parameter(tool)
    names = (name for name in properties(tool.parameters) if name != speaking)
    return f"`{tool.name}({', '.join(n if n in needed else f'{n}?' for n in names)})`"
