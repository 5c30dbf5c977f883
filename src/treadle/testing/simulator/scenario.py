"""Scenarios: a line of text that selects the behaviour of the simulated model.

The name of the model, or the header `x-treadle-scenario`, which takes precedence, is

    scenario = "sim" [":" key "=" value {"," key "=" value}]

and the header may omit `sim:`. The keys, their defaults and their meaning:

    deltas=20     text deltas of the answer
    size=4        characters a delta, of the text, the reasoning and the arguments
    reasoning=0   reasoning deltas before anything else
    refusal=0     1: the answer is a refusal
    calls=0       parallel calls a round
    rounds=0      responses that call tools before the one that answers (1 if calls is given)
    tool=NAME     the tool to call, declared or not; else the declared ones in turn
    args=0        characters of the first string argument of each call
    finish=stop   stop, length or filter; the latter two break off the last output halfway
    first=0       ms before the first byte
    every=0       ms between two writes
    batch=0       deltas a write; 0: one if every is given, else as many as fit
    fault=…       NAME[@AT][=VALUE], joined by "+"; see `treadle.testing.simulator.faults`
    window=0      tokens that a request may have, of 4 bytes each; 0: any number
    times=0       only this number of requests of the scenario fail; 0: all

Rounds are counted in the request itself, since its last user message; the simulator does not
remember conversations. Example: `sim:calls=3,rounds=2,deltas=200,every=5,fault=cut@1200,times=1`.
"""

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from treadle.testing.simulator.faults import Fault, InvalidScenario, parse_faults
from treadle.testing.simulator.turn import Finish

HEADER = "x-treadle-scenario"
MAX_LENGTH = 512
MAX_TEXT = 16 << 20

LIMITS: Mapping[str, int] = {
    "deltas": 100_000,
    "size": 10_000,
    "reasoning": 100_000,
    "refusal": 1,
    "calls": 256,
    "rounds": 10_000,
    "args": MAX_TEXT,
    "first": 600_000,
    "every": 600_000,
    "batch": 100_000,
    "window": 100_000_000,
    "times": 1_000_000,
}
FINISHES: Mapping[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "filter": "content_filter",
}


class Scenario(Struct, frozen=True):
    """A parsed scenario; the fields are the keys of the grammar, with times in seconds."""

    deltas: int = 20
    size: int = 4
    reasoning: int = 0
    refusal: int = 0
    calls: int = 0
    rounds: int = 0
    tool: str = ""
    args: int = 0
    finish: Finish = "stop"
    first: float = 0.0
    every: float = 0.0
    batch: int = 0
    faults: tuple[Fault, ...] = ()
    window: int = 0
    times: int = 0


def is_scenario(model: str) -> bool:
    """Returns whether a name of a model is a scenario."""
    return model.partition(":")[0] == "sim"


def parse_scenario(text: str) -> Scenario:
    """Parses a scenario; raises `InvalidScenario` with the wrong key and the reason."""
    if len(text) > MAX_LENGTH:
        raise InvalidScenario(f"The scenario is longer than {MAX_LENGTH} characters.")
    rest = text.partition(":")[2] if is_scenario(text) else text
    scenario = msgspec.convert(_values(rest), Scenario)
    _check_size(scenario)
    return _with_rounds(scenario)


def _values(text: str) -> dict[str, object]:
    values: dict[str, object] = {}
    for pair in text.split(",") if text else ():
        key, equals, value = pair.partition("=")
        if not equals or key not in _PARSERS or key in values:
            keys = ", ".join(_PARSERS)
            raise InvalidScenario(f"{pair[:64]!r} is not key=value with a new key of: {keys}.")
        values["faults" if key == "fault" else key] = _PARSERS[key](key, value)
    return values


def _check_size(scenario: Scenario) -> None:
    if max(scenario.deltas, scenario.reasoning) * scenario.size > MAX_TEXT:
        raise InvalidScenario(f"deltas times size exceed {MAX_TEXT} characters.")
    if scenario.args * max(1, scenario.calls) > MAX_TEXT:
        raise InvalidScenario(f"args times calls exceed {MAX_TEXT} characters.")


def _with_rounds(scenario: Scenario) -> Scenario:
    calls, rounds = scenario.calls, scenario.rounds
    if calls and not rounds:
        return msgspec.structs.replace(scenario, rounds=1)
    if rounds and not calls:
        return msgspec.structs.replace(scenario, calls=1)
    return scenario


def _integer(key: str, value: str) -> int:
    limit = LIMITS[key]
    if not (value.isascii() and value.isdecimal() and len(value) <= 9 and int(value) <= limit):
        raise InvalidScenario(f"{key}={value[:32]} is not a whole number from 0 to {limit}.")
    if value.strip("0") == "" and key == "size":
        raise InvalidScenario("size must be at least 1.")
    return int(value)


def _milliseconds(key: str, value: str) -> float:
    return _integer(key, value) / 1000


def _finish(_: str, value: str) -> Finish:
    if value not in FINISHES:
        raise InvalidScenario(f"finish={value[:32]} is unknown; use {', '.join(FINISHES)}.")
    return FINISHES[value]


def _name(_: str, value: str) -> str:
    if not value or len(value) > 64:
        raise InvalidScenario("tool needs a name of 1 to 64 characters.")
    return value


def _faults(_: str, value: str) -> tuple[Fault, ...]:
    return parse_faults(value)


_PARSERS: Mapping[str, Callable[[str, str], object]] = {
    **dict.fromkeys(LIMITS, _integer),
    "first": _milliseconds,
    "every": _milliseconds,
    "finish": _finish,
    "tool": _name,
    "fault": _faults,
}
