"""One request to a provider whose answer is one JSON document, with the errors of models."""

import asyncio
import time

import aiohttp

from treadle.errors import ConnectionFailed, ModelError, ModelTimeout, StreamInvalid
from treadle.models import transport
from treadle.models.failure import http_failure
from treadle.models.http import Timeouts, harmless_cause, hide_secrets
from treadle.models.transport import HttpRequest, HttpResponse

_HTTP_OK = 200
_MAX_READ = 256 * 1024


async def json_call(call: HttpRequest, host: str, timeouts: Timeouts, max_bytes: int) -> bytes:
    """Sends `call` once and returns the body of the answer, of at most `max_bytes`.

    Raises the kinds of `ModelError`; keys are in none of them.
    """
    try:
        async with asyncio.timeout(timeouts.first_byte):
            response = await transport.current()(call)
    except (aiohttp.ClientError, OSError) as error:
        failure, cause = _unreachable(error, host), harmless_cause(error)
    else:
        return await _body(response, call, host, timeouts, max_bytes)
    # Out here, the error that was caught does not hang on to the one that is raised.
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
        failure: ModelError = _unreachable(error, host)
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


def _unreachable(error: Exception, host: str) -> ModelError:
    if isinstance(error, TimeoutError):
        return ModelTimeout(f"{host} sent nothing in time; try again or raise the Timeouts.")
    reason: object = error
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error.strerror or error.os_error
    return ConnectionFailed(
        f"No connection to {host}: {reason}. Check the address and the network."
    )
