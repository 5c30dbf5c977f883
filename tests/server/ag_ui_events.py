"""Requests of AG-UI, and the events of their streams, checked by the types and the validator."""

import json
from typing import Any

import httpx2
from ag_ui.core import Event
from ag_ui_validate import create_validator
from pydantic import TypeAdapter

EVENT: TypeAdapter[Any] = TypeAdapter(Event)

Json = dict[str, Any]


def user(id: str, content: Any) -> Json:
    return {"id": id, "role": "user", "content": content}


def given(*messages: Json, thread: str = "t1", run: str = "r1", **fields: Any) -> Json:
    """Returns the body of a request."""
    return {"threadId": thread, "runId": run, "messages": list(messages), **fields}


async def events_of(
    http: httpx2.AsyncClient, body: Json, agent: str = "helper", *, ignored: tuple[str, ...] = ()
) -> list[Json]:
    """Sends a request; returns its events, of which the rules `ignored` are not checked."""
    response = await http.post(f"/ag-ui/{agent}", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return checked(response.text, ignored=ignored)


def checked(text: str, *, ignored: tuple[str, ...] = ()) -> list[Json]:
    """Returns the events of a stream; every one of them, and their order, must be valid."""
    events: list[Json] = []
    for block in text.split("\n\n"):
        if block.startswith("data: "):
            events.append(json.loads(block.removeprefix("data: ")))
    validator = create_validator()
    for event in events:
        EVENT.validate_python(event)
        assert None not in event.values(), event
        validator.feed(event)
    validator.finalize()
    found = [
        one
        for one in validator.report().diagnostics
        if one.severity != "info" and one.rule not in ignored
    ]
    assert not found, found
    return events


def kinds(events: list[Json]) -> list[str]:
    return [event["type"] for event in events]


def text_of(events: list[Json]) -> str:
    return "".join(one["delta"] for one in events if one["type"] == "TEXT_MESSAGE_CONTENT")
