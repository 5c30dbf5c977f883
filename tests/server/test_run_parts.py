"""A protocol that asks its client by the end of a stream does so when only it can continue.

So at the end of such a stream each call of the agent's own has its output in it.
"""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle import Agent
from treadle.domain.block_memory import BlockMemory
from treadle.domain.events import (
    DurableEvent,
    ResponseCompleted,
    RunRequiresAction,
    RunStarted,
    StepStarted,
    ToolApproved,
    ToolCallRequested,
    ToolOutputRecorded,
)
from treadle.domain.items import FunctionCall, FunctionCallOutput
from treadle.domain.usage import Usage
from treadle.journal.projection import RunRecord
from treadle.server.ag_ui.block_state import BlockState
from treadle.server.ag_ui.message_list import MessageList
from treadle.server.ag_ui.run_input import RunAgentInput
from treadle.server.ag_ui.run_mapper import RunMapper
from treadle.server.ai_sdk.chat_framing import ChatFraming
from treadle.server.ai_sdk.tool_kinds import ToolKinds
from treadle.server.assistants.run_fold import RunFold
from treadle.server.chat_completions.completion_mapper import CompletionMapper
from treadle.server.responses.response_mapper import ResponseMapper
from treadle.server.stream import Framing
from treadle.testing import ScriptedModel

RUN = "run_1"
AGENT = cast("Any", Agent(ScriptedModel([]), name="helper"))


def responses() -> Framing:
    return ResponseMapper(RunRecord(id=RUN, agent="helper"))


def ai_sdk() -> Framing:
    return ChatFraming("thread_1", RUN, ToolKinds(AGENT))


def ag_ui() -> Framing:
    asked = RunAgentInput(thread_id="t1", run_id="r1", messages=[])
    return RunMapper(asked, AGENT, MessageList({}, asked), BlockState(None, BlockMemory(), 0), {})


def chat() -> Framing:
    return CompletionMapper(
        RUN,
        AGENT,
        0,
        lambda _: AGENT,
        is_structured=False,
        shows_to_user=True,
        is_streamed=True,
    )


def assistants() -> Framing:
    return RunFold(RUN, "thread_1", "helper")


def take(protocol: Framing, *events: DurableEvent) -> None:
    for event in events:
        protocol.frame(cast("Any", SimpleNamespace(event=event)))


def requested(id: str, awaits: Any) -> ToolCallRequested:
    item = FunctionCall(call_id=id, name="act", arguments="{}", id=f"fc_{id}")
    return ToolCallRequested(run_id=RUN, item=item, awaits=awaits)


def output(id: str) -> ToolOutputRecorded:
    item = FunctionCallOutput(call_id=id, output="Done.", id=f"out_{id}")
    return ToolOutputRecorded(run_id=RUN, item=item, name="act")


@pytest.mark.parametrize("protocol", [responses, ai_sdk, ag_ui, chat, assistants])
@given(data=st.data())
@settings(max_examples=60)
def test_a_client_is_asked_when_nothing_is_at_work(protocol: Any, data: st.DataObject) -> None:
    """Approvals are given through the protocol, or elsewhere while the stream is open."""
    stream = protocol()
    kinds = data.draw(st.lists(st.sampled_from([None, "output", "approval"]), min_size=1))
    calls = {f"call_{n}": kind for n, kind in enumerate(kinds)}
    answers = {"output"} if protocol in (chat, assistants) else {"output", "approval"}
    take(
        stream,
        RunStarted(run_id=RUN, agent="helper"),
        StepStarted(run_id=RUN, step=1, model="m"),
        *(requested(id, kind) for id, kind in calls.items()),
        ResponseCompleted(run_id=RUN, response_id="r", finish_reason="stop", usage=Usage()),
    )
    waiting = [id for id, kind in calls.items() if kind is not None]
    asked = {id for id, kind in calls.items() if kind in answers}
    open = calls.keys() - asked
    moments = [*data.draw(st.permutations(sorted(open))), *(["asked"] if waiting else [])]
    is_asked = False
    for moment in data.draw(st.permutations(moments)):
        assert not stream.is_over
        if moment == "asked":
            left = tuple(id for id in waiting if id in open | asked)
            take(stream, RunRequiresAction(run_id=RUN, call_ids=left))
            is_asked = True
        else:
            if calls[moment] == "approval":
                take(stream, ToolApproved(run_id=RUN, call_id=moment))
                assert not stream.is_over
            take(stream, output(moment))
            open.discard(moment)
        if is_asked and not open:
            break
    assert stream.is_over == bool(asked)
