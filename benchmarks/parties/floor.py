"""The floor: aiohttp bytes and msgspec decoding of the same frames, nothing else.

What any client in Python pays that reads this wire: no retries, no time-outs, no state, no errors.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from msgspec import Struct

from benchmarks.party import MAX_ROUNDS, QUESTION, TOOL_SCHEMA, FirstDelta, note


class TextDelta(Struct, tag="response.output_text.delta"):
    delta: str
    output_index: int
    item_id: str = ""


class ArgumentsDelta(Struct, tag="response.function_call_arguments.delta"):
    delta: str
    output_index: int


class Item(Struct):
    type: str
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class ItemDone(Struct, tag="response.output_item.done"):
    item: Item


class Completed(Struct, tag="response.completed"):
    pass


class Created(Struct, tag="response.created"):
    pass


class InProgress(Struct, tag="response.in_progress"):
    pass


class ItemAdded(Struct, tag="response.output_item.added"):
    pass


class PartAdded(Struct, tag="response.content_part.added"):
    pass


class PartDone(Struct, tag="response.content_part.done"):
    pass


class TextDone(Struct, tag="response.output_text.done"):
    pass


class ArgumentsDone(Struct, tag="response.function_call_arguments.done"):
    pass


Event = (
    TextDelta
    | ArgumentsDelta
    | ItemDone
    | Completed
    | Created
    | InProgress
    | ItemAdded
    | PartAdded
    | PartDone
    | TextDone
    | ArgumentsDone
)
decode = msgspec.json.Decoder(Event).decode
encode = msgspec.json.Encoder().encode
HEADERS = {"Content-Type": "application/json"}


class Arguments(Struct):
    text: str


decode_arguments = msgspec.json.Decoder(Arguments).decode


class Floor:
    """Reads the wire with a bare aiohttp session."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = f"{url}/responses"

    async def read(self, model: str) -> list[str]:
        deltas: list[str] = []
        rest = b""
        async with self._session.post(self._url, data=_body(model), headers=HEADERS) as response:
            async for chunk in response.content.iter_any():
                *frames, rest = (rest + chunk).split(b"\n\n")
                for frame in frames:
                    event = decode(frame[frame.index(b"\ndata: ") + 7 :])
                    if type(event) is TextDelta:
                        deltas.append(event.delta)
        return deltas

    async def first_delta(self, model: str) -> FirstDelta:
        first: FirstDelta | None = None
        rest = b""
        async with self._session.post(self._url, data=_body(model), headers=HEADERS) as response:
            async for chunk in response.content.iter_any():
                *frames, rest = (rest + chunk).split(b"\n\n")
                for frame in frames:
                    event = decode(frame[frame.index(b"\ndata: ") + 7 :])
                    if type(event) is TextDelta and first is None:
                        first = FirstDelta(event.delta, time.monotonic_ns())
        assert first is not None
        return first

    async def converse(self, model: str) -> str:
        items: list[object] = [_question()]
        for _ in range(MAX_ROUNDS):
            text, calls = await self._exchange(model, items)
            if not calls:
                return text
            for call in calls:
                output = await note(decode_arguments(call.arguments).text)
                items += (_call(call), _output(call, output))
        raise RuntimeError("The conversation does not end.")

    async def _exchange(self, model: str, items: list[object]) -> tuple[str, list[Item]]:
        deltas: list[str] = []
        calls: list[Item] = []
        rest = b""
        body = _body(model, items, tools=True)
        async with self._session.post(self._url, data=body, headers=HEADERS) as response:
            async for chunk in response.content.iter_any():
                *frames, rest = (rest + chunk).split(b"\n\n")
                for frame in frames:
                    event = decode(frame[frame.index(b"\ndata: ") + 7 :])
                    if type(event) is TextDelta:
                        deltas.append(event.delta)
                    elif type(event) is ItemDone and event.item.type == "function_call":
                        calls.append(event.item)
        return "".join(deltas), calls


def _question() -> object:
    content = [{"type": "input_text", "text": QUESTION}]
    return {"type": "message", "role": "user", "content": content}


def _call(call: Item) -> object:
    return {
        "type": "function_call",
        "call_id": call.call_id,
        "name": call.name,
        "arguments": call.arguments,
    }


def _output(call: Item, output: str) -> object:
    return {"type": "function_call_output", "call_id": call.call_id, "output": output}


def _body(model: str, items: list[object] | None = None, *, tools: bool = False) -> bytes:
    body: dict[str, object] = {
        "model": model,
        "input": items or [_question()],
        "stream": True,
        "store": False,
    }
    if tools:
        body["tools"] = [TOOL_SCHEMA]
    return encode(body)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Floor]:
    """Opens a session without a limit of connections, cookies or a time-out."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        yield Floor(session, url)
