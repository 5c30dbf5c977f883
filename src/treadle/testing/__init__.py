"""What users test their agents with.

- `ScriptedModel`: a model that says what the test has written down.
- `ProviderSimulator`, `SimulatorProcess`: a real HTTP server that speaks the providers' formats,
  with faults.
- `record`, `replay`: what a real provider sent, kept in a file and served again.
- `VirtualClockLoop`: time that jumps instead of passing.
- `forbid_network`: no test calls a real model.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from treadle.testing.clock import VirtualClockLoop, run
from treadle.testing.network import forbid_network
from treadle.testing.scripted import ScriptedModel, Unfinished
from treadle.testing.simulator import ProviderSimulator, SimulatorProcess
from treadle.testing.simulator.turn import (
    Call,
    Hold,
    Pause,
    Reasoning,
    Refusal,
    Text,
    Turn,
)

if TYPE_CHECKING:
    from treadle.testing.recording import Replay, record, replay

__all__ = [
    "Call",
    "Hold",
    "Pause",
    "ProviderSimulator",
    "Reasoning",
    "Refusal",
    "Replay",
    "ScriptedModel",
    "SimulatorProcess",
    "Text",
    "Turn",
    "Unfinished",
    "VirtualClockLoop",
    "forbid_network",
    "record",
    "replay",
    "run",
]

_RECORDING = {"Replay", "record", "replay"}


def __getattr__(name: str) -> object:
    # Imported when first named: an HTTP client takes longer to import than all of treadle.
    if name in _RECORDING:
        return getattr(import_module("treadle.testing.recording"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
