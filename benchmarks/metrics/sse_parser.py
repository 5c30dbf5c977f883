"""µs per SSE frame of treadle's parser: one frame a chunk, and chunks of 64 KB."""

import time

from benchmarks.answers import answer
from benchmarks.bench import Bench
from benchmarks.plan import Plan
from benchmarks.row import Row
from treadle.streaming.sse import SseParser

DELTAS = 5_000
TIMES = 5
LARGE = 64 * 1024


def rows(bench: Bench) -> list[Row]:
    """Measures both, with real frames, in this process; splitting the bytes is the floor."""
    body = b"".join(part for write in answer(Plan(deltas=DELTAS).model, 0) for part in write.parts)
    frames = [frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]]
    chunks = [body[at : at + LARGE] for at in range(0, len(body), LARGE)]
    count = len(frames)
    return [_row("one", frames, count), _row("64KB", chunks, count)]


def _row(name: str, chunks: list[bytes], frames: int) -> Row:
    figures = {"treadle": _parse(chunks, frames), "floor": _split(chunks, frames)}
    return Row(f"sse_parser.{name}", "µs/frame", figures)


def _parse(chunks: list[bytes], frames: int) -> float:
    start = time.process_time()
    for _ in range(TIMES):
        parser = SseParser()
        seen = sum(len(parser.feed(chunk)) for chunk in chunks)
        if seen != frames:
            raise RuntimeError(f"{seen} frames of {frames}")
    return (time.process_time() - start) / (TIMES * frames) * 1e6


def _split(chunks: list[bytes], frames: int) -> float:
    start = time.process_time()
    for _ in range(TIMES):
        rest = b""
        for chunk in chunks:
            *whole, rest = (rest + chunk).split(b"\n\n")
            for frame in whole:
                frame[frame.index(b"\ndata: ") + 7 :]
    return (time.process_time() - start) / (TIMES * frames) * 1e6
