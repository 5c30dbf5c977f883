"""Sends an answer over ASGI at its pace, and breaks it off at a fault."""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import Struct
from starlette.types import Receive, Send

from treadle.testing.simulator.turn import Hold, Pause
from treadle.testing.simulator.writes import Script, Write


class Answer(Struct, frozen=True):
    """An HTTP answer: `first` seconds of silence, then status and headers, then the script.

    `closes`: the connection is closed after it, although the headers do not announce that.
    """

    status: int
    headers: Mapping[str, str]
    script: Script
    first: float = 0.0
    closes: bool = False


class ClientLeft(Exception):
    """The client closed the connection before the answer was complete."""


async def deliver(answer: Answer, receive: Receive, send: Send) -> None:
    """Sends `answer`; returns early when the client leaves.

    A "cut" returns before the body is complete: the ASGI server then breaks the connection.
    """
    try:
        await _silence(answer.first, receive)
        await _start(answer, send)
        await _play(answer.script, receive, send)
    except ClientLeft:
        return
    if answer.script.ending == "stall":
        await _left(receive)
    elif answer.script.ending == "clean":
        await send({"type": "http.response.body", "body": b""})


async def _start(answer: Answer, send: Send) -> None:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})


async def _play(script: Script, receive: Receive, send: Send) -> None:
    sent = False
    for write in script.writes:
        if sent and isinstance(write, bytes):
            # Yields between two writes, so that the loop does not join them.
            await asyncio.sleep(0)
        await _perform(write, receive, send)
        sent = isinstance(write, bytes)


async def _perform(write: Write, receive: Receive, send: Send) -> None:
    match write:
        case Pause():
            await _silence(write.seconds, receive)
        case Hold():
            await _held(write.event, receive)
        case _:
            await send({"type": "http.response.body", "body": write, "more_body": True})


async def _silence(seconds: float, receive: Receive) -> None:
    if seconds <= 0:
        return
    try:
        async with asyncio.timeout(seconds):
            await _left(receive)
    except TimeoutError:
        return
    raise ClientLeft


async def _held(event: asyncio.Event, receive: Receive) -> None:
    async with asyncio.TaskGroup() as tasks:
        waits: Sequence[asyncio.Task[object]] = (
            tasks.create_task(event.wait()),
            tasks.create_task(_left(receive)),
        )
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
    if not event.is_set():
        raise ClientLeft


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
