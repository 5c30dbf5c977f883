"""The fold of changes of memory blocks."""

import pytest
from msgspec.structs import replace
from tests.domain.fold import fold

from treadle.domain.block_memory import REMEMBERED, BlockMemory
from treadle.domain.blocks import Block, BlockRules
from treadle.domain.events import MemoryUpdated
from treadle.errors import InvalidTransition

MADE = MemoryUpdated(
    label="human",
    operation="create",
    author="agent",
    added="Ada",
    becomes=BlockRules("Who they are.", 50),
)
GROWN = MemoryUpdated(
    label="human",
    operation="append",
    author="model",
    position=3,
    added=" L.",
    before=1,
    key="call_1",
)
GONE = MemoryUpdated(
    label="human",
    operation="delete",
    author="user",
    removed="Ada",
    was=BlockRules("Who they are.", 50),
    before=1,
)


def memory_of(*events: MemoryUpdated) -> BlockMemory:
    return fold(events).memory


def test_a_block_is_made_edited_and_configured() -> None:
    rules = BlockRules("Who?", 60, read_only=True)
    configured = MemoryUpdated(
        label="human",
        operation="configure",
        author="agent",
        was=BlockRules("Who they are.", 50),
        becomes=rules,
        before=2,
    )
    memory = memory_of(MADE, GROWN, configured)
    assert memory.get("human") == Block("human", "Ada L.", "Who?", 60, read_only=True)
    assert memory.undo == {"human": 3}
    assert memory.keys == ("call_1",)
    assert memory.get("missing") is None


def test_a_deleted_block_is_remembered_as_such_until_it_is_made_again() -> None:
    memory = memory_of(MADE, GONE)
    assert memory.blocks == ()
    assert memory.deleted == ("human",)
    again = memory_of(MADE, GONE, replace(MADE, before=2))
    assert again.deleted == ()
    assert again.undo == {"human": 3}


def test_an_undo_gives_the_turn_to_the_change_before() -> None:
    undo = MemoryUpdated(
        label="human",
        operation="undo",
        author="user",
        position=3,
        removed=" L.",
        undoes=2,
        before=1,
    )
    memory = memory_of(MADE, GROWN, undo)
    assert memory.get("human") == Block("human", "Ada", "Who they are.", 50)
    assert memory.undo == {"human": 1}


def test_blocks_keep_the_order_in_which_they_were_made() -> None:
    other = replace(MADE, label="style")
    memory = memory_of(MADE, other, GROWN)
    assert [block.label for block in memory.blocks] == ["human", "style"]


def test_a_change_elsewhere_changes_nothing_here() -> None:
    assert memory_of(MADE, replace(GROWN, memory="thread_2")) == memory_of(MADE)


@pytest.mark.parametrize(
    "event",
    [
        MADE,
        replace(MADE, before=1),
        replace(GROWN, label="missing", before=0),
        replace(GROWN, before=0),
        replace(GROWN, position=9),
        replace(GROWN, position=0, removed="Bob"),
        replace(GONE, removed="Bob"),
    ],
)
def test_what_cannot_follow_is_refused(event: MemoryUpdated) -> None:
    with pytest.raises(InvalidTransition):
        memory_of(MADE, event)


def test_what_is_remembered_of_changes_is_bounded() -> None:
    events: list[MemoryUpdated] = []
    for n in range(3 * REMEMBERED):
        made = replace(MADE, label=f"b{n}", key=f"k{n}")
        events += [made, replace(GONE, label=f"b{n}", before=2 * n + 1)]
    memory = memory_of(*events)
    assert len(memory.keys) == len(memory.deleted) == REMEMBERED
    assert len(memory.undo) == 2 * REMEMBERED
    assert memory.keys[-1] == f"k{3 * REMEMBERED - 1}"


def test_the_time_of_a_change_is_not_its_place() -> None:
    memory = memory_of(MADE, replace(GROWN, at=1_700_000_000.5))
    assert memory.get("human") == Block("human", "Ada L.", "Who they are.", 50)
