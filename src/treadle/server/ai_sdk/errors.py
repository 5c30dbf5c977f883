"""Errors as the AI SDK reads them: the body of a response is the message of its error."""

from treadle.server.problems import ErrorFormat

AI_SDK_ERRORS = ErrorFormat("text/plain; charset=utf-8", str, lambda problem, _: problem.detail)
"""How errors below `/ai-sdk` look."""
