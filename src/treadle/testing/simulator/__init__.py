"""A simulator of model providers: an HTTP server to run agents and clients against.

    async with ProviderSimulator() as simulator:
        client = AsyncOpenAI(base_url=simulator.base_url, api_key="any")
        await client.responses.create(model="sim:deltas=200,every=5", input="Hello")

It serves OpenAI Responses, Chat Completions, Anthropic Messages, Gemini and Bedrock's Converse,
streaming and not, and refuses what they refuse, such as a call without its output. Its answers come
from a scenario in the model's name (`treadle.testing.simulator.scenario`) or from a script of
turns, its failures from faults (`treadle.testing.simulator.faults`).
"""

from treadle.testing.simulator.app import (
    RecordedRequest,
    Respond,
    SimulatorApp,
    SimulatorStatistics,
)
from treadle.testing.simulator.faults import FAULTS, Fault, InvalidScenario, parse_faults
from treadle.testing.simulator.process import SimulatorNotStarted, SimulatorProcess
from treadle.testing.simulator.rejection import Rejected
from treadle.testing.simulator.request import ProviderRequest, ToolChoice
from treadle.testing.simulator.scenario import Scenario, parse_scenario
from treadle.testing.simulator.server import ProviderSimulator
from treadle.testing.simulator.turn import (
    Call,
    Hold,
    Pause,
    Reasoning,
    Refusal,
    Text,
    Turn,
)

__all__ = [
    "FAULTS",
    "Call",
    "Fault",
    "Hold",
    "InvalidScenario",
    "Pause",
    "ProviderRequest",
    "ProviderSimulator",
    "Reasoning",
    "RecordedRequest",
    "Refusal",
    "Rejected",
    "Respond",
    "Scenario",
    "SimulatorApp",
    "SimulatorNotStarted",
    "SimulatorProcess",
    "SimulatorStatistics",
    "Text",
    "ToolChoice",
    "Turn",
    "parse_faults",
    "parse_scenario",
]
