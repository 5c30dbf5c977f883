"""Taking back changes of memory blocks, one by one and in any order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.memory.blocks.block_story import Story

from treadle.domain.block_edits import MAX_BLOCKS, seeds
from treadle.domain.block_undo import newest_standing, taken_back
from treadle.domain.blocks import (
    AppendText,
    Block,
    CreateBlock,
    DeleteBlock,
    InsertText,
    ReplaceText,
    RewriteBlock,
)
from treadle.errors import BlockReadOnly, BlockTooLong, ChangeNotUndoable, MemoryFailed

HUMAN = Block("human", "Likes tea\nHas a dog", "Who they are.", 60)
IN_THE_WAY = "change {} came on top of it; take that back first"


def refused(story: Story, seq: int, by: int) -> None:
    before = story.memory
    with pytest.raises(ChangeNotUndoable, match=IN_THE_WAY.format(by)):
        story.undo(seq)
    assert story.memory is before


def test_a_change_is_taken_back_from_between_others() -> None:
    story = Story(HUMAN)
    story.edit(ReplaceText("human", "tea", "coffee"))  # 2
    story.edit(AppendText("human", "Lives in Bonn"))  # 3
    story.edit(InsertText("human", "Ada", 0))  # 4
    event = story.undo(2, "model")
    assert (event.operation, event.author, event.undoes) == ("undo", "model", 2)
    assert (event.position, event.removed, event.added) == (10, "coffee", "tea")
    assert story.text() == "Ada\nLikes tea\nHas a dog\nLives in Bonn"
    story.undo(3)
    assert story.text() == "Ada\nLikes tea\nHas a dog"


def test_an_undo_can_be_taken_back_again_and_again() -> None:
    story = Story(HUMAN)
    story.edit(ReplaceText("human", "tea", "coffee"))
    story.undo(2)
    assert story.text() == HUMAN.value
    with pytest.raises(ChangeNotUndoable, match="taken back already"):
        story.undo(2)
    story.undo(3)
    assert story.text().startswith("Likes coffee")
    story.undo(2)
    assert story.text() == HUMAN.value


def test_what_a_later_change_stands_on_stays() -> None:
    story = Story(HUMAN)
    story.edit(ReplaceText("human", "tea", "green tea"))  # 2
    story.edit(ReplaceText("human", "green", "very green"))  # 3, before it
    story.edit(ReplaceText("human", "green", "gray"))  # 4, inside of it
    refused(story, 2, by=4)
    story.undo(4)
    story.undo(2)
    assert story.text().startswith("Likes very tea")


def test_what_was_written_into_a_change_keeps_it() -> None:
    story = Story(HUMAN)
    story.edit(ReplaceText("human", "tea", "tea and milk"))  # 2
    story.edit(ReplaceText("human", "and milk", "and much milk"))  # 3
    refused(story, 2, by=3)
    story.edit(AppendText("human", "x"))  # 4 does not matter
    refused(story, 2, by=3)


def test_a_text_that_was_removed_comes_back_to_its_place() -> None:
    story = Story(HUMAN)
    story.edit(ReplaceText("human", "\nHas a dog", ""))  # 2
    story.edit(AppendText("human", "Sings"))  # 3, where it was
    story.undo(2)
    assert story.text() == "Likes tea\nHas a dog\nSings"
    story = Story(Block("human", "abc"))
    story.edit(ReplaceText("human", "b", ""))
    story.edit(ReplaceText("human", "a", "x"))
    story.undo(2)
    assert story.text() == "xbc"
    story = Story(Block("human", "abc"))
    story.edit(ReplaceText("human", "b", ""))
    story.edit(RewriteBlock("human", "xyz"))
    refused(story, 2, by=3)


def test_texts_that_were_removed_beside_each_other_keep_their_order() -> None:
    story = Story(Block("human", "abcd"))
    story.edit(ReplaceText("human", "b", ""))  # 2
    story.edit(ReplaceText("human", "c", ""))  # 3
    story.undo(2)  # 4
    assert story.text() == "abd"
    refused(story, 3, by=4)
    story.undo(4)
    story.undo(3)
    story.undo(2)
    assert story.text() == "abcd"


def test_a_block_that_was_made_goes_and_one_that_was_deleted_returns() -> None:
    story = Story(HUMAN)
    story.edit(CreateBlock(Block("plan", "one", "Steps.", 40)))  # 2
    story.edit(AppendText("plan", "two"))  # 3
    refused(story, 2, by=3)
    story.edit(DeleteBlock("plan"))  # 4
    refused(story, 3, by=4)
    refused(story, 2, by=4)
    story.undo(4)  # 5
    assert story.memory.get("plan") == Block("plan", "one\ntwo", "Steps.", 40)
    story.undo(3)
    story.undo(2)
    assert story.memory.get("plan") is None
    assert story.memory.deleted == ("plan",)


def test_a_block_that_was_made_again_is_another() -> None:
    story = Story(HUMAN)
    story.edit(ReplaceText("human", "tea", ""))  # 2
    story.edit(DeleteBlock("human"))  # 3
    story.edit(CreateBlock(HUMAN))  # 4
    refused(story, 3, by=4)
    refused(story, 2, by=4)
    refused(story, 1, by=4)
    story.edit(DeleteBlock("human"))  # 5
    refused(story, 3, by=5)
    story.undo(5)
    story.undo(4)
    story.undo(3)
    story.undo(2)
    assert story.text() == HUMAN.value


def test_what_holds_for_a_block_is_taken_back_too() -> None:
    story = Story(HUMAN)
    for declared in (replace(HUMAN, limit=30), replace(HUMAN, limit=30, description="Who?")):
        (event,) = seeds(story.memory, [declared])
        story.record(event)
    story.edit(AppendText("human", "x"))
    refused(story, 2, by=3)
    refused(story, 1, by=4)
    story.undo(3)
    story.undo(2)
    assert story.memory.get("human") == replace(HUMAN, value=HUMAN.value + "\nx")


def test_an_undo_keeps_to_limits_and_permissions() -> None:
    story = Story(Block("human", "x" * 20, limit=20))
    story.edit(RewriteBlock("human", "x" * 10))  # 2
    story.edit(AppendText("human", "y" * 9))  # 3
    with pytest.raises(BlockTooLong):
        story.undo(2)
    (event,) = seeds(story.memory, [Block("human", limit=20, read_only=True)])
    story.record(event)
    with pytest.raises(BlockReadOnly):
        story.undo(3, "model")
    story.edit(DeleteBlock("human"))
    with pytest.raises(BlockReadOnly):
        story.undo(5, "model")
    for number in range(MAX_BLOCKS):
        story.edit(CreateBlock(Block(f"b{number}")))
    with pytest.raises(MemoryFailed, match="at most 64"):
        story.undo(5)


def test_the_change_to_undo_next_is_the_newest_that_stands() -> None:
    story = Story(HUMAN)
    assert newest_standing(()) is None

    def standing() -> int:
        newest = newest_standing(story.changes)
        return 0 if newest is None else newest.seq

    for text in ("one", "two", "three"):
        story.edit(AppendText("human", text))  # 2, 3, 4
    assert standing() == 4
    story.undo(3)  # 5, from between
    assert (standing(), story.memory.undo["human"]) == (4, 4)
    story.undo(4)  # 6
    assert (standing(), story.memory.undo["human"]) == (2, 3)
    story.undo(6)  # 7 makes it again
    assert (standing(), story.memory.undo["human"]) == (4, 4)
    story.undo(4)
    story.undo(2)
    # What is undone next is found from there along `before`, past what was taken back already.
    assert (standing(), story.memory.undo["human"]) == (1, 3)
    assert taken_back(story.changes) == {2, 3, 4, 7}
    story.undo(1)
    assert standing() == 0


lines = st.integers(0, 5)
words = st.text(alphabet="xyz ", max_size=6)
line_edits = st.lists(st.tuples(lines, words), max_size=8)


@given(lines, words, line_edits, st.integers(0, 8), words)
def test_an_undo_is_as_if_the_change_had_never_been(
    line: int, text: str, later: list[tuple[int, str]], undone: int, more: str
) -> None:
    """Later changes are in other lines, at both ends, and some of them are undone."""
    initial = Block("human", "\n".join(f"{number}: abc" for number in range(6)))
    with_it, without = Story(initial), Story(initial)
    written = f"{line}: {text}"
    with_it.edit(ReplaceText("human", f"{line}: abc", written))
    if len(with_it.changes) == 1:
        return  # it changes nothing
    for story in (with_it, without):
        made: list[int] = []
        for other, word in later:
            if other != line:
                old = next(one for one in story.text().split("\n") if one.startswith(f"{other}:"))
                event = story.edit(ReplaceText("human", old, f"{other}: {word}"))
                made += [event.seq] if event is not None else []
        story.edit(AppendText("human", f"end {more}"))
        story.edit(InsertText("human", f"begin {more}", 0))
        for seq in made[: -undone - 1 : -1]:
            story.undo(seq)
    with_it.undo(2)
    assert with_it.text() == without.text()
