"""The parameter that speaks to the user: in the schema of the model, and nowhere else."""

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from treadle import Agent, tool
from treadle.domain.items import FunctionCall
from treadle.domain.schema import ToolSchema
from treadle.errors import ConfigurationError, InvalidTool
from treadle.loop.definition import hash_of
from treadle.models.wire.anthropic_schema import supported_schema
from treadle.testing import ScriptedModel
from treadle.tools.call import PreparedCall, RefusedCall, awaits_of, prepare
from treadle.tools.context import RunContext
from treadle.tools.function import Tool, with_to_user
from treadle.tools.streamed import require_streamable
from treadle.tools.strict import strict_schema
from treadle.tools.to_user import spoken
from treadle.tools.toolset import Toolset


def look(city: str, days: int = 1) -> str:
    """Looks at the weather."""
    return f"{city} {days}"


def now() -> str:
    """Tells the time."""
    return "now"


def free(options: dict[str, int]) -> str:
    """Takes an object of any form, which cannot be strict."""
    return str(options)


def parameters(made: Tool[..., object]) -> dict[str, Any]:
    return json.loads(json.dumps(made.schema.parameters))


@pytest.mark.parametrize("function", [look, now, free])
def test_it_is_the_first_parameter_of_a_copy_of_the_schema(function: Any) -> None:
    plain, speaking = tool(function), tool(to_user=True)(function)
    schema = parameters(speaking)
    assert next(iter(schema["properties"])) == "to_user"
    assert schema["required"][0] == "to_user"
    field = schema["properties"].pop("to_user")
    assert field["type"] == "string"
    assert "Let me look that up…" in field["description"]
    schema["required"].remove("to_user")
    assert schema == {"required": [], **parameters(plain)}
    assert speaking.schema.strict == plain.schema.strict
    assert "to_user" not in plain.signature.parameters["properties"]  # type: ignore[operator]


def test_a_strict_schema_stays_strict() -> None:
    made = tool(to_user=True, strict=True)(look)
    assert made.schema.strict
    assert strict_schema(made.schema.parameters) == made.schema.parameters
    supported = supported_schema(made.schema.parameters)
    assert supported is not None
    assert next(iter(supported["properties"])) == "to_user"  # type: ignore[call-overload]


def test_a_schema_without_properties_gets_one() -> None:
    schema = spoken(ToolSchema("t", "", {"type": "object"}, strict=False), "say")
    assert list(schema.parameters["properties"]) == ["say"]  # type: ignore[call-overload]
    assert schema.parameters["required"] == ["say"]


@pytest.mark.parametrize("value", ['"Let me…"', "null", "17", '{"to_user":1}', "[]", '""'])
@pytest.mark.parametrize("place", ["first", "last", "only", "absent"])
def test_the_function_does_not_get_it(value: str, place: str) -> None:
    made = tool(to_user=True)(look)
    own = '"city":"Paris","days":2'
    written = {
        "first": f'{{"to_user":{value},{own}}}',
        "last": f'{{{own},"to_user":{value}}}',
        "only": f'{{"to_user":{value}}}',
        "absent": f"{{{own}}}",
    }[place]
    prepared = prepare(Toolset([made]), FunctionCall("c", "look", written))
    if place == "only":
        assert isinstance(prepared, RefusedCall)
        assert "city" in prepared.problem
        assert "to_user" not in prepared.problem
    else:
        assert isinstance(prepared, PreparedCall)
        assert prepared.arguments == {"city": "Paris", "days": 2}
    assert prepared.call.arguments == written


@pytest.mark.parametrize("written", ["", " ", "{}", '{"to_user":"Let me…"}', '{"to_user":null}'])
def test_a_tool_that_takes_nothing_else(written: str) -> None:
    prepared = prepare(Toolset([now], to_user=True), FunctionCall("c", "now", written))
    assert isinstance(prepared, PreparedCall)
    assert prepared.arguments == {}


@pytest.mark.anyio
async def test_approval_is_decided_without_it() -> None:
    seen: list[Mapping[str, object]] = []

    def needs_approval(arguments: Mapping[str, object]) -> bool:
        seen.append(arguments)
        return True

    made = tool(to_user="say", needs_approval=needs_approval)(look)
    call = FunctionCall("c", "look", '{"say":"Let me…","city":"Paris"}')
    context: RunContext[object] = RunContext(deps=None, thread_id="t", run_id="r")
    assert awaits_of(Toolset([made]), call, lambda: context) == "approval"
    assert seen == [{"city": "Paris"}]


