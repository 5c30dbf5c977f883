"""Edits of memory blocks: the change that comes of each, and what is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.memory.blocks.block_story import Story

from treadle.domain.block_edits import (
    MAX_BLOCKS,
    MAX_DESCRIPTION,
    MAX_LIMIT,
    change,
    require_as_read,
    require_blocks,
    require_memory_name,
    seeds,
    smallest_splice,
)
from treadle.domain.block_memory import BlockMemory
from treadle.domain.blocks import (
    AppendText,
    Block,
    BlockEdit,
    BlockRules,
    CreateBlock,
    DeleteBlock,
    InsertText,
    ReplaceText,
    RewriteBlock,
)
from treadle.domain.events import MemoryUpdated, RecordedEvent
from treadle.errors import (
    BlockChanged,
    BlockExists,
    BlockReadOnly,
    BlockTooLong,
    ConfigurationError,
    InvalidInput,
    MemoryFailed,
    TextNotFound,
    TextNotUnique,
    TreadleError,
    UnknownBlock,
)

TEXT = "Name: Ada\nLikes  tea\nHas a dog"
HUMAN = Block("human", TEXT, "Who they are.", 100)


def after(edit: BlockEdit, text: str = TEXT) -> str:
    story = Story(msgspec.structs.replace(HUMAN, value=text))
    story.edit(edit)
    return story.text()


@pytest.mark.parametrize(
    ("text", "more", "becomes"),
    [
        ("", "one", "one"),
        ("one", "two", "one\ntwo"),
        ("one\n", "two", "one\ntwo"),
        ("one", "two\nthree\n", "one\ntwo\nthree\n"),
        ("one", "", "one"),
    ],
)
def test_what_is_appended_begins_a_line(text: str, more: str, becomes: str) -> None:
    assert after(AppendText("human", more), text) == becomes


@pytest.mark.parametrize(
    ("text", "line", "becomes"),
    [
        ("", 0, "x"),
        ("", -1, "x"),
        ("a\nb", 0, "x\na\nb"),
        ("a\nb", 1, "a\nx\nb"),
        ("a\nb", 2, "a\nb\nx"),
        ("a\nb", -1, "a\nb\nx"),
        ("a\nb\n", 2, "a\nb\nx"),
        ("a\n\nb", 2, "a\n\nx\nb"),
    ],
)
def test_lines_are_inserted_behind_a_line(text: str, line: int, becomes: str) -> None:
    assert after(InsertText("human", "x", line), text) == becomes


def test_inserted_lines_have_one_newline_at_their_end() -> None:
    assert after(InsertText("human", "x\ny\n", 1), "a\nb") == "a\nx\ny\nb"
    assert after(InsertText("human", "", 1), "a\nb") == "a\nb"


@pytest.mark.parametrize("line", [-2, 4, 1000])
def test_a_line_that_is_not_there(line: int) -> None:
    with pytest.raises(MemoryFailed, match=f"no line {line} .* from 0 .* to 3, or -1"):
        after(InsertText("human", "x", line))


def test_a_text_is_replaced_by_the_smallest_change() -> None:
    story = Story(HUMAN)
    event = story.edit(ReplaceText("human", "Likes  tea", "Likes  green tea"))
    assert event is not None
    assert (event.position, event.removed, event.added) == (17, "", "green ")
    assert story.text() == "Name: Ada\nLikes  green tea\nHas a dog"
    event = story.edit(RewriteBlock("human", "Name: Ida\nLikes  green tea\nHas a dog"))
    assert event is not None
    assert (event.position, event.removed, event.added) == (6, "A", "I")


def test_a_text_that_is_there_twice_is_listed_with_its_lines() -> None:
    with pytest.raises(TextNotUnique, match=r"\n1: one tea\n3: no tea$"):
        after(ReplaceText("human", "tea", "b"), "one tea\ncoffee\nno tea")
    with pytest.raises(TextNotUnique, match=r"\n1: aaa\n1: aaa$"):
        after(ReplaceText("human", "aa", "b"), "aaa")
    with pytest.raises(TextNotUnique) as caught:
        after(ReplaceText("human", "x", "b"), "x\n" * 30)
    assert caught.value.message.endswith("\n9: x\n10: x\n…")
    with pytest.raises(TextNotUnique, match=f"1: {'y' * 79}…"):
        after(ReplaceText("human", "y", "b"), "y" * 99)


@pytest.mark.parametrize(
    ("old", "why"),
    [
        ("likes tea", "other spaces or capitals it is in line 2: Likes  tea"),
        ("ada likes TEA has", "other spaces or capitals it is in line 1: Name: Ada"),
        ("dog", ""),
        ("Likes  tea\nand coffee", "only its beginning is, in line 2: Likes  tea"),
        ("a cat", "copy it from there exactly"),
        (" \n ", "copy it from there exactly"),
    ],
)
def test_a_text_that_is_not_there_says_how_near_it_is(old: str, why: str) -> None:
    if not why:
        assert after(ReplaceText("human", old, "cat")) == TEXT.replace("dog", "cat")
        return
    with pytest.raises(TextNotFound, match=why):
        after(ReplaceText("human", old, "x"))


def test_what_changes_nothing_is_no_event() -> None:
    memory = Story(HUMAN).memory
    assert change(memory, RewriteBlock("human", TEXT), "user") is None
    assert change(memory, ReplaceText("human", "dog", "dog"), "user") is None
    assert change(memory, AppendText("human", ""), "user") is None


def test_a_key_is_used_once() -> None:
    story = Story(HUMAN)
    assert story.edit(AppendText("human", "once"), key="k") is not None
    assert story.edit(AppendText("human", "once"), key="k") is None
    assert story.edit(DeleteBlock("human"), key="k") is None
    assert story.edit(AppendText("human", "once"), key="other") is not None


@pytest.mark.parametrize(
    ("edit", "kind", "why"),
    [
        (AppendText("humann", "x"), UnknownBlock, "'humann'; the labels are human, rules"),
        (DeleteBlock("h" * 200), UnknownBlock, f"'{'h' * 79}…'"),
        (CreateBlock(Block("human")), BlockExists, "already"),
        (AppendText("human", "x" * 100), BlockTooLong, "have 131 characters, 31 more .* 100"),
        (ReplaceText("human", "", "x"), InvalidInput, "empty"),
        (AppendText("human", 5), InvalidInput, "cannot be kept"),  # type: ignore[arg-type]
        (AppendText("human", "a\0b"), InvalidInput, r"U\+0000 at character 2"),
        (AppendText("human", "a\x9bb"), InvalidInput, r"U\+009B"),
        (RewriteBlock("human", "\ud800"), InvalidInput, "UTF-8 at character 0"),
        (CreateBlock(Block("")), InvalidInput, "not a valid label"),
        (CreateBlock(Block("a b")), InvalidInput, "not a valid label"),
        (CreateBlock(Block("a" * 65)), InvalidInput, "not a valid label"),
        (CreateBlock(Block("a\n")), InvalidInput, "not a valid label"),
        (CreateBlock(Block("b", limit=0)), InvalidInput, "from 1 to 100,000"),
        (CreateBlock(Block("b", limit=MAX_LIMIT + 1)), InvalidInput, "from 1 to 100,000"),
        (CreateBlock(Block("b", "toolong", limit=3)), BlockTooLong, "7 characters, 4 more"),
        (CreateBlock(Block("b", description="\x1b")), InvalidInput, "description .* U.001B"),
        (
            CreateBlock(Block("b", description="d" * (MAX_DESCRIPTION + 1))),
            InvalidInput,
            "2,001 characters",
        ),
    ],
)
def test_what_is_refused(edit: BlockEdit, kind: type[TreadleError], why: str) -> None:
    memory = Story(HUMAN, Block("rules", "be good", read_only=True)).memory
    for author in ("user", "model"):
        with pytest.raises(kind, match=why):
            change(memory, edit, author)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "edit",
    [AppendText("rules", "x"), RewriteBlock("rules", ""), DeleteBlock("rules")],
)
def test_only_models_are_kept_from_what_is_read_only(edit: BlockEdit) -> None:
    memory = Story(Block("rules", "be good", read_only=True)).memory
    with pytest.raises(BlockReadOnly):
        change(memory, edit, "model")
    for author in ("user", "agent", "summary"):
        assert change(memory, edit, author) is not None  # type: ignore[arg-type]


def test_a_block_that_is_another_since_it_was_read() -> None:
    story = Story(HUMAN)
    require_as_read(story.memory, "human", TEXT)
    require_as_read(story.memory, "missing", TEXT)
    story.edit(AppendText("human", "x"), key="k")
    with pytest.raises(BlockChanged, match="read it again"):
        require_as_read(story.memory, "human", TEXT)
    require_as_read(story.memory, "human", TEXT, "k")


def test_there_are_so_many_blocks_and_no_more() -> None:
    story = Story()
    with pytest.raises(UnknownBlock, match="there are none yet"):
        story.edit(DeleteBlock("b"))
    for number in range(MAX_BLOCKS):
        assert story.edit(CreateBlock(Block(f"b{number}"))) is not None
    with pytest.raises(MemoryFailed, match="64 memory blocks"):
        story.edit(CreateBlock(Block("one_more")))


def test_a_block_that_is_too_long_may_become_shorter() -> None:
    story = Story(Block("human", "0123456789", limit=20))
    for event in seeds(story.memory, [Block("human", limit=5)]):
        story.record(event)
    assert story.text() == "0123456789"
    assert story.edit(RewriteBlock("human", "01234567")) is not None
    with pytest.raises(BlockTooLong):
        story.edit(RewriteBlock("human", "76543210"))
    assert story.edit(RewriteBlock("human", "01234")) is not None


def test_an_agent_gives_the_blocks_it_declares() -> None:
    story = Story(HUMAN, Block("gone"), Block("mood", "calm"))
    story.edit(DeleteBlock("gone"))
    declared = [Block("mood", "wild"), Block("human", "", "Who?", 50, True), Block("gone"), HUMAN]
    declared[-1] = Block("goal", "none", shared="team")
    configured, made = seeds(story.memory, declared)
    assert (configured.operation, configured.author) == ("configure", "agent")
    assert configured.was == BlockRules("Who they are.", 100)
    assert configured.becomes == BlockRules("Who?", 50, True)
    assert (made.operation, made.label, made.added) == ("create", "goal", "none")
    for event in (configured, made):
        story.record(event)
    assert story.memory.get("human") == Block("human", TEXT, "Who?", 50, True)
    assert seeds(story.memory, declared) == []


def test_what_an_agent_may_declare() -> None:
    require_blocks([HUMAN, Block("team", shared="style.guide")])
    with pytest.raises(ConfigurationError, match="Two memory blocks"):
        require_blocks([HUMAN, HUMAN])
    with pytest.raises(ConfigurationError, match="at most 64"):
        require_blocks([Block(f"b{number}") for number in range(65)])
    with pytest.raises(ConfigurationError, match="not a valid label"):
        require_blocks([Block("a b")])
    with pytest.raises(ConfigurationError, match="not a valid name"):
        require_blocks([Block("a", shared="/")])
    with pytest.raises(InvalidInput):
        require_memory_name("")


@given(st.text(alphabet="ab\n", max_size=12), st.text(alphabet="ab\n", max_size=12))
def test_the_smallest_change_makes_one_text_of_another(old: str, new: str) -> None:
    made = smallest_splice(old, new)
    end = made.position + len(made.removed)
    assert old[made.position : end] == made.removed
    assert old[: made.position] + made.added + old[end:] == new
    if made.removed and made.added:
        assert made.removed[0] != made.added[0]
        assert made.removed[-1] != made.added[-1]


texts = st.text(alphabet=st.sampled_from("ab \n\t<é€𝄞"), max_size=20)
labels = st.sampled_from(["human", "other"])
edits = st.one_of(
    st.builds(AppendText, labels, texts),
    st.builds(ReplaceText, labels, texts, texts),
    st.builds(InsertText, labels, texts, st.integers(-2, 4)),
    st.builds(RewriteBlock, labels, texts),
    st.builds(CreateBlock, st.builds(Block, labels, texts, texts, st.integers(10, 60))),
    st.builds(DeleteBlock, labels),
)


def expected(text: str, edit: BlockEdit) -> str:
    """The text after an edit that is allowed, said once more in other words."""
    match edit:
        case RewriteBlock():
            return edit.value
        case ReplaceText():
            return text.replace(edit.old, edit.new)
        case InsertText(line=line) if edit.text and 0 <= line < len(text.splitlines()):
            lines = text.splitlines(keepends=True)
            return "".join([*lines[:line], edit.text.removesuffix("\n") + "\n", *lines[line:]])
        case AppendText() | InsertText() if edit.text:
            gap = "\n" if text and text[-1] != "\n" else ""
            return text + gap + edit.text
        case _:
            return text


@given(st.lists(edits, max_size=12), st.sampled_from(["user", "model"]))
def test_the_changes_of_any_edits_fold_to_the_texts(edits: list[BlockEdit], author: str) -> None:
    story, known = Story(), dict[str, str]()
    for edit in edits:
        before = story.memory
        try:
            event = story.edit(edit, author)  # type: ignore[arg-type]
        except TreadleError:
            assert story.memory is before
            continue
        if isinstance(edit, CreateBlock):
            known[edit.label] = edit.block.value
        elif isinstance(edit, DeleteBlock):
            del known[edit.label]
        else:
            known[edit.label] = expected(known[edit.label], edit)
        assert {block.label: block.value for block in story.memory.blocks} == known
        if event is not None:
            encoded = msgspec.json.encode(event)
            assert msgspec.json.decode(encoded, type=RecordedEvent) == event  # type: ignore[arg-type]
        assert all(len(block.value) <= block.limit for block in story.memory.blocks)


@given(edits)
def test_an_edit_is_the_same_after_the_inbox(edit: BlockEdit) -> None:
    decoded = msgspec.json.decode(msgspec.json.encode(edit), type=BlockEdit)  # type: ignore[arg-type]
    assert decoded == edit


def test_a_memory_is_the_same_after_a_snapshot() -> None:
    story = Story(HUMAN, Block("rules", read_only=True))
    story.edit(AppendText("human", "x"), key="k")
    story.edit(DeleteBlock("rules"))
    encoded = msgspec.json.encode(story.memory)
    assert msgspec.json.decode(encoded, type=BlockMemory) == story.memory


@pytest.mark.parametrize(
    ("event", "diff"),
    [
        (
            MemoryUpdated(label="b", operation="replace", author="user", removed="a", added="b\nc"),
            "-a\n+b\n+c",
        ),
        (MemoryUpdated(label="b", operation="append", author="user", added="\nline"), "+line"),
        (MemoryUpdated(label="b", operation="rewrite", author="user", removed="\n"), "-"),
        (MemoryUpdated(label="b", operation="delete", author="user", was=BlockRules()), ""),
        (
            MemoryUpdated(
                label="b",
                operation="configure",
                author="agent",
                was=BlockRules("What?", 10),
                becomes=BlockRules("What?", 20, True),
            ),
            "-limit: 10\n-read_only: False\n+limit: 20\n+read_only: True",
        ),
    ],
)
def test_a_change_line_by_line(event: MemoryUpdated, diff: str) -> None:
    assert event.diff == diff
