"""Memory blocks: µs to compile them into the instructions, and to change them.

Ten blocks of 2,000 characters, some of which stand between angle brackets. *unchanged*: they are
those of the step before; *one_changed*: one of them is new; *all_changed*: each is. *edit* replaces
a word and folds the change into the memory; *undo* takes back the first of a thousand changes of a
block. Figures are the median of several repeats.
"""

import time
from collections.abc import Callable
from itertools import count
from statistics import median

from msgspec.structs import replace

from benchmarks.bench import Bench
from benchmarks.row import Row, Target
from treadle.domain.block_edits import change, seeds
from treadle.domain.block_memory import BlockMemory
from treadle.domain.block_undo import undo
from treadle.domain.blocks import Block, BlockEdit, ReplaceText
from treadle.domain.events import MemoryUpdated
from treadle.memory.blocks.prompt import compile_blocks
from treadle.testing.simulator.prose import prose

BLOCKS = 10
LENGTH = 2_000
CHANGES = 1_000
REPEATS = 5
LIMIT_US = 20.0


def rows(bench: Bench) -> list[Row]:
    """Measures in this process."""
    value = f"<notes>{prose(LENGTH)}"[: LENGTH - 8] + "</notes>"
    blocks = [Block(f"block_{number}", value, "What is known.") for number in range(BLOCKS)]
    fresh = count()

    def changed(number: int) -> list[Block]:
        new = replace(blocks[number], value=f"{next(fresh)}{value}")
        return [*blocks[:number], new, *blocks[number + 1 :]]

    def all_changed() -> list[Block]:
        return [replace(block, value=f"{next(fresh)}{value}") for block in blocks]

    unchanged = _median(lambda: blocks, 2_000)
    return [
        Row(
            "memory_blocks.unchanged",
            "µs",
            {"treadle": unchanged},
            f"{len(compile_blocks(blocks)):,} characters",
            (Target(f"<= {LIMIT_US:g} µs", unchanged, LIMIT_US),),
        ),
        Row("memory_blocks.one_changed", "µs", {"treadle": _median(lambda: changed(5), 500)}),
        Row("memory_blocks.all_changed", "µs", {"treadle": _median(all_changed, 500)}),
        *_changes(value),
    ]


def _median(blocks: Callable[[], list[Block]], times: int) -> float:
    return median(_compiled(blocks, times) for _ in range(REPEATS))


def _compiled(blocks: Callable[[], list[Block]], times: int) -> float:
    """What it costs to compile blocks; what it costs to make them is left out."""
    given = [blocks() for _ in range(times)]
    start = time.process_time()
    for one in given:
        compile_blocks(one)
    return (time.process_time() - start) / times * 1e6


def _changes(value: str) -> list[Row]:
    memory = BlockMemory()
    for made in seeds(memory, [Block("human", f"{value}\ncount: 0\nage: 0")]):
        memory = memory.changed(replace(made, seq=1))
    first = change(memory, ReplaceText("human", "age: 0", "age: 1"), "user")
    assert first is not None
    first = replace(first, seq=2)
    memory = memory.changed(first)
    later: list[MemoryUpdated] = []
    start = time.process_time()
    for number in range(CHANGES):
        edit: BlockEdit = ReplaceText("human", f"count: {number}\n", f"count: {number + 1}\n")
        made = change(memory, edit, "model", key=f"call_{number}")
        assert made is not None
        made = replace(made, seq=3 + number)
        memory = memory.changed(made)
        later.append(made)
    edits = (time.process_time() - start) / CHANGES * 1e6
    undone: list[float] = []
    for _ in range(REPEATS):
        start = time.process_time()
        event = undo(memory, first, later, "user")
        undone.append((time.process_time() - start) * 1e6)
        if (event.removed, event.added) != ("1", "0"):
            raise RuntimeError("the undo took something else back")
    return [
        Row("memory_blocks.edit", "µs", {"treadle": edits}),
        Row("memory_blocks.undo", "µs", {"treadle": median(undone)}, f"of {CHANGES:,} changes"),
    ]
