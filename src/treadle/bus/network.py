"""A bus between the nodes of one database, over TCP.

Each node listens at an address that the others find in the database, with a secret of its own in
it: who reads the database may read the threads in any case. A process that watches threads has one
connection to each node, over which it follows those that the node drives, and learns which ones the
node comes to drive. A process that misses an announcement, because the connection was not there,
asks the database: after each connection, and at intervals.
"""

import asyncio
import logging
import secrets
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

from treadle.bus.base import Follower, Node, Take
from treadle.bus.follower_connection import Followers
from treadle.bus.handshake import HANDSHAKE_SECONDS, NotProven, admit, introduce
from treadle.bus.listener import NodeListener, is_loopback, require_safe
from treadle.bus.node_link import CHUNK, NodeLink
from treadle.bus.position import Position
from treadle.bus.wire import MAX_REQUEST, UNREADABLE
from treadle.domain.envelope import Envelope
from treadle.errors import ConfigurationError, TreadleError
from treadle.logging import logger_of
from treadle.repeating import repeat

_LOGGER = logger_of("treadle.runtime")

LOOK_SECONDS = 2.0
"""How often a process that watches threads looks which nodes there are."""

RETRY_SECONDS = 1.0
"""How long after a connection that failed all readers of a node do without another one."""

MAX_ADMITTING = 64
"""How many connections may be in their handshake."""

MAX_ANNOUNCED = 10_000
"""How many announcements are remembered until their threads are followed."""


class Directory(Protocol):
    """What the database knows about nodes. All methods raise `JournalError`."""

    @property
    def id(self) -> int | None:
        """The node of this process; None if it is none."""
        ...

    async def set_address(self, address: str, /) -> None:
        """Notes where other nodes reach this one."""
        ...

    async def addresses(self) -> Mapping[int, str]:
        """Returns where nodes are reached, "" for nowhere."""
        ...

    async def nodes_of(self, thread_ids: Sequence[str], /) -> Mapping[str, int]:
        """Returns which nodes drive the threads; without those that no node drives."""
        ...

    async def changed(self, threads: Mapping[str, int], /) -> Sequence[str]:
        """Returns those of `threads` that another node drives, or that have changed.

        They have an event after the number that is given, or are gone.
        """
        ...


