"""What of a request the provider has cached, in per cent of its bytes.

A conversation of 40 turns, 20 tools, instructions of 4,000 characters and five memory blocks of
2,000. *next_turn*: the request after another turn. *memory_edit*: the request after a block has
changed, as well; *frame* is the share of tools and instructions that stay. The cache of Messages
keeps what stands before a mark of the request before; that of Responses any equal beginning.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

from benchmarks.bench import Bench
from benchmarks.row import Row, Target
from treadle.domain.blocks import Block
from treadle.domain.items import Item, Message, OutputText, user_message
from treadle.domain.schema import ToolSchema
from treadle.memory.blocks.prompt import compile_blocks
from treadle.models.base import ModelRequest
from treadle.models.wire.anthropic_request import AnthropicOptions
from treadle.models.wire.anthropic_request import encode_request as encode_messages
from treadle.models.wire.responses_request import encode_request as encode_responses
from treadle.testing.simulator.prose import prose

TURNS = 40
TOOLS = tuple(
    ToolSchema(
        f"tool_{n}",
        prose(200),
        {"type": "object", "properties": {"place": {"type": "string", "description": prose(80)}}},
        strict=False,
    )
    for n in range(20)
)
INSTRUCTIONS = prose(4_000)
LEAST = 99.0

Part = tuple[str, bool]
"""A part of a request in the order of the cache, and whether it is marked."""


def _request(history: Sequence[Item], notes: str) -> ModelRequest:
    blocks = [Block(f"block_{n}", prose(2_000), limit=5_000) for n in range(4)]
    compiled = compile_blocks([*blocks, Block("notes", notes, limit=5_000)])
    return ModelRequest(
        items=history,
        instructions=f"{INSTRUCTIONS}\n\n{compiled}",
        tools=TOOLS,
        stable_chars=len(INSTRUCTIONS),
    )


def _history(turns: int) -> list[Item]:
    items: list[Item] = []
    for n in range(turns):
        items += [
            user_message(f"{n}: {prose(100)}"),
            Message("assistant", (OutputText(prose(400)),)),
        ]
    return [*items, user_message(f"{turns}: {prose(100)}")]


def _messages(request: ModelRequest) -> Iterator[Part]:
    body = json.loads(encode_messages("claude-sonnet-5", request, AnthropicOptions()).body)
    turns = [block for turn in body["messages"] for block in turn["content"]]
    for part in [*body["tools"], *body["system"], *turns]:
        is_marked = part.pop("cache_control", None) is not None
        yield json.dumps(part), is_marked


def _responses(request: ModelRequest) -> Iterator[Part]:
    body = json.loads(encode_responses("gpt-5", request).body)
    for part in body["tools"]:
        yield json.dumps(part), True
    # Any equal beginning is cached, in steps of 128 tokens.
    text = body["instructions"]
    for at in range(0, len(text), 512):
        yield text[at : at + 512], True
    for part in body["input"]:
        yield json.dumps(part), True


def _cached(before: Sequence[Part], after: Sequence[Part]) -> int:
    """Returns how many characters of `after` are in the cache that `before` has written."""
    pairs = list(takewhile(lambda pair: pair[0][0] == pair[1][0], zip(before, after, strict=False)))
    while pairs and not pairs[-1][0][1]:
        pairs.pop()
    return sum(len(one) for (one, _), _ in pairs)


def _shares(parts: Callable[[ModelRequest], Iterator[Part]]) -> tuple[float, float, float]:
    history = _history(TURNS)
    before = list(parts(_request(history[:-2], prose(2_000))))
    turn = list(parts(_request(history, prose(2_000))))
    edit = list(parts(_request(history, "Ann moved to Oslo. " + prose(2_000))))
    frame = sum(len(part) for part, _ in turn[: len(TOOLS)]) + len(INSTRUCTIONS)
    size = sum(len(part) for part, _ in turn)
    kept = _cached(before, edit)
    return 100 * _cached(before, turn) / size, 100 * kept / size, min(100.0, 100 * kept / frame)


def rows(bench: Bench) -> list[Row]:
    """Returns the shares, none of which depends on the machine."""
    messages, responses = _shares(_messages), _shares(_responses)
    found: list[Row] = []
    for place, name in enumerate(("next_turn", "memory_edit", "frame")):
        figures = {"messages": messages[place], "responses": responses[place]}
        worst = min(figures.values())
        limits = {"next_turn": 90.0, "frame": LEAST}
        targets = (
            (Target(f">= {limits[name]:.0f} %", -worst, -limits[name]),) if name in limits else ()
        )
        found.append(Row(f"prompt_cache.{name}", "% cached", figures, "", targets))
    return found
