from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace
from tests.domain.fold import (
    BACK,
    BACK_BELOW,
    BACK_DONE,
    JOB,
    JOB_AGAIN,
    JOB_BELOW,
    JOB_BELOW_DONE,
    JOB_DELEGATED,
    JOB_DONE,
    TOLD,
)

from treadle.cli.plain_text import clean, one_line
from treadle.cli.transcript import Transcript
from treadle.domain.blocks import BlockRules
from treadle.domain.events import (
    Event,
    FieldDelta,
    HostedCallProgress,
    MemoryOperation,
    MemoryUpdated,
    MessageAdded,
    ProviderItemAdded,
    RateLimitHit,
    ReasoningDelta,
    RefusalDelta,
    Retrying,
    RunCancelled,
    RunFailed,
    RunIncomplete,
    RunStarted,
    StepInterrupted,
    TextDelta,
    ToolCallRequested,
    ToolOutputRecorded,
    ToolProgress,
    ToUserDelta,
)
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    HostedCall,
    ProviderItem,
    user_message,
)
from treadle.domain.usage import Usage

R = "run_1"
CALL = FunctionCall("c", "get_weather", '{"city": "Zürich", "days": 2}')


def shown(*events: Event) -> str:
    written: list[str] = []
    transcript = Transcript(written.append)
    for event in events:
        transcript.show(event)
    return "".join(written).replace("\x1b[2m", "").replace("\x1b[0m", "")


def output(
    text: str, *, call_id: str = "c", is_error: bool = False, seconds: float = 0.0123
) -> ToolOutputRecorded:
    item = FunctionCallOutput(call_id, text, "o", is_error)
    return ToolOutputRecorded(run_id=R, item=item, name="get_weather", seconds=seconds)


def call(call_id: str, city: str) -> ToolCallRequested:
    item = FunctionCall(call_id, "get_weather", f'{{"city": "{city}"}}')
    return ToolCallRequested(run_id=R, item=item)


def remembered(operation: MemoryOperation, **fields: Any) -> MemoryUpdated:
    return MemoryUpdated(label="human", operation=operation, author="model", **fields)


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([TextDelta("m", "Hel"), TextDelta("m", "lo")], "Hello"),
        (
            [TextDelta("m", "Let me see"), ToolCallRequested(run_id=R, item=CALL)],
            'Let me see\n● get_weather(city="Zürich", days=2)\n',
        ),
        ([output("18 °C\nsunny")], "✓ get_weather (12 ms)  18 °C sunny\n"),
        ([output("no", is_error=True)], "✗ get_weather (12 ms)  no\n"),
        ([output("cut off", is_error=True, seconds=0)], "✗ get_weather  cut off\n"),
        ([ReasoningDelta("r", "hm"), TextDelta("m", "Hi")], "hm\nHi"),
        ([RefusalDelta("m", "No.")], "No."),
        (
            [
                remembered("create", added="Name:\nAda", becomes=BlockRules()),
                remembered("create", becomes=BlockRules()),
                remembered("append", added="\nDrinks\x1b tea."),
                remembered("undo", removed="tea", added="milk"),
                remembered("configure", was=BlockRules(), becomes=BlockRules(limit=9)),
                remembered("delete", removed="Name", was=BlockRules()),
            ],
            """✎ human created: +Name: +Ada
✎ human created
✎ human: +Drinks\ufffd tea.
✎ human, a change undone: -tea +milk
✎ human configured: -limit: 5000 +limit: 9
✎ human deleted: -Name
""",
        ),
        ([ToolProgress("c", "slow", "half")], "  slow: half\n"),
        (
            [RateLimitHit(run_id=R, delay=2, retries_remaining=3, message="m")],
            "(Retrying in 2.0 s, 3 retries left: the provider asks to wait)\n",
        ),
        (
            [Retrying(run_id=R, code="c", delay=0.5, retries_remaining=0, message="oops")],
            "(Retrying in 0.5 s, 0 retries left: oops)\n",
        ),
        (
            [TextDelta("m", "Half"), StepInterrupted(run_id=R, step=1, reason="It broke off")],
            "Half\n(It broke off; discard the unfinished text above.)\n",
        ),
        ([StepInterrupted(run_id=R, step=1, reason="It broke off")], ""),
        (
            [RunIncomplete(run_id=R, stop_reason="max_steps", usage=Usage())],
            "(The run stopped early: max_steps.)\n",
        ),
        ([RunCancelled(run_id=R, usage=Usage())], "(Cancelled.)\n"),
        (
            [
                TextDelta("m", "Hi"),
                RunFailed(run_id=R, code="c", message="m", retryable=False, usage=Usage()),
            ],
            "Hi\n",
        ),
        ([RunStarted(run_id=R, agent="a")], ""),
        ([JOB, JOB_DONE], "◇ index\n✓ index completed (2.5 s)  indexed\n"),
        ([JOB, JOB_AGAIN], "◇ index\n◇ index (attempt 2)\n"),
        ([JOB_BELOW, replace(JOB_BELOW_DONE, message="a\nb")], "◇ page\n✗ page failed  a b\n"),
        (
            [JOB, replace(JOB_DONE, outcome="cancelled", output="")],
            "◇ index\n✗ index cancelled (2.5 s)\n",
        ),
        ([JOB_DONE], "✓ job completed (2.5 s)  indexed\n"),
        (
            [BACK, BACK_BELOW, BACK_DONE, TOLD],
            "◇ crawl in the background\n◇ fetch\n✓ crawl completed\n",
        ),
        ([TextDelta("m", "Well."), JOB], "Well.\n◇ index\n"),
        ([JOB_DELEGATED], ""),
        ([MessageAdded(run_id=R, item=user_message("hi"), origin="user")], "\x1b[1m> hi\n"),
    ],
)
def test_what_a_person_sees(events: list[Event], text: str) -> None:
    assert shown(*events) == text


