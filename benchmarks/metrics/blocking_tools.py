"""Wall time of a run whose first response calls 8 tools that block for 0.2 s each.

The tools are plain functions; the provider is the simulator, which fills the arguments.
"""

import time

from benchmarks.bench import Bench
from benchmarks.party import QUESTION, Party
from benchmarks.provider import provider
from benchmarks.row import Row, Target
from benchmarks.work import Figures, Options
from treadle import Agent
from treadle.models.openai import OpenAIResponses

REPEATS = 5
LIMIT = 0.3
CALLS = 8
BLOCKED = 0.2


def wait(text: str) -> str:
    """Blocks its thread."""
    time.sleep(BLOCKED)
    return text


async def work(party: Party, options: Options) -> Figures:
    """Returns seconds from the call of `agent.run` to its result, of a first run and a later."""
    url = f"http://127.0.0.1:{options['port']}/v1"
    model = OpenAIResponses(f"sim:calls={CALLS}", api_key="", base_url=url)
    agent = Agent(model, tools=[wait])
    figures: Figures = {}
    for name in ("first", "later"):
        start = time.perf_counter()
        result = await agent.run(QUESTION)
        figures[name] = time.perf_counter() - start
        if result.status != "completed":
            raise RuntimeError(f"The run ended {result.status}.")
    return figures


def rows(bench: Bench) -> list[Row]:
    """Measures treadle; the first run starts the threads and counts."""
    with provider("treadle.testing.simulator") as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        taken = bench.interleave("blocking_tools", ("treadle",), REPEATS, peers=False, port=port)
    seconds = taken["treadle"]["first"]
    target = Target("<= 0.3 s", seconds, LIMIT)
    return [Row("blocking_tools", "s", {"treadle": seconds}, "", (target,))]
