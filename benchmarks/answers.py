"""Answers: a plan as the writes of HTTP chunks, encoded once, by the simulator's own encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from benchmarks.plan import ARGUMENT_SIZE, STAMP_WIDTH, Plan, parse_plan
from treadle.testing.simulator.envelope import Envelope, estimate
from treadle.testing.simulator.prose import prose
from treadle.testing.simulator.turn import Call, Output, Pause, Text, Turn
from treadle.testing.simulator.wire.responses_request import echo
from treadle.testing.simulator.wire.responses_wire import stream_responses
from treadle.testing.simulator.writes import pace

TOOL = "note"
STAMP = "0" * STAMP_WIDTH
REQUEST_SIZE = 512


@dataclass(frozen=True)
class Write:
    """One HTTP chunk, sent `delay` seconds after the one before.

    `parts` has more than one element where a stamp is to stand between them.
    """

    parts: tuple[bytes, ...]
    delay: float


@lru_cache(maxsize=1024)
def answer(model: str, round: int) -> tuple[Write, ...]:
    """Returns the writes of the response to `model` after `round` rounds of calls."""
    plan = parse_plan(model)
    turn = Turn(_outputs(plan, round))
    usage = estimate(turn, REQUEST_SIZE, 1 + 2 * round)
    envelope = Envelope(f"bench{round:06x}", model, 1_700_000_000, usage, echo({"store": False}))
    pieces = stream_responses(turn, envelope)
    return tuple(_timed(plan, pace(pieces, plan.every / 1000, plan.batch)))


def _outputs(plan: Plan, round: int) -> tuple[Output, ...]:
    stamp = STAMP if plan.stamped else ""
    calls = round < plan.rounds
    make = _speaking_call if plan.before else _call
    count = plan.calls if calls else 0
    outputs: list[Output] = [make(stamp, round, n, plan.before) for n in range(count)]
    if not calls or plan.tail:
        size = STAMP_WIDTH if plan.stamped else plan.size
        text = prose(plan.deltas * size)
        outputs.append(Text(stamp + text[len(stamp) :], plan.deltas))
    return tuple(outputs)


def _speaking_call(stamp: str, round: int, number: int, before: int) -> Call:
    """A call that speaks to the user, in a delta that begins with the stamp, and goes on."""
    opening, turn, end = '{"text":"', '","to_user":"', '"}'
    size = ARGUMENT_SIZE
    length = -(-before // size) * size - len(opening) - len(turn)
    said = (stamp + " Let me note that.").ljust(2 * size - len(end), ".")
    arguments = f"{opening}{prose(length)}{turn}{said}{end}"
    return Call(TOOL, arguments, f"call_{round}_{number}", len(arguments) // size)


def _call(stamp: str, round: int, number: int, before: int) -> Call:
    arguments = f'{{"text":"{stamp or f"note {number} of round {round}"}"}}'
    # In one piece where it is stamped, so that the stamp is not cut.
    return Call(TOOL, arguments, f"call_{round}_{number}", 1 if stamp else 0)


def _timed(plan: Plan, writes: Sequence[object]) -> list[Write]:
    timed: list[Write] = []
    delay = 0.0
    for write in writes:
        if isinstance(write, Pause):
            delay = write.seconds
        elif isinstance(write, bytes):
            parts = tuple(write.split(STAMP.encode())) if plan.stamped else (write,)
            timed.append(Write(parts, delay))
            delay = 0.0
    return timed
