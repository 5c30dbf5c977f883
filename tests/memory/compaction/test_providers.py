"""A provider that refuses long requests, over HTTP and in each of its formats."""

import pytest
from tests.memory.compaction.histories import conversation

from treadle import Agent, ContextCompacted
from treadle.memory.compaction.strategies import SlidingWindow
from treadle.models.anthropic import AnthropicMessages
from treadle.models.bedrock import Bedrock
from treadle.models.gemini import Gemini
from treadle.models.openai import OpenAIChat, OpenAIResponses
from treadle.testing import ProviderSimulator

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", [OpenAIResponses, OpenAIChat, AnthropicMessages, Gemini, Bedrock])
@pytest.mark.parametrize("fault", ["", ",fault=failed@0=context_length_exceeded,times=1"])
async def test_a_refused_request_is_sent_again_shorter(
    kind: type[OpenAIResponses | OpenAIChat | AnthropicMessages | Gemini | Bedrock], fault: str
) -> None:
    scenario = f"sim:deltas=2{fault}" if fault else "sim:deltas=2,window=2500"
    async with ProviderSimulator() as simulator:
        model = kind(scenario, api_key="none", base_url=simulator.base_url)
        agent = Agent(model, context=SlidingWindow(max_tokens=16_000))
        async with agent.stream("go", history=conversation(40)) as run:
            done = [event async for event in run if isinstance(event, ContextCompacted)]
            result = await run.result()
        assert result.status == "completed"
        assert [event.cause for event in done] == ["overflow"]
        assert len(simulator.requests) == 2
