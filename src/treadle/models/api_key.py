"""The key of a model: a text, or a function of the program that returns a token for a while."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from treadle.errors import AccessDenied, ConnectionFailed, ModelTimeout, TreadleError
from treadle.models.shared_call import in_thread

ApiKey = str | Callable[[], str | Awaitable[str]]
"""A key, or a function that returns the current one for each request, such as a token that expires.

The function may be async. A plain one is called in a thread, because it may ask a server.
"""

_LONGEST_REASON = 200


async def current_key(api_key: ApiKey, host: str, seconds: float) -> str:
    """Returns the key for a request to `host`, for which a function has that many seconds.

    Raises the kinds of `ModelError`: `AccessDenied` for a function that fails or returns no key,
    `ConnectionFailed` if it raises an `OSError`, and `ModelTimeout`.
    """
    if isinstance(api_key, str):
        return api_key
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            key = await _result_of(api_key)
    except TreadleError:
        raise
    except Exception as error:
        if limit.expired():
            raise ModelTimeout(
                f"The function given as key for {host} returned nothing for {seconds:g} s."
            ) from error
        reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
        message = f"The function given as key for {host} failed: {reason}"
        kind = ConnectionFailed if isinstance(error, OSError) else AccessDenied
        raise kind(message) from error
    found = key.strip() if isinstance(key, str) else ""
    if not (found and found.isascii() and found.isprintable()):
        raise AccessDenied(
            f"The function given as key for {host} returned a {type(key).__name__} that is not a "
            "key; it must return a text of printable ASCII characters."
        )
    return found


async def _result_of(function: Callable[[], object]) -> object:
    is_async = any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
    result = function() if is_async else await in_thread(function)
    return await result if inspect.isawaitable(result) else result