def test_a_message_that_was_typed_here_is_not_shown_again() -> None:
    written: list[str] = []
    transcript = Transcript(written.append)
    transcript.typed.add(R)
    transcript.show(MessageAdded(run_id=R, item=user_message("hi"), origin="user"))
    assert written == []


def test_overlapping_calls_of_one_tool_are_told_apart() -> None:
    lines = shown(
        call("1", "Paris"),
        call("2", "Oslo"),
        ToolProgress("1", "get_weather", "half"),
        output("4 °C", call_id="2"),
        output("9 °C", call_id="1"),
        call("3", "Rome"),
        output("18 °C", call_id="3"),
    ).splitlines()
    assert lines == [
        '● get_weather(city="Paris")',
        '● get_weather(city="Oslo")',
        '  get_weather(city="Paris"): half',
        '✓ get_weather(city="Oslo") (12 ms)  4 °C',
        '✓ get_weather(city="Paris") (12 ms)  9 °C',
        '● get_weather(city="Rome")',
        "✓ get_weather (12 ms)  18 °C",
    ]


def test_jobs_of_one_name_end_each_by_itself() -> None:
    other = replace(JOB, job_id="job_9", name="other")
    other_done = replace(JOB_DONE, job_id="job_9", output="o")
    assert shown(JOB, other, other_done, JOB_DONE).splitlines()[2:] == [
        "✓ other completed (2.5 s)  o",
        "✓ index completed (2.5 s)  indexed",
    ]


def test_who_reads_it_later_reads_what_a_job_told_and_where_an_agent_worked() -> None:
    written: list[str] = []
    transcript = Transcript(written.append, echo=True)
    for event in (JOB_DELEGATED, TOLD):
        transcript.show(event)
    assert "  b works on thread_8" in written[0]
    assert "> [The background job crawl has completed.]" in written[1]


def said(item_id: str, text: str, city: str) -> ToolCallRequested:
    arguments = f'{{"say": "{text}", "city": "{city}"}}'
    item = FunctionCall(f"c{item_id}", "get_weather", arguments, item_id)
    return ToolCallRequested(run_id=R, item=item, to_user="say")


def test_what_a_call_says_is_a_line_of_text_before_it() -> None:
    assert shown(
        ToUserDelta("1", "c1", "Let me "),
        FieldDelta("1", "c1", "title", "not shown"),
        ToUserDelta("1", "c1", "look…"),
        said("1", "Let me look…", "Paris"),
        output("rain", call_id="c1"),
    ).splitlines() == [
        "Let me look…",
        '● get_weather(city="Paris")',
        "✓ get_weather (12 ms)  rain",
    ]


