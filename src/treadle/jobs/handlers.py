"""Handlers: async functions and methods that are given the node they run as."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from treadle.jobs.failure import OnFailure, require_on_failure
from treadle.jobs.lifecycle import Lifecycle
from treadle.jobs.node import Node, function_name

P = ParamSpec("P")
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Returned = Coroutine[Any, Any, "T | Node[T]"]


class Handler(Node[T_co]):
    """One call of a handler function: a node that has yet to be submitted."""

    __slots__ = ()

    def __init__(
        self,
        function: "Callable[[Handler[T_co]], Coroutine[Any, Any, T_co | Node[T_co]]]",
        name: str,
        on_failure: OnFailure | None,
    ) -> None:
        self._node_work = function
        self._node_name = name
        self._node_policy = on_failure

    def _node_body(self) -> "Coroutine[Any, Any, T_co | Lifecycle[T_co]]":
        work, self._node_work = self._node_work, None
        assert work is not None
        return work(self)


class HandlerFunction(Protocol[P, T_co]):
    """A function that makes handlers; nothing of it runs before the handler is submitted."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Handler[T_co]: ...


class HandlerMethod(Protocol[S_contra, P, T_co]):
    """A method that makes handlers, through the instance it is looked up on."""

    @overload
    def __get__(
        self, instance: None, owner: type[Any]
    ) -> HandlerFunction[Concatenate[S_contra, P], T_co]: ...
    @overload
    def __get__(self, instance: S_contra, owner: type[Any]) -> HandlerFunction[P, T_co]: ...


@overload
def handler(
    function: "Callable[Concatenate[Handler[Any], P], Returned[T]]", /
) -> HandlerFunction[P, T]: ...
@overload
def handler(
    function: "Callable[Concatenate[S, Handler[Any], P], Returned[T]]", /
) -> HandlerMethod[S, P, T]: ...
@overload
def handler(*, on_failure: OnFailure) -> "_Decorator": ...
def handler(
    function: "Callable[..., Returned[Any]] | None" = None,
    /,
    *,
    on_failure: OnFailure | None = None,
) -> object:
    """Makes an async function or method a handler: its node is its first argument, after `self`.

        @handler
        async def speak(node: Handler[None], text: str) -> None:
            ...

        node.call(speak("Hello!"))

    Calling it returns a `Handler`, which runs once it is submitted. `on_failure` is the
    effect of a failed child on it; by default that of its parent. Raises `ConfigurationError` for
    an unknown one.
    """
    if on_failure is not None:
        require_on_failure("on_failure", on_failure)
    if function is None:
        return functools.partial(_HandlerDefinition, on_failure=on_failure)
    return _HandlerDefinition(function)


class _Decorator(Protocol):
    """The decorator that `handler(on_failure=…)` returns."""

    @overload
    def __call__(
        self, function: "Callable[Concatenate[Handler[Any], P], Returned[T]]", /
    ) -> HandlerFunction[P, T]: ...
    @overload
    def __call__(
        self, function: "Callable[Concatenate[S, Handler[Any], P], Returned[T]]", /
    ) -> HandlerMethod[S, P, T]: ...


class _HandlerDefinition:
    """Both kinds of handler: a method is one that is looked up on an instance."""

    def __init__(
        self,
        function: "Callable[..., Returned[Any]]",
        on_failure: OnFailure | None = None,
        bound: tuple[object, ...] = (),
        owner: type[Any] | None = None,
    ) -> None:
        self._function = function
        self._on_failure: OnFailure | None = on_failure
        self._bound = bound
        self._owner = owner  # the class it was looked up on
        functools.update_wrapper(self, function)

    def __call__(self, *args: object, **kwargs: object) -> Handler[Any]:
        function, bound = self._function, self._bound
        if not bound and args and self._is_for(args[0]):
            bound, args = args[:1], args[1:]
        return Handler(
            lambda node: function(*bound, node, *args, **kwargs),
            function_name(function),
            self._on_failure,
        )

    def __get__(self, instance: object, owner: type[Any] | None = None) -> "_HandlerDefinition":
        if instance is None:
            return _HandlerDefinition(self._function, self._on_failure, owner=owner)
        return _HandlerDefinition(self._function, self._on_failure, (instance,))

    def _is_for(self, first: object) -> bool:
        """Whether the first argument is an instance that has the method."""
        if self._owner is not None:
            return isinstance(first, self._owner)  # as in Base.method(self, …)
        # From Python 3.13 on, a classmethod calls its function without looking it up on the class.
        return isinstance(first, type) and any(
            issubclass(type(found), classmethod) and found.__func__ is self
            for cls in first.__mro__
            for found in vars(cls).values()
        )
