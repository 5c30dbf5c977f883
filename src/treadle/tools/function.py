"""Tools: typed functions, and the rules for calling them."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    get_args,
    overload,
)

from typing_extensions import TypeVar as TypeVarWithDefault

from treadle.domain.keywords import suggests
from treadle.domain.schema import ToolSchema
from treadle.errors import InvalidTool, TreadleError
from treadle.ports import Worker
from treadle.tools.callables import Now, UserFunction, is_async, is_generator, user_function
from treadle.tools.context import RunContext
from treadle.tools.parameters import Parameters
from treadle.tools.signature import Signature
from treadle.tools.streamed import require_streamable
from treadle.tools.to_user import TO_USER, spoken, without

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
D_contra = TypeVarWithDefault("D_contra", contravariant=True, default=Any)
R = TypeVar("R")
D = TypeVar("D")

OnError = Literal["answer", "raise"]


class PlainFunction(Protocol):
    """Any function; type checkers do not take a `Tool` for one, so that they see its deps."""

    @property
    def __name__(self) -> str: ...
    @property
    def __call__(self) -> Callable[..., object]: ...


NeedsApproval = (
    bool
    | Callable[[Mapping[str, Any]], Now[bool]]
    | Callable[[RunContext[Any], Mapping[str, Any]], Now[bool]]
)

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Tool(Generic[P, R_co, D_contra]):
    """A function the model may call; made by the decorator `tool`.

    Its type contains the parameters, the result, and the deps that the function reads from its
    `RunContext`, if that is its first parameter: an agent with other deps cannot have the tool.

    - `timeout`: seconds that an attempt may take; None means no limit.
    - `retries`: how often a call that raised or timed out is tried again. Only for functions that
      may run twice; `RunContext.idempotency_key` stays the same.
    - `idempotent`: running it twice has the effect of running it once, so it may be repeated after
      a crash.
    - `external`: the function is never called; its output is submitted from outside, to the
      thread.
    - `needs_approval`: True, or a function of the call's arguments that returns whether a person
      must approve the call before it runs: plain or async, with the `RunContext` of the call before
      the arguments if it takes two parameters. If it fails, the call needs approval.
    - `serial`: runs alone, after the other calls of its step.
    - `terminal`: its output ends the run, unless it failed.
    - `on_error`: `"answer"` gives the model the error as output; `"raise"` also ends the run with
      `ToolFailed`, once every call of the step is answered.
    - `max_output_chars`: longer outputs are cut, and a mark is appended.
    - `to_user`: the name of an added parameter in which the model announces the call to the user;
      shown while it is written, and not passed to the function. "" adds none.
    - `stream_fields`: the string parameters whose growth is shown while the model writes them.
    - `handoff`: the name of the agent that takes over the run.
    - `worker`: the agent that does the work, if the tool is an agent.
    - `takes_output`: its arguments are the output of the run; whatever they are, it accepts them,
      and they are checked as any other answer.
    - `deps`: the type of deps that the function cannot do without, as text; "" if there is none.
    """

    function: Callable[P, R_co]
    schema: ToolSchema
    signature: Parameters
    is_async: bool
    timeout: float | None = None
    retries: int = 0
    idempotent: bool = False
    external: bool = False
    needs_approval: bool | UserFunction[bool] = False
    serial: bool = False
    terminal: bool = False
    on_error: OnError = "answer"
    max_output_chars: int = 100_000
    to_user: str = ""
    stream_fields: tuple[str, ...] = ()
    handoff: str = ""
    worker: Worker[object] | None = None
    takes_output: bool = False
    deps: str = ""

    @property
    def name(self) -> str:
        """The name the model calls it by."""
        return self.schema.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Calls the function itself."""
        return self.function(*args, **kwargs)

    @property
    def is_local(self) -> bool:
        """Whether every call of it runs here, without approval."""
        return not self.external and self.needs_approval is False

    def validate(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Returns the keyword arguments; raises `ValueError`, mostly pydantic's kind.

        The announcement to the user is removed, whatever the model wrote there.
        """
        return self.signature.validate(without(arguments, self.to_user))


KNOWN_AS = {
    **dict.fromkeys(
        ("requires_approval", "require_approval", "approval", "confirm"), "needs_approval=…"
    ),
    **dict.fromkeys(("name_override",), "name=…"),
    **dict.fromkeys(("description_override", "docs"), "description=…"),
    **dict.fromkeys(("max_retries",), "retries=…"),
    **dict.fromkeys(("strict_mode",), "strict=…"),
    **dict.fromkeys(("return_direct", "stop", "final"), "terminal=True"),
    **dict.fromkeys(("sequential", "exclusive"), "serial=True"),
}
"""What other libraries call the parameters of a tool."""


class ToolDecorator(Protocol):
    """Makes a tool of a function; returned by `tool(…)`."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[RunContext[D], P], R], /
    ) -> Tool[Concatenate[RunContext[D], P], R, D]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Tool[P, R, object]: ...


