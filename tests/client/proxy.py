"""A proxy between a client and a server that breaks connections."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Forwards bytes; `allow` says how many bytes of answers a connection gets before it is cut."""

    def __init__(self, port: int, allow: Callable[[], int | None]) -> None:
        self._port = port
        self._allow = allow
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)

        async def forward() -> None:
            with suppress(OSError):
                while data := await reader.read(65536):
                    self.requests.append(data)
                    back.write(data)
                    await back.drain()

        forwarding = asyncio.ensure_future(forward())
        left = self._allow()
        try:
            with suppress(OSError):
                if left == 0:
                    await there.read(1)  # the server has answered
                while (left is None or left > 0) and (data := await there.read(65536)):
                    part = data if left is None else data[:left]
                    writer.write(part)
                    await writer.drain()
                    left = None if left is None else left - len(part)
        finally:
            forwarding.cancel()
            back.close()

    async def aclose(self) -> None:
        """Ends the connections that are open."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def cutting(url: str, allow: Callable[[], int | None]) -> AsyncGenerator[Proxy]:
    """Runs a proxy in front of a server."""
    proxy = Proxy(int(url.rstrip("/").rpartition(":")[2]), allow)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield proxy
        finally:
            server.close()
            await proxy.aclose()
