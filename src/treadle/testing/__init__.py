"""Helpers for the tests of programs that use treadle.

- `ScriptedModel`: a model that answers from a script.
- `ProviderSimulator`, `SimulatorProcess`: a real HTTP server with the formats of the providers, and
  with faults.
- `record`, `replay`: the responses of a real provider, kept in a file and served again.
- `VirtualClockLoop`: an event loop whose clock jumps to the next timer instead of waiting.
- `forbid_network`: makes every call of a real model an error.
"""

from typing import TYPE_CHECKING

from treadle.lazy_names import lazy_name
from treadle.testing.clock import VirtualClockLoop, run
from treadle.testing.network import forbid_network
from treadle.testing.scripted import Script, ScriptedModel, Step, Unfinished
from treadle.testing.simulator import (
    FAULTS,
    Fault,
    InvalidScenario,
    ProviderRequest,
    ProviderSimulator,
    RecordedRequest,
    Rejected,
    Respond,
    Scenario,
    SimulatorNotStarted,
    SimulatorProcess,
    SimulatorStatistics,
    parse_scenario,
)
from treadle.testing.simulator.turn import (
    Call,
    Hold,
    Hosted,
    Pause,
    Reasoning,
    Refusal,
    Text,
    Turn,
)

if TYPE_CHECKING:
    from treadle.testing.recording import Cut, Replay, record, replay

__all__ = [
    "FAULTS",
    "Call",
    "Cut",
    "Fault",
    "Hold",
    "Hosted",
    "InvalidScenario",
    "Pause",
    "ProviderRequest",
    "ProviderSimulator",
    "Reasoning",
    "RecordedRequest",
    "Refusal",
    "Rejected",
    "Replay",
    "Respond",
    "Scenario",
    "Script",
    "ScriptedModel",
    "SimulatorNotStarted",
    "SimulatorProcess",
    "SimulatorStatistics",
    "Step",
    "Text",
    "Turn",
    "Unfinished",
    "VirtualClockLoop",
    "forbid_network",
    "parse_scenario",
    "record",
    "replay",
    "run",
]

_MODULES = {
    "Cut": "treadle.testing.recording",
    "Replay": "treadle.testing.recording",
    "record": "treadle.testing.recording",
    "replay": "treadle.testing.recording",
}


def __getattr__(name: str) -> object:
    # Imported when first named: an HTTP client takes longer to import than all of treadle.
    return lazy_name(__name__, _MODULES, name)
