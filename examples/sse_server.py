"""A web server on the loopback interface that streams a run as server-sent events.

python examples/sse_server.py, then open http://127.0.0.1:8000/ask?q=Hello
"""

import os
from collections.abc import AsyncGenerator

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import treadle
from treadle.errors import InvalidInput, TreadleError

agent = treadle.Agent(os.environ.get("TREADLE_MODEL", "demo"), instructions="Be brief.")


async def ask(request: Request) -> Response:
    """Answers the question `q` with a stream of events."""
    try:
        question = treadle.user_message(request.query_params.get("q", ""))
    except InvalidInput as error:
        return JSONResponse({"error": error.message}, status_code=400)

    async def events() -> AsyncGenerator[bytes]:
        try:
            async with agent.stream(question) as run:
                async for event in run:
                    yield b"data: " + msgspec.json.encode(event) + b"\n\n"
        except TreadleError:
            return  # the client got the event run.failed

    return StreamingResponse(events(), media_type="text/event-stream")


app = Starlette(routes=[Route("/ask", ask)])


def main() -> None:
    """Serves on the loopback interface."""
    uvicorn.run(app, host="127.0.0.1", port=8000)


if __name__ == "__main__":
    main()
