"""Where a history is cut: the tally of its tokens, and the choice."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.memory.compaction.histories import HISTORIES, conversation

from treadle.domain.context import WHOLE, Context
from treadle.domain.events import ContextCompacted
from treadle.domain.history import History, require_valid
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
    message,
)
from treadle.errors import InvalidInput
from treadle.memory.compaction.cut import LEAST_CHARS, Aim, Cut, Cutter
from treadle.memory.compaction.tally import Tally
from treadle.memory.compaction.tokens import item_tokens


def tally_of(items: Sequence[Item]) -> Tally:
    tally = Tally()
    tally.extend(History(items))
    return tally


def cutter_of(
    items: Sequence[Item], context: Context = WHOLE, *, first: int | None = None
) -> Cutter:
    return Cutter(tally_of(items), History(items), context, first=first)


def aim(goal: int, limit: int | None = None, *, keep: int = 0, messages: int | None = None) -> Aim:
    return Aim(
        goal=goal, limit=goal if limit is None else limit, keep=keep, frame=0, messages=messages
    )


def context_after(items: Sequence[Item], cut: Cut, before: Context = WHOLE) -> Context:
    """The context once a cut has been recorded."""
    event = ContextCompacted(
        cut=cut.at,
        kept=cut.kept,
        shortened=cut.shortened,
        strategy="sliding_window",
        cause="after_run",
        tokens_before=0,
        tokens_after=0,
        counted_by="estimate",
    )
    return before.compacted(History(items), event)


def read(items: Sequence[Item], cut: Cut, before: Context = WHOLE) -> Sequence[Item]:
    return context_after(items, cut, before).items(History(items))


def tokens_of(items: Sequence[Item]) -> int:
    return sum(item_tokens(item) for item in items)


USER, SYSTEM = message("user", "q"), message("system", "s")
ANSWER = Message("assistant", (OutputText("a"),))
THOUGHT = Reasoning(id="r", encrypted_content="e")


def call(id: str) -> FunctionCall:
    return FunctionCall(id, "look", "{}")


def out(id: str, text: str = "o") -> FunctionCallOutput:
    return FunctionCallOutput(id, text)


def test_turns_begin_at_user_messages_and_steps_after_outputs() -> None:
    items: list[Item] = [
        SYSTEM,
        USER,  # 1: a turn
        USER,
        THOUGHT,
        call("a"),
        call("b"),
        out("a"),
        out("b"),
        ANSWER,  # 8: a step, of an earlier turn
        USER,  # 9: a turn
        SYSTEM,
        call("c"),  # 11: a step, after what a program added
        out("c"),
        THOUGHT,  # 13: a step
        ANSWER,
        call("d"),
        out("d"),
    ]
    tally = tally_of(items)
    assert tally.turns == [1, 9]
    assert tally.steps == [11, 13]
    assert tally.asked == 9
    assert list(tally.system(len(items))) == [0, 10]
    assert list(tally.system(10)) == [0]
    assert tally.messages(9) == 7
    assert tally.tokens(0) == tokens_of(items)
    assert tally.system_tokens(11) == 2 * item_tokens(SYSTEM)


def test_outputs_of_parallel_calls_are_not_separated() -> None:
    items = [USER, call("a"), call("b"), out("a"), THOUGHT, out("b"), ANSWER]
    assert tally_of(items).steps == [6]


@given(HISTORIES, st.integers(0, 60))
def test_a_tally_grows_as_the_history_does(items: list[Item], parts: int) -> None:
    whole, grown, history = tally_of(items), Tally(), History()
    size = max(1, len(items) // (parts + 1))
    for at in range(0, len(items), size):
        history = history.extended(items[at : at + size])
        grown.extend(history)
        grown.extend(history)
    assert len(grown) == len(whole) == len(items)
    assert (grown.turns, grown.steps, grown.asked) == (whole.turns, whole.steps, whole.asked)
    assert [grown.tokens_of(n) for n in range(len(items))] == [item_tokens(i) for i in items]


def test_the_first_turn_that_reaches_the_goal_is_chosen() -> None:
    items = conversation(20)
    turn = tokens_of(items[:4])
    cut = cutter_of(items).choose(aim(3 * turn + 30))
    assert cut is not None
    assert (cut.at, cut.kept, cut.shortened) == (68, (), ())
    assert cut.tokens == tokens_of(items[68:])


def test_messages_are_kept_as_long_as_the_limit_allows() -> None:
    items = conversation(20)
    turn = tokens_of(items[:4])
    kept = cutter_of(items).choose(aim(turn, 10 * turn, keep=10))
    assert kept is not None
    assert kept.at == 68  # three turns are twelve messages
    assert cutter_of(items).choose(aim(turn, 2 * turn, keep=10)) is None
    few = cutter_of(items).choose(aim(10**6, messages=9))
    assert few is not None
    assert few.at == 72
    assert cutter_of(items).choose(aim(10**6, keep=81)) is None


def test_a_turn_that_alone_does_not_fit_is_cut_between_its_steps() -> None:
    steps = [item for n in range(50) for item in (call(f"c{n}"), out(f"c{n}", "o" * 300))]
    items = [*conversation(3), SYSTEM, USER, *steps]
    cut = cutter_of(items, first=13).choose(aim(1200, 2000))
    assert cut is not None
    assert cut.kept == (12, 13)
    assert isinstance(items[cut.at], FunctionCall)
    assert tokens_of(read(items, cut)) == cut.tokens <= 1200
    require_valid(read(items, cut))


def test_pinned_messages_and_the_first_of_the_run_stay() -> None:
    items = conversation(6)
    pinned, first = items[3], 8
    assert isinstance(pinned, Message)
    pinned = Message("assistant", pinned.content, "msg_pinned")
    items[3] = pinned
    context = Context(pinned=("msg_pinned", "msg_unknown"))
    cut = cutter_of(items, context, first=first).choose(aim(tokens_of(items[16:])))
    assert cut is not None
    assert (cut.at, cut.kept) == (20, (3, 8))
    assert read(items, cut)[:2] == [pinned, items[8]]


def test_long_outputs_are_shortened_if_nothing_else_helps() -> None:
    items = [USER, call("a"), out("a", "o" * 900), call("b"), call("c")]
    items += [out("b", "long " * 3000), out("c", "short")]
    cutter = cutter_of(items)
    assert cutter.choose(aim(1000)) is None
    cut = cutter.shorten(aim(1000))
    assert cut is not None
    assert cut.at == 3
    assert [index for index, _ in cut.shortened] == [5]
    assert tokens_of(read(items, cut)) <= cut.tokens <= 1000
    require_valid(read(items, cut))
    again = cutter_of(items, context_after(items, cut))
    assert again.read + item_tokens(USER) >= cut.tokens - 60
    shorter = again.shorten(aim(500))
    assert shorter is not None
    assert shorter.tokens <= 500
    assert dict(shorter.shortened)[5] < dict(cut.shortened)[5]
    assert cutter.shorten(aim(60)) is None
    assert cutter.latest(7).tokens == cutter.size(3) + 7


def test_shortened_items_count_only_while_they_are_read() -> None:
    items = [USER, call("a"), out("a", "o" * 900), ANSWER, *conversation(2)]
    shortened = Context(shortened=((1, 0), (2, 300), (3, 99)))
    cutter = cutter_of(items, shortened)
    assert tokens_of(items) - 200 < cutter.read < tokens_of(items) - 150
    cut = cutter.cut(4, 5)
    assert cut.shortened == ()
    assert cut.tokens == tokens_of(items[4:]) + 5


def test_outputs_share_the_room() -> None:
    calls = [call(str(n)) for n in range(4)]
    outputs = [out(str(n), "o" * size) for n, size in enumerate((100, 9000, 9000, 600))]
    items = [USER, *calls, *outputs]
    cut = cutter_of(items).shorten(aim(2000))
    assert cut is not None
    assert [index for index, _ in cut.shortened] == [6, 7]
    assert 1500 < tokens_of(read(items, cut)) <= 2000


def test_a_text_of_more_than_one_kind_is_shortened_until_it_fits() -> None:
    mixed = "漢" * 2000 + "o" * 6000
    items = [USER, call("a"), out("a", mixed)]
    cut = cutter_of(items).shorten(aim(1500))
    assert cut is not None
    assert tokens_of(read(items, cut)) <= 1500
    assert cutter_of(items).shorten(aim(LEAST_CHARS // 2)) is None


def test_images_are_not_shortened() -> None:
    images = FunctionCallOutput("a", (InputText("x" * 900), InputImage("data:")))
    assert cutter_of([USER, call("a"), images]).shorten(aim(300)) is None
    assert cutter_of([USER]).shorten(aim(1)) is None


@given(HISTORIES, st.integers(1, 2000), st.integers(0, 20), st.data())
def test_any_cut_leaves_a_valid_history(
    items: list[Item], goal: int, keep: int, data: st.DataObject
) -> None:
    history, context, length = History(items), WHOLE, 0
    while length < len(items):
        length = data.draw(st.integers(length + 1, len(items)))
        try:
            require_valid(items[:length])
        except InvalidInput:  # a step is never seen half
            continue
        cutter = cutter_of(items[:length], context)
        for cut in (
            cutter.choose(aim(goal, keep=keep)),
            cutter.shorten(aim(goal)),
            cutter.latest(0),
        ):
            if cut is None:
                continue
            left = list(read(items[:length], cut, context))
            require_valid(left)
            assert cut.at >= context.cut
            assert tokens_of(left) <= cut.tokens
            said = [item for item in items[:length] if isinstance(item, Message)]
            always = [item for item in said if item.role == "system"]
            always += [item for item in said if item.role == "user"][-1:]
            assert all(item in left for item in always)
        chosen = cutter.choose(aim(goal, keep=keep))
        if chosen is not None:
            assert chosen.tokens <= goal
            assert tally_of(items[:length]).messages(chosen.at) >= keep
            context = context_after(items[:length], chosen, context)
    assert history == History(items)


@pytest.mark.parametrize("places", [[1, 2], [5], []])
def test_the_latest_cut_never_goes_back(places: list[int]) -> None:
    items = conversation(len(places) + 1)
    context = Context(cut=len(items))
    assert cutter_of(items, context).latest(0).at == len(items)
