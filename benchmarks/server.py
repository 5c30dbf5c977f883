"""The benchmark's provider: real chunked HTTP/1.1 and real Responses frames, encoded beforehand.

The provider simulator encodes each answer anew; here an answer costs little more than its bytes,
so that 1,000 conversations at once wait for the client and not for the server. `python -m
benchmarks.server` prints a line with its URL and serves until its standard input ends.
"""

import asyncio
import json
import os
import re
import sys
import time

from benchmarks.answers import Write, answer
from benchmarks.cores import SERVER, pin
from benchmarks.plan import STAMP_WIDTH, parse_plan

BACKLOG = 4096
LIMIT = 8 << 20
MAX_SEND = 64 * 1024
HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model": ?"(bench:[^"]*)"')
_OUTPUT = b'"function_call_output"'


def main() -> None:
    """Serves until end of input."""
    pin(SERVER)
    asyncio.run(_serve())


async def _serve() -> None:
    server = await asyncio.start_server(_converse, "127.0.0.1", 0, backlog=BACKLOG, limit=LIMIT)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}/v1", "pid": os.getpid()}), flush=True)
    await input_ended()


async def input_ended() -> None:
    """Waits until the standard input ends, as it does when the parent process dies."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), _input_ready, loop, stop)
    await stop.wait()


def _input_ready(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin.fileno())
        stop.set()


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers one request after the other until the client closes the connection."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            await _respond(body, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


async def _respond(body: bytes, writer: asyncio.StreamWriter) -> None:
    name = _MODEL.search(body)
    if name is None:
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        return
    plan = parse_plan(name[1].decode())
    round = body.count(_OUTPUT) // max(1, plan.calls)
    if plan.first:
        await asyncio.sleep(plan.first / 1000)
    await _play(answer(plan.model, round), writer)


async def _play(writes: tuple[Write, ...], writer: asyncio.StreamWriter) -> None:
    """Sends the writes at their times, each as one chunk; the head goes with the first.

    Chunks without a delay between them go out together, up to 64 KB: otherwise how they reach the
    client would depend on which of the two processes is faster.
    """
    stamp = b""
    due = time.monotonic()
    pending = bytearray(HEAD)
    for write in writes:
        if write.delay:
            await _send(pending, writer)
            due += write.delay
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        if len(write.parts) > 1 and not stamp:
            stamp = b"%0*d" % (STAMP_WIDTH, time.monotonic_ns())
        data = stamp.join(write.parts)
        pending += b"%x\r\n%b\r\n" % (len(data), data)
        if len(pending) >= MAX_SEND:
            await _send(pending, writer)
    pending += END
    await _send(pending, writer)


async def _send(pending: bytearray, writer: asyncio.StreamWriter) -> None:
    if pending != HEAD:
        writer.write(bytes(pending))
        pending.clear()
        await writer.drain()


if __name__ == "__main__":
    main()
