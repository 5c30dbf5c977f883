"""What type checkers know about agents; a line that ends in `# error` must be one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_type

import treadle
from treadle import Agent, HookContext, Hooks, RunContext
from treadle.models import ModelRequest


@dataclass
class Shop:
    name: str
    limit: int = 100


@treadle.tool
def plain(x: int) -> str:
    """Has no context."""
    return str(x)


@treadle.tool
def price(context: RunContext[Shop], article: str) -> int:
    """Reads the deps."""
    return len(context.deps.name + article)


@treadle.tool(timeout=5)
async def order(context: RunContext[Shop], article: str) -> str:
    """Has options."""
    return context.deps.name + article


@treadle.tool(needs_approval=lambda arguments: arguments["amount"] > 100)
def pay(amount: int) -> str:
    """Has a rule."""
    return str(amount)


@treadle.tool(needs_approval=lambda context, arguments: arguments["amount"] > context.deps.limit)
def pay_more(amount: int) -> str:
    """Has a rule that reads the context."""
    return str(amount)


async def rule(context: RunContext[Shop], arguments: Mapping[str, Any]) -> bool:
    return bool(arguments["amount"] > context.deps.limit)


@treadle.tool(needs_approval=rule)
def pay_most(amount: int) -> str:
    """Has an async rule."""
    return str(amount)


@treadle.tool(external=True)
async def ask(question: str) -> None:
    """Has no body."""


def function(x: int) -> str:
    """Is not decorated."""
    return str(x)


async def instructions(context: RunContext[Shop]) -> str:
    return context.deps.name


async def no_context() -> str:
    return "Be brief."


def look(context: HookContext[Shop], request: ModelRequest) -> None:
    print(context.deps.name, request)


assert_type(Agent("demo"), Agent[None, str])
assert_type(Agent("demo", output=Shop), Agent[None, Shop])
assert_type(Agent("demo", instructions=no_context), Agent[None, str])
assert_type(Agent("demo", instructions=lambda: "Be brief."), Agent[None, str])
assert_type(Agent("demo", tools=[price]), Agent[Shop, str])
assert_type(Agent("demo", instructions=instructions), Agent[Shop, str])
assert_type(Agent[Shop]("demo", hooks=Hooks(before_model=look)), Agent[Shop, str])
assert_type(price.function(RunContext(deps=Shop(""), thread_id="", run_id=""), "x"), int)

several = Agent[Shop]("demo", tools=[plain, price, order, function, pay, ask])
assert_type(several, Agent[Shop, str])
assert_type(Agent[Shop]("demo", instructions=lambda c: c.deps.name), Agent[Shop, str])
no_deps: Agent = Agent("demo", tools=[plain, pay, pay_more, pay_most, ask])

wrong_tool = Agent[None]("demo", tools=[price])  # error
wrong_tools = Agent[int]("demo", tools=[plain, order])  # error
wrong_instructions = Agent[int]("demo", instructions=instructions)  # error
wrong_keyword = Agent("demo", system_prompt="Be brief.")  # error


async def main() -> None:
    """Runs agents."""
    assert_type((await Agent("demo").run("hi")).text, str)
    await several.run("hi", deps=Shop("corner"))
    await several.run("hi", deps=3)  # error
