"""What people do with agents, the same for each protocol.

A scenario is an agent with the script of its model, what a person says and answers, and what the
thread must hold at the end. `tests.protocols.protocol` plays it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct
from pydantic import BaseModel
from tests.protocols.protocol import ClientTool, End, File, Person, Protocol, Seen, Stage

from treadle import Agent, HostedCall, UrlCitation, tool
from treadle.errors import BadRequest
from treadle.models.base import ModelRequest
from treadle.testing import (
    Call,
    Hosted,
    Pause,
    Reasoning,
    Refusal,
    ScriptedModel,
    Text,
    Turn,
    Unfinished,
)

AGENT = "helper"
WORDS = tuple(f"{word} " for word in ("The quick brown fox jumps over the lazy dog. " * 4).split())
LONG = "".join(WORDS)
PIXEL = File(
    "pixel.png",
    "image/png",
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
)
PDF = File(
    "a.pdf",
    "application/pdf",
    "JVBERi0xLjEKMSAwIG9iajw8L1R5cGUvQ2F0YWxvZy9QYWdlcyAyIDAgUj4+ZW5kb2JqCjIgMCBvYmo8PC9UeXBlL1Bh"
    "Z2VzL0tpZHNbMyAwIFJdL0NvdW50IDE+PmVuZG9iagozIDAgb2JqPDwvVHlwZS9QYWdlL1BhcmVudCAyIDAgUi9NZWRp"
    "YUJveFswIDAgOSA5XT4+ZW5kb2JqCnRyYWlsZXI8PC9Sb290IDEgMCBSPj4KJSVFT0YK",
)
LOOK_UP = ClientTool(
    "look_up",
    "Looks up a word.",
    {
        "type": "object",
        "properties": {"word": {"type": "string"}},
        "required": ["word"],
        "additionalProperties": False,
    },
)


class Scenario(Struct, frozen=True, kw_only=True):
    """A scenario.

    `steps` are the answers of the model, `options` those of the agent, and `acting` the name of a
    tool that makes something else happen on the thread. `holds` is the history of the thread in
    the form of `transcript`, with `#` for the number of the person; it is empty if nothing was
    recorded. `status` is that of the last run, `end` how it ended for the person, and `error`
    parts of the error that the person sees.
    """

    name: str
    steps: Sequence[Any]
    play: Callable[[Person, int], Awaitable[Seen]]
    holds: Sequence[str]
    options: dict[str, Any] = {}
    client_tools: Sequence[ClientTool] = ()
    acting: Callable[[Stage], Any] | None = None
    addressed: str = AGENT
    persons: int = 1
    status: str = "completed"
    end: End = "completed"
    error: Sequence[str] = ()

    def agent(self, stage: Stage) -> Agent:
        """Returns the agent that is served."""
        options: dict[str, Any] = {"overridable": ["tools", "tool_choice", "output"]}
        options |= self.options
        tools = [*options.pop("tools", ())]
        if self.acting is not None:
            tools.append(self.acting(stage))
        if self.client_tools and not stage.protocol.brings_tools:
            tools.append(look_up)
        return Agent(ScriptedModel(list(self.steps)), name=AGENT, tools=tools, **options)


@tool(external=True)
async def look_up(word: str) -> str:
    """Looks up a word."""
    raise NotImplementedError


@tool
async def weather(city: str) -> str:
    """Returns the weather in a city."""
    if city == "Atlantis":
        raise ValueError("There is no such city.")
    await asyncio.sleep({"Rome": 0.02, "Paris": 0.3}.get(city, 0.0))
    return f"Sunny in {city}."


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pays."""
    return f"Paid {amount}."


class Weather(BaseModel):
    """An answer with a form."""

    city: str
    degrees: int


def steering(stage: Stage) -> Any:
    """Returns a tool during which another program sends a message to the thread."""

    @tool
    async def wait() -> str:
        """Waits."""
        (thread,) = await stage.threads()
        await thread.send("And in Oslo?", on_busy="steer")
        return "Waited."

    return wait


def _echo(request: ModelRequest) -> Any:
    said = [item.text for item in request.items if getattr(item, "role", "") == "user"]
    return Turn((Text(f"You said: {' / '.join(said)}"),), every=0.001)


def _call(city: str, id: str = "", **more: str) -> Call:
    extra = "".join(f'"{name}": "{value}", ' for name, value in more.items())
    return Call("weather", f'{{{extra}"city": "{city}"}}', id or f"call_{city.lower()}")


def _look_up(word: str) -> Call:
    return Call("look_up", f'{{"word": "{word}"}}', f"call_{word}")


