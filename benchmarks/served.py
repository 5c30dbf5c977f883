"""The process between provider and client: a treadle server, or a bare relay on the same stack.

`python -m benchmarks.served treadle|relay PROVIDER MODEL` prints a line with its URL and its pid,
and serves until its standard input ends. The relay is what an application writes by hand: Starlette
on uvicorn with httptools, which passes on what aiohttp reads. It keeps nothing and resumes nothing.
"""

import asyncio
import json
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from benchmarks.cores import WORKER, pin
from benchmarks.server import input_ended
from treadle.server.server import listen, url_of

PACED_FRAME = (
    b'id: 16.3\nevent: text.delta\ndata: {"type":"text.delta","item_id":"msg_%b","delta":"%b"}\n\n'
    % (
        b"0" * 26,
        b"word",
    )
)


def main() -> None:
    """Serves until end of input."""
    kind, provider, model = sys.argv[1:4]
    pin(WORKER)
    logging.disable()
    serve = _treadle if kind == "treadle" else _relay
    asyncio.run(serve(provider, model))


def _announce(url: str) -> None:
    print(json.dumps({"url": url, "pid": os.getpid()}), flush=True)


async def _treadle(provider: str, model: str) -> None:
    import treadle
    from treadle.demo.demo_agent import demo_agent
    from treadle.models.openai import OpenAIResponses
    from treadle.server import ServerSettings, create_app
    from treadle.server.server import Server

    agents = [
        treadle.Agent(OpenAIResponses(model, api_key="none", base_url=provider), name="bench"),
        demo_agent("demo", Path(), None),
    ]
    with (
        tempfile.TemporaryDirectory(prefix="treadle-bench-") as folder,
        listen("127.0.0.1", 0) as at,
    ):
        runtime = treadle.open(f"sqlite:///{folder}/treadle.db", agents=agents)
        settings = ServerSettings(auth=False, access_log=False, grace_seconds=0)
        server = Server(create_app(runtime, settings), _announce)
        serving = asyncio.create_task(server.serve(sockets=[at]))
        await input_ended()
        server.begin_shutdown()
        await serving


async def _relay(provider: str, model: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        relay = _Relay(session, provider, model)
        app = Starlette(
            routes=[Route("/relay", relay.relay, methods=["POST"]), Route("/paced", _Paced())]
        )
        config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        with listen("127.0.0.1", 0) as at:
            serving = asyncio.create_task(server.serve(sockets=[at]))
            _announce(url_of(at))
            await input_ended()
            server.should_exit = True
            await serving


class _Relay:
    def __init__(self, session: aiohttp.ClientSession, provider: str, model: str) -> None:
        self._session = session
        self._url = f"{provider}/responses"
        self._body = {"model": model, "input": "Hi.", "stream": True, "store": False}

    async def relay(self, request: Request) -> StreamingResponse:
        await request.body()
        return StreamingResponse(self._chunks(), media_type="text/event-stream")

    async def _chunks(self) -> AsyncIterator[bytes]:
        async with self._session.post(self._url, json=self._body) as response:
            async for chunk in response.content.iter_any():
                yield chunk


class _Paced:
    """Sends frames to its connections by plain ASGI, after `?wait=` s, `?every=` ms apart."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        query = Request(scope).query_params
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [(b"content-type", b"text/event-stream")]})
        loop = asyncio.get_running_loop()
        every = int(query["every"]) / 1000
        # All connections tick at the same moments, as the subscribers of one thread do.
        due = (loop.time() // 1 + int(query["wait"])) * 1.0
        for number in range(int(query["frames"])):
            await asyncio.sleep(max(0.0, due + number * every - loop.time()))
            await send({"type": "http.response.body", "body": PACED_FRAME, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    main()
