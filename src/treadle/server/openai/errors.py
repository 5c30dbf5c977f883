"""Errors in the form of the OpenAI API: https://platform.openai.com/docs/guides/error-codes."""

import re

from msgspec import Struct

from treadle.errors import OptionNotAllowed, RateLimited, UnknownAgent
from treadle.server.problems import ErrorFormat, Problem, RequestRefused


class ErrorFields(Struct, frozen=True, kw_only=True):
    """What was wrong; `param` is the parameter of the request, if it is about one."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Struct, frozen=True):
    """The body of a response that is an error."""

    error: ErrorFields


class ParameterRefused(RequestRefused):
    """A parameter of a request that is not valid, or that would be without effect."""

    def __init__(
        self, param: str, message: str, *, code: str = "invalid_value", status: int = 400
    ) -> None:
        super().__init__(status, code, message)
        self.param = param


_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

_PLACE = re.compile(r"unknown field `([^`]+)`|`\$\.([^`]+)`|missing required field `([^`]+)`")
"""Where a validation error of a body names a parameter."""

_PARAMS = {
    "extra_instructions": "instructions",
    "limits": "max_tool_calls",
    "output": "text",
    "settings": "",
}
"""The parameters of requests that are called differently than the options that they become."""


def error_fields(problem: Problem, error: BaseException | None = None) -> ErrorFields:
    """Returns an error as the protocol shows it."""
    code, param = problem.code, None
    if isinstance(error, ParameterRefused):
        param = error.param
    elif isinstance(error, OptionNotAllowed):
        param = _PARAMS.get(error.option, error.option) or None
    elif isinstance(error, UnknownAgent):
        code, param = "model_not_found", "model"
    elif code == "invalid_request" and (place := _PLACE.search(problem.detail)):
        param = next(name for name in place.groups() if name)
    kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    return ErrorFields(
        message=problem.detail, type=_TYPES.get(problem.status, kind), param=param, code=code
    )


def failure_code(code: str) -> str:
    """Returns the code that a failed object has in the protocol, which knows two."""
    return "rate_limit_exceeded" if code == RateLimited.code else "server_error"


OPENAI_ERRORS = ErrorFormat(
    "application/json", ErrorBody, lambda problem, error: ErrorBody(error_fields(problem, error))
)
"""How errors below `/v1` look."""
