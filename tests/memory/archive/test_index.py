"""What events change in the archive, and what the index makes of it."""

from pathlib import Path

from tests.memory.archive.story import OWNER

from treadle.domain.events import MessageAdded, PassageAdded, PassageRemoved, RunStarted
from treadle.domain.items import InputImage, Message, OutputText, user_message
from treadle.domain.passages import Passage
from treadle.memory.archive.index import Index, Known, Source
from treadle.memory.archive.pages import Page, page_of


def note(seq: int, id: str, text: str = "text") -> PassageAdded:
    return PassageAdded(seq=seq, at=float(seq), passage_id=id, text=text, author="user")


def said(seq: int, message: Message) -> MessageAdded:
    return MessageAdded(seq=seq, at=float(seq), run_id="run_1", item=message, origin="user")


def test_no_events_make_no_page() -> None:
    assert page_of("t", []) is None


def test_what_was_said_and_noted() -> None:
    hello = user_message("hello")
    answer = Message("assistant", (OutputText("hi "), OutputText("there")), "")
    page = page_of(
        "t",
        [
            RunStarted(seq=4, run_id="run_1", agent="a"),
            said(5, hello),
            said(6, answer),
            PassageAdded(
                seq=7, at=9.0, passage_id="p", text="x", author="model", tags=("a",), written_at=2.0
            ),
        ],
    )
    assert page is not None
    assert (page.after, page.until, page.at, page.removed) == (3, 7, 9.0, ())
    one, two, three = page.added
    assert (one.id, one.kind, one.role, one.created_at) == (hello.id, "message", "user", 5.0)
    assert (one.run_id, one.seq, one.thread_id) == ("run_1", 5, "t")
    assert (two.id, two.text, two.role) == ("t/6", "hi there", "assistant")
    assert (three.kind, three.tags, three.created_at, three.role) == ("archive", ("a",), 2.0, None)


def test_messages_without_text_are_left_out() -> None:
    image = Message("user", (InputImage("https://example.com/a.png"),), "msg_1")
    page = page_of("t", [said(1, image), said(2, Message("assistant", (OutputText(" \n"),), "m"))])
    assert page is not None
    assert page.added == ()
    assert page.until == 2


def test_a_repeated_passage_counts_once_and_a_repeated_message_twice() -> None:
    hello = user_message("hello")
    page = page_of(
        "t", [note(1, "p", "first"), note(2, "p", "again"), said(3, hello), said(4, hello)]
    )
    assert page is not None
    assert [(one.id, one.seq) for one in page.added] == [("p", 1), (hello.id, 3), (hello.id, 4)]


def test_what_was_removed_is_gone_unless_it_came_again() -> None:
    page = page_of(
        "t",
        [
            note(1, "p"),
            PassageRemoved(seq=2, passage_id="p"),
            note(3, "q"),
            PassageRemoved(seq=4, passage_id="r"),
            note(5, "r", "new"),
        ],
    )
    assert page is not None
    assert page.removed == ("p", "r")
    assert [(one.id, one.seq) for one in page.added] == [("q", 3), ("r", 5)]


def test_a_page_that_does_not_follow_the_index(tmp_path: Path) -> None:
    """Another process may have written first."""
    index = Index(tmp_path / "treadle.db-archive")
    note = Passage(id="p", text="blue", kind="archive", thread_id="t", seq=1, created_at=1.0)
    first, second = Source("t", OWNER, 1), Source("t", OWNER, 2)
    assert index.apply(first, Page(0, 3, 1.0, (), (note,)), {}) == 3
    assert index.apply(first, Page(0, 3, 1.0, (), (note,)), {}) == 3
    assert index.apply(first, Page(5, 6, 1.0, (), ()), {}) == 3
    assert index.statistics(OWNER).passages == 1
    assert index.apply(second, Page(3, 4, 1.0, (), ()), {}) == 0
    assert index.statistics(OWNER).passages == 0
    assert index.sources() == {"t": Known(2, 0, 0.0)}
    index.drop(["t", "unknown"])
    assert index.sources(OWNER) == {}
    index.close()