# What the persons do


async def _say_hi(person: Person, _: int) -> Seen:
    return await person.say("Hi.")


async def _watch(person: Person, _: int) -> Seen:
    seen = await person.say("Hi.")
    assert seen.growths > 1, "The text did not arrive in pieces."
    return seen


async def _hear(person: Person, _: int) -> Seen:
    seen = await person.say("Hi.")
    if "output" in seen.order:
        assert seen.order.index("said") < seen.order.index("output")
        assert seen.order.index("output") < seen.order.index("text")
    assert seen.growths > 1, "The text for the user did not arrive in pieces."
    return seen


async def _answer(person: Person, _: int) -> Seen:
    seen = await person.say("Hi.")
    assert seen.end == "waits"
    waiting = seen.waiting("output")
    assert [call.arguments.replace(" ", "") for call in waiting] == [
        '{"word":"a"}',
        '{"word":"b"}',
    ]
    return await person.answer({call.id: f"A{number}." for number, call in enumerate(waiting, 1)})


async def _answer_one(person: Person, _: int) -> Seen:
    seen = await person.say("Hi.")
    assert seen.end == "waits"
    (asked,) = seen.waiting("output")
    # The client is asked once the agent has nothing left to do; some clients see no own calls.
    own = [call.output for call in seen.calls if not call.awaits]
    assert own in ([], ["Sunny in Paris."])
    return await person.answer({asked.id: "A."})


async def _decide(person: Person, _: int) -> Seen:
    seen = await person.say("Pay.")
    assert seen.end == "waits"
    first, second = seen.waiting("approval")
    return await person.decide({first.id: True, second.id: False})


async def _stop(person: Person, _: int) -> Seen:
    return await person.say("Hi.", stop_after=8)


async def _leave(person: Person, _: int) -> Seen:
    seen = await person.say("Hi.", leave_after=20)
    assert seen.end == "cut"
    return await person.resume()


async def _look(person: Person, _: int) -> Seen:
    return await person.say("Look.", files=[PIXEL])


async def _read(person: Person, _: int) -> Seen:
    return await person.say("Read.", files=[PDF])


async def _talk(person: Person, number: int) -> Seen:
    await person.say(f"I am {number}.")
    await person.say("And?")
    return await person.say("Bye.")


async def _search(person: Person, _: int) -> Seen:
    await person.say("Hi.")
    return await person.say("Bye.")


SOURCE = UrlCitation("https://example.com/rome", "Rome", start_index=0, end_index=5)
SEARCH = Hosted(HostedCall("web_search", "ws_1", "completed", "weather Rome", sources=(SOURCE,)))

ECHOES = (
    "user: I am #.",
    "agent: You said: I am #.",
    "user: And?",
    "agent: You said: I am #. / And?",
    "user: Bye.",
    "agent: You said: I am #. / And? / Bye.",
)

