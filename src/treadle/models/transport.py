"""How HTTP requests of models are sent: the port, and which transport a request takes.

A request goes through the transport of its model, else through that of the runtime that drives the
run, else over the network (`treadle.models.session`). `treadle.testing.record` and
`treadle.testing.replay` wrap that choice; everything above, from the request's encoding to the
timeouts, stays.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Protocol

from msgspec import Struct

from treadle.errors import TestingError


class HttpRequest(Struct, frozen=True, kw_only=True):
    """A request to a provider, usually a POST.

    `path` is that of the endpoint below the API's root, `model` the provider's name of the model;
    both are part of `url` and `body`, and repeated here for transports that tell requests apart.
    `secrets` are those in the body, such as tokens for MCP servers. `connect` is the longest wait
    for a connection, in seconds.
    """

    model: str
    path: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    secrets: Sequence[str] = ()
    proxy: str | None = None
    connect: float | None = None
    method: str = "POST"

    def __repr__(self) -> str:
        # Headers contain the key, and a repr ends up in logs and reports.
        return f"HttpRequest(model={self.model!r}, path={self.path!r})"


class ResponseBody(Protocol):
    """The body of a response as it arrives.

    Reading raises `aiohttp.ClientError` or `OSError` if the connection breaks, and `TimeoutError`,
    an `OSError`, after too long a silence.
    """

    async def read(self, n: int, /) -> bytes:
        """Waits for some bytes and returns at most `n` of them; none at the end of the body."""
        ...

    async def readany(self) -> bytes:
        """Waits for some bytes and returns all that have arrived; none at the end of the body."""
        ...

    def at_eof(self) -> bool:
        """Whether the body was read to its end."""
        ...


class HttpResponse(Protocol):
    """A response whose head has arrived."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names are looked up in lower case."""
        ...

    @property
    def content_type(self) -> str: ...

    @property
    def content(self) -> ResponseBody: ...

    def release(self) -> object:
        """Returns the connection to the pool, or closes it if the body was not read to its end."""
        ...

    def close(self) -> object:
        """Closes the connection; a pending read raises."""
        ...


class Transport(Protocol):
    """Sends requests of models."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Sends `request` and returns once the head of its response has arrived.

        Raises what reading a `ResponseBody` raises, and `aiohttp.ConnectionTimeoutError`.
        """
        ...


Wrap = Callable[[Transport], Transport]
"""Makes the transport that takes the place of another one."""


class Interception:
    """A block of `intercept`."""

    def __init__(self, wrap: Wrap) -> None:
        self.wrap = wrap
        self.is_open = True


# Context variables, so that two runtimes or two tests in one process can differ. A task, a job and
# `asyncio.to_thread` start with a copy of the context of the code that starts them.
_default: ContextVar[Transport | None] = ContextVar("treadle_transport", default=None)
_interception: ContextVar[Interception | None] = ContextVar("treadle_intercept", default=None)


@contextmanager
def use_transport(transport: Transport | None) -> Generator[None]:
    """Makes `transport` the default inside the block, for models that have none of their own.

    It also holds in what is started inside the block. None stands for the network, whatever the
    default is outside.
    """
    token = _default.set(transport)
    try:
        yield
    finally:
        _default.reset(token)


@contextmanager
def intercept(wrap: Wrap) -> Generator[None]:
    """Wraps the transport of every request that is made inside the block, or started inside it.

    Raises `TestingError` inside another such block.
    """
    if interception() is not None:
        raise TestingError("A recording or a replay is open already; close it first.")
    opened = Interception(wrap)
    token = _interception.set(opened)
    try:
        yield
    finally:
        # Tasks that outlive the block keep a copy of the context: closing ends it for them too.
        opened.is_open = False
        # An async fixture may be torn down in another context than it was set up in.
        with suppress(ValueError):
            _interception.reset(token)


def interception() -> Interception | None:
    """Returns the block of `intercept` that this code runs in, if any."""
    current = _interception.get()
    return current if current is not None and current.is_open else None


@contextmanager
def carry(origin: Interception | None) -> Generator[None]:
    """Runs the block as if it stood where `origin` was returned by `interception`.

    A thread works off several entries in one task, so the task's own context is that of the first
    sender only.
    """
    token = _interception.set(origin)
    try:
        yield
    finally:
        _interception.reset(token)


def choose_transport(own: Transport | None, network: Transport) -> Transport:
    """Returns the transport for a request made here by a model whose transport is `own`.

    `network` is taken where neither the model nor the runtime has one.
    """
    chosen = own or _default.get() or network
    current = interception()
    return chosen if current is None else current.wrap(chosen)
