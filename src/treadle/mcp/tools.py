"""The tools of a server of the Model Context Protocol, as a source of tools."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from mcp.types import Tool as ServerTool

from treadle.domain.schema import ToolSchema
from treadle.errors import ConfigurationError, RemoteToolFailed
from treadle.logging import logger_of
from treadle.mcp.address import parse_address
from treadle.mcp.connection import Dialling
from treadle.mcp.names import PREFIX, tool_names
from treadle.mcp.restart import RestartPolicy
from treadle.mcp.result import error_text, output_of
from treadle.mcp.server import Server
from treadle.per_loop import PerLoop
from treadle.tools.context import RunContext
from treadle.tools.function import NeedsApproval, Tool, approval_rule
from treadle.tools.parameters import CONTEXT, GivenParameters

_LOGGER = logger_of("treadle.mcp")


class MCPTools:
    """The tools of a server of the Model Context Protocol.

        agent = Agent("openai:gpt-5", tools=[MCPTools("uvx mcp-server-time")])

    - `server`: a command, as a text or as its words, that starts a server on its standard input
      and output; or the URL of a running server (streamable HTTP).
    - `name`: the name of the server in messages; by default the program, or the host of the URL.
      The rest of a command or URL is never shown, because it may contain secrets.
    - `prefix`: put before the name of each tool.
    - `allow`: the server's own names of the tools to offer; None means all.
    - `needs_approval`: whether a person must approve a call before it is made: a bool, or a
      function of the arguments, or of the `RunContext` of the call and the arguments, as in
      `treadle.tool`. The context contains the name of the tool.
    - `timeout`: seconds that a call may take; None means no limit.
    - `env`: variables for the command, in addition to the few it inherits (`PATH`, `HOME`, …);
      `headers`: for the URL. Errors and logs never show their values.
    - `folder`: the working directory of the command.
    - `start_timeout`: seconds until the server must have answered for the first time.
    - `max_output_chars`: longer outputs are cut, and a mark is appended.
    - `restart`: the waits before a server that ended is started again.

    The server is started, or connected to, when its tools are first needed, once for each event
    loop, and closed with that loop. As an async context manager, it connects at once, raises
    `ToolSourceFailed` if that fails, and closes at the end. A server that ended is started again
    when it is needed. Until it has answered once, the agent does not have its tools; after that,
    calls report failures.

    Raises `ConfigurationError` for invalid options.
    """

    def __init__(
        self,
        server: str | Sequence[str],
        *,
        name: str | None = None,
        prefix: str = "",
        allow: Iterable[str] | None = None,
        needs_approval: NeedsApproval = False,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        folder: str | Path | None = None,
        start_timeout: float = 30.0,
        max_output_chars: int = 100_000,
        restart: RestartPolicy | None = None,
    ) -> None:
        address = parse_address(server, env=env or {}, headers=headers or {}, folder=folder)
        self._address = address
        self._name = name or address.name
        _require_options(prefix, allow, timeout, start_timeout, max_output_chars)
        self._prefix = prefix
        self._allow = None if allow is None else frozenset(allow)
        self._needs_approval = approval_rule(needs_approval, self._name, ConfigurationError)
        self._timeout = timeout
        self._max_output_chars = max_output_chars
        dialling = Dialling(
            address=address, name=self._name, start_timeout=start_timeout, longest_call=timeout
        )
        policy = restart or RestartPolicy()
        self._servers = PerLoop(lambda: Server(dialling, policy))
        self._made: tuple[Sequence[ServerTool], Sequence[Tool[..., object]]] = ((), ())

    @property
    def name(self) -> str:
        """The name of the server in messages."""
        return self._name

    @property
    def is_local(self) -> bool:
        """Whether no call needs approval."""
        return self._needs_approval is False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r}, prefix={self._prefix!r})"

    async def __aenter__(self) -> Self:
        try:
            await (await self._servers.get()).connect()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes what the running event loop has open; the server is started again when needed."""
        await self._servers.aclose()

    async def tools(self) -> Sequence[Tool[..., object]]:
        """Returns the tools that the server lists now.

        Raises `ToolSourceFailed` while the server has not answered yet and cannot be reached.
        """
        listed = await (await self._servers.get()).tools()
        known, made = self._made
        if listed is not known:
            made = self._make(listed)
            self._made = (listed, made)
        return made

    def _make(self, listed: Sequence[ServerTool]) -> Sequence[Tool[..., object]]:
        wanted = {
            tool.name: tool for tool in listed if self._allow is None or tool.name in self._allow
        }
        if self._allow is not None and (unknown := self._allow - wanted.keys()):
            _LOGGER.warning(
                "The MCP server %s has no tool %s; check allow=.",
                self._name,
                ", ".join(sorted(unknown)),
            )
        names = tool_names(wanted, self._prefix)
        return tuple(self._tool(names[name], tool) for name, tool in wanted.items())

    def _tool(self, name: str, tool: ServerTool) -> Tool[..., object]:
        parameters = GivenParameters(tool.input_schema)
        return Tool(
            function=self._caller(tool.name),
            schema=ToolSchema(
                name, tool.description or tool.title or "", parameters.parameters, strict=False
            ),
            signature=parameters,
            is_async=True,
            timeout=self._timeout,
            needs_approval=self._needs_approval,
            max_output_chars=self._max_output_chars,
        )

    def _caller(self, name: str) -> Callable[..., Awaitable[object]]:
        async def call(**arguments: object) -> object:
            context = cast("RunContext[object]", arguments.pop(CONTEXT))

            async def report(progress: float, total: float | None, message: str | None) -> None:
                context.progress(_progress(progress, total, message))

            server = await self._servers.get()
            result = await server.call(name, arguments, report)
            if result.is_error:
                raise RemoteToolFailed(self._address.without_secrets(error_text(result)))
            return output_of(result)

        return call


def _progress(progress: float, total: float | None, message: str | None) -> str:
    amount = f"{progress:g}" if total is None else f"{progress:g}/{total:g}"
    return f"{message} ({amount})" if message else amount


def _require_options(
    prefix: str,
    allow: Iterable[str] | None,
    timeout: float | None,
    start_timeout: float,
    max_output_chars: int,
) -> None:
    if not PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"The prefix {prefix[:100]!r} is not valid in tool names; use at most 32 letters, "
            "digits, _ and -."
        )
    if isinstance(allow, str):
        raise ConfigurationError('allow is a list of names: allow=["read_file"].')
    if not start_timeout > 0 or not (timeout is None or timeout > 0):
        raise ConfigurationError("The timeouts of MCPTools must be above 0.")
    if max_output_chars < 1:
        raise ConfigurationError("max_output_chars of MCPTools must be at least 1.")