def test_an_agent_gives_it_to_all_tools_that_have_none() -> None:
    own = tool(to_user="announce")(look)
    plain = tool(now)
    outside = tool(external=True)(free)
    agent = Agent(ScriptedModel([]), tools=[own, plain, outside], to_user="say")
    assert [made.to_user for made in agent.tools] == ["announce", "say", "say"]
    assert plain.to_user == ""
    assert [next(iter(parameters(made)["properties"])) for made in agent.tools] == [
        "announce",
        "say",
        "say",
    ]
    assert set(agent.tools.streamed) == {"look", "now", "free"}
    assert Agent(ScriptedModel([]), tools=[now]).tools.streamed == {}


def test_the_function_itself_is_called_as_before() -> None:
    assert tool(to_user=True)(look)("Paris", days=3) == "Paris 3"
    assert with_to_user(tool(look)).to_user == "to_user"


@pytest.mark.parametrize("name", ["", "two words", "1st", "a-b", "é", "x" * 65])
def test_a_name_that_is_no_identifier(name: str) -> None:
    with pytest.raises(InvalidTool, match=r"use an identifier of at most 64 letters"):
        tool(to_user=name)(look)


def test_a_tool_that_has_that_parameter_already() -> None:
    with pytest.raises(InvalidTool, match=r"look has a parameter 'city' already; rename it, or"):
        tool(to_user="city")(look)
    with pytest.raises(InvalidTool, match=r"another name: to_user=\"…\""):
        Agent(ScriptedModel([]), tools=[look], to_user="city")


class Letter(BaseModel):
    title: str
    body: str | None = None
    kind: Literal["long", "short"] = "long"
    pages: int = 1


class Tone(Enum):
    FORMAL = "formal"
    WARM = "warm"


def write(
    title: str, kind: Literal["a", "b"], tone: Tone, letter: Letter, body: str | None = None
) -> str:
    """Writes."""
    return f"{title}{kind}{tone}{letter}{body}"


@pytest.mark.parametrize("strict", [True, False])
def test_string_parameters_can_be_streamed(strict: bool) -> None:
    made = tool(stream_fields=["title", "body", "kind", "tone", "title"], strict=strict)(write)
    assert made.stream_fields == ("title", "body", "kind", "tone")
    assert Toolset([made]).streamed["write"].fields == ("title", "body", "kind", "tone")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (["text"], "'text', which the tool write does not have; it has: title, kind, tone, letter"),
        (["letter"], "'letter' of the tool write, which is not a string; only strings"),
        (["to_user"], "'to_user', which the tool write does not have"),
        ("title", r"is a list of names: stream_fields=\['title'\]"),
    ],
)
def test_what_cannot_be_streamed(fields: Any, problem: str) -> None:
    with pytest.raises(InvalidTool, match=problem):
        tool(stream_fields=fields, to_user=True)(write)
    with pytest.raises(InvalidTool, match="'options' of the tool free, which is not a string"):
        tool(stream_fields=["options"])(free)
    with pytest.raises(InvalidTool, match="'x', which the tool now does not have; it has: none"):
        tool(stream_fields=["x"])(now)


def test_a_schema_that_says_nothing_of_a_string() -> None:
    schema = {"properties": {"a": True, "b": {"$ref": "#/x"}, "c": {"type": ["null", "string"]}}}
    assert require_streamable(["c"], schema, "it", InvalidTool) == ("c",)
    for name in ("a", "b"):
        with pytest.raises(InvalidTool, match="is not a string"):
            require_streamable([name], schema, "it", InvalidTool)


def test_fields_of_the_structured_output() -> None:
    model = ScriptedModel([])
    agent = Agent(model, output=Letter, stream_fields=["title", "body"])
    assert agent.stream_fields == ("title", "body")
    for fields, problem in (("x", "the output Letter"), (["pages"], "is not a string")):
        with pytest.raises(ConfigurationError, match=problem):
            Agent(model, output=Letter, stream_fields=fields)
    for output in (None, str):
        with pytest.raises(ConfigurationError, match=r"give it output=…; for the arguments"):
            Agent(model, output=output, stream_fields=["title"])


def test_the_hash_tells_what_is_streamed() -> None:
    model = ScriptedModel([])
    agents = [
        Agent(model, tools=[look], output=Letter),
        Agent(model, tools=[look], output=Letter, to_user=True),
        Agent(model, tools=[look], output=Letter, to_user="say"),
        Agent(model, tools=[look], output=Letter, stream_fields=["title"]),
        Agent(model, tools=[tool(stream_fields=["city"])(look)], output=Letter),
    ]
    assert len({hash_of(agent) for agent in agents}) == len(agents)
    assert hash_of(Agent(model, tools=[look], output=Letter)) == hash_of(agents[0])


def test_a_tool_may_be_called_again_with_what_it_was_given() -> None:
    """Arguments are copied where something is taken out of them, and left alone otherwise."""
    made = tool(to_user=True)(look)
    given = {"to_user": "x", "city": "Paris"}
    assert made.validate(given) == made.validate({"city": "Paris"}) == {"city": "Paris"}
    assert given == {"to_user": "x", "city": "Paris"}
