import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.testing.simulator import Call, Text, think
from treadle.testing.simulator.brain.extraction import expression, path, place, query, seconds, zone
from treadle.testing.simulator.wire.chat_request import decode_chat
from treadle.testing.simulator.wire.responses_request import decode_responses

STRING = {"type": "string"}


def tool(name: str, description: str = "", required: tuple[str, ...] = (), **parameters):
    schema = {"type": "object", "properties": parameters, "required": list(required)}
    return {
        "type": "function",
        "name": name,
        "description": description,
        "parameters": schema,
    }


TOOLS = [
    tool("get_weather", "The weather in a city now.", ("city",), city=STRING),
    tool("calculate", "Evaluates arithmetic.", ("expression",), expression=STRING),
    tool(
        "current_time",
        "The time in a time zone.",
        timezone={"type": "string", "default": "UTC"},
    ),
    tool("list_files", "Lists the files of the workspace."),
    tool("read_file", "Reads a file of the workspace.", ("path",), path=STRING),
    tool(
        "slow_search",
        "Searches, and takes its time.",
        ("query",),
        query=STRING,
        seconds={"type": "number", "default": 3},
    ),
]


SPEAKING = [
    tool(
        made["name"],
        made["description"],
        ("to_user", *made["parameters"]["required"]),
        to_user=STRING,
        **made["parameters"]["properties"],
    )
    for made in TOOLS
]


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def ask(history, tools=TOOLS, **more):
    given = [user(history)] if isinstance(history, str) else history
    body = {"model": "demo", "input": given, "tools": tools, **more}
    return think(decode_responses(body, len(msgspec.json.encode(body))))


def calls_of(outputs) -> list[tuple[str, dict]]:
    return [(c.name, json.loads(c.arguments)) for c in outputs if isinstance(c, Call)]


def text_of(outputs) -> str:
    (output,) = outputs
    assert isinstance(output, Text)
    return output.text


def answered(question: str, *results: tuple[str, dict, str]) -> list[dict]:
    history = [user(question)]
    for number, (name, arguments, _) in enumerate(results):
        history.append(
            {
                "type": "function_call",
                "call_id": f"c{number}",
                "name": name,
                "arguments": json.dumps(arguments),
            }
        )
    history += [
        {"type": "function_call_output", "call_id": f"c{number}", "output": output}
        for number, (_, _, output) in enumerate(results)
    ]
    return history


QUESTION = "What is the weather in Paris and in Beijing, and what is 17*23?"
PARIS = ("get_weather", {"city": "Paris"})
NEW_YORK = ("get_weather", {"city": "New York"})
RIO = ("get_weather", {"city": "Rio de Janeiro"})
BEIJING = ("get_weather", {"city": "Beijing"})
PRODUCT = ("calculate", {"expression": "17*23"})


@pytest.mark.parametrize(
    ("question", "calls"),
    [
        (QUESTION, [PARIS, BEIJING, PRODUCT]),
        ("weather in paris, beijing and New York?", [PARIS, BEIJING, NEW_YORK]),
        ("In Paris, what's the weather?", [PARIS]),
        ("Is it raining in Rio de Janeiro tomorrow?", [RIO]),
        ("what's 12 + 5 times 3", [("calculate", {"expression": "12 + 5 * 3"})]),
        ("what is seven times eight?", [("calculate", {"expression": "7 * 8"})]),
        ("What time is it in Tokyo?", [("current_time", {"timezone": "Asia/Tokyo"})]),
        ("what time is it", [("current_time", {})]),
        ("which files are there?", [("list_files", {})]),
        (
            "List the files, then read README.md.",
            [("list_files", {}), ("read_file", {"path": "README.md"})],
        ),
        ("wait 2 seconds", [("slow_search", {"query": "wait 2 seconds", "seconds": 2.0})]),
        ("Search for the history of tea", [("slow_search", {"query": "the history of tea"})]),
        ("hello there", []),
        ("", []),
    ],
)
def test_questions(question, calls):
    assert calls_of(ask(question)) == calls


def test_the_same_wish_twice_is_one_call():
    assert calls_of(ask("Weather in Paris? Weather in Paris!")) == [PARIS]


def test_tools_of_other_names_are_understood():
    tools = [
        tool("fetchConditions", "Forecast of a place", ("location",), location=STRING),
        tool("evaluate", "", ("formula",), formula=STRING),
        tool("clock", "", ("tz",), tz=STRING),
        tool("open_document", "Shows a file", ("filename",), filename=STRING),
        tool(
            "book_table",
            "Reserves a table in a restaurant",
            ("guests", "smoking", "area"),
            guests={"type": "integer"},
            smoking={"type": "boolean"},
            area={"enum": ["terrace", "hall"]},
            note={"anyOf": [STRING, {"type": "null"}]},
        ),
    ]
    question = (
        "Temperature in Oslo, 3*4, the time in Rome? Please book a table for four in the hall."
    )
    assert calls_of(ask(question, tools)) == [
        ("fetchConditions", {"location": "Oslo"}),
        ("evaluate", {"formula": "3*4"}),
        ("clock", {"tz": "Europe/Rome"}),
        ("book_table", {"guests": 4, "smoking": True, "area": "hall"}),
    ]


