"""How often a question finds the sentence that answers it, among the first five.

500 facts, told over 200 threads (`benchmarks.facts`), and a question for each, in the words of
somebody else. Full text, vectors of the `HashingEmbedder`, which knows no meaning, and both
combined. There is no target: it says what to expect without a trained embedder.
"""

import asyncio
from collections.abc import Callable, Iterator

import treadle
from benchmarks.bench import Bench
from benchmarks.facts import Fact, conversations, facts
from benchmarks.row import Row
from treadle.domain.passages import By
from treadle.memory import HashingEmbedder
from treadle.models.base import ModelRequest
from treadle.testing import ScriptedModel

FIRST = 5
OWNER = "bench"
WAYS: tuple[By, ...] = ("text", "vector", "both")


def rows(bench: Bench) -> list[Row]:
    """Measures in this process, on a journal in memory."""
    shares = asyncio.run(_measure())
    return [
        Row(f"archive_recall.{by}", f"% in first {FIRST}", {"treadle": shares[by]}) for by in WAYS
    ]


async def _measure() -> dict[By, float]:
    told = conversations()
    answers = iter([answer for thread in told for _, answer in thread])
    agent = treadle.Agent(ScriptedModel([_next_of(answers)] * sum(map(len, told))), name="listener")
    async with treadle.open(agents=[agent], embedder=HashingEmbedder()) as runtime:
        for said in told:
            thread = await runtime.create_thread(agent, owner=OWNER)
            for text, _ in said:
                run = await thread.send(text)
                await run.result()
        await runtime.archive(owner=OWNER).follow()
        return {by: await _share(runtime, facts(), by) for by in WAYS}


def _next_of(answers: Iterator[str]) -> Callable[[ModelRequest], str]:
    def answer(_: ModelRequest) -> str:
        return next(answers)

    return answer


async def _share(runtime: treadle.Runtime, asked: list[Fact], by: By) -> float:
    hits = 0
    for fact in asked:
        found = await runtime.search(fact.question, owner=OWNER, by=by, limit=FIRST)
        hits += any(one.text == fact.telling for one in found)
    return 100 * hits / len(asked)
