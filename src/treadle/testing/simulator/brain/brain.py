"""The demo model: finds wishes in plain words, calls declared tools, and reports their outputs.

No language model and no canned answer: each call comes from a clause of the user's message, each
sentence of the reply from a real output.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
from msgspec import Struct

from treadle.domain.items import FunctionCall, FunctionCallOutput, Message
from treadle.domain.schema import JsonSchema, ToolSchema
from treadle.testing.simulator.brain.announcement import announcement, speaking_parameter
from treadle.testing.simulator.brain.answers import Result, arguments_of, compose, decoded
from treadle.testing.simulator.brain.arguments import (
    example,
    kind_of,
    properties,
    required,
    resolve,
)
from treadle.testing.simulator.brain.extraction import extractor
from treadle.testing.simulator.brain.intents import Intent, fill_from, intents
from treadle.testing.simulator.brain.small_talk import missing_arguments, small_talk
from treadle.testing.simulator.request import Entry, ProviderRequest
from treadle.testing.simulator.turn import Call, Output, Text

MAX_CALLS = 16


class Exchange(Struct, frozen=True):
    """What happened since the model's last answer: questions, and calls with their outputs.

    `last` names the tool of the latest call before that.
    """

    questions: tuple[str, ...]
    results: tuple[Result, ...]
    last: str | None

    @property
    def text(self) -> str:
        """All questions, joined."""
        return "\n".join(self.questions)


def think(request: ProviderRequest) -> tuple[Output, ...]:
    """Returns what the demo model says: calls not made yet, or the answer."""
    exchange = _without_announcements(open_exchange(request.history), request.tools)
    wishes = [
        wish
        for question in exchange.questions
        for wish in intents(question, request.tools, exchange.last)
    ]
    if calls := _calls(request, exchange, [wish for wish in wishes if not wish.missing]):
        return tuple(calls)
    return (Text(_say(request, exchange, [wish for wish in wishes if wish.missing])),)


def open_exchange(history: Sequence[Entry]) -> Exchange:
    """Returns what is not answered yet; where all is, the last question once more."""
    start = max((i + 1 for i, entry in enumerate(history) if _is_answer(entry)), default=0)
    asked = max((i for i, entry in enumerate(history) if _is_question(entry)), default=0)
    if any(isinstance(entry, FunctionCallOutput) for entry in history[start:asked]):
        start = asked  # the person moved on before those outputs were reported
    questions = _questions(history[start:])
    results = _results(history[start:])
    if not questions and not results:
        questions = _questions(history)[-1:]
    earlier = [entry.name for entry in history[:start] if isinstance(entry, FunctionCall)]
    return Exchange(tuple(questions), tuple(results), earlier[-1] if earlier else None)


def _without_announcements(exchange: Exchange, tools: Sequence[ToolSchema]) -> Exchange:
    """Returns the exchange without what its calls said to the user, which tells nothing new."""
    spoken = {tool.name: name for tool in tools if (name := speaking_parameter(tool)) is not None}
    results: list[Result] = []
    for call, output in exchange.results:
        arguments = dict(arguments_of(call))
        if arguments.pop(spoken.get(call.name, ""), None) is not None:
            call = msgspec.structs.replace(call, arguments=_written(arguments))
        results.append((call, output))
    return msgspec.structs.replace(exchange, results=tuple(results))


def _is_answer(entry: Entry) -> bool:
    return isinstance(entry, Message) and entry.role == "assistant" and bool(entry.content)


def _is_question(entry: Entry) -> bool:
    return isinstance(entry, Message) and entry.role == "user"


def _questions(history: Sequence[Entry]) -> list[str]:
    users = [e.text for e in history if isinstance(e, Message) and e.role == "user"]
    return [text for text in users if text.strip()]


def _results(history: Sequence[Entry]) -> list[Result]:
    calls = {e.call_id: e for e in history if isinstance(e, FunctionCall)}
    outputs = [e for e in history if isinstance(e, FunctionCallOutput)]
    return [(calls[e.call_id], e.text) for e in outputs if e.call_id in calls]


def _calls(request: ProviderRequest, exchange: Exchange, wishes: Sequence[Intent]) -> list[Call]:
    choice = request.tool_choice
    if choice.mode == "none":
        return []
    if choice.mode == "named":
        wishes = [wish for wish in wishes if wish.tool.name == choice.name]
    calls = _not_made(wishes, exchange)
    if not calls and choice.mode in ("required", "named"):
        calls = _forced(request, exchange)
    return calls[:MAX_CALLS]


def _not_made(wishes: Sequence[Intent], exchange: Exchange) -> list[Call]:
    made = [(call.name, arguments_of(call)) for call, _ in exchange.results]
    calls: list[Call] = []
    for wish in wishes:
        identity: tuple[str, Mapping[str, object]] = (wish.tool.name, wish.arguments)
        if identity not in made:
            made.append(identity)
            calls.append(_call(wish.tool, wish.arguments))
    return calls


def _forced(request: ProviderRequest, exchange: Exchange) -> list[Call]:
    named = [tool for tool in request.tools if tool.name == request.tool_choice.name]
    tool = next(iter(named or request.tools), None)
    if tool is None:
        return []
    arguments, missing = fill_from(tool, exchange.text)
    declared = properties(tool.parameters)
    for name in missing:
        arguments[name] = example(declared[name], tool.parameters, name=name)
    return [_call(tool, arguments)]


def _call(tool: ToolSchema, arguments: Mapping[str, object]) -> Call:
    speaking = speaking_parameter(tool)
    if speaking is not None:
        arguments = {speaking: announcement(tool, arguments), **arguments}
    return Call(tool.name, _written(arguments))


def _written(arguments: Mapping[str, object]) -> str:
    return msgspec.json.encode(arguments).decode()


def _say(request: ProviderRequest, exchange: Exchange, open_wishes: Sequence[Intent]) -> str:
    if request.output_schema is not None:
        return _structured(request, exchange, request.output_schema.schema)
    answers: list[str] = []
    if exchange.results:
        answers.append(compose(exchange.results))
    if open_wishes:
        answers.append(missing_arguments(open_wishes))
    return "\n\n".join(answers) or small_talk(exchange.text, request.history, request.tools)


def _structured(request: ProviderRequest, exchange: Exchange, schema: JsonSchema) -> str:
    """Fills the requested schema with what outputs and question tell, else with examples."""
    told = _told(exchange)
    values: dict[str, object] = {}
    declared = properties(resolve(schema, schema))
    for name in required(resolve(schema, schema)) or declared:
        shape = resolve(declared[name], schema)
        value = told.get(name, _extracted(name, exchange.text))
        if not _fits(value, kind_of(shape)):
            value = _free_text(request, exchange, shape)
        values[name] = example(shape, schema, name=name) if value is None else value
    return msgspec.json.encode(values).decode()


def _told(exchange: Exchange) -> dict[str, object]:
    told: dict[str, object] = {}
    for call, output in exchange.results:
        value = decoded(output)
        told |= arguments_of(call)
        told |= cast("dict[str, object]", value) if isinstance(value, dict) else {"result": value}
    return told


def _extracted(name: str, text: str) -> object:
    extract = extractor(name)
    return None if extract is None else extract(text)


def _free_text(request: ProviderRequest, exchange: Exchange, shape: Mapping[str, object]) -> object:
    if kind_of(shape) != "string" or "enum" in shape or "const" in shape or "format" in shape:
        return None
    if exchange.results:
        return compose(exchange.results)
    return small_talk(exchange.text, request.history, request.tools)


def _fits(value: object, kind: str) -> bool:
    kinds: Mapping[str, type | tuple[type, ...]] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "array": list,
        "object": dict,
    }
    return isinstance(value, kinds.get(kind, ())) and (kind == "boolean") == isinstance(value, bool)
