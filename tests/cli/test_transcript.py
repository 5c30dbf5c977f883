import pytest

from weft.cli.plain_text import clean
from weft.cli.transcript import Transcript
from weft.events import (
    Event,
    MessageAdded,
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
)
from weft.items import FunctionCall, FunctionCallOutput, user_message
from weft.usage import Usage

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
        ([ToolProgress("c", "slow", "half")], "  slow: half\n"),
        (
            [RateLimitHit(run_id=R, delay=2, retries_remaining=3, message="m")],
            "(Trying again in 2.0 s, 3 more retries: The provider asks to wait)\n",
        ),
        (
            [Retrying(run_id=R, code="c", delay=0.5, retries_remaining=0, message="oops")],
            "(Trying again in 0.5 s, 0 more retries: oops)\n",
        ),
        (
            [TextDelta("m", "Half"), StepInterrupted(run_id=R, step=1, reason="It broke off")],
            "Half\n(It broke off; discard the unfinished text above.)\n",
        ),
        ([StepInterrupted(run_id=R, step=1, reason="It broke off")], ""),
        (
            [RunIncomplete(run_id=R, stop_reason="max_steps", usage=Usage())],
            "(The run stopped before its end: max_steps.)\n",
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
        ([MessageAdded(run_id=R, item=user_message("hi"), origin="user")], ""),
    ],
)
def test_what_a_person_sees(events: list[Event], text: str) -> None:
    assert shown(*events) == text


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


def test_the_delay_of_a_retry_is_seen_in_a_narrow_terminal() -> None:
    written: list[str] = []
    transcript = Transcript(written.append, width=60)
    transcript.show(
        Retrying(run_id=R, code="c", delay=1.5, retries_remaining=2, message="long " * 50)
    )
    assert "Trying again in 1.5 s, 2 more retries" in written[0]
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
    ):
        assert "\x1b" not in shown(event)
