"""The demo model: a small deterministic program that calls tools and reports their outputs."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from treadle.demo.replies import Result, arguments_of, reply, structured
from treadle.demo.wishes import Wish, announced, find_wishes, force, speaking_parameter
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Message
from treadle.domain.settings import NamedTool
from treadle.domain.usage import Usage
from treadle.models.base import ModelRequest
from treadle.models.transport import Transport
from treadle.streaming.demux import Demux, StreamEvent

MAX_CALLS = 16
PIECE = 8
"""Characters of the arguments of a call that are sent at once."""

# Slow enough to be seen streaming, quick enough for a greeting of a hundred words in a second.
PACE_SECONDS = 0.008


class DemoModel:
    """A model that needs no key and no network; fulfils `Model`.

    It finds wishes in the last message by patterns over the declared tools, calls the tools, and
    answers with their outputs. It is not a language model, and says so.
    """

    name = "demo"
    provider = "demo"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamEvent]:
        """Streams the answer to `request`, word by word; see `Model.stream`."""
        demux = Demux(self.provider, request.used_call_ids)
        answer = respond(request)
        calls, text = (answer, "") if isinstance(answer, list) else ([], answer)
        written = 0
        for key, (name, arguments) in enumerate(calls):
            demux.call(key, "", name)
            for at in range(0, len(arguments), PIECE):
                demux.arguments(key, arguments[at : at + PIECE])
                written += 1
                for event in demux.take():
                    yield event
                await asyncio.sleep(PACE_SECONDS)
            demux.finish(key)
        for number, word in enumerate(text.split(" ") if text else ()):
            demux.text("text", f" {word}" if number else word)
            written += 1
            for event in demux.take():
                yield event
            await asyncio.sleep(PACE_SECONDS)
        demux.finish_all(truncated=False)
        read = sum(map(_size, request.items)) + len(request.instructions)
        demux.usage = Usage(input_tokens=read // 4, output_tokens=written, requests=1)
        demux.end("stop")
        for event in demux.take():
            yield event


def demo(name: str, url: str, environ: Mapping[str, str], transport: Transport | None) -> DemoModel:
    """Returns the model `demo`."""
    return DemoModel()


class _Exchange(NamedTuple):
    """The part of a conversation that is not answered yet.

    `last` is the name of the tool that was called last before that part.
    """

    questions: list[str]
    results: list[Result]
    last: str


def respond(request: ModelRequest) -> list[tuple[str, str]] | str:
    """Returns calls, each a name and its JSON arguments, or else the text of an answer."""
    exchange = _open_exchange(request)
    wishes = list(
        chain.from_iterable(
            find_wishes(question, request.tools, exchange.last) for question in exchange.questions
        )
    )
    calls = _calls(request, exchange, [wish for wish in wishes if not wish.missing])
    if calls:
        return [(wish.tool.name, _json(announced(wish))) for wish in calls[:MAX_CALLS]]
    text = "\n".join(exchange.questions)
    missing = [wish for wish in wishes if wish.missing]
    said = reply(text, exchange.results, missing, _said_by_user(request.items), request.tools)
    return said if request.output is None else structured(request.output, exchange.results, said)


def _open_exchange(request: ModelRequest) -> _Exchange:
    items = request.items
    answers = [at for at, item in enumerate(items) if _is_said(item, "assistant")]
    asked = max((at for at, item in enumerate(items) if _is_said(item, "user")), default=0)
    start = answers[-1] + 1 if answers else 0
    if any(isinstance(item, FunctionCallOutput) for item in items[start:asked]):
        start = asked  # a new question came before those outputs were reported
    questions = _said_by_user(items[start:])
    results = _results(items[start:], request)
    if not questions and not results:
        questions = _said_by_user(items)[-1:]  # all is answered: answer the last one again
    earlier = [item.name for item in items[:start] if isinstance(item, FunctionCall)]
    return _Exchange(questions, results, earlier[-1] if earlier else "")


def _results(items: Sequence[Item], request: ModelRequest) -> list[Result]:
    """Returns the calls that have an output, without the announcements in their arguments."""
    tools = {tool.name: tool for tool in request.tools}
    calls = {item.call_id: item for item in items if isinstance(item, FunctionCall)}
    results: list[Result] = []
    for item in items:
        if isinstance(item, FunctionCallOutput) and (call := calls.get(item.call_id)):
            arguments = arguments_of(call)
            if call.name in tools:
                arguments.pop(speaking_parameter(tools[call.name]), None)
            results.append(Result(call.name, arguments, item.text, item.is_error))
    return results


def _calls(request: ModelRequest, exchange: _Exchange, wishes: list[Wish]) -> list[Wish]:
    """Returns the calls to make, without those that have an output already."""
    choice = request.settings.tool_choice
    if choice == "none":
        return []
    named = choice.name if isinstance(choice, NamedTool) else ""
    made = [(result.name, result.arguments) for result in exchange.results]
    calls: list[Wish] = []
    for wish in wishes:
        if (not named or wish.tool.name == named) and (wish.tool.name, wish.arguments) not in made:
            made.append((wish.tool.name, wish.arguments))
            calls.append(wish)
    if not calls and (named or choice == "required"):
        tools = [tool for tool in request.tools if named in {"", tool.name}]
        return [force(tool, "\n".join(exchange.questions)) for tool in tools[:1]]
    return calls


def _is_said(item: Item, role: str) -> bool:
    return isinstance(item, Message) and item.role == role and bool(item.text.strip())


def _said_by_user(items: Sequence[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Message) and _is_said(item, "user")]


def _size(item: Item) -> int:
    match item:
        case FunctionCall():
            return len(item.arguments)
        case Message() | FunctionCallOutput():
            return len(item.text)
        case _:
            return 0


def _json(arguments: Mapping[str, object]) -> str:
    return msgspec.json.encode(arguments).decode()
