"""A real server on a free loopback port of this process, and clients of it."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx2

from treadle import Runtime
from treadle.server import Keys, ServerSettings, create_app
from treadle.server.app import ServerApp
from treadle.server.server import Server, listen, url_of

NO_AUTH = ServerSettings(auth=False, grace_seconds=5.0, access_log=False)


class Frame(NamedTuple):
    """A server-sent event."""

    id: str
    event: str
    data: Any


class Client:
    """A client of one server."""

    def __init__(self, http: httpx2.AsyncClient, app: ServerApp, server: Server) -> None:
        self.http = http
        self.app = app
        self.server = server

    async def call(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        """Sends a request; returns the decoded answer, and asserts that it is a success."""
        response = await self.send(method, path, body, **options)
        assert response.status_code < 300, response.text
        return response.json() if response.content else None

    async def send(
        self, method: str, path: str, body: object = None, **options: Any
    ) -> httpx2.Response:
        if body is not None:
            options["json"] = body
        return await self.http.request(method, f"/api/v1{path}", **options)

    async def thread(self, **body: object) -> str:
        return (await self.call("POST", "/threads", body))["id"]

    async def head_of(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Sends a request to a whole path, and does not read a stream, which may be endless."""
        async with self.http.stream(method, path, **options) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                await response.aread()
            return response

    @asynccontextmanager
    async def stream(
        self, path: str, method: str = "GET", last: str = "", **options: Any
    ) -> AsyncGenerator[AsyncIterator[Frame]]:
        headers = options.pop("headers", {}) | ({"last-event-id": last} if last else {})
        async with self.http.stream(
            method, f"/api/v1{path}", headers=headers, **options
        ) as response:
            if response.status_code != 200:
                await response.aread()
            assert response.status_code == 200, response.text
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            yield frames(response.aiter_bytes())

    async def read(self, path: str, last: str = "", **options: Any) -> list[Frame]:
        """Reads a stream to its end."""
        async with self.stream(path, last=last, **options) as events:
            return [frame async for frame in events]


async def frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[Frame]:
    """Parses frames as WHATWG describes; comments and frames without data are left out."""
    buffer = b""
    last = ""
    async for chunk in chunks:
        buffer += chunk
        while b"\n\n" in buffer:
            block, _, buffer = buffer.partition(b"\n\n")
            event, data = "message", []
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "id":
                    last = value
                elif name == "event":
                    event = value
                elif name == "data":
                    data.append(value)
            if data:
                yield Frame(last, event, json.loads("\n".join(data)))


@asynccontextmanager
async def serving(
    runtime: Runtime,
    settings: ServerSettings = NO_AUTH,
    *,
    keys: Keys | None = None,
    authenticate: Any = None,
    headers: dict[str, str] | None = None,
) -> AsyncGenerator[Client]:
    """Serves a runtime, without the signal handlers and the main loop of a process."""
    app = create_app(runtime, settings, keys=keys, authenticate=authenticate)
    server = Server(app)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    with listen("127.0.0.1", 0) as listener:
        await server.startup([listener])
        assert server.started
        try:
            async with httpx2.AsyncClient(
                base_url=url_of(listener), timeout=None, headers=headers
            ) as http:
                yield Client(http, app, server)
        finally:
            await app.services.open_requests.drain(0)
            await server.shutdown([listener])


def text_of(frames: list[Frame]) -> str:
    """Joins the deltas of texts."""
    return "".join(frame.data["delta"] for frame in frames if frame.event == "text.delta")


async def until(events: AsyncIterator[Frame], kind: str) -> list[Frame]:
    """Reads up to an event of a type."""
    read: list[Frame] = []
    async for frame in events:
        read.append(frame)
        if frame.event == kind:
            return read
    raise AssertionError(f"The stream ended without {kind}: {[one.event for one in read]}")


async def settle() -> None:
    """Lets what is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def opened(client: Client, count: int) -> None:
    """Waits until that many requests are open."""
    for _ in range(10_000):
        if len(client.app.services.open_requests) == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{len(client.app.services.open_requests)} requests are open.")
