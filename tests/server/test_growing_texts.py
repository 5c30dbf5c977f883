"""Texts of a run that grow at the same time, in protocols that show one after another."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.domain.envelope import Envelope
from treadle.domain.events import MessageAdded, TextDelta
from treadle.domain.items import Message
from treadle.server.assistants.run_fold import RunFold
from treadle.server.chat_completions.completion_text import BLANK_LINE, CompletionText

TEXTS = st.lists(st.text("ab ", max_size=6), min_size=1, max_size=4)


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[str], list[tuple[int, str | None]]]:
    """Returns texts, and in which order they grow and are finished (None)."""
    texts = draw(TEXTS)
    moves: list[tuple[int, str | None]] = []
    left = dict(enumerate(texts))
    while left:
        number = draw(st.sampled_from(sorted(left)))
        rest = left[number]
        size = draw(st.integers(0, len(rest)))
        if size:
            moves.append((number, rest[:size]))
            left[number] = rest[size:]
        else:  # with a rest that no delta has told
            moves.append((number, None))
            del left[number]
    return texts, moves


@settings(max_examples=60, deadline=None)
@given(stories())
def test_a_completion_shows_each_to_its_end(
    story: tuple[list[str], list[tuple[int, str | None]]],
) -> None:
    texts, moves = story
    shown, sent = CompletionText(), ""
    for number, growth in moves:
        if growth is None:
            sent += shown.finish(str(number), texts[number])
        else:
            sent += shown.grow(str(number), growth)
    assert sent == shown.text
    assert sorted(sent.split(BLANK_LINE)) == sorted(filter(None, texts)) or not any(texts)
    assert not shown.take_back()


@settings(max_examples=60, deadline=None)
@given(stories())
def test_a_run_shows_each_to_its_end(story: tuple[list[str], list[tuple[int, str | None]]]) -> None:
    texts, moves = story
    fold, frames = RunFold("run_1", "thread_1", "a", is_streamed=True), b""
    for number, growth in moves:
        if growth is None:
            item = Message("assistant", texts[number], f"msg_{number}")
            event: Any = MessageAdded(run_id="run_1", item=item, origin="model")
        else:
            event = TextDelta(f"msg_{number}", growth)
        frames += fold.frame(Envelope(event, number))
    streamed: dict[str, str] = {}
    current = ""
    for block in frames.decode().split("\n\n")[:-1]:
        kind, data = block.removeprefix("event: ").split("\ndata: ")
        value = json.loads(data)
        if kind == "thread.message.created":
            assert not current
            current = value["id"]
            streamed[current] = ""
        elif kind == "thread.message.delta":
            assert value["id"] == current
            streamed[current] += value["delta"]["content"][0]["text"]["value"]
        elif kind == "thread.message.completed":
            assert value["content"][0]["text"]["value"] == streamed[value["id"]]
            current = ""
    assert streamed == {f"msg_{number}": text for number, text in enumerate(texts)}
    assert {step["status"] for step in fold.steps} == {"completed"}
