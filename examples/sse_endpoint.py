"""Your own routes: a message starts a run, and an EventSource reads it from wherever it was.

uvicorn --app-dir examples --timeout-graceful-shutdown 3 sse_endpoint:app
curl -d '{"text": "Hello"}' http://127.0.0.1:8000/ask
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import treadle
from treadle.errors import InvalidInput, ThreadError

agent = treadle.Agent("demo")
runtime = treadle.open(agents=[agent])  # with "sqlite:///chat.db" it survives a kill -9


async def ask(request: Request) -> Response:
    """Sends a message to a new conversation, or to the one named `thread`."""
    asked = msgspec.json.decode(await request.body(), type=dict[str, str])
    known = asked.get("thread")
    thread = await (runtime.connect(known) if known else runtime.create_thread(agent))
    run = await thread.send(asked.get("text", ""))
    return JSONResponse({"thread": thread.id, "run": run.id})


async def events(request: Request) -> Response:
    """Streams a run up to its end, from behind the id that the client got last."""
    run = await runtime.run(request.path_params["run"])
    subscription = await run.subscribe(request.headers.get("last-event-id"))
    if subscription.is_over:
        return Response(status_code=204)  # without it an EventSource would connect again
    return StreamingResponse(frames(subscription), media_type="text/event-stream")


async def frames(subscription: treadle.RunSubscription) -> AsyncGenerator[bytes]:
    async with subscription:
        async for envelope in subscription.envelopes():
            head = f"id: {envelope.position}\nevent: {envelope.event.type}\ndata: "
            yield head.encode() + envelope.json + b"\n\n"


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[None]:
    async with runtime:
        yield


async def refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404 if isinstance(error, ThreadError) else 400)


errors = dict.fromkeys((InvalidInput, ThreadError, msgspec.DecodeError), refused)
routes = [Route("/ask", ask, methods=["POST"]), Route("/runs/{run}/events", events)]
app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=errors)
