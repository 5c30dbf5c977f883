"""The demo model: which tools it calls, what it answers, and that nothing breaks it."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import treadle
from treadle.demo.demo_agent import demo_agent
from treadle.demo.demo_model import DemoModel, respond
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, message, user_message
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool, ToolChoice
from treadle.models.base import ModelRequest
from treadle.streaming.demux import ItemFinished, ResponseFinished

STRING = {"type": "string"}


def tool(
    name: str, description: str = "", required: tuple[str, ...] = (), **parameters: object
) -> ToolSchema:
    schema = {"type": "object", "properties": parameters, "required": list(required)}
    return ToolSchema(name, description, schema, strict=False)


TOOLS = (
    tool("get_weather", "The weather in a city now.", ("city",), city=STRING),
    tool("calculate", "Evaluates arithmetic.", ("expression",), expression=STRING),
    tool("current_time", "The time.", timezone={"type": "string", "default": "UTC"}),
    tool("list_files", "Lists the files of the workspace."),
    tool("read_file", "Reads a file of the workspace.", ("path",), path=STRING),
    tool("slow_search", "Searches.", ("query",), query=STRING, seconds={"type": "number"}),
)
SPEAKING = tuple(
    tool(
        made.name,
        made.description,
        ("to_user", *made.parameters["required"]),  # type: ignore[misc]
        to_user=STRING,
        **made.parameters["properties"],  # type: ignore[arg-type]
    )
    for made in TOOLS
)
QUESTION = "What is the weather in Paris and in Beijing, and what is 17*23?"
PARIS = ("get_weather", {"city": "Paris"})
NEW_YORK = ("get_weather", {"city": "New York"})
BEIJING = ("get_weather", {"city": "Beijing"})
PRODUCT = ("calculate", {"expression": "17*23"})


def ask(
    items: str | Sequence[Item],
    tools: tuple[ToolSchema, ...] = TOOLS,
    choice: ToolChoice | None = None,
    output: OutputSchema | None = None,
) -> list[tuple[str, str]] | str:
    given = [message("user", items)] if isinstance(items, str) else items
    settings = ModelSettings(tool_choice=choice)
    return respond(ModelRequest(items=given, tools=tools, settings=settings, output=output))


def calls_of(answer: list[tuple[str, str]] | str) -> list[tuple[str, dict[str, object]]]:
    calls = answer if isinstance(answer, list) else []
    return [(name, json.loads(arguments)) for name, arguments in calls]


def text_of(answer: list[tuple[str, str]] | str) -> str:
    assert isinstance(answer, str)
    return answer


def said(text: str) -> Item:
    return message("assistant", text)


def answered(
    question: str, *results: tuple[str, dict[str, object], str], is_error: bool = False
) -> list[Item]:
    items: list[Item] = [user_message(question)]
    for number, (name, arguments, _) in enumerate(results):
        items.append(FunctionCall(f"c{number}", name, json.dumps(arguments)))
    for number, (_, _, output) in enumerate(results):
        items.append(FunctionCallOutput(f"c{number}", output, is_error=is_error))
    return items


@pytest.mark.parametrize(
    ("question", "calls"),
    [
        (QUESTION, [PARIS, BEIJING, PRODUCT]),
        ("weather in paris, beijing and New York?", [PARIS, BEIJING, NEW_YORK]),
        ("In Paris, what's the weather?", [PARIS]),
        ("Is it raining in Rome tomorrow?", [("get_weather", {"city": "Rome"})]),
        ("Is Oslo's weather better? No: Oslo weather.", [("get_weather", {"city": "Oslo"})]),
        ("what's 12 + 5 times 3", [("calculate", {"expression": "12 + 5 * 3"})]),
        ("what is (2+3)*4 - 1.", [("calculate", {"expression": "(2+3)*4 - 1"})]),
        ("1000 divided by 8", [("calculate", {"expression": "1000 / 8"})]),
        ("what is 2**10?", [("calculate", {"expression": "2**10"})]),
        ("2 to the power of 10 plus 1", [("calculate", {"expression": "2 ** 10 + 1"})]),
        ("What time is it in Tokyo?", [("current_time", {"timezone": "Tokyo"})]),
        ("what time is it", [("current_time", {})]),
        ("which files are there?", [("list_files", {})]),
        (
            "List the files, then read README.md.",
            [("list_files", {}), ("read_file", {"path": "README.md"})],
        ),
        ("read 'my notes.txt'", [("read_file", {"path": "my notes.txt"})]),
        ("Read README", [("read_file", {"path": "README"})]),
        ("search for tea, 2 seconds", [("slow_search", {"query": "tea"})]),
        ("Search 2 seconds for tea", [("slow_search", {"query": "tea", "seconds": 2.0})]),
        ("Search for the history of tea", [("slow_search", {"query": "the history of tea"})]),
        ("hello there", []),
        ("", []),
    ],
)
def test_questions(question: str, calls: list[tuple[str, dict[str, object]]]) -> None:
    if question:
        assert calls_of(ask(question)) == calls
    else:
        assert calls_of(ask([])) == calls


def test_the_same_wish_twice_is_one_call() -> None:
    assert calls_of(ask("Weather in Paris? Weather in Paris!")) == [PARIS]


def test_tools_of_other_names_are_understood() -> None:
    tools = (
        tool("fetchWeather", "", ("location",), location=STRING),
        tool("evaluate", "", ("formula",), formula=STRING),
        tool("send_mail", "", ("to",), to=STRING),
        tool("remember", "", ("fact",), fact=STRING),
        tool(
            "book_table",
            "",
            ("guests", "smoking", "area", "when", "price"),
            guests={"type": "integer"},
            smoking={"type": "boolean"},
            area={"enum": ["terrace", "hall"]},
            when={"type": "array", "items": STRING},
            price={"type": "number"},
            note={"anyOf": [STRING, {"type": "null"}]},
        ),
        tool("count_stock", "", ("article",), article={"$ref": "#/$defs/a"}),
    )
    question = (
        "Temperature in Oslo, 3*4? Send mail to ada@example.com. Remember 'Ada drinks tea.'\n"
        "Book a table of 4 in the hall. Count the stock of 'lamps'."
    )
    assert calls_of(ask(question, tools)) == [
        ("fetchWeather", {"location": "Oslo"}),
        ("evaluate", {"formula": "3*4"}),
        ("send_mail", {"to": "ada@example.com"}),
        ("remember", {"fact": "Ada drinks tea."}),
        (
            "book_table",
            {
                "guests": 4,
                "smoking": True,
                "area": "hall",
                "when": ["4 in the hall"],
                "price": 4.0,
            },
        ),
        ("count_stock", {"article": "lamps"}),
    ]


def test_strict_schemas_get_null_for_what_is_not_told() -> None:
    nullable = {"anyOf": [STRING, {"type": "null"}]}
    tools = (tool("get_weather", "", ("city", "unit"), city=STRING, unit=nullable),)
    assert calls_of(ask("weather in Paris", tools)) == [
        ("get_weather", {"city": "Paris", "unit": None})
    ]


def test_what_a_tool_needs_and_the_question_lacks_is_asked_for() -> None:
    assert text_of(ask("How is the weather?")) == "To call `get_weather` I need `city`."
    whole = tool("store", "", ("record",), record={"type": "object"})
    count = tool("count", "", ("a", "b"), a={"type": "integer"}, b={"type": "number"})
    assert "need `record`" in text_of(ask("store it", (whole,)))
    assert "need `a` and `b`" in text_of(ask("count", (count,)))


def test_the_reply_is_made_of_the_real_outputs() -> None:
    outputs = ((*PARIS, '{"city": "Paris", "sky_now": "light rain"}'), (*PRODUCT, "391"))
    text = text_of(ask(answered(QUESTION, *outputs, (*BEIJING, "no data")), choice="none"))
    assert "`get_weather` for Paris: sky now light rain." in text
    assert "`get_weather` for Beijing: no data." in text
    assert "`calculate` for 17*23: 391." in text
    failed = answered("weather in Beijing?", (*BEIJING, "Error: no data"), is_error=True)
    assert text_of(ask(failed)) == (
        "According to `get_weather` for Beijing, the call failed: Error: no data"
    )


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ('["a.txt", "b.txt"]', "`list_files`: a.txt, b.txt."),
        ("[]", "`list_files`: nothing."),
        ("", "`list_files`: nothing."),
        ('{"result": [1, null]}', "`list_files`: result 1, nothing."),
        ("two\nlines", "`list_files`: two\nlines."),
        ("x" * 1000, "(1000 characters in all)"),
    ],
)
def test_outputs_of_any_shape(output: str, shown: str) -> None:
    assert shown in text_of(ask(answered("list the files", ("list_files", {}, output))))


def test_only_what_was_not_called_yet_is_called() -> None:
    assert calls_of(ask(answered(QUESTION, (*PARIS, "rain")))) == [BEIJING, PRODUCT]


def test_a_message_that_joins_while_tools_run_is_answered_too() -> None:
    items = [*answered("weather in Paris?", (*PARIS, "rain")), user_message("weather in Beijing?")]
    assert calls_of(ask(items)) == [BEIJING]
    items = [user_message("weather in Paris?"), user_message("and what is 17*23?")]
    assert calls_of(ask(items)) == [PARIS, PRODUCT]


@pytest.mark.parametrize("question", ["And in Beijing?", "What about Beijing?"])
def test_a_follow_up_asks_for_the_same_tool_again(question: str) -> None:
    before = [*answered("weather in Paris?", (*PARIS, "rain")), said("Rain.")]
    assert calls_of(ask([*before, user_message(question)])) == [BEIJING]
    assert calls_of(ask([*before, user_message("Fine, Ada")])) == []


def test_tool_choice() -> None:
    assert calls_of(ask(QUESTION, choice="none")) == []
    assert calls_of(ask("hello", choice="required")) == [("get_weather", {"city": "city-1"})]
    assert calls_of(ask(QUESTION, choice=NamedTool("calculate"))) == [PRODUCT]
    assert calls_of(ask("hello", tools=(), choice="required")) == []


def test_small_talk_is_honest() -> None:
    hello = text_of(ask("Hello!"))
    assert "I am a small demo model" in hello
    assert "not a language model" in hello
    assert "`get_weather(city)`" in hello
    assert "`current_time(timezone?)`" in hello
    assert text_of(ask("Hello!", SPEAKING)) == hello
    assert text_of(ask("Tell me about yourself.")) == hello
    assert "no tools" in text_of(ask("Who are you?", tools=()))
    assert "and 8 more" in text_of(ask("Help!", tools=(tool("f"),) * 20))
    assert "“Explain love.”" in text_of(ask("Explain love."))
    assert "small demo model" in text_of(ask("Explain love."))
    assert len(text_of(ask("love " * 1000, tools=()))) < 500
    assert "welcome" in text_of(ask("thanks"))
    assert "Goodbye" in text_of(ask("bye"))


def test_it_remembers_what_the_thread_contains() -> None:
    told = user_message("Hi, my name is Ada")
    assert "Ada" in text_of(ask([told]))
    assert "Your name is Ada" in text_of(ask([told, said("Hi"), user_message("What is my name?")]))
    assert "not told me" in text_of(ask("What is my name?"))


def test_an_answered_history_is_answered_once_more() -> None:
    assert "Hello!" in text_of(ask([user_message("hello"), said("Hi")]))


def test_structured_output_is_filled_from_what_is_known() -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": STRING,
            "temperature": {"type": "number"},
            "kind": {"enum": ["brief", "long"]},
            "summary": STRING,
            "tags": {"type": "array", "items": STRING},
            "sure": {"type": "boolean"},
        },
        "required": ["city", "temperature", "kind", "summary", "tags", "sure"],
    }
    output = OutputSchema("report", schema, strict=True)
    items = answered("weather in Paris", (*PARIS, '{"temperature": 18.5}'))
    assert json.loads(text_of(ask(items, output=output))) == {
        "city": "Paris",
        "temperature": 18.5,
        "kind": "brief",
        "summary": "According to `get_weather` for Paris: temperature 18.5.",
        "tags": ["item-1"],
        "sure": True,
    }
    free = json.loads(text_of(ask("Explain love.", output=output)))
    assert "Explain love" in free["summary"]


@given(st.text(max_size=300), st.sampled_from([None, "required"]))
def test_no_message_breaks_it(text: str, choice: ToolChoice | None) -> None:
    for tools in (TOOLS, SPEAKING):
        items = (
            answered("x", ("f", {}, text)) if len(text) % 2 else [said("a"), *answered(text or "x")]
        )
        answer = ask(items, tools, choice)
        assert answer
        for _, arguments in calls_of(answer):
            assert isinstance(arguments, dict)


def test_a_new_question_leaves_unreported_outputs_behind() -> None:
    cancelled = answered("What is 6*7?", ("calculate", {"expression": "6*7"}, "cancelled"))
    assert "cancelled" not in text_of(ask([*cancelled, user_message("Hello!")]))
    assert calls_of(ask([*cancelled, user_message("What is 2*3?")])) == [
        ("calculate", {"expression": "2*3"})
    ]


@pytest.mark.parametrize(
    ("question", "announcement"),
    [
        ("What is the weather in Paris?", "Let me look up the weather in Paris…"),
        ("What is 17*23?", "Let me work out 17*23…"),
        ("What time is it in Oslo?", "Let me look at the clock for Oslo…"),
        ("List the files", "Let me list the files…"),
        ("Read README.md", "Let me read README.md…"),
        ("Search for treadle", "Let me search for treadle…"),
    ],
)
def test_it_says_what_it_is_about_to_do(question: str, announcement: str) -> None:
    [(name, arguments)] = calls_of(ask(question, SPEAKING))
    assert next(iter(arguments.items())) == ("to_user", announcement)
    [(plain, expected)] = calls_of(ask(question))
    assert (name, {k: v for k, v in arguments.items() if k != "to_user"}) == (plain, expected)


def test_an_announcement_is_not_part_of_the_answer() -> None:
    question, output = user_message("What is the weather in Paris?"), "18 degrees"
    plain, speaking = '{"city":"Paris"}', '{"to_user":"Let me…","city":"Paris"}'
    answers = {
        text_of(
            ask(
                [
                    question,
                    FunctionCall("c", "get_weather", written),
                    FunctionCallOutput("c", output),
                ],
                tools,
            )
        )
        for written, tools in ((plain, TOOLS), (plain, SPEAKING), (speaking, SPEAKING))
    }
    assert len(answers) == 1
    assert "Let me" not in answers.pop()


def test_a_parameter_is_known_to_speak_by_its_description_too() -> None:
    say = {**STRING, "description": "one short sentence to the user"}
    tools = (tool("roll", "Rolls dice.", ("say",), say=say),)
    assert calls_of(ask("roll", tools)) == [("roll", {"say": "Let me use roll…"})]
    tools = (tool("search", "", ("say", "query"), say=say, query=STRING),)
    [(_, arguments)] = calls_of(ask(f"search for '{'x' * 61}'", tools))
    assert arguments == {"say": f"Let me search for {'x' * 60}…", "query": "x" * 61}


@pytest.mark.anyio
async def test_it_streams_calls_and_words() -> None:
    request = ModelRequest(items=[user_message(QUESTION)], tools=TOOLS)
    events = [event async for event in DemoModel().stream(request)]
    items = [event.item for event in events if isinstance(event, ItemFinished)]
    assert [item.name for item in items if isinstance(item, FunctionCall)] == [
        "get_weather",
        "get_weather",
        "calculate",
    ]
    assert len({item.call_id for item in items if isinstance(item, FunctionCall)}) == 3
    request = ModelRequest(items=[user_message("Hello!")])
    events = [event async for event in DemoModel().stream(request)]
    deltas = [event.delta for event in events if isinstance(event, treadle.TextDelta)]
    assert len(deltas) > 20
    assert "".join(deltas) == respond(request)
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].usage.output_tokens == len(deltas)
    assert events[-1].usage.input_tokens == 1


@pytest.mark.anyio
async def test_the_demo_agent_answers_with_its_tools(tmp_path: object) -> None:
    agent = demo_agent("demo", tmp_path)  # type: ignore[arg-type]
    result = await agent.run(QUESTION)
    assert "391" in result.text
    assert result.text.count("temperature celsius") == 2
    assert result.steps == 2