def test_who_was_not_there_reads_it_with_the_call() -> None:
    assert shown(said("1", "Let me look…", "Paris"), said("2", "", "Oslo")).splitlines() == [
        "Let me look…",
        '● get_weather(city="Paris")',
        '● get_weather(city="Oslo")',
    ]


def test_calls_that_speak_at_the_same_time_are_read_one_after_the_other() -> None:
    assert shown(
        TextDelta("m", "Well."),
        ToUserDelta("1", "c1", "Let me "),
        ToUserDelta("2", "c2", "And "),
        ToUserDelta("1", "c1", "look…"),
        ToUserDelta("2", "c2", "there…"),
        said("2", "And there…", "Oslo"),
        said("1", "Let me look…", "Paris"),
        ToUserDelta("3", "c3", "Once more…"),
        StepInterrupted(run_id=R, step=1, reason="It broke off"),
        ToUserDelta("4", "c4", "Again…"),
        output("rain", call_id="c2"),
    ).splitlines() == [
        "Well.",
        "Let me look…",
        "And there…",
        '● get_weather(city="Oslo")',
        '● get_weather(city="Paris")',
        "Once more…",
        "(It broke off; discard the unfinished text above.)",
        "Again…",
        '✓ get_weather(city="Oslo") (12 ms)  rain',
    ]


def test_the_delay_of_a_retry_is_seen_in_a_narrow_terminal() -> None:
    written: list[str] = []
    transcript = Transcript(written.append, width=60)
    transcript.show(
        Retrying(run_id=R, code="c", delay=1.5, retries_remaining=2, message="long " * 50)
    )
    assert "Retrying in 1.5 s, 2 retries left" in written[0]
    assert written[0].count("\n") == 1


@pytest.mark.parametrize("arguments", ["{broken", "[1]", "", "x" * 500])
def test_odd_arguments_are_shown_in_one_line(arguments: str) -> None:
    text = shown(ToolCallRequested(run_id=R, item=FunctionCall("c", "f", arguments)))
    assert text.count("\n") == 1
    assert len(text) < 110


def test_control_characters_never_reach_the_terminal() -> None:
    evil = "\x1b]0;title\x07\x1b[2J\x9b1mtext\r\n\tok\x7f"
    assert clean(evil) == "�]0;title��[2J�1mtext�\n\tok�"
    odd = FunctionCall("c", "f\x1b[31m", '{"a": "\\u001b[2J"}')
    for event in (
        TextDelta("m", evil),
        ToolCallRequested(run_id=R, item=odd),
        output(evil),
        ToolProgress("c", "f", evil),
        ToUserDelta("f", "c", evil),
        said("f", "\\u001b[2J", "Paris"),
        replace(JOB, name=evil),
        replace(JOB_DONE, output=evil),
        replace(JOB_BELOW_DONE, message=evil),
    ):
        assert "\x1b" not in shown(event)


def test_code_of_a_hosted_tool_is_shown_while_it_is_written() -> None:
    code = "a = 1\n\nprint('\x1b[31m')\nb"
    calls = [HostedCall("code_interpreter", "c", arguments=text) for text in ("", code[:6], code)]
    ended = replace(calls[2], status="completed", output="1")
    events = [
        HostedCallProgress(calls[0]),
        HostedCallProgress(calls[1], is_partial=True),
        HostedCallProgress(replace(calls[2], arguments=code[:7]), is_partial=True),
        HostedCallProgress(calls[2]),
        ProviderItemAdded(item=ProviderItem("openai", Raw(b"{}"), ended), index=0, run_id=R),
    ]
    lines = ["● code_interpreter", "  a = 1", "", f"  {clean(code[7:-2])}", "  b"]
    assert shown(*events).splitlines() == [*lines, "✓ code_interpreter  1"]
    # Code that was not shown while it was written is one line.
    assert shown(*events[3:]).splitlines() == [
        f"● code_interpreter {one_line(clean(code))}",
        "✓ code_interpreter  1",
    ]
