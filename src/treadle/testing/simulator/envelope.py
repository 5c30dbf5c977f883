"""The envelope: the fields around a turn on the wire, independent of its content."""

from collections.abc import Mapping

from msgspec import Struct

from treadle.domain.usage import Usage
from treadle.testing.simulator.turn import (
    Call,
    Hosted,
    Reasoning,
    Spoken,
    Turn,
    argument_pieces,
    pieces,
    spoken,
)

BYTES_PER_TOKEN = 4


class Envelope(Struct, frozen=True):
    """The identity of a response, and the fields of its request that it repeats.

    `id` is unique without a prefix, `created` is in Unix seconds, `echo` holds fields of the
    request. `include_usage` asks chat for its usage chunk, `encrypted` asks Responses for opaque
    reasoning that can be sent back.
    """

    id: str
    model: str
    created: int
    usage: Usage
    echo: Mapping[str, object] = {}
    include_usage: bool = False
    encrypted: bool = False


def estimate(turn: Turn, size: int, entries: int) -> Usage:
    """Estimates usage: four bytes a token in, all entries but the last cached, one delta a token.

    `size` is the length of the request's body in bytes, `entries` that of its history.
    """
    read = max(1, size // BYTES_PER_TOKEN)
    counts = [(output, _deltas(output)) for output in spoken(turn)]
    return Usage(
        input_tokens=read,
        output_tokens=sum(count for _, count in counts),
        cached_input_tokens=read * max(0, entries - 1) // max(1, entries),
        reasoning_tokens=sum(count for output, count in counts if isinstance(output, Reasoning)),
        requests=1,
        web_searches=sum(
            isinstance(output, Hosted) and output.call.tool == "web_search" for output, _ in counts
        ),
    )


def _deltas(output: Spoken) -> int:
    if isinstance(output, Hosted):
        return 1
    if isinstance(output, Call):
        return len(argument_pieces(output))
    return len(pieces(output.text, output.deltas))