@overload
def tool(
    function: Callable[Concatenate[RunContext[D], P], R], /
) -> Tool[Concatenate[RunContext[D], P], R, D]: ...
@overload
def tool(function: Callable[P, R], /) -> Tool[P, R, object]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    retries: int = 0,
    idempotent: bool = False,
    external: bool = False,
    needs_approval: NeedsApproval = False,
    serial: bool = False,
    terminal: bool = False,
    on_error: OnError = "answer",
    max_output_chars: int = 100_000,
    strict: bool | None = None,
    to_user: bool | str = False,
    stream_fields: Iterable[str] = (),
) -> ToolDecorator: ...
@suggests("tool", KNOWN_AS)
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    retries: int = 0,
    idempotent: bool = False,
    external: bool = False,
    needs_approval: NeedsApproval = False,
    serial: bool = False,
    terminal: bool = False,
    on_error: OnError = "answer",
    max_output_chars: int = 100_000,
    strict: bool | None = None,
    to_user: bool | str = False,
    stream_fields: Iterable[str] = (),
) -> Tool[..., Any, Any] | Callable[[Callable[..., Any]], Tool[..., Any, Any]]:
    """Makes a tool of a typed function, as `@tool` or `@tool(timeout=5)`.

    The parameters' types become a JSON Schema, their descriptions come from the docstring
    (Google, NumPy or reST style) or from `Annotated[..., Field(description=...)]`. `async`
    functions run as tasks, plain ones in threads. A parameter annotated with `RunContext` takes
    the context. `name` and `description` default to those of the function; `strict` asks for the
    provider's strict mode, by default if the schema allows it. `to_user=True` calls the
    parameter it adds "to_user"; a text gives it another name. The other options are those of
    `Tool`. Raises `InvalidTool` for what cannot be a tool.
    """

    def make(function: Callable[..., Any]) -> Tool[..., Any, Any]:
        tool_name = name or _name_of(function)
        _require_function(tool_name, function)
        _require_options(tool_name, timeout, retries, on_error, max_output_chars)
        if external and needs_approval:
            raise InvalidTool(
                f"The tool {tool_name} is external: the person or program that submits its output "
                "decides. Remove needs_approval."
            )
        signature = Signature(function, tool_name, strict)
        made = Tool(
            function=function,
            schema=ToolSchema(
                tool_name,
                signature.description if description is None else description,
                signature.parameters,
                signature.strict,
            ),
            signature=signature,
            is_async=is_async(function),
            deps=signature.deps,
            timeout=timeout,
            retries=retries,
            idempotent=idempotent,
            external=external,
            needs_approval=approval_rule(needs_approval, tool_name),
            serial=serial,
            terminal=terminal,
            on_error=on_error,
            max_output_chars=max_output_chars,
            stream_fields=require_streamable(
                stream_fields, signature.parameters, f"the tool {tool_name}", InvalidTool
            ),
        )
        return with_to_user(made, to_user)

    return make if function is None else make(function)


def as_tool(function: Tool[..., object] | Callable[..., object]) -> Tool[..., object]:
    """Returns a tool as it is, and a plain function as a tool with the default options."""
    if isinstance(function, Tool):
        return cast("Tool[..., object]", function)
    return tool(function)


def with_to_user(tool: Tool[P, R_co, D], to_user: bool | str = True) -> Tool[P, R_co, D]:
    """Returns a copy of `tool` whose calls announce themselves to the user.

    `to_user` is the name of the parameter; True means "to_user", False changes nothing. A tool that
    has such a parameter keeps it. Raises `InvalidTool` if the name is taken or not an identifier.
    """
    parameter = TO_USER if to_user is True else to_user
    if parameter is False or tool.to_user:
        return tool
    return replace(tool, schema=spoken(tool.schema, parameter), to_user=parameter)


def approval_rule(
    rule: NeedsApproval, tool: str, refusal: type[TreadleError] = InvalidTool
) -> bool | UserFunction[bool]:
    """Returns the rule for approval of a tool, checked; raises `refusal`."""
    if isinstance(rule, bool):
        return rule
    role = f"needs_approval of {tool}"
    function = cast("Callable[..., Now[bool]]", rule)
    return user_function(function, role, ("arguments",), subject=role, refusal=refusal)


def _name_of(function: Callable[..., object]) -> str:
    if isinstance(function, functools.partial):
        return _name_of(function.func)
    return getattr(function, "__name__", type(function).__name__)


def _require_function(name: str, function: object) -> None:
    if isinstance(function, Tool):
        raise InvalidTool(
            f"{cast('Tool[..., object]', function).name!r} is a tool already; to change its "
            "options, give tool(…) its function."
        )
    if hasattr(function, "as_tool"):
        raise InvalidTool(
            f"{function!r} is an agent; pass agent.as_tool() for a tool that runs it, or "
            "handoffs=[agent] to let it take over."
        )
    if not callable(function):
        raise InvalidTool(f"{function!r} is not a function; a tool is made from a function.")
    if not TOOL_NAME.fullmatch(name):
        raise InvalidTool(
            f"{name!r} is not a valid tool name; pass tool(name=…) with at most 64 letters, "
            "digits, _ and -."
        )
    if is_generator(function):
        raise InvalidTool(f"The tool {name} is a generator; return the whole output instead.")


def _require_options(
    name: str, timeout: float | None, retries: int, on_error: str, max_output_chars: int
) -> None:
    if timeout is not None and not timeout > 0:  # so that NaN is refused as well
        raise InvalidTool(f"The timeout of the tool {name} must be above 0, or None for no limit.")
    if retries < 0:
        raise InvalidTool(f"The retries of the tool {name} cannot be negative; 0 means none.")
    if max_output_chars < 1:
        raise InvalidTool(f"The tool {name} needs max_output_chars of at least 1.")
    if on_error not in get_args(OnError):
        raise InvalidTool(f"The tool {name} has on_error={on_error!r}; use 'answer' or 'raise'.")
