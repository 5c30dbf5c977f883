"""A turn: the response of the simulated model to one request, and its pace."""

import asyncio
from collections.abc import Collection
from typing import Literal

import msgspec
from msgspec import Struct

from treadle.domain.items import Annotation, HostedCall
from treadle.domain.usage import Usage
from treadle.testing.simulator.faults import Fault

Finish = Literal["stop", "length", "content_filter"]
MAX_PIECES = 100_000


class Reasoning(Struct, frozen=True):
    """Thought before the answer, in `deltas` pieces; 0 means one piece per word."""

    text: str
    deltas: int = 0


class Text(Struct, frozen=True):
    """A message of the assistant, in `deltas` pieces; 0 means one piece per word.

    `citations` are its sources.
    """

    text: str
    deltas: int = 0
    citations: tuple[Annotation, ...] = ()


class Refusal(Struct, frozen=True):
    """A message that declines to answer, in `deltas` pieces; 0 means one piece per word."""

    text: str
    deltas: int = 0


class Call(Struct, frozen=True):
    """A function call; `arguments` is the JSON text as the model writes it, valid or not.

    Without a `call_id` the simulator makes a unique one. `deltas` 0 means pieces of 8 characters.
    """

    name: str
    arguments: str = "{}"
    call_id: str | None = None
    deltas: int = 0


class Hosted(Struct, frozen=True):
    """A call of a hosted tool with its result, which the provider makes itself.

    With `needs_approval` it is the request for the approval of a call of an MCP server instead.
    """

    call: HostedCall
    needs_approval: bool = False


class Pause(Struct, frozen=True):
    """Silence between two outputs, in seconds."""

    seconds: float


class Hold(Struct, frozen=True):
    """Silence until the test sets the event, which must belong to the simulator's own loop."""

    event: asyncio.Event


Spoken = Reasoning | Text | Refusal | Call | Hosted
Output = Spoken | Pause | Hold


class Turn(Struct, frozen=True):
    """One answer of the simulated model.

    `finish` "length" and "content_filter" mark the last output as unfinished. `usage` None means
    an estimate: four bytes per input token, one delta per output token. `first` seconds pass before
    the first byte of the answer, headers included; `every` seconds between two writes of `batch`
    deltas. A `batch` of 0 means one delta per write if `every` is set, else as many as fit.
    """

    outputs: tuple[Output, ...]
    finish: Finish = "stop"
    usage: Usage | None = None
    first: float = 0.0
    every: float = 0.0
    batch: int = 0
    faults: tuple[Fault, ...] = ()


def spoken(turn: Turn) -> list[Spoken]:
    """Returns the outputs that reach the wire, without the silences between them."""
    return [output for output in turn.outputs if not isinstance(output, Pause | Hold)]


def pieces(text: str, deltas: int) -> list[str]:
    """Splits `text` in `deltas` pieces of equal length, or at its words if `deltas` is 0.

    There are never more pieces than characters, nor than `MAX_PIECES`.
    """
    if deltas == 0:
        return _words(text)
    size = max(1, -(-len(text) // min(deltas, MAX_PIECES)))
    return [text[at : at + size] for at in range(0, len(text), size)]


def argument_pieces(call: Call) -> list[str]:
    """Splits the arguments of `call` into its number of deltas."""
    return pieces(call.arguments, call.deltas or max(1, len(call.arguments) // 8))


def _words(text: str) -> list[str]:
    words = text.split(" ")
    if len(words) > MAX_PIECES:
        return pieces(text, MAX_PIECES)
    return [word for word in (words[0], *(f" {word}" for word in words[1:])) if word]


def addressed(turn: Turn, response: str) -> Turn:
    """Gives each call without an id one made of `response`, and applies the faults of calls."""
    names = {fault.name for fault in turn.faults}
    outputs: list[Output] = []
    for output in turn.outputs:
        if isinstance(output, Call):
            number = 0 if "dup-ids" in names else len(outputs)
            output = _address(output, f"call_{response}_{number}", names)
        outputs.append(output)
    return msgspec.structs.replace(turn, outputs=tuple(outputs))


def _address(call: Call, call_id: str, faults: Collection[str]) -> Call:
    arguments = call.arguments
    if "empty-args" in faults:
        arguments = ""
    elif "bad-args" in faults:
        arguments = arguments[:-1] + ",]"
    deltas = 1 if "whole-args" in faults else call.deltas
    keep = call.call_id is not None and "dup-ids" not in faults
    return Call(call.name, arguments, call.call_id if keep else call_id, deltas)
