"""A plan: what the benchmark's server answers, written as the name of the model asked for.

Every client sends the model's name, so a plan reaches the server through each of them unchanged.
Standard library only: the workers of all parties import it.
"""

from dataclasses import asdict, dataclass

PREFIX = "bench:"
STAMP_WIDTH = 20
ARGUMENT_SIZE = 400


@dataclass(frozen=True)
class Plan:
    """One conversation as the server plays it; the numbers are counts, characters or ms.

    `calls` parallel calls in each of `rounds` responses, then a text of `deltas` pieces of `size`
    characters. `first` ms before the first byte, `every` ms between writes of `batch` deltas (0:
    all deltas in as few writes as fit, or one a write where `every` is set). `stamped` puts the
    server's monotonic clock into the first delta of the text and into the arguments of each call.
    `tail` lets the text follow the calls in the same response. `before` lets each call say
    something to the user, after so many characters of other arguments; then the stamp stands at
    its start, and the arguments come in deltas of `ARGUMENT_SIZE` characters.
    """

    deltas: int = 4
    size: int = 4
    calls: int = 0
    rounds: int = 0
    first: int = 0
    every: int = 0
    batch: int = 0
    stamped: int = 0
    tail: int = 0
    before: int = 0

    @property
    def model(self) -> str:
        """The plan as the name of a model; what has its default is left out."""
        default = Plan()
        pairs = asdict(self).items()
        return PREFIX + ",".join(f"{k}={v}" for k, v in pairs if v != getattr(default, k))


def parse_plan(model: str) -> Plan:
    """Returns the plan that `model` names. Raises `ValueError` for any other name."""
    if not model.startswith(PREFIX):
        raise ValueError(f"{model!r} is no plan of the benchmark")
    pairs = (pair.partition("=") for pair in model[len(PREFIX) :].split(",") if pair)
    return Plan(**{key: int(value) for key, _, value in pairs})


def stamp_of(text: str) -> int:
    """Returns the monotonic nanoseconds at the start of a stamped text."""
    return int(text[:STAMP_WIDTH])