def test_strict_schemas_get_null_for_what_is_not_told():
    nullable = {"anyOf": [STRING, {"type": "null"}]}
    tools = [tool("get_weather", "", ("city", "unit"), city=STRING, unit=nullable)]
    assert calls_of(ask("weather in Paris", tools)) == [
        ("get_weather", {"city": "Paris", "unit": None})
    ]


def test_what_a_tool_needs_and_the_question_lacks_is_asked_for():
    text = text_of(ask("How is the weather?"))
    assert "`get_weather`" in text
    assert "`city`" in text


def test_the_reply_is_made_of_the_real_outputs():
    history = answered(
        QUESTION,
        (*PARIS, '{"city": "Paris", "temperature_c": 18, "sky": "light rain"}'),
        (*BEIJING, "Error: no data for Beijing"),
        (*PRODUCT, "391"),
    )
    text = text_of(ask(history))
    assert "`get_weather` for Paris: temperature c 18, sky light rain." in text
    assert "`get_weather` for Beijing, the call failed: Error: no data for Beijing" in text
    assert "`calculate`: 17*23 = 391" in text


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ('["a.txt", "b.txt"]', "`list_files`: a.txt, b.txt."),
        ("[]", "`list_files`: nothing."),
        ("", "`list_files`: nothing."),
        ('{"result": [1, true, null]}', "`list_files`: 1, yes, nothing."),
        ('{"error": {"reason": "denied"}}', "`list_files`, the call failed: reason denied"),
        ("two\nlines", "`list_files`: \ntwo\nlines"),
        ("x" * 1000, "(1000 characters in all)"),
    ],
)
def test_outputs_of_any_shape(output, said):
    assert said in text_of(ask(answered("list the files", ("list_files", {}, output))))


def test_only_what_was_not_called_yet_is_called():
    history = answered(QUESTION, (*PARIS, "rain"))
    assert calls_of(ask(history)) == [BEIJING, PRODUCT]


def test_a_message_that_joins_while_tools_run_is_answered_too():
    history = [*answered("weather in Paris?", (*PARIS, "rain")), user("and in Beijing?")]
    assert calls_of(ask([*history, user("and what is 17*23?")])) == [PRODUCT]
    history = [*answered("weather in Paris?", (*PARIS, "rain")), user("weather in Beijing?")]
    assert calls_of(ask(history)) == [BEIJING]


def test_a_follow_up_asks_for_the_same_tool_again():
    history = [
        *answered("weather in Paris?", (*PARIS, "rain")),
        {"role": "assistant", "content": "Rain."},
        user("And in Beijing?"),
    ]
    assert calls_of(ask(history)) == [BEIJING]


def test_tool_choice():
    assert calls_of(ask(QUESTION, tool_choice="none")) == []
    assert calls_of(ask("hello", tool_choice="required")) == [("get_weather", {"city": "city-1"})]
    named = {"type": "function", "name": "calculate"}
    assert calls_of(ask(QUESTION, tool_choice=named)) == [PRODUCT]
    assert calls_of(ask("hello", tools=[], tool_choice="required")) == []


def test_small_talk_is_honest():
    hello = text_of(ask("Hello!"))
    assert "not a language model" in hello
    assert "`get_weather(city)`" in hello
    assert "`current_time(timezone?)`" in hello
    assert text_of(ask("Hello!", SPEAKING)) == hello
    assert "no tools" in text_of(ask("Who are you?", tools=[]))
    assert "“Explain love.”" in text_of(ask("Explain love."))
    assert "welcome" in text_of(ask("thanks"))
    assert "Goodbye" in text_of(ask("bye"))


def test_it_remembers_what_the_thread_holds():
    told = user("Hi, my name is Ada")
    reply = {"role": "assistant", "content": "Hello Ada"}
    assert "Ada" in text_of(ask([told]))
    assert "Your name is Ada" in text_of(ask([told, reply, user("What is my name?")]))
    assert "not told me" in text_of(ask("What is my name?"))


def test_an_answered_history_is_answered_once_more():
    history = [user("hello"), {"role": "assistant", "content": "Hi"}]
    assert "Hello!" in text_of(ask(history))


def test_structured_output_is_filled_from_what_is_known():
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
    text = {"format": {"type": "json_schema", "name": "report", "schema": schema}}
    history = answered("weather in Paris", (*PARIS, '{"temperature": 18.5}'))
    assert json.loads(text_of(ask(history, text=text))) == {
        "city": "Paris",
        "temperature": 18.5,
        "kind": "brief",
        "summary": "According to `get_weather` for Paris: temperature 18.5.",
        "tags": ["item-1"],
        "sure": True,
    }
    free = json.loads(text_of(ask("Explain love.", text=text)))
    assert "Explain love" in free["summary"]


