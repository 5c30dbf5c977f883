"""Random histories, as conversations make them, for the tests of compaction."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    Reasoning,
    message,
)

TEXTS = st.text("abc déf 漢字\n", min_size=1, max_size=200).map(lambda text: f"x{text}")


@st.composite
def turns(draw: st.DrawFn) -> list[Any]:
    """One turn: a question, steps with parallel calls, and an answer."""
    asked = [message("user", draw(TEXTS)) for _ in range(draw(st.integers(1, 2)))]
    if draw(st.booleans()) and draw(st.booleans()):
        asked.insert(draw(st.integers(0, 1)), message("system", draw(TEXTS)))
    steps: list[Item] = []
    for _ in range(draw(st.integers(0, 4))):
        calls = [
            FunctionCall(f"call_{draw(st.uuids())}", "look", '{"at": "here"}')
            for _ in range(draw(st.integers(1, 3)))
        ]
        if draw(st.booleans()):
            steps.append(Reasoning(id="r", encrypted_content=draw(TEXTS), provider="p"))
        if draw(st.booleans()):
            steps.append(Message("assistant", (OutputText(draw(TEXTS)),)))
        steps += calls
        steps += [FunctionCallOutput(call.call_id, draw(TEXTS)) for call in calls]
        if draw(st.integers(0, 9)) == 0:
            steps.append(message("system", draw(TEXTS)))
    return [*asked, *steps, Message("assistant", (OutputText(draw(TEXTS)),))]


HISTORIES = st.lists(turns(), min_size=1, max_size=8).map(lambda some: [i for t in some for i in t])


def conversation(rounds: int, calls: int = 1, size: int = 100) -> list[Item]:
    """A conversation of `rounds` turns, each with a question, calls and an answer."""
    items: list[Item] = []
    for n in range(rounds):
        items.append(message("user", f"question {n} " + "q" * size))
        ids = [f"call_{n}_{m}" for m in range(calls)]
        items += [FunctionCall(id, "look", "{}") for id in ids]
        items += [FunctionCallOutput(id, "o" * size) for id in ids]
        items.append(Message("assistant", (OutputText(f"answer {n}"),)))
    return items


def texts(items: Sequence[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Message)]
