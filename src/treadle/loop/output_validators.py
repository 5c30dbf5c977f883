"""Output validators: functions of the program that check the answer of the model.

They may ask for another answer with `ModelRetry`, or return a changed output. They are called at
the end of the run, when its jobs have settled; nothing is recorded before they have answered, so
after a crash they are called again.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

from msgspec import Struct
from typing_extensions import TypeVar

from treadle.domain.arguments import require_list
from treadle.domain.events import ValidatedOutput
from treadle.errors import ModelRetry
from treadle.tools.callables import Now, UserFunction, user_function
from treadle.tools.context import RunContext

Deps = TypeVar("Deps", default=None)
Out = TypeVar("Out", default=str)

OutputValidator = (
    Callable[[RunContext[Deps], Out], Now[Out | None]] | Callable[[Out], Now[Out | None]]
)
"""A function of the output, or of the context of the run and the output; plain or async."""

Validator = UserFunction[object]


class Verdict(Struct, frozen=True):
    """What the validators of an agent have found about the answer in step `step`.

    `problem` is why another answer is needed; `output` is set if the output was changed.
    """

    step: int
    problem: str = ""
    output: ValidatedOutput | None = None


def validators_of(given: Iterable[OutputValidator[Any, Any]]) -> tuple[Validator, ...]:
    """Returns the validators of an agent; raises `ConfigurationError` for what cannot be one."""
    listed = require_list("output_validators", given, "output_validators=[check]")
    functions = cast("tuple[Callable[..., Now[object]], ...]", listed)
    return tuple(
        user_function(one, "output validator", ("output",), passes=(ModelRetry,))
        for one in functions
    )
