"""Signatures of AWS (SigV4), with the credentials that botocore finds.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

import asyncio
import logging
import threading
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from msgspec.structs import replace
from yarl import URL

from treadle.errors import AccessDenied, ConnectionFailed, MissingKey, ModelTimeout, TreadleError
from treadle.models.shared_call import SharedCall, in_thread
from treadle.models.transport import HttpRequest

_SERVICE = "bedrock"
_LONGEST_REASON = 200
_SHORTEST_VALIDITY = 60.0
_SECRETIVE = ("botocore", "urllib3")


class AwsSession(Protocol):
    """A session of botocore or of boto3."""

    def get_credentials(self) -> Any:
        """Returns the credentials of the session, or None."""
        ...


class AwsSigner:
    """Signs requests to Bedrock in `region`, in threads: credentials may have to be asked for.

    `session` has the credentials; by default the chain of botocore finds them: environment, files,
    single sign-on, web identity, container, instance. botocore renews those that expire. However
    many requests wait for credentials, they are asked for once at a time.
    """

    def __init__(self, region: str, session: AwsSession | None = None) -> None:
        self._region = region
        self._session = session
        self._credentials: Any = None
        self._frozen: Any = None
        self._lock = threading.Lock()
        self._asking = SharedCall(self._current)

    async def signed(self, request: HttpRequest, host: str, seconds: float) -> HttpRequest:
        """Returns `request` with its signature; credentials may take `seconds`.

        Raises `MissingKey` without botocore or without credentials, `AccessDenied` if they cannot
        be had, `ConnectionFailed` if their server cannot be reached, and `ModelTimeout`.
        """
        try:
            async with asyncio.timeout(seconds):
                # While one request renews credentials ahead of their time, others use the old ones.
                if not (self._asking.is_running and self._is_valid()):
                    await self._asking.result()
                return await in_thread(partial(self._signed, self._frozen, request))
        except TimeoutError as error:
            raise ModelTimeout(
                f"The credentials of AWS for {host} took longer than {seconds:g} s."
            ) from error

    def _is_valid(self) -> bool:
        if self._frozen is None:
            return False
        needs_renewal = getattr(self._credentials, "refresh_needed", None)
        return needs_renewal is None or not needs_renewal(_SHORTEST_VALIDITY)

    def _signed(self, credentials: Any, request: HttpRequest) -> HttpRequest:
        auth = import_module("botocore.auth")
        awsrequest = import_module("botocore.awsrequest")
        url = str(URL(request.url))  # as the HTTP client writes it
        given = {"Content-Type": request.headers["Content-Type"]}
        made = awsrequest.AWSRequest("POST", url=url, headers=given, data=request.body)
        with _quiet:
            auth.SigV4Auth(credentials, _SERVICE, self._region).add_auth(made)
        return replace(request, url=url, headers={**request.headers, **dict(made.headers.items())})

    def _current(self) -> None:
        """Finds credentials, or renews them if it is time."""
        try:
            import_module("botocore.auth")
            exceptions = import_module("botocore.exceptions")
        except ImportError as error:
            raise MissingKey(
                "Signing requests to Bedrock needs the package botocore: install "
                "'treadle[bedrock]', or set AWS_BEARER_TOKEN_BEDROCK to a Bedrock API key."
            ) from error
        with _quiet:
            try:
                self._frozen = self._found().get_frozen_credentials()
            except TreadleError:
                raise
            except (OSError, exceptions.HTTPClientError, exceptions.ConnectionError) as error:
                raise ConnectionFailed(f"No credentials of AWS: {_reason(error)}") from error
            except Exception as error:
                raise AccessDenied(f"No credentials of AWS: {_reason(error)}") from error

    def _found(self) -> Any:
        with self._lock:  # one session is not made for several event loops
            if self._credentials is None:
                session = self._session or import_module("botocore.session").get_session()
                _quiet.cover()
                self._credentials = session.get_credentials()
            if self._credentials is None:
                raise MissingKey(
                    "No credentials of AWS were found: set AWS_BEARER_TOKEN_BEDROCK to a Bedrock "
                    "API key, or sign in, for example with `aws sso login`."
                )
            return self._credentials


class _Quiet(logging.Filter):
    """Keeps what botocore logs about credentials out of the logs: it logs them at level DEBUG.

    Only what is logged in a thread that is in this context is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._here = threading.local()

    def __enter__(self) -> None:
        self.cover()
        self._here.is_active = True

    def __exit__(self, *_: object) -> None:
        self._here.is_active = False

    def cover(self) -> None:
        """Filters the loggers that exist by now."""
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if name.partition(".")[0] in _SECRETIVE and isinstance(logger, logging.Logger):
                logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        is_active = getattr(self._here, "is_active", False)
        return not is_active or record.levelno >= logging.WARNING


_quiet = _Quiet()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
