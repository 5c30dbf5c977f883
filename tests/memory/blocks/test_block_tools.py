"""The tools with which a model edits its memory blocks."""

import json
import re
from typing import Any

import pytest

import treadle.memory
from treadle import Agent, Block, RunContext
from treadle.domain.blocks import BlockEdit
from treadle.domain.items import FunctionCallOutput
from treadle.errors import ConfigurationError
from treadle.memory import block_tools
from treadle.memory.blocks.tools import memory_append, memory_delete
from treadle.testing import Call, ScriptedModel
from treadle.tools.context import CallServices, for_attempt

pytestmark = pytest.mark.anyio

HUMAN = Block("human", "Name: Ada\nLikes tea", "Who they are.", 60)
RULES = Block("rules", "Be kind.", read_only=True)


def call(name: str, **arguments: object) -> Call:
    return Call(f"memory_{name}", json.dumps(arguments))


async def played(*calls: Call) -> tuple[list[FunctionCallOutput], str]:
    """Returns the outputs of calls, one per step, and the blocks the model reads at the end."""
    model = ScriptedModel([*calls, "Done."])
    agent = Agent(model, tools=block_tools(), blocks=[HUMAN, RULES])
    result = await agent.run("Go.")
    outputs = [item for item in result.history if isinstance(item, FunctionCallOutput)]
    return outputs, model.requests[-1].instructions


async def test_each_tool_edits_what_the_model_reads_next() -> None:
    outputs, read = await played(
        call("append", label="human", text="Has a dog"),
        call("replace", label="human", old="tea", new="coffee"),
        call("insert", label="human", text="Lives in Bonn", line=1),
        call("create", label="plan", description="Steps.", value="one"),
        call("create", label="mood", description="How it goes.", value="well", limit=20),
        call("rewrite", label="plan", value="two"),
        call("delete", label="mood"),
    )
    assert [output.text for output in outputs] == [
        "human: 29 of 60 characters.",
        "human: 32 of 60 characters.",
        "human: 46 of 60 characters.",
        "plan: 3 of 5,000 characters.",
        "mood: 4 of 20 characters.",
        "plan: 3 of 5,000 characters.",
        "mood: deleted.",
    ]
    assert not any(output.is_error for output in outputs)
    assert "\nName: Ada\nLives in Bonn\nLikes coffee\nHas a dog\n</block>" in read
    assert 'description="Steps." chars="3 of 5000">\ntwo\n</block>' in read
    assert "mood" not in read


async def test_a_refused_edit_is_reported_and_changes_nothing() -> None:
    outputs, read = await played(
        call("append", label="human", text="x" * 60),
        call("append", label="rules", text="x"),
        call("replace", label="human", old="a", new="b"),
        call("replace", label="human", old="likes  tea", new="b"),
        call("insert", label="human", text="x", line=7),
        call("rewrite", label="nobody", value="x"),
        call("create", label="human", description=""),
        call("create", label="no label", description=""),
        call("delete", label="rules"),
        call("append", label="human"),
    )
    assert all(output.is_error for output in outputs)
    reasons = [
        "BlockTooLong: .* 20 more than its limit of 60",
        "BlockReadOnly: ",
        r"TextNotUnique: .*\n1: Name: Ada\n",
        "TextNotFound: .* in line 2: Likes tea",
        "MemoryFailed: There is no line 7",
        "UnknownBlock: .* the labels are human, rules",
        "BlockExists: ",
        "InvalidInput: ",
        "BlockReadOnly: ",
        "text",
    ]
    for output, reason in zip(outputs, reasons, strict=True):
        assert re.search(reason, output.text, re.DOTALL), output.text
    assert "\nName: Ada\nLikes tea\n</block>" in read


def test_tools_are_chosen_by_name() -> None:
    assert [one.name for one in block_tools("memory_delete", "memory_append")] == [
        "memory_delete",
        "memory_append",
    ]
    assert block_tools("memory_append", "memory_append") == [memory_append]
    assert len(block_tools()) == 6
    assert all(one.idempotent and one.is_local for one in block_tools())
    with pytest.raises(ConfigurationError, match="'append'; the names are memory_append, "):
        block_tools("append")


class Memory:
    """Records the edits."""

    def __init__(self) -> None:
        self.asked: list[tuple[BlockEdit, str]] = []

    async def blocks(self) -> Any:
        return ()

    async def edit(self, edit: BlockEdit, *, key: str, as_read: bool = False) -> Block | None:
        self.asked.append((edit, key))
        return None


async def test_a_call_that_is_made_again_has_the_same_key() -> None:
    memory = Memory()
    context = RunContext[object](
        deps=None,
        thread_id="t",
        run_id="r",
        call_id="call_1",
        tool_name="memory_delete",
        _services=CallServices(memory=memory),
    )
    for attempt in (1, 2):
        await memory_delete(for_attempt(context, attempt), "human")
    assert [key for _, key in memory.asked] == ["call_1", "call_1"]


def test_names_are_imported_when_they_are_first_named() -> None:
    assert "block_tools" in dir(treadle.memory)
    assert treadle.memory.Block is Block
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        treadle.memory.nothing  # noqa: B018 - the access is what fails
