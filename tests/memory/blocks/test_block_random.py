"""Random edits and undos of blocks, compared with a model that remembers every character."""

from collections.abc import Sequence
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.memory.blocks.block_story import Story

from treadle.domain.block_undo import taken_back
from treadle.domain.blocks import Block, CreateBlock, DeleteBlock, RewriteBlock
from treadle.domain.events import MemoryUpdated
from treadle.errors import BlockExists, ChangeNotUndoable, UnknownBlock

Move = tuple[str, int, int, int]

edits = st.tuples(st.just("edit"), st.integers(0, 4), st.integers(0, 2), st.integers(0, 2))
undos = st.tuples(st.just("undo"), st.integers(0, 4), st.just(0), st.just(0))
wholes = st.tuples(st.sampled_from(("delete", "create")), st.just(0), st.just(0), st.just(2))
moves = st.lists(st.one_of(edits, edits, undos, undos, undos, wholes), max_size=16)


class Characters:
    """The text of a block, by the additions and removals of each character."""

    def __init__(self) -> None:
        self.came: dict[str, int] = {}
        self.went: dict[str, set[int]] = {}
        self.order: set[tuple[str, str]] = set()

    def made(self, change: MemoryUpdated) -> None:
        if change.undoes:
            return
        self.came |= dict.fromkeys(change.added, change.seq)
        for one in change.removed:
            self.went.setdefault(one, set()).add(change.seq)

    def standing(self, undone: frozenset[int]) -> set[str]:
        return {
            one
            for one, seq in self.came.items()
            if seq not in undone and self.went.get(one, set()) <= undone
        }

    def read(self, text: str) -> None:
        """Characters that were once in the same text never change their order."""
        pairs = set(combinations(text, 2))
        assert not {(b, a) for a, b in pairs} & self.order
        self.order |= pairs


@settings(max_examples=300)
@given(moves)
def test_an_undo_takes_back_one_change_and_nothing_else(moves: Sequence[Move]) -> None:
    story, world, fresh = Story(), Characters(), iter(map(chr, range(0x4E00, 0x9000)))

    def new(length: int) -> str:
        return "".join(next(fresh) for _ in range(length))

    for what, where, length, added in [("create", 0, 0, 3), *moves]:
        before = story.memory
        try:
            made = play(story, what, where, length, new(added))
        except (ChangeNotUndoable, BlockExists, UnknownBlock):
            assert story.memory is before
            continue
        if made is not None:
            world.made(made)
        block = story.memory.get("human")
        text = "" if block is None else block.value
        assert set(text) == world.standing(taken_back(story.changes))
        world.read(text)


def play(story: Story, what: str, where: int, length: int, added: str) -> MemoryUpdated | None:
    block = story.memory.get("human")
    text = "" if block is None else block.value
    match what:
        case "edit":
            where = min(where, len(text))
            value = text[:where] + added + text[where + length :]
            return story.edit(RewriteBlock("human", value))
        case "undo":
            return story.undo(max(1, len(story.changes) - where))
        case "delete":
            return story.edit(DeleteBlock("human"))
        case _:
            return story.edit(CreateBlock(Block("human", added)))