def test_chat_requests_are_understood_alike():
    tools = [
        {"type": "function", "function": {k: v for k, v in t.items() if k != "type"}} for t in TOOLS
    ]
    body = {"model": "demo", "messages": [user(QUESTION)], "tools": tools}
    assert calls_of(think(decode_chat(body, 1))) == [PARIS, BEIJING, PRODUCT]


@pytest.mark.parametrize(
    ("find", "clause", "found"),
    [
        (expression, "what is (2+3)*4 - 1.", "(2+3)*4 - 1"),
        (expression, "15% of 80", "15 / 100 * 80"),
        (expression, "the square root of 16 plus 1", "16 ** 0.5 + 1"),
        (expression, "1,000 divided by 8", "1000 / 8"),
        (expression, "the sum of 3 and 4", "3 + 4"),
        (expression, "2 to the power of 10", "2 ** 10"),
        (expression, "on 2024-01-02 at 10", None),
        (expression, "version-2 of 7 files", None),
        (place, "weather in San Francisco, CA today", "San Francisco, CA"),
        (place, "Tokyo's weather", "Tokyo"),
        (place, "what is the weather", None),
        (path, "read 'my notes.txt'", "my notes.txt"),
        (path, "open docs/design.md please", "docs/design.md"),
        (path, "read the file called Makefile", "Makefile"),
        (path, "read README", "README"),
        (path, "read it", None),
        (zone, "time in UTC", "UTC"),
        (zone, "time in Europe/Oslo", "Europe/Oslo"),
        (zone, "time in Zanzibar", "Zanzibar"),
        (seconds, "for two minutes", 120.0),
        (seconds, "take 250 ms", 0.25),
        (seconds, "take 3 seconds", 3.0),
        (seconds, "soon", None),
        (query, "look up 'tea'", "tea"),
        (query, "search the web for green tea for 2 seconds", "green tea"),
    ],
)
def test_extraction(find, clause, found):
    result = find(clause)
    if find is expression and result is not None:
        result, found = result.replace(" ", ""), found.replace(" ", "")
    assert result == found


@given(st.text(max_size=300), st.booleans())
def test_no_message_breaks_it(text, forced):
    outputs = ask(text, tool_choice="required" if forced else "auto")
    assert outputs
    for _, arguments in calls_of(outputs):
        assert isinstance(arguments, dict)


def test_a_new_question_leaves_unreported_outputs_behind():
    cancelled = answered("What is 6*7?", ("calculate", {"expression": "6*7"}, "cancelled"))
    assert "cancelled" not in text_of(ask([*cancelled, user("Hello!")]))
    assert calls_of(ask([*cancelled, user("What is 2*3?")])) == [
        ("calculate", {"expression": "2*3"})
    ]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("What is the weather in Paris?", "Let me look up the weather in Paris…"),
        ("What is 17*23?", "Let me work out 17*23…"),
        ("What time is it?", "Let me look at the clock…"),
        ("List the files", "Let me see which files there are…"),
        ("Read README.md", "Let me read README.md…"),
        ("Search for treadle", "Let me search for treadle…"),
    ],
)
def test_it_says_what_it_is_about_to_do(question: str, said: str) -> None:
    [(name, arguments)] = calls_of(ask(question, SPEAKING))
    assert next(iter(arguments.items())) == ("to_user", said)
    [(plain, expected)] = calls_of(ask(question))
    assert (name, {k: v for k, v in arguments.items() if k != "to_user"}) == (plain, expected)


def test_what_was_said_is_no_part_of_the_answer() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "get_weather"}
    output = {"type": "function_call_output", "call_id": "c", "output": "18 degrees"}
    question = user("What is the weather in Paris?")
    plain, speaking = '{"city":"Paris"}', '{"to_user":"Let me…","city":"Paris"}'
    answers = {
        text_of(ask([question, {**call, "arguments": written}, output], tools))
        for written, tools in ((plain, TOOLS), (plain, SPEAKING), (speaking, SPEAKING))
    }
    assert len(answers) == 1
    assert "Let me" not in answers.pop()


def test_a_parameter_is_known_to_speak_by_its_description_too() -> None:
    say = {**STRING, "description": "one short sentence to the user"}
    tools = [tool("roll", "Rolls dice.", ("say",), say=say)]
    assert calls_of(ask("roll", tools)) == [("roll", {"say": "Let me look that up…"})]
    long = "x" * 61
    tools = [tool("search", "", ("say", "query"), say=say, query=STRING)]
    [(_, arguments)] = calls_of(ask(f"search for '{long}'", tools))
    assert arguments == {"say": "Let me search for that…", "query": long}
