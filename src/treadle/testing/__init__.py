"""Helpers for the tests of programs that use treadle.

- `ScriptedModel`: a model that answers from a script.
- `ProviderSimulator`, `SimulatorProcess`: a real HTTP server with the formats of the providers, and
  with faults.
- `record`, `replay`: the responses of a real provider, kept in a file and served again.
- `VirtualClockLoop`: an event loop whose clock jumps to the next timer instead of waiting.
- `forbid_network`: makes every call of a real model an error.
"""

from importlib import import_module
from typing import TYPE_CHECKING

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

_RECORDING = {"Cut", "Replay", "record", "replay"}


def __getattr__(name: str) -> object:
    # Imported when first named: an HTTP client takes longer to import than all of treadle.
    if name in _RECORDING:
        return getattr(import_module("treadle.testing.recording"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
