"""A party: a way to talk to the provider that is measured. Each is one module in `parties`."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class FirstDelta:
    """The first text delta of a response, and the monotonic ns at which the consumer had it."""

    text: str
    at: int


class Party(Protocol):
    """What each party can be asked to do; `model` is the name of a plan.

    Each method streams, and returns when the response has ended.
    """

    async def read(self, model: str) -> list[str]:
        """Returns the text deltas of one response, as they came."""
        ...

    async def first_delta(self, model: str) -> FirstDelta:
        """Reads one response to its end; returns its first text delta."""
        ...

    async def converse(self, model: str) -> str:
        """Runs a conversation with the tool `note` to its end; returns the final text."""
        ...


class Connect(Protocol):
    """The function `connect` of a party's module."""

    def __call__(self, url: str) -> AbstractAsyncContextManager[Party]: ...


QUESTION = "What is to be noted?"
MAX_ROUNDS = 64


async def note(text: str) -> str:
    """Notes a text.

    Args:
        text: What to note.
    """
    return f"noted {len(text)}"


TOOL_SCHEMA = {
    "type": "function",
    "name": "note",
    "description": "Notes a text.",
    "parameters": {
        "type": "object",
        "properties": {"text": {"type": "string", "description": "What to note."}},
        "required": ["text"],
        "additionalProperties": False,
    },
    "strict": True,
}
