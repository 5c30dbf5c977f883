"""A request whose response is one JSON document, with the errors of models."""

import asyncio
import time

import aiohttp

from treadle.errors import StreamInvalid
from treadle.models.failure import http_failure
from treadle.models.http import Timeouts, connection_failure, harmless_cause, hide_secrets
from treadle.models.session import transport_for
from treadle.models.transport import HttpRequest, HttpResponse, Transport

_HTTP_OK = 200
_MAX_READ = 256 * 1024


async def json_call(
    call: HttpRequest,
    host: str,
    timeouts: Timeouts,
    max_bytes: int,
    transport: Transport | None = None,
) -> bytes:
    """Sends `call` once and returns the body of the response, of at most `max_bytes`.

    Raises the kinds of `ModelError`; they contain no keys.
    """
    try:
        async with asyncio.timeout(timeouts.first_byte):
            response = await transport_for(transport).send(call)
    except (aiohttp.ClientError, OSError) as error:
        failure = connection_failure(error, host, timeouts, "first_byte")
        cause = harmless_cause(error)
    else:
        return await _body(response, call, host, timeouts, max_bytes)
    # Raised outside of `except`: see `HttpModel`.
    hide_secrets(failure, call)
    raise failure from cause


async def _body(
    response: HttpResponse, call: HttpRequest, host: str, timeouts: Timeouts, max_bytes: int
) -> bytes:
    body = bytearray()
    try:
        while not response.content.at_eof() and len(body) <= max_bytes:
            async with asyncio.timeout(timeouts.between_chunks):
                body += await response.content.read(_MAX_READ)
    except (aiohttp.ClientError, OSError) as error:
        failure = connection_failure(error, host, timeouts, "between_chunks")
    else:
        if response.status == _HTTP_OK and len(body) <= max_bytes:
            response.release()
            return bytes(body)
        failure = (
            StreamInvalid(f"{host} answered with more than {max_bytes:,} bytes.")
            if response.status == _HTTP_OK
            else http_failure(response.status, response.headers, bytes(body), time.time())
        )
    finally:
        if not response.content.at_eof():
            response.close()
    hide_secrets(failure, call)
    raise failure