class NetworkBus:
    """Fulfils `Bus` for the nodes in a `directory`."""

    announces = True

    def __init__(self, directory: Directory, listener: NodeListener | None = None) -> None:
        self._directory = directory
        self._listener = listener or NodeListener()
        require_safe(self._listener)
        self._secret = secrets.token_bytes(32)
        self._server: asyncio.Server | None = None
        self._followers: Followers | None = None
        self._admitting: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._follower: Follower | None = None
        self._links: dict[int, tuple[str, NodeLink]] = {}
        self._announced: dict[str, int] = {}  # threads that are about to be followed
        self._looking: asyncio.Task[None] | None = None
        self._is_closed = False

    def listen(self, follower: Follower) -> None:
        """Announces to `follower` what other nodes drive, once it has watched a thread."""
        self._follower = follower

    async def serve(self, node: Node) -> None:
        """Listens for other nodes; raises `ConfigurationError` if that is not possible."""
        listener = self._listener
        self._followers = Followers(node, serves=node.drives)
        try:
            self._server = await asyncio.start_server(
                self._serve,
                listener.host,
                listener.port,
                ssl=listener.server_tls,
                # A connection counts as being admitted only once it has TLS.
                ssl_handshake_timeout=HANDSHAKE_SECONDS if listener.server_tls else None,
                limit=MAX_REQUEST,
            )
        except OSError as error:
            raise ConfigurationError(
                f"The node cannot listen on {listener.host}:{listener.port} for other nodes "
                f"({error}); give it another host or port."
            ) from error
        port = self._server.sockets[0].getsockname()[1]
        host = listener.name or listener.host
        await self._directory.set_address(
            _address(host, port, self._secret, is_encrypted=listener.server_tls is not None)
        )

    async def close(self) -> None:
        """Ends all connections; a second call does nothing."""
        self._is_closed = True
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in self._admitting.values():
            writer.transport.abort()
        if self._admitting:
            await asyncio.wait(list(self._admitting))
        if self._followers is not None:
            await self._followers.close()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.wait([looking])
        links, self._links = self._links, {}
        for _, link in links.values():
            await link.close()

    async def follow(self, thread_id: str, after: Position) -> AsyncGenerator[Envelope]:
        """Yields the events of a thread that another node drives; ends when it does not any more.

        Without the database, which knows the node, it ends at once.
        """
        link = await self._link_to(thread_id)
        if link is not None:
            async for envelope in link.follow(thread_id, after):
                yield envelope

    async def deliver(self, thread_id: str, after: Position, take: Take) -> None:
        """Calls `take` with the events that `follow` would yield, until it returns False."""
        link = await self._link_to(thread_id)
        if link is not None:
            await link.deliver(thread_id, after, take)

    async def ring(self, thread_id: str) -> bool:
        """Returns False: the database rings the node, with the commit of the entry."""
        return False

    def announce(self, thread_id: str) -> None:
        """Announces to the processes that follow threads of this node that it drives this one."""
        if self._followers is not None:
            self._followers.announce(thread_id)

    # Serving

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert self._followers is not None
        if self._is_closed or len(self._admitting) >= MAX_ADMITTING:
            writer.transport.abort()
            return
        self._admitting[task] = writer
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await admit(self._secret, reader, writer)
        except UNREADABLE as error:
            level = logging.WARNING if isinstance(error, NotProven) else logging.DEBUG
            _LOGGER.log(level, "A connection to this node was refused: %s", error)
            writer.transport.abort()
            return
        finally:
            del self._admitting[task]
        await self._followers.serve(reader, writer)

    # Following

    async def _link_to(self, thread_id: str) -> NodeLink | None:
        """Returns the link to the node that drives a thread; None if no other node does."""
        if self._is_closed:
            return None
        if self._looking is None:
            self._looking = asyncio.create_task(
                repeat(self._connect_all, _LOGGER, "The nodes could not be connected to."),
                name="treadle nodes",
            )
        try:
            node = self._announced.pop(thread_id, None)
            if node is None or node not in self._links:
                node = (await self._directory.nodes_of([thread_id])).get(thread_id)
            if node is None or node == self._directory.id:
                return None
            if node not in self._links:
                await self._look()
        except TreadleError as error:
            _LOGGER.debug("The node of %s is not known: %s", thread_id, error)
            return None
        found = self._links.get(node)
        return None if found is None else found[1]

    async def _connect_all(self) -> None:
        """Connects to all nodes, and looks what was missed; then pauses."""
        try:
            await self._look()
            # A node that is gone may take long to be noticed; the others are connected by then.
            links = [link for _, link in self._links.values()]
            await asyncio.gather(*(link.connect() for link in links))
            await self._ask()
        except TreadleError as error:
            _LOGGER.warning("The nodes cannot be read: %s", error.message)
        await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        """Reads which nodes there are."""
        addresses = await self._directory.addresses()
        gone = [
            node for node, (address, _) in self._links.items() if addresses.get(node) != address
        ]
        ended = [self._links.pop(node)[1] for node in gone]
        for node, address in addresses.items():
            if address and node != self._directory.id and node not in self._links:
                self._links[node] = address, self._new_link(node, address)
        for link in ended:
            await link.close()

    async def _ask(self) -> None:
        """Follows the threads whose announcement was missed, or whose node cannot be reached."""
        if self._follower is None:
            return
        waiting = self._follower.waiting()
        if waiting:
            for thread_id in await self._directory.changed(waiting):
                self._follower.follow(thread_id)

    def _new_link(self, node: int, address: str) -> NodeLink:
        failed_at = -RETRY_SECONDS

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            nonlocal failed_at
            loop = asyncio.get_running_loop()
            if loop.time() < failed_at + RETRY_SECONDS:
                raise ConnectionError("the node could not be reached a moment ago")
            try:
                return await _connect(address, self._listener.client_tls)
            except UNREADABLE:
                failed_at = loop.time()
                raise

        return NodeLink(connect, lambda thread_id: self._on_driven(node, thread_id))

    def _on_driven(self, node: int, thread_id: str) -> None:
        """Lets the thread be followed from `node`, and not any more from another one."""
        if self._follower is None or not self._follower.watches(thread_id):
            return
        if len(self._announced) >= MAX_ANNOUNCED:
            self._announced.clear()  # the database knows as well
        self._announced[thread_id] = node
        for other, (_, link) in self._links.items():
            if other != node:
                link.leave(thread_id)
        self._follower.follow(thread_id)


async def _connect(
    address: str, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects to a node and does the handshake; raises one of `UNREADABLE`."""
    parts = urlsplit(address)
    host, port, secret = (
        parts.hostname or "",
        parts.port,
        bytes.fromhex(unquote(parts.password or "")),
    )
    is_encrypted = parts.scheme == "tls"
    if is_encrypted and tls is None:
        raise ValueError(f"the node at {host} wants TLS, which this process was not configured for")
    if not is_encrypted and not is_loopback(host):
        raise ValueError(f"the node at {host} has no TLS, and is not on this machine")
    async with asyncio.timeout(HANDSHAKE_SECONDS):
        reader, writer = await asyncio.open_connection(
            host, port, ssl=tls if is_encrypted else None, limit=CHUNK
        )
        try:
            await introduce(secret, reader, writer)
        except BaseException:
            writer.transport.abort()
            raise
    return reader, writer


def _address(host: str, port: int, secret: bytes, *, is_encrypted: bool) -> str:
    name = f"[{host}]" if ":" in host else quote(host)
    return f"{'tls' if is_encrypted else 'tcp'}://:{secret.hex()}@{name}:{port}"
