"""A web server on the loopback interface whose page streams answers with an EventSource.

python examples/sse_server.py, then open http://127.0.0.1:8000/
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import treadle
from treadle.errors import InvalidInput, RunNotFound, ThreadNotFound

agent = treadle.Agent(os.environ.get("TREADLE_MODEL", "demo"), instructions="Be brief.")


class Question(msgspec.Struct):
    """A message for a new conversation, or for the one named `thread`."""

    text: str
    thread: str = ""


async def ask(request: Request) -> Response:
    """Sends a message; returns the address at which an EventSource gets the answer."""
    runtime: treadle.Runtime = request.app.state.runtime
    try:
        question = msgspec.json.decode(await request.body(), type=Question)
        if question.thread:
            thread = await runtime.connect(question.thread)
        else:
            thread = await runtime.create_thread(agent)
        after = (await thread.state()).seq
        run = await thread.send(question.text)
    except (msgspec.DecodeError, InvalidInput) as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    except ThreadNotFound as error:
        return JSONResponse({"error": str(error)}, status_code=404)
    events = f"/threads/{thread.id}/runs/{run.id}?after={after}"
    return JSONResponse({"thread": thread.id, "events": events})


async def events(request: Request) -> Response:
    """Streams the events of a run, from where the client stopped to the end of the run."""
    runtime: treadle.Runtime = request.app.state.runtime
    run_id = request.path_params["run"]
    # A client that connects again sends the id of the last event that it got.
    after = request.headers.get("last-event-id") or request.query_params.get("after", "0")
    try:
        thread = await runtime.connect(request.path_params["thread"])
        info = await (await thread.run(run_id)).info()
        subscription = thread.subscribe(after)
    except (ThreadNotFound, RunNotFound) as error:
        return JSONResponse({"error": str(error)}, status_code=404)
    except InvalidInput as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    seen = int(after.partition(".")[0])
    if 0 < info.last_seq <= seen:
        # The client has the last event. An EventSource connects again after every end of a stream,
        # and stops at any other status than 200.
        return Response(status_code=204)
    return StreamingResponse(
        frames(subscription, run_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache"},
    )


async def frames(subscription: treadle.Subscription, run_id: str) -> AsyncGenerator[bytes]:
    """Yields server-sent events up to the last one of the run."""
    async with subscription:
        async for envelope in subscription.envelopes():
            event = envelope.event
            head = f"id: {envelope.position}\nevent: {event.type}\ndata: "
            yield head.encode() + envelope.json + b"\n\n"
            if isinstance(event, treadle.TerminalEvent) and event.run_id == run_id:
                return


PAGE = """<!doctype html>
<meta charset="utf-8">
<title>treadle</title>
<form><input name="text" autofocus> <button>Ask</button></form>
<div></div>
<script>
let thread = "";

document.forms[0].onsubmit = async (submit) => {
  submit.preventDefault();
  const text = document.forms[0].text.value;
  const body = JSON.stringify({ text, thread });
  const response = await fetch("/ask", { method: "POST", body });
  if (!response.ok) return alert((await response.json()).error);
  const asked = await response.json();
  thread = asked.thread;
  const answer = document.querySelector("div").appendChild(document.createElement("p"));
  follow(asked.events, (texts) => { answer.innerText = texts.join("\\n\\n"); });
};

// Folds the events of a run: shows the texts of its messages as they grow.
function follow(url, show) {
  const texts = new Map(); // by item
  const finished = new Set();
  const source = new EventSource(url);
  const on = (type, handle) => source.addEventListener(type, (message) => {
    handle(JSON.parse(message.data));
    show([...texts.values()]);
  });
  on("text.delta", (event) => {
    texts.set(event.item_id, (texts.get(event.item_id) ?? "") + event.delta);
  });
  on("message.added", ({ item, origin }) => {
    if (origin !== "model") return;
    texts.set(item.id, item.content.map((part) => part.text ?? "").join(""));
    finished.add(item.id);
  });
  on("step.interrupted", () => {
    for (const id of texts.keys()) if (!finished.has(id)) texts.delete(id);
  });
  for (const end of ["completed", "incomplete", "failed", "cancelled", "expired"]) {
    on(`run.${end}`, () => source.close());
  }
}
</script>
"""


async def page(request: Request) -> Response:
    """Returns the page."""
    return HTMLResponse(PAGE)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    """Opens the runtime for as long as the server runs; give a URL to keep conversations."""
    async with treadle.open(os.environ.get("TREADLE_URL"), agents=[agent]) as runtime:
        app.state.runtime = runtime
        yield


app = Starlette(
    routes=[
        Route("/", page),
        Route("/ask", ask, methods=["POST"]),
        Route("/threads/{thread}/runs/{run}", events),
    ],
    lifespan=lifespan,
)


def main() -> None:
    """Serves on the loopback interface."""
    # Open streams would hold a shutdown up; their clients connect again.
    uvicorn.run(app, host="127.0.0.1", port=8000, timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()
