"""python -m chaos.fuzz [SECONDS] [--seed N]: mutated streams for decoders, parser and scanner.

The streams are those of the simulator, in all formats, with bytes changed, removed, doubled
and moved. Whatever comes: only errors of the tree are raised, the cut of the network changes
nothing, and no input takes long.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from treadle.domain.usage import Usage
from treadle.errors import ModelError, TreadleError
from treadle.models.wire.anthropic import AnthropicDecoder
from treadle.models.wire.base import Decoder
from treadle.models.wire.chat_decoder import ChatDecoder
from treadle.models.wire.converse_decoder import ConverseDecoder
from treadle.models.wire.gemini_decoder import GeminiDecoder
from treadle.models.wire.responses import ResponsesDecoder
from treadle.streaming.event_stream import with_checksums
from treadle.streaming.jsonfields import JsonFieldScanner
from treadle.streaming.sse import SseParser
from treadle.testing.simulator.envelope import Envelope
from treadle.testing.simulator.frames import Frame
from treadle.testing.simulator.turn import Call, Finish, Reasoning, Refusal, Text, Turn
from treadle.testing.simulator.wire.chat_wire import stream_chat
from treadle.testing.simulator.wire.converse_wire import stream_converse
from treadle.testing.simulator.wire.gemini_wire import stream_gemini
from treadle.testing.simulator.wire.messages_wire import stream_messages
from treadle.testing.simulator.wire.responses_wire import stream_responses

SLOW_SECONDS = 2.0
SHOWN = 10

Fuzz = Callable[[random.Random], "str | None"]
"""Tries one input; returns what is wrong, or None."""

_DECODERS: dict[str, tuple[Callable[..., Iterable[object]], Callable[[], Decoder]]] = {
    "chat": (stream_chat, lambda: ChatDecoder("chat")),
    "responses": (stream_responses, lambda: ResponsesDecoder("openai")),
    "messages": (stream_messages, lambda: AnthropicDecoder("anthropic")),
    "gemini": (stream_gemini, lambda: GeminiDecoder("gemini")),
    "converse": (stream_converse, lambda: ConverseDecoder("bedrock")),
}
_WORDS = ("", "Hello", "naïve ", "\U0001f600", '"quoted"', "\\", "line\nline", "x" * 300)
_TOKENS = (
    b"null", b"0", b"-1", b"1e9", b'""', b"[]", b"{}", b'"\\ud83d"', b"\n\n", b"\n", b"\r",
    b"data: ",
    b"event: error\n", b"[DONE]", b"\xff", b'{"error":{"message":"no"}}', b"[" * 200, b"{", b'"',
)  # fmt: skip


def main() -> int:
    """Tries inputs until the time is over; returns 1 if one found anything."""
    parser = argparse.ArgumentParser(prog="chaos.fuzz", description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.seconds:.0f} s", flush=True)
    tried, found = fuzz(options.seed, options.seconds)
    for name, count in tried.items():
        print(f"{name:12}{count:>9} inputs")
    print(f"{'found':12}{len(found):>9}")
    for text in found[:SHOWN]:
        print(f"  {text}")
    return 1 if found else 0


def fuzz(seed: int, seconds: float, most: int = 1 << 60) -> tuple[Counter[str], list[str]]:
    """Tries inputs for so long, or so many; returns their numbers, and what was found."""
    end, tried, found = time.monotonic() + seconds, Counter[str](), list[str]()
    kinds: dict[str, Fuzz] = {
        **{name: lambda chance, name=name: _decoder(name, chance) for name in _DECODERS},
        "parser": _parser,
        "scanner": _scanner,
    }
    number = 0
    while time.monotonic() < end and number < most:
        name = list(kinds)[number % len(kinds)]
        started = time.process_time()
        wrong = kinds[name](random.Random(f"{seed} {number}"))
        took = time.process_time() - started
        if wrong is None and took > SLOW_SECONDS:
            wrong = f"took {took:.1f} s"
        if wrong is not None:
            found.append(f"{name}, --seed {seed}, input {number}: {wrong}")
        tried[name] += 1
        number += 1
    return tried, found


def _decoder(name: str, chance: random.Random) -> "str | None":
    stream, make = _DECODERS[name]
    # Without right checksums, nothing behind them would be read.
    data = with_checksums(_mutated(_stream(stream, chance), chance))
    whole = _decoded(make(), [data])
    if whole[1].startswith("escaped"):
        return f"{whole[1]} from {data!r}"
    cut = _decoded(make(), _cut(data, chance))
    # Deltas may be cut elsewhere; their texts and everything else may not.
    if _joined(whole[0]) != _joined(cut[0]) or whole[1] != cut[1]:
        return f"{whole[1] or 'no error'} whole, {cut[1] or 'no error'} cut, of {data!r}"
    return None


def _decoded(decoder: Decoder, chunks: Sequence[bytes]) -> tuple[list[object], str]:
    events: list[object] = []
    try:
        for chunk in chunks:
            if decoder.finished:
                break
            events.extend(decoder.feed(chunk))
        if not decoder.finished:
            events.extend(decoder.end())
    except ModelError as error:
        return events, f"{type(error).__name__}: {error.message}"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return events, f"escaped {type(error).__name__}: {error}"
    return events, ""


def _joined(events: Sequence[object]) -> list[object]:
    """Returns events with the deltas of an item joined, and without ids that are made anew."""
    joined: list[object] = []
    for event in events:
        kind, text = type(event).__name__, getattr(event, "delta", None)
        last = joined[-1] if joined else None
        if isinstance(text, str) and isinstance(last, list) and last[0] == kind:
            last[1] += text
        elif isinstance(text, str):
            joined.append([kind, text])
        else:
            item = getattr(event, "item", None)
            content = getattr(item, "text", None) or getattr(item, "arguments", None)
            joined.append((kind, type(item).__name__, content, getattr(event, "usage", None)))
    return joined


def _stream(stream: Callable[..., Iterable[object]], chance: random.Random) -> bytes:
    def text() -> str:
        return "".join(chance.choice(_WORDS) for _ in range(chance.randint(0, 5))) or "."

    arguments = json.dumps({chance.choice("abc"): text(), "n": [1, {"x": None}]})
    outputs = [
        chance.choice(
            [
                Text(text(), deltas=chance.randint(0, 5)),
                Reasoning(text()),
                Refusal(text()),
                Call("look", chance.choice([arguments, "{}", '{"cut'])),
            ]
        )
        for _ in range(chance.randint(0, 4))
    ]
    ends: list[Finish] = ["stop", "stop", "length", "content_filter"]
    turn = Turn(tuple(outputs), finish=chance.choice(ends))
    envelope = Envelope("id", "model", 1, Usage(1, 2, requests=1), include_usage=True)
    pieces = stream(turn, envelope)
    return b"".join(piece.data for piece in pieces if isinstance(piece, Frame))


def _mutated(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        start = chance.randint(0, len(data))
        end = min(len(data), start + chance.choice([0, 1, 2, 8, 60]))
        other = chance.randint(0, len(data))
        new = chance.choice(
            [b"", chance.choice(_TOKENS), data[other : other + 40], bytes([chance.randint(0, 255)])]
        )
        data = data[:start] + new + data[end:]
    lines = data.split(b"\n\n")
    if chance.random() < 0.2:  # whole frames are moved, removed and doubled
        lines = [chance.choice(lines) if chance.random() < 0.1 else line for line in lines]
        data = b"\n\n".join(lines)
    return data[: chance.randint(0, len(data))] if chance.random() < 0.2 else data


def _cut(data: bytes, chance: random.Random) -> list[bytes]:
    most = chance.choice([1, 3, 17, 400])
    chunks: list[bytes] = []
    while data:
        size = chance.randint(1, most)
        chunks.append(data[:size])
        data = data[size:]
    return chunks


def _parser(chance: random.Random) -> "str | None":
    data = _mutated(_stream(stream_chat, chance), chance)
    if chance.random() < 0.3:
        data = data.replace(b"\n", chance.choice([b"\r\n", b"\r"]))
    results: list[list[tuple[bytes, bytes]]] = []
    for chunks in ([data], _cut(data, chance)):
        parser = SseParser()
        frames = [frame for chunk in chunks for frame in parser.feed(chunk)]
        results.append([*frames, *parser.flush()])
    return None if results[0] == results[1] else f"another result for a cut of {data!r}"


def _scanner(chance: random.Random) -> "str | None":
    value = {chance.choice("abc"): chance.choice(_WORDS) for _ in range(3)}
    text = json.dumps({**value, "n": [1, {"x": "}"}]}, ensure_ascii=chance.random() < 0.5)
    text = _mutated(text.encode(), chance).decode(errors="replace")
    results: list[object] = []
    for chunks in ([text], list(text), [text[:7], text[7:]]):
        scanner, grown = JsonFieldScanner(("a", "b")), dict[str, str]()
        error = ""
        try:
            for chunk in chunks:
                for field, delta, _ in scanner.feed(chunk):
                    grown[field] = grown.get(field, "") + delta
        except TreadleError as raised:
            error = raised.message
            grown.clear()  # of an object that is refused, growth may be lost
        results.append((grown, error, scanner.complete, scanner.invalid))
    return None if results[0] == results[1] == results[2] else f"{results} for {text!r}"


if __name__ == "__main__":
    sys.exit(main())