SCENARIOS = (
    Scenario(
        name="text",
        steps=[Turn((Reasoning("Be kind."), Text(LONG, len(WORDS))), every=0.005)],
        play=_watch,
        holds=["user: Hi.", f"agent: {LONG}"],
    ),
    Scenario(
        name="server tool",
        steps=[[Text("Let me see."), _call("Rome")], "Sunny."],
        options={"tools": [weather]},
        play=_say_hi,
        holds=[
            "user: Hi.",
            "agent: Let me see.",
            'call: weather {"city": "Rome"}',
            "output: Sunny in Rome.",
            "agent: Sunny.",
        ],
    ),
    Scenario(
        name="client tool",
        steps=[[_look_up("a"), _look_up("b")], "Both."],
        client_tools=[LOOK_UP],
        play=_answer,
        holds=[
            "user: Hi.",
            'call: look_up {"word": "a"}',
            'call: look_up {"word": "b"}',
            "output: A1.",
            "output: A2.",
            "agent: Both.",
        ],
    ),
    Scenario(
        name="server and client tools at once",
        steps=[[_call("Paris"), _look_up("a")], "Both."],
        options={"tools": [weather]},
        client_tools=[LOOK_UP],
        play=_answer_one,
        holds=[
            "user: Hi.",
            'call: weather {"city": "Paris"}',
            'call: look_up {"word": "a"}',
            "output: Sunny in Paris.",
            "output: A.",
            "agent: Both.",
        ],
    ),
    Scenario(
        name="parallel",
        steps=[[_call("Rome"), _call("Oslo"), _call("Atlantis")], "Two of three."],
        options={"tools": [weather]},
        play=_say_hi,
        holds=[
            "user: Hi.",
            'call: weather {"city": "Rome"}',
            'call: weather {"city": "Oslo"}',
            'call: weather {"city": "Atlantis"}',
            "output: Sunny in Rome.",
            "output: Sunny in Oslo.",
            "output: weather failed: ValueError: There is no such city.",
            "agent: Two of three.",
        ],
    ),
    Scenario(
        name="hosted tool",
        steps=[[SEARCH, Text("Sunny in Rome.", citations=(SOURCE,))], "Bye."],
        play=_search,
        holds=["user: Hi.", "agent: Sunny in Rome.", "user: Bye.", "agent: Bye."],
    ),
    Scenario(
        name="approval and denial",
        steps=[
            [Call("pay", '{"amount": 1}', "call_1"), Call("pay", '{"amount": 2}', "call_2")],
            "One of two.",
        ],
        options={"tools": [pay]},
        play=_decide,
        holds=[
            "user: Pay.",
            'call: pay {"amount": 1}',
            'call: pay {"amount": 2}',
            "output: Paid 1.",
            "output: The call was denied.",
            "agent: One of two.",
        ],
    ),
    Scenario(
        name="growing to_user",
        steps=[
            Turn((_call("Rome", to_user="Let me look at the sky, please."),), every=0.005),
            "Sunny.",
        ],
        options={"tools": [weather], "to_user": True},
        play=_hear,
        holds=[
            "user: Hi.",
            'call: weather {"to_user": "Let me look at the sky, please.", "city": "Rome"}',
            "output: Sunny in Rome.",
            "agent: Sunny.",
        ],
    ),
    Scenario(
        name="structured",
        steps=['{"city": "Rome"}', '{"city": "Rome", "degrees": 30}'],
        options={"output": Weather},
        play=_say_hi,
        holds=["user: Hi.", 'agent: {"city": "Rome"}', 'agent: {"city": "Rome", "degrees": 30}'],
    ),
    Scenario(
        name="refusal",
        steps=[[Refusal("I will not do that.")]],
        play=_say_hi,
        holds=["user: Hi.", "agent: I will not do that."],
    ),
    Scenario(
        name="error before the first byte",
        steps=[],
        play=_say_hi,
        addressed="nobody",
        holds=[],
        end="failed",
        error=["nobody"],
    ),
    Scenario(
        name="error after the first byte",
        steps=[
            [Text("First."), _call("Oslo")],
            [Unfinished(Text("Half a sent", 3)), Pause(0.01), BadRequest("The model has a cold.")],
        ],
        options={"tools": [weather]},
        play=_say_hi,
        holds=[
            "user: Hi.",
            "agent: First.",
            'call: weather {"city": "Oslo"}',
            "output: Sunny in Oslo.",
        ],
        status="failed",
        end="failed",
        error=["The model has a cold."],
    ),
    Scenario(
        name="cancel",
        steps=[[Unfinished(Text("One, two, three, ")), Pause(1000)]],
        play=_stop,
        holds=["user: Hi."],
        status="cancelled",
        end="cancelled",
    ),
    Scenario(
        name="disconnect and resume",
        steps=[Turn((Text(LONG, len(WORDS)),), every=0.005)],
        play=_leave,
        holds=["user: Hi.", f"agent: {LONG}"],
    ),
    Scenario(
        name="steer",
        steps=[Call("wait", "{}", "call_wait"), "Sunny in both."],
        acting=steering,
        play=_say_hi,
        holds=[
            "user: Hi.",
            "call: wait {}",
            "output: Waited.",
            "user: And in Oslo?",
            "agent: Sunny in both.",
        ],
    ),
    Scenario(
        name="image",
        steps=["A dot."],
        play=_look,
        holds=[f"user: Look. +{PIXEL.id}", "agent: A dot."],
    ),
    Scenario(
        name="PDF",
        steps=["Empty."],
        play=_read,
        holds=[f"user: Read. +{PDF.id}", "agent: Empty."],
    ),
    Scenario(name="several turns", steps=[_echo] * 3, play=_talk, holds=ECHOES),
    Scenario(name="two clients at once", steps=[_echo] * 6, play=_talk, holds=ECHOES, persons=2),
)
"""The table."""

NAMES = tuple(scenario.name for scenario in SCENARIOS)


def served_by(protocol: type[Protocol]) -> list[Scenario]:
    """Returns the scenarios of a protocol; what it lacks must be in the table, with a reason."""
    assert set(protocol.lacks) <= set(NAMES), "A scenario is lacking that is not in the table."
    assert all(protocol.lacks.values()), "A scenario is lacking without a reason."
    return [scenario for scenario in SCENARIOS if scenario.name not in protocol.lacks]
